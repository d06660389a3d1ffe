"""Detail cells: rows of ``layers``, and histogram, direction, noise scale and update ratio of ``groups``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from esper_analyze.schema.row_types import GroupsRow, LayersColumns
from esper_analyze.storage.block import Block, nullable
from recorder.capture.detail import DetailBatch, SampledDetail
from recorder.capture.parameters import ParameterMap
from recorder.measure import Numbers
from recorder.measure.direction import spacing
from recorder.measure.elements import FIELDS
from recorder.transfer import Arrays

_FIELD = {name: index for index, name in enumerate(FIELDS)}
_COUNTS = ("zero", "below_1e_6", "nan", "inf", "large")


class DetailNumbers:
    """The detail of one update by atom; ``present``: the atom had a gradient at the sampled step."""

    def __init__(self, parameters: ParameterMap, sampled: SampledDetail, arrays: Arrays, samples: Numbers) -> None:
        count, batches = len(parameters.atoms), sampled.batches
        self.parameters = parameters
        self.sizes = np.array([atom.stop - atom.start for atom in parameters.atoms], np.float64)
        self.tensor = np.array([atom.tensor for atom in parameters.atoms])
        self.statistics = np.zeros((count, len(FIELDS)))
        self.present = np.zeros(count, bool)
        self.described = batches[0].described
        self.minibatches = batches[0].minibatches
        self.squares = np.full((len(self.minibatches), count), np.nan)
        self.means, self.dot = np.full((2, count), np.nan), np.full(count, np.nan)
        thinned_sizes = [atom.every(spacing(parameters.parameters[atom.tensor].numel())) for atom in parameters.atoms]
        self.stands_for = self.sizes / np.maximum(thinned_sizes, 1)  # elements of the atom per sampled element
        # without them the parameters were not measured before and after the update
        self.moved = None if sampled.moved is None else arrays[sampled.moved] * self.stands_for
        self.weight_norms = None if sampled.weight_norms is None else arrays[sampled.weight_norms]
        self.separate = None if sampled.separate is None else arrays[sampled.separate] * self.stands_for
        self.samples = float(samples[list(self.minibatches)].mean())
        for batch in batches:
            self._add_batch(batch, arrays)

    def _add_batch(self, batch: DetailBatch, arrays: Arrays) -> None:
        atoms = list(batch.atoms)
        self.present[atoms] = True
        self.statistics[atoms] = arrays[batch.statistics]
        if batch.minibatches == self.minibatches:
            stands_for = self.stands_for[atoms]
            self.squares[:, atoms] = arrays[batch.squares] * stands_for
            means = arrays[batch.means]
            self.means[: len(means), atoms] = means * stands_for
            if batch.dot is not None:
                self.dot[atoms] = arrays[batch.dot] * stands_for

    def group_cells(self, group: int) -> GroupsRow:
        """Return the detail cells of a group's ``groups`` row; null where its atoms had no gradient."""
        atoms = self.parameters.group_atoms[group]
        cells: GroupsRow = {"update_ratio": None}
        if self.moved is not None:
            moved, weights = self.moved[:, atoms].sum(axis=1).tolist()
            cells["update_ratio"] = float(np.sqrt(moved / weights)) if weights else None
        if self.separate is not None:
            cells |= self._separate(self.separate[:, atoms])
        atoms = atoms[self.present[atoms]]
        if not len(atoms):
            return cells
        elements = float(self.sizes[atoms].sum())
        shares = dict(zip(FIELDS, (self.statistics[atoms].sum(axis=0) / elements).tolist(), strict=True))
        cells["zero_fraction"] = shares["zero"]
        cells |= {
            "hist_zero": shares["zero"],
            "hist_below_1e_6": shares["below_1e_6"],
            "hist_1e_6_to_1e_4": shares["1e_6_to_1e_4"],
            "hist_1e_4_to_1e_2": shares["1e_4_to_1e_2"],
            "hist_1e_2_to_1": shares["1e_2_to_1"],
            "hist_1_and_above": shares["1_and_above"],
            "hist_nonfinite": shares["nan"] + shares["inf"],
        }
        cells["sign_positive_fraction"] = shares["positive"]
        return cells | self._direction(atoms)

    @staticmethod
    def _separate(sums: Numbers) -> GroupsRow:
        """Return the cells of separate backward passes; the cosine is over the elements that both losses reach."""
        shared = (sums[1] > 0) & (sums[2] > 0)
        both, policy, value, _ = sums[:, shared].sum(axis=1).tolist()
        entropy = float(sums[3].sum())
        return {
            "cosine_actor_critic": both / math.sqrt(policy * value) if shared.any() else None,
            "entropy_grad_norm": math.sqrt(entropy) if entropy > 0 else None,
        }

    def _direction(self, atoms: np.ndarray[tuple[int], np.dtype[np.int64]]) -> GroupsRow:
        cells: GroupsRow = {}
        squares, means = self.squares[:, atoms].sum(axis=1), self.means[:, atoms].sum(axis=1)
        norms, count = np.sqrt(squares), len(squares)
        spread = norms.sum() ** 2 - squares.sum()
        if count >= 2 and not np.isnan(squares).any():
            if spread > 0 and norms.min() > 0:
                cells["cosine_minibatches"] = float((count**2 * means[0] - squares.sum()) / spread)
            cells["noise_scale"] = noise_scale(float(squares.mean()), float(means[0]), self.samples, count)
        dot, product = float(self.dot[atoms].sum()), float(means[0] * means[1])
        if product > 0:
            cells["cosine_previous_update"] = dot / product**0.5
        return cells

    def layer_block(self, update: int) -> Block:
        """Return the rows of ``layers``."""
        tensors = len(self.parameters.parameters)
        present = np.zeros(tensors, bool)
        present[self.tensor[self.present]] = True
        elements = self._by_tensor(self.sizes)
        sums = self._by_tensor(self.statistics[:, _FIELD["sum"]])
        mean = sums / elements
        spread = self.statistics[:, _FIELD["sum"]] / self.sizes - mean[self.tensor]
        squares = self._by_tensor(self.statistics[:, _FIELD["squares"]] + self.sizes * spread**2)
        counts = {name: self._by_tensor(self.statistics[:, _FIELD[name]]) for name in _COUNTS}
        infinite = (counts["inf"] > 0) & (counts["nan"] == 0)  # a spread about an infinite mean is NaN, the norm is not
        norms = np.where(infinite, np.inf, np.sqrt(squares + elements * mean**2))
        cells: LayersColumns = {
            "update": update,
            "layer": self.parameters.names,
            "minibatch": self.described,
            "elements": elements.astype(np.int64),
            "grad_norm": nullable(norms, present),
            "mean": nullable(mean, present),
            "std": nullable(np.sqrt(squares / elements), present),
            "min": nullable(self._extreme(np.minimum, "min"), present),
            "max": nullable(self._extreme(np.maximum, "max"), present),
            "zero_fraction": nullable(counts["zero"] / elements, present),
            "small_fraction": nullable((counts["zero"] + counts["below_1e_6"]) / elements, present),
            "large_fraction": nullable(counts["large"] / elements, present),
            "nan_count": nullable(counts["nan"].astype(np.int64), present),
            "inf_count": nullable(counts["inf"].astype(np.int64), present),
            "weight_norm": self.weight_norms,
            "update_ratio": self._update_ratios(),
        }
        return Block(tensors, cells)

    def _update_ratios(self) -> Any:
        """Return ‖Δθ‖ / ‖θ‖ of each tensor, null where it was all 0; None if the parameters were not measured."""
        if self.moved is None:
            return None
        moved, weights = self._by_tensor(self.moved[0]), self._by_tensor(self.moved[1])
        return nullable(np.sqrt(moved / weights), weights != 0)

    def _by_tensor(self, cells: Numbers) -> Numbers:
        return np.bincount(self.tensor, cells, len(self.parameters.parameters)).astype(np.float64)

    def _extreme(self, ufunc: np.ufunc, name: str) -> Numbers:
        extremes = np.full(len(self.parameters.parameters), np.inf if name == "min" else -np.inf)
        with np.errstate(invalid="ignore"):  # a NaN is meant to propagate
            ufunc.at(extremes, self.tensor, self.statistics[:, _FIELD[name]])
        return extremes


def noise_scale(small: float, big: float, samples: float, count: int) -> float | None:
    """Return tr(Σ)/|G|² from the mean squared norm of ``count`` minibatch gradients and that of their mean.

    |G|² = (K·|G_big|² − |G_small|²) / (K − 1), tr(Σ) = (|G_small|² − |G_big|²) / (1/B − 1/(K·B)) for K minibatches
    of B samples (McCandlish et al. 2018, appendix A.1). None when the estimate of |G|² is not positive.
    """
    signal = (count * big - small) / (count - 1)
    if not signal > 0 or not np.isfinite(signal) or not samples > 0:
        return None
    return (small - big) / (1 / samples - 1 / (count * samples)) / signal


def detail_numbers(
    parameters: ParameterMap | None, sampled: SampledDetail | None, arrays: Arrays, samples: Numbers
) -> DetailNumbers | None:
    """Return the detail of an update; None if it was not sampled."""
    return None if parameters is None or sampled is None else DetailNumbers(parameters, sampled, arrays, samples)
