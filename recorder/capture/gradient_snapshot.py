"""Gradient snapshots of one optimizer step, taken at the clip call and at the step, kept until the update ends."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recorder.capture.parameters import ParameterMap
from recorder.measure import gradients as measure

MAX_PLANS = 16
ROWS_A_BLOCK = 16
_PLAIN_TYPES = (torch.float32, torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotPlan:
    """Facts about one list of parameters that is clipped or stepped: computed once, used at every step.

    Plans compare by identity, so that nothing stored under one plan is attributed to another.
    """

    listed: tuple[Tensor, ...]
    ours: tuple[Tensor, ...]
    tensors: tuple[int, ...]  # indices of ``ours`` in the model
    cut: tuple[int, ...]  # positions in ``ours`` of parameters whose rows belong to different groups
    on_host: bool  # all in host memory, dense, of one plain dtype: norms may be read and shared with the clip
    small: bool  # dense, of one dtype and device, few elements
    complete: bool  # every listed parameter is the model's

    def fits(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether the plan is for exactly these parameters."""
        return len(parameters) == len(self.listed) and all(map(operator.is_, parameters, self.listed))


@dataclass(frozen=True, slots=True)
class LargeDetail:
    """Detail of one snapshot of a large model: ``statistics`` [atoms, FIELDS], ``vector`` [thinned elements]."""

    statistics: Tensor
    vector: Tensor


Describe = Callable[[SnapshotPlan, Sequence[int], Sequence[Tensor]], LargeDetail]
"""Measures the detail of a large model: takes plan, positions in it that have a gradient, and these gradients."""


@dataclass(frozen=True, slots=True)
class GradientSnapshot:
    """Gradients at one optimizer step; tensors stay on their device, nothing waits for it.

    For a small model ``flat`` keeps a copy of all elements until the update ends: one operation now, and the norms of
    all steps together later, cost less than norms now. For a large model norms and counts are computed at once, and
    the norms serve the clip as well.
    """

    plan: SnapshotPlan
    present: tuple[int, ...] | None  # positions in ``plan.ours`` that had a gradient; None: all
    norms: Tensor | None  # [present] float32 or float64; None: to be computed from ``flat``, or no gradient
    flat: CopiedRow | None
    rows: tuple[Tensor, ...]  # per cut parameter with a gradient; empty when ``flat`` is not None
    total: Tensor | None
    elements: Tensor | None  # counts [NaN, Inf]; None: not counted
    scale: Tensor | None  # loss scale the gradients still carried
    detail: LargeDetail | None = None

    @property
    def spans(self) -> list[tuple[int, int, int]]:
        """Position in ``plan.ours``, start and stop of each gradient in ``flat``."""
        spans, start = [], 0
        positions = range(len(self.plan.ours)) if self.present is None else self.present
        for position in positions:
            stop = start + self.plan.ours[position].numel()
            spans.append((position, start, stop))
            start = stop
        return spans


@dataclass(frozen=True, slots=True)
class CopiedRow:
    """A row of a block of copied gradients."""

    block: Tensor
    index: int


