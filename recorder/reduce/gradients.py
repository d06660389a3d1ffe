"""Gradient cells: whole-model norms of ``updates``, the rows of ``groups``, gradient state of ``heads``."""

from __future__ import annotations

import math

import numpy as np

from esper_analyze.schema.constants import DEFAULT_CLIP_NORM, EXPLODING_FACTOR, HEAD_GROUP, VANISHING, gradient_health
from esper_analyze.schema.row_types import GroupsRow, HeadsRow, UpdatesRow
from recorder.capture.parameters import ParameterMap
from recorder.measure import Numbers
from recorder.reduce.norms import Flags, GradientNorms
from recorder.reduce.update import MinibatchNumbers


def model_cells(minibatches: MinibatchNumbers) -> UpdatesRow:
    """Return the whole-model gradient cells of the ``updates`` row."""
    cells: UpdatesRow = {}
    pre = minibatches.pre_clip[minibatches.pre_clip_known]
    if len(pre):
        cells["grad_norm_pre_clip"] = float(pre.mean())
        cells["grad_norm_pre_clip_max"] = float(pre.max())
        cells["grad_norm_pre_clip_last"] = float(pre[-1])
    post = minibatches.post_clip[minibatches.post_clip_known]
    if len(post):
        cells["grad_norm_post_clip"] = float(post.mean())
        cells["grad_norm_post_clip_max"] = float(post.max())
        cells["grad_norm_post_clip_last"] = float(post[-1])
    if minibatches.clip_norm is not None and len(pre):
        cells["max_grad_norm"] = minibatches.clip_norm
        if minibatches.clipped_once:
            cells["clip_active_fraction"] = float((~(pre <= minibatches.clip_norm)).mean())
        both = minibatches.pre_clip_known & minibatches.post_clip_known & (minibatches.pre_clip != 0)
        cells["clip_scale_mean"] = (
            float((minibatches.post_clip[both] / minibatches.pre_clip[both]).mean()) if both.any() else None
        )
    if minibatches.norms is not None:
        if minibatches.norms.elements is not None:
            cells["nan_grad_count"], cells["inf_grad_count"] = map(int, minibatches.norms.elements)
        tensor_norms = minibatches.norms.norms[:, : _tensors(minibatches.norms)]
        cells["tensors_nonfinite"] = int(np.count_nonzero(~np.isfinite(tensor_norms)))
    return cells


def _tensors(norms: GradientNorms) -> int:
    return int(norms.norms.shape[1]) - norms.ranges


