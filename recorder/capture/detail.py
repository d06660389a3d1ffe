"""Detail of sampled updates: element statistics, gradient direction, parameter movement.

A small model's gradients are copied until the update ends anyway, so its detail costs nothing before that. A large
model's gradients are measured at two optimizer steps chosen in advance.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recorder.capture.gradient_snapshot import GradientSnapshot, LargeDetail, SnapshotPlan
from recorder.capture.parameters import Atom, ParameterMap
from recorder.capture.snapshot_batch import SnapshotStack
from recorder.measure.direction import dots_by_segment, mean_vector, spacing, squares_by_segment, thinned
from recorder.measure.elements import Segments, element_statistics, element_statistics_of_one
from recorder.measure.gradients import SMALL
from recorder.transfer import Handle, Outgoing

STEPS = 4
"""Optimizer steps of a sampled update whose gradient directions are compared …"""
LARGE_STEPS = 2
"""… and those at which a large model's gradients are measured."""
PROBE_ELEMENTS = 1 << 18
"""Elements measured to predict the time for all elements."""
MAX_MEANS = 8
"""Mean gradients kept for comparison with the next sampled update, one per parameter list."""


_Listed = tuple[SnapshotPlan, tuple[int, ...] | None]
"""Key of comparable gradients: their plan, and the positions in it that have a gradient (None: all)."""


@dataclass(frozen=True, slots=True)
class DetailBatch:
    """Handles of the detail of one list of gradients: its atoms A at K minibatches."""

    atoms: tuple[int, ...]
    minibatches: tuple[int, ...]
    described: int  # minibatch of the element statistics
    statistics: Handle  # [A, elements.FIELDS]
    squares: Handle  # Σ g² [K, A]
    means: Handle  # Σ of the squared mean gradient, and of that of the previous sampled update [1 or 2, A]
    dot: Handle | None  # Σ of the product of both [A]; None: no earlier sampled update has the same gradients


@dataclass(frozen=True, slots=True)
class SampledDetail:
    """Handles of the detail of a sampled update: by list of gradients, and over all atoms."""

    batches: Sequence[DetailBatch]  # at least one
    moved: Handle | None = None  # Σ Δθ² and Σ θ² [2, atoms]; None: the parameters before the update are not known
    weight_norms: Handle | None = None  # norms of the parameters before the update [T]
    separate: Handle | None = None  # products and squares of the losses' gradients [4, atoms]