class GradientCopies:
    """Rows for copies of one plan's gradients, reused in every update: allocating memory costs more than copying.

    From the second update on, all rows of an update lie in one block.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._like = parameters[0].detach()
        self._elements = sum(parameter.numel() for parameter in parameters)
        self._used = self._total = 0
        self._grow(ROWS_A_BLOCK)

    def _grow(self, rows: int) -> None:
        self._block = self._like.new_empty((rows, self._elements))
        self._rows = self._block.unbind(0)
        self._used = 0

    def take(self, parts: Sequence[Tensor]) -> CopiedRow:
        """Copy the parts into the next row."""
        if self._used == len(self._rows):
            self._grow(2 * len(self._rows))
        index = self._used
        torch.cat(list(parts), out=self._rows[index])
        self._used += 1
        self._total += 1
        return CopiedRow(self._block, index)

    def forget(self) -> None:
        """Release all rows for reuse."""
        if self._total > len(self._rows):
            self._grow(self._total)
        self._used = self._total = 0


@dataclass(slots=True)
class GradientReader:
    """Takes gradient snapshots of one model."""

    parameters: ParameterMap
    trusted: bool = False  # the optimizer was measured to take gradients exactly as the clip left them
    _plans: list[SnapshotPlan] = field(default_factory=list)
    _covers: dict[tuple[SnapshotPlan, SnapshotPlan], bool] = field(default_factory=dict)
    _copies: dict[SnapshotPlan, GradientCopies] = field(default_factory=dict)

    def plan(self, listed: Sequence[Tensor]) -> SnapshotPlan:
        """Return the plan for these parameters."""
        for plan in self._plans:
            if plan.fits(listed):
                return plan
        plan = self._new_plan(tuple(listed))
        self._plans.append(plan)
        if len(self._plans) > MAX_PLANS:  # a loop that builds a new list of parameters each time
            del self._plans[0]
            self._covers.clear()
            self._copies.clear()
        return plan

    def _new_plan(self, listed: tuple[Tensor, ...]) -> SnapshotPlan:
        ours = tuple(parameter for parameter in listed if self.parameters.owns(parameter))
        tensors = tuple(self.parameters.tensor_index(parameter) or 0 for parameter in ours)
        alike = len({(parameter.dtype, parameter.device) for parameter in ours}) == 1
        plain = all(type(parameter.data) is Tensor and parameter.layout is torch.strided for parameter in ours)
        host = alike and plain and ours[0].device.type == "cpu" and ours[0].dtype in _PLAIN_TYPES
        elements = sum(parameter.numel() for parameter in ours)
        return SnapshotPlan(
            listed,
            ours,
            tensors,
            tuple(position for position, tensor in enumerate(tensors) if tensor in self.parameters.cut),
            on_host=host,
            small=alike and plain and elements <= measure.SMALL,
            complete=len(ours) == len(listed),
        )

    def covers(self, clipped: SnapshotPlan, stepped: SnapshotPlan) -> bool:
        """Return whether ``stepped`` and ``clipped`` list the same parameters."""
        key = (clipped, stepped)
        if key not in self._covers:
            self._covers[key] = clipped.complete and stepped.complete and set(clipped.tensors) == set(stepped.tensors)
        return self._covers[key]

    def take_snapshot(
        self, plan: SnapshotPlan, scale: Tensor | None, *, keep: bool, describe: Describe | None
    ) -> GradientSnapshot:
        """Return a snapshot of the gradients of ``plan.ours``; ``scale`` is the loss scale they still carry.

        ``keep``: there is room for another copy of them. ``describe`` measures the detail of gradients not copied.
        """
        gradients = [gradient for parameter in plan.ours if (gradient := parameter.grad) is not None]
        present = None
        if len(gradients) < len(plan.ours):
            present = tuple(position for position, ours in enumerate(plan.ours) if ours.grad is not None)
        if not gradients:
            return GradientSnapshot(plan, present, None, None, (), None, None, None)
        if plan.small and keep and all(gradient.layout is torch.strided for gradient in gradients):
            return GradientSnapshot(plan, present, None, self._copy(plan, gradients), (), None, None, scale)
        measured = measure.host_norms(gradients) if self._dense(plan, gradients) else measure.device_norms(gradients)
        cut = [plan.ours[position].grad for position in plan.cut]
        rows = tuple(measure.row_norms(gradient) for gradient in cut if gradient is not None)
        detail = None
        if describe is not None:
            detail = describe(plan, range(len(gradients)) if present is None else present, gradients)
        return GradientSnapshot(
            plan,
            present,
            measured.norms,
            None,
            rows,
            measured.total,
            _nonfinite_counts(gradients, measured),
            scale,
            detail,
        )

    def _copy(self, plan: SnapshotPlan, gradients: Sequence[Tensor]) -> CopiedRow:
        rows = [gradient.reshape(-1) for gradient in gradients]
        if len(rows) < len(plan.ours):
            return CopiedRow(torch.cat(rows).unsqueeze(0), 0)
        copies = self._copies.get(plan)
        if copies is None:
            copies = self._copies[plan] = GradientCopies(plan.ours)
        return copies.take(rows)

    def forget_copies(self) -> None:
        """Release the memory of the copies for reuse."""
        for copies in self._copies.values():
            copies.forget()

    @staticmethod
    def _dense(plan: SnapshotPlan, gradients: Sequence[Tensor]) -> bool:
        """Return whether the gradients may be read on the host; sparse ones come only from sparse embeddings."""
        return plan.on_host and all(gradient.layout is torch.strided for gradient in gradients)

    def total(self, plan: SnapshotPlan, *, unknown: bool) -> Tensor | None:
        """Return the L2 norm over the gradients of ``plan.ours``; None without a gradient.

        ``unknown``: include listed parameters that the map does not have yet.
        """
        wider = unknown and not plan.complete
        grads = [parameter.grad for parameter in (plan.listed if wider else plan.ours) if parameter.grad is not None]
        if not grads:
            return None
        if wider:
            return measure.total_norm(grads, small=False, on_host=False)
        dense = all(gradient.layout is torch.strided for gradient in grads)
        return measure.total_norm(grads, small=dense and plan.small, on_host=dense and plan.on_host)


def _nonfinite_counts(gradients: Sequence[Tensor], measured: measure.Norms) -> Tensor | None:
    """Count NaN and Inf where norms in host memory show that there are some; None where counting costs too much."""
    if measured.sound:
        return _NONE
    if measured.total is None:
        return None
    nonfinite = [
        gradient
        for gradient, is_finite in zip(gradients, np.isfinite(measured.norms.numpy()), strict=True)
        if not is_finite
    ]
    return measure.nonfinite_elements(nonfinite) if nonfinite else _NONE


_NONE = torch.zeros(2, dtype=torch.float64, device="cpu")