class GroupNumbers:
    """Gradient statistics of all G groups [S, G], computed together; S: optimizer steps with measured gradients."""

    def __init__(self, parameters: ParameterMap, gradient_norms: GradientNorms, clip_norm: float | None) -> None:
        self._starts = parameters.starts
        norms = gradient_norms.norms[:, parameters.members]
        measured, missing = (
            gradient_norms.measured[:, parameters.members],
            gradient_norms.missing[:, parameters.members],
        )
        present = measured & ~missing
        exploding = EXPLODING_FACTOR * (DEFAULT_CLIP_NORM if clip_norm is None else clip_norm)
        squares = np.where(present, np.square(norms), 0.0)
        self.counts = self._sum(present)
        self.without = self._sum(missing)
        self.nonfinite = self._sum(present & ~np.isfinite(norms))
        self.squares = self._sum(squares)
        self.smallest = np.minimum.reduceat(np.where(present, norms, np.inf), self._starts, axis=1).min(axis=0)
        self.largest = np.maximum.reduceat(np.where(present, norms, -np.inf), self._starts, axis=1).max(axis=0)
        self.vanished = self._sum(present & (norms < VANISHING))
        self.exploded = self._sum(present & ~(norms <= exploding))
        self._logarithms = self._sum(squares * np.log(np.where(squares > 0, squares, 1.0)))
        self._with = self.counts > 0
        self._steps = self._with.sum(axis=0)
        self.norms = self._mean(np.sqrt(self.squares))
        """``grad_norm`` of each group in ``groups``, and of its head in ``heads``."""

    def _sum(self, cells: Numbers | Flags) -> Numbers:
        return np.add.reduceat(cells, self._starts, axis=1, dtype=np.float64)

    def _mean(self, cells: Numbers, where: Flags | None = None) -> list[float]:
        """Return the mean over the steps with a gradient of the group (or those in ``where``); NaN without a step."""
        chosen = self._with if where is None else where
        means: list[float] = (np.where(chosen, cells, 0.0).sum(axis=0) / chosen.sum(axis=0)).tolist()
        return means

    def cells(self) -> list[GroupsRow]:
        """Return the norm cells of each group; a group without any gradient has null norms, never health 1."""
        vanishing, exploding = self._mean(self.vanished / self.counts), self._mean(self.exploded / self.counts)
        concentration = self._concentration()
        without, finite = self.without.max(axis=0).tolist(), (self.nonfinite.sum(axis=0) == 0).tolist()
        rows: list[GroupsRow] = []
        for g, steps in enumerate(self._steps.tolist()):
            row: GroupsRow = {"tensors_without_grad": int(without[g])}
            if steps:
                low, high = float(self.smallest[g]), float(self.largest[g])
                row |= {
                    "grad_norm": self.norms[g],
                    "min_tensor_norm": low,
                    "max_tensor_norm": high,
                    "norm_ratio": None if low == 0 else high / low,
                    "concentration": concentration[g],
                    "vanishing_severity": vanishing[g],
                    "exploding_severity": exploding[g],
                    "has_vanishing": vanishing[g] > 0,
                    "has_exploding": exploding[g] > 0,
                    "health": gradient_health(vanishing[g], exploding[g], nonfinite=not finite[g]),
                }
            rows.append(row)
        return rows

    def _concentration(self) -> list[float | None]:
        """Entropy of the shares of n_i² over ln N (gradient review L1), mean over steps; None where undefined."""
        defined = (self.counts >= 2) & np.isfinite(self.squares) & (self.squares > 0)
        entropy = np.abs(np.log(self.squares) - self._logarithms / self.squares) / np.log(self.counts)
        return [None if math.isnan(mean) else mean for mean in self._mean(entropy, defined)]

    def head_cells(self, g: int) -> HeadsRow:
        """Return gradient norm, state and counts of the ``heads`` row whose group is ``g``."""
        counts, without, nonfinite = self.counts[:, g], self.without[:, g], self.nonfinite[:, g]
        worst = int(np.lexsort((without, nonfinite))[-1])
        cells: HeadsRow = {
            "params_without_grad": int(without[worst]),
            "params_nonfinite": int(nonfinite[worst]),
            "params_finite": int(counts[worst] - nonfinite[worst]),
        }
        if not counts.any():
            if without.any():
                cells["grad_state"] = "missing"
            return cells
        cells["grad_norm"] = self.norms[g]
        cells["grad_state"] = "nonfinite" if nonfinite.any() else "finite"
        return cells


def group_numbers(parameters: ParameterMap | None, minibatches: MinibatchNumbers | None) -> GroupNumbers | None:
    """Return the gradient statistics of all groups; None if no gradient was measured."""
    if parameters is None or minibatches is None or minibatches.norms is None:
        return None
    return GroupNumbers(parameters, minibatches.norms, minibatches.clip_norm)


def group_cells(parameters: ParameterMap, numbers: GroupNumbers | None, changed: frozenset[str]) -> list[GroupsRow]:
    """Return the rows of ``groups`` without ``update``; ``changed``: groups whose parameters differ from before."""
    rows: list[GroupsRow] = [
        {
            "group": group.name,
            "tensors": group.tensors,
            "elements": group.elements,
            "parameters_changed": group.name in changed,
        }
        for group in parameters.groups
    ]
    if numbers is None:
        return rows
    return [row | measured for row, measured in zip(rows, numbers.cells(), strict=True)]


def head_gradient_cells(parameters: ParameterMap | None, numbers: GroupNumbers | None, head: str) -> HeadsRow:
    """Return gradient norm, state and counts of one ``heads`` row."""
    index = None if parameters is None else parameters.group_index.get(HEAD_GROUP + head)
    if parameters is not None and head in parameters.removed:
        return {"grad_state": "removed"}
    if parameters is None or index is None:
        return {}
    group = parameters.groups[index]
    if parameters.frozen(group):
        return {"grad_state": "frozen", "params_without_grad": group.tensors, "params_nonfinite": 0, "params_finite": 0}
    return {} if numbers is None else numbers.head_cells(index)
