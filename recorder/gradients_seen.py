"""The gradients of one optimizer step, seen at the clip call and at the step: what is kept until the update ends."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recorder.measure import gradients as measure
from recorder.parameters import ParameterMap

_PLAIN_TYPES = (torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of one list of parameters that gets clipped or stepped: worked out once, used at every step."""

    listed: tuple[Tensor, ...]
    ours: tuple[Tensor, ...]
    places: tuple[int, ...]  # of ``ours`` in the model
    cut: tuple[int, ...]  # positions in ``ours`` of parameters whose rows belong to different groups
    on_host: bool  # all in host memory, dense, of one plain dtype: norms may be looked at and shared with the clip
    small: bool  # dense, of one dtype and device, few elements
    complete: bool  # every listed parameter is the model's

    def fits(self, parameters: Sequence[Tensor]) -> bool:
        """Whether the plan is for exactly these parameters."""
        return len(parameters) == len(self.listed) and all(map(operator.is_, parameters, self.listed))


@dataclass(frozen=True, slots=True)
class Seen:
    """The norms of one look at gradients; tensors stay where they are, nothing is awaited."""

    plan: Plan
    present: tuple[int, ...] | None  # positions in ``plan.ours`` that had a gradient; None: all
    norms: Tensor | None  # [present] float32 or float64; None when no gradient was there
    rows: tuple[Tensor, ...]  # per cut parameter with a gradient
    total: Tensor | None
    elements: Tensor | None  # [NaN, Inf]


@dataclass(slots=True)
class Reader:
    """Looks at gradients on behalf of one model."""

    parameters: ParameterMap
    _plans: list[Plan] = field(default_factory=list)

    def plan(self, listed: Sequence[Tensor]) -> Plan:
        """Return the plan for these parameters."""
        for plan in self._plans:
            if plan.fits(listed):
                return plan
        plan = self._new_plan(tuple(listed))
        self._plans = [*self._plans[-7:], plan]
        return plan

    def _new_plan(self, listed: tuple[Tensor, ...]) -> Plan:
        ours = tuple(parameter for parameter in listed if self.parameters.owns(parameter))
        places = tuple(self.parameters.place(parameter) or 0 for parameter in ours)
        alike = len({(parameter.dtype, parameter.device) for parameter in ours}) == 1
        plain = all(type(parameter.data) is Tensor and parameter.layout is torch.strided for parameter in ours)
        host = alike and plain and ours[0].device.type == "cpu" and ours[0].dtype in _PLAIN_TYPES
        elements = sum(parameter.numel() for parameter in ours)
        return Plan(
            listed,
            ours,
            places,
            tuple(position for position, place in enumerate(places) if place in self.parameters.cut),
            on_host=host,
            small=alike and plain and elements <= measure.COUNT_ELEMENTS_UP_TO,
            complete=len(ours) == len(listed),
        )

    def see(self, plan: Plan, *, scale: Tensor | None = None) -> Seen:
        """Measure the gradients of ``plan.ours`` as they are now, divided by ``scale`` where they are scaled."""
        there = [gradient for parameter in plan.ours if (gradient := parameter.grad) is not None]
        present = None
        if len(there) < len(plan.ours):
            present = tuple(position for position, one in enumerate(plan.ours) if one.grad is not None)
        if not there:
            return Seen(plan, present, None, (), None, None)
        dense = plan.on_host and all(gradient.layout is torch.strided for gradient in there)
        found = measure.host_norms(there) if dense else measure.device_norms(there)
        cut = [plan.ours[position].grad for position in plan.cut]
        rows = tuple(measure.row_norms(gradient) for gradient in cut if gradient is not None)
        norms = found.norms
        if scale is not None:
            norms, rows = norms / scale.double(), tuple(row / scale.double() for row in rows)
        return Seen(plan, present, norms, rows, found.total, _elements(plan, there, found))

    def post_clip(self, listed: Sequence[Tensor]) -> Tensor | None:
        """Return the L2 norm over the model's gradients among ``listed``, None when there is none."""
        plan = self.plan(listed)
        grads = [parameter.grad for parameter in plan.ours if parameter.grad is not None]
        if not grads:
            return None
        dense = plan.small and all(gradient.layout is torch.strided for gradient in grads)
        return measure.total_norm(grads, small=dense)


def _elements(plan: Plan, there: Sequence[Tensor], found: measure.Norms) -> Tensor | None:
    """Count NaN and Inf: on the host only where the norms say that there are some, on a device when it is cheap."""
    if found.total is None:
        return measure.nonfinite_elements(there) if plan.small else None
    if found.sound:
        return _NONE
    finite = found.norms.isfinite().numpy()
    concerned = [gradient for gradient, fine in zip(there, finite, strict=True) if not fine]
    return measure.nonfinite_elements(concerned) if concerned else _NONE


_NONE = torch.zeros(2, dtype=torch.float64)