@dataclass(slots=True)
class Detail:
    """Detail of one model's updates; ``wanted``: whether the update in progress is sampled."""

    parameters: ParameterMap
    wanted: bool = False
    steps: frozenset[int] = frozenset()  # minibatches a large model is measured at
    _before: Tensor | None = None
    _all: Segments | None = None
    _weight_norms: Tensor | None = None
    _separate: Tensor | None = None
    _means: dict[_Listed, Tensor] = field(default_factory=dict)  # of the update in progress
    _previous: dict[_Listed, Tensor] = field(default_factory=dict)
    _segments: dict[tuple[_Listed, bool], tuple[Segments, tuple[int, ...]]] = field(default_factory=dict)

    def predicted(self) -> float:
        """Return the predicted seconds for the detail of one update; 0 where they are negligible.

        Extrapolated from part of a large model's elements in host memory; no device is waited for.
        """
        largest = max(self.parameters.parameters, key=lambda parameter: parameter.numel(), default=None)
        if largest is None or self.parameters.elements <= SMALL or largest.device.type != "cpu":
            return 0.0
        probe = largest.detach().reshape(-1)[:PROBE_ELEMENTS]
        seconds = []
        for _ in range(2):  # the first one warms up
            start = time.perf_counter()
            element_statistics_of_one(probe)
            seconds.append(time.perf_counter() - start)
        return LARGE_STEPS * min(seconds) * self.parameters.elements / probe.numel()

    def begin(self, update: int, minibatches: int) -> None:
        """Sample the update that begins; ``minibatches``: their number in the last update."""
        first = (7 * update) % max(minibatches - 1, 1)
        self.steps = frozenset(range(first, first + LARGE_STEPS))
        self._before = self._weights()
        norms = [torch.linalg.vector_norm(p.detach(), dtype=torch.float64) for p in self.parameters.parameters]
        self._weight_norms = torch.stack(norms)
        self.wanted = True

    def end(self) -> None:
        """Discard the state of the update that was sampled."""
        if len(self._previous) + len(self._means) > MAX_MEANS:
            self._previous = {}
        self._previous |= self._means
        self._means = {}
        self.wanted, self.steps = False, frozenset()
        self._before = self._weight_norms = self._separate = None

    def forget_before(self) -> None:
        """Discard the parameters copied at the start of the update: the model has other ones now."""
        self._before = self._weight_norms = None

    def _weights(self) -> Tensor:
        return torch.cat([thinned(parameter).float() for parameter in self.parameters.parameters])

    def measure_large(self, plan: SnapshotPlan, present: Sequence[int], gradients: Sequence[Tensor]) -> LargeDetail:
        """Measure a large model's gradients now."""
        statistics, vectors = [], []
        for position, gradient in zip(present, gradients, strict=True):
            flat = gradient.detach()
            flat = (flat.to_dense() if flat.layout is not torch.strided else flat).reshape(-1)
            atoms = [self.parameters.atoms[index] for index in self.parameters.atoms_of[plan.tensors[position]]]
            statistics += [element_statistics_of_one(flat[atom.start : atom.stop]) for atom in atoms]
            vectors.append(thinned(flat).float())
        return LargeDetail(torch.stack(statistics), torch.cat(vectors))

    def schedule(self, batches: Sequence[SnapshotStack], outgoing: Outgoing) -> SampledDetail | None:
        """Measure the update and schedule its detail; None if it is not sampled or has no gradients to measure."""
        if not self.wanted:
            return None
        measured = [self._measured(batch, outgoing) for batch in fullest_batches(batches)]
        described = [batch for batch in measured if batch is not None]
        if not described:
            return None
        separate = None if self._separate is None else outgoing.add(self._separate)
        if self._before is None or self._weight_norms is None:
            return SampledDetail(described, separate=separate)
        moved, weight_norms = outgoing.add(self._moved(self._before)), outgoing.add(self._weight_norms)
        return SampledDetail(described, moved, weight_norms, separate)

    def _measured(self, batch: SnapshotStack, outgoing: Outgoing) -> DetailBatch | None:
        vectors, statistics, minibatches = self._sampled(batch)
        if vectors is None or batch.like.scale is not None:
            return None
        like, described = batch.like, len(minibatches) // 2
        segments, atoms = self.segments_of(like, vectors.device, large=batch.flat is None)
        mean = mean_vector(vectors)
        key = (like.plan, like.present)
        previous = self._previous.get(key)
        self._means[key] = mean.float()
        if statistics is None:
            statistics = element_statistics(vectors[described], segments)
        sums = [mean] if previous is None else [mean, previous.double()]
        dot = None
        if previous is not None:
            dot = outgoing.add(dots_by_segment(mean.unsqueeze(0), previous.unsqueeze(0), segments)[0])
        return DetailBatch(
            atoms,
            minibatches,
            minibatches[described],
            statistics=outgoing.add(statistics),
            squares=outgoing.add(squares_by_segment(vectors, segments)),
            means=outgoing.add(squares_by_segment(torch.stack(sums), segments)),
            dot=dot,
        )

    def _sampled(self, batch: SnapshotStack) -> tuple[Tensor | None, Tensor | None, tuple[int, ...]]:
        """Return the sampled gradients [K, P], element statistics if measured already, and their minibatches."""
        if batch.flat is not None:
            chosen = np.unique(np.linspace(0, len(batch.minibatches) - 1, STEPS).round().astype(int)).tolist()
            return batch.flat[chosen], None, tuple(batch.minibatches[index] for index in chosen)
        steps = [
            (minibatch, detail)
            for minibatch, detail in zip(batch.minibatches, batch.large, strict=True)
            if detail is not None
        ]
        if not steps:
            return None, None, ()
        vectors = torch.stack([detail.vector for _, detail in steps])
        return vectors, steps[len(steps) // 2][1].statistics, tuple(minibatch for minibatch, _ in steps)

    def segments_of(
        self, like: GradientSnapshot, device: torch.device, *, large: bool
    ) -> tuple[Segments, tuple[int, ...]]:
        """Return the segments of a snapshot's vectors by atom, on their device, and the indices of these atoms."""
        key = ((like.plan, like.present), large)
        if key not in self._segments:
            positions = range(len(like.plan.tensors)) if like.present is None else like.present
            tensors = [like.plan.tensors[position] for position in positions]
            atoms = [index for tensor in tensors for index in self.parameters.atoms_of[tensor]]
            sizes = [self._size(self.parameters.atoms[index], large=large) for index in atoms]
            self._segments = {key: (Segments(sizes, device), tuple(atoms))}
        return self._segments[key]

    def _size(self, atom: Atom, *, large: bool) -> int:
        if not large:
            return atom.stop - atom.start
        return atom.every(spacing(self.parameters.parameters[atom.tensor].numel()))

    def separate(self, policy_loss: Tensor, value_loss: Tensor, entropy_loss: Tensor | None) -> None:
        """Differentiate the losses one by one; the graph is retained for the training's own backward."""
        policy, value = self._gradient(policy_loss), self._gradient(value_loss)
        entropy = torch.zeros_like(policy) if entropy_loss is None else self._gradient(entropy_loss)
        rows = torch.stack([policy, value, entropy])
        segments = self._everything(policy.device)
        squares = squares_by_segment(rows, segments)
        both = dots_by_segment(rows[:1], rows[1:2], segments)
        self._separate = torch.cat([both, squares])

    def _gradient(self, loss: Tensor) -> Tensor:
        """Return the thinned gradient of one loss; 0 for parameters it does not reach."""
        trained = [parameter for parameter in self.parameters.parameters if parameter.requires_grad]
        derivatives = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
        gradients = dict(zip(map(id, trained), derivatives, strict=True))
        rows = []
        for parameter in self.parameters.parameters:
            gradient = gradients.get(id(parameter))
            rows.append(thinned(torch.zeros_like(parameter) if gradient is None else gradient).float())
        return torch.cat(rows)

    def _everything(self, device: torch.device) -> Segments:
        """Return the atoms of all parameters, thinned."""
        if self._all is None:
            self._all = Segments([self._size(atom, large=True) for atom in self.parameters.atoms], device)
        return self._all

    def _moved(self, before: Tensor) -> Tensor:
        """Return Σ Δθ² and Σ θ² [2, atoms] of the update."""
        both = torch.stack([self._weights() - before, before])
        return squares_by_segment(both, self._everything(before.device))


def fullest_batches(batches: Sequence[SnapshotStack]) -> list[SnapshotStack]:
    """Return, for each plan, the batch with the most steps."""
    best: dict[SnapshotPlan, SnapshotStack] = {}
    for batch in batches:
        key = batch.like.plan
        if key not in best or len(batch.minibatches) > len(best[key].minibatches):
            best[key] = batch
    return list(best.values())
