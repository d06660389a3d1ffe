"""Rule ``gradient_stopped``: a group of parameters had a gradient, and now not one of its tensors has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, same
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle
from esper_analyze.schema.constants import HEAD_GROUP


@dataclass(frozen=True, slots=True)
class GradientStoppedLimits(Limits):
    """No bounds: a group has a gradient or not."""


def judge(frame: Frame, memory: Memory, limits: GradientStoppedLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge groups without any gradient: critical where there was one, information where there never was."""
    without, tensors = frame["tensors_without_grad"], frame["tensors"]
    known = without.finite & tensors.finite & (tensors.values > 0)
    none = known & (without.values >= tensors.values)
    had = tally(known & ~none, memory["had"]) > 0
    bounds = Bounds(info=none, critical=none & had, critical_at=tensors.values)
    heads = np.array([name.startswith(HEAD_GROUP) for name in frame.subjects], bool)
    by_head = Excuse(frame.present & heads, "a head: judged by gradient_missing", quiet=True)
    return [settle(without.name, without, bounds, excuses=[by_head], needs=[tensors])]


def guard(frame: Frame, memory: Memory, limits: GradientStoppedLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while as many tensors are without gradient as now."""
    return DeferralGuard(LASTING, {name: same(frame[name]) for name in ("tensors_without_grad", "tensors")})


def _cells(*without: int | None, tensors: int | None = 4) -> dict[str, object]:
    return {"tensors_without_grad": list(without), "tensors": tensors}


RULE = Rule(
    name="gradient_stopped",
    table="groups",
    figures=("layers", "drift"),
    columns=("tensors_without_grad", "tensors"),
    limits=GradientStoppedLimits,
    judge=judge,
    guard=guard,
    title="A group gets no gradient any more",
    meaning="Every tensor of the group had its gradient None at some step, although there was one before: it was "
    "frozen, detached from the loss, or its loss is no longer computed. It does not learn. Where there never was one "
    "it is information: it may be frozen on purpose.",
    look_first="What changed at this update: requires_grad_(False), detach() or no_grad() on the way to the loss, a "
    "loss term that is left out, an optimizer whose zero_grad also sets what nothing fills again.",
    reference="A gradient that is None was never computed, which differs from one of 0.0",
    examples=(
        Example("all have one", "ok", _cells(0, 0), updates=2),
        Example("some have none", "ok", _cells(0, 3), updates=2),
        Example("none any more", "critical", _cells(0, 4), updates=2),
        Example("never had one", "info", _cells(4, 4), updates=2),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"had": zeros},
    causes=("numerical_instability",),
    statistics={"tensors_without_grad": Statistic("tensors without gradient", column="tensors_without_grad")},
)
