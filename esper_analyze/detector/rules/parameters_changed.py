"""Rule ``parameters_changed``: something other than the optimizer changed the parameters between two updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.relation import (
    EVIDENCE,
    UPDATES,
    established,
    establishing,
    relation_memory,
)
from esper_analyze.detector.deferral_guards import DeferralGuard
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

SHIFT = "parameter_shift_between_updates"


@dataclass(frozen=True, slots=True)
class ParametersChangedLimits(Limits):
    """Bounds on ``updates.parameter_shift_between_updates``."""

    rounding: float = limit(1e-6, "of the norm: double precision to single and back is 6e-8", at_least=0.0)
    updates: int = limit(UPDATES, EVIDENCE, at_least=1)
    often: int = limit(3, "from so many times on it is a recipe, and information (set by design)", at_least=1)


def judge(frame: Frame, memory: Memory, limits: ParametersChangedLimits) -> list[Judgement]:
    """Judge whether the parameters moved where they used to stay; a training that does so again and again means it."""
    shift = frame[SHIFT]
    moved = shift.finite & (shift.values > limits.rounding)
    usual = established(shift.finite & ~moved, shift.finite, memory, SHIFT, limits.updates)
    unusual = moved & usual
    count = tally(unusual, memory["moved"])
    bounds = Bounds(info=unusual, warning=unusual & (count < limits.often), warning_at=limits.rounding)
    seen = tally(shift.finite, memory["seen"]) > 0
    others = Excuse(shift.null & frame.present & seen, "other parameters, or optimizer steps in between", quiet=True)
    return [settle(SHIFT, shift, bounds, excuses=[others])]


def guard(frame: Frame, memory: Memory, limits: ParametersChangedLimits) -> DeferralGuard | None:
    """Defer while the parameters stay where they are."""
    shift = frame[SHIFT]
    if np.count_nonzero(shift.values[-1] > limits.rounding):
        return None
    return DeferralGuard(establishing(memory, SHIFT, limits.updates), {SHIFT: (limits.rounding,)})


def _cells(*shift: float | None) -> dict[str, object]:
    return {SHIFT: list(shift)}


RULE = Rule(
    name="parameters_changed",
    table="updates",
    figures=("timeline",),
    columns=(SHIFT,),
    optional=True,
    limits=ParametersChangedLimits,
    judge=judge,
    guard=guard,
    title="Parameters changed between updates",
    meaning="The parameters at the first minibatch are not those that the update before left, although they were in "
    "several updates in a row: something other than the optimizer changed them. They were loaded, reset, averaged, "
    "clipped or written to.",
    look_first="What happens to the network between the end of the update before and the first minibatch of this one: "
    "a checkpoint that is loaded, a reset, an average of weights, a copy from another training, code that writes to "
    "parameters.",
    reference="By definition: between two updates nothing but the optimizer's steps changes parameters",
    examples=(
        Example("never", "ok", _cells(0.0, 0.0, 0.0), updates=3),
        Example("once", "warning", _cells(0.0, 0.0, 0.0, 0.3), updates=4),
        Example("in each update", "ok", _cells(0.01, 0.01), updates=2),
        Example("again and again", "info", _cells(*[0.0] * 3, *[0.3, 0.0] * 3, 0.3), updates=10),
        Example("a tensor was added", "not_applicable", _cells(0.0, None), updates=2),
        Example("not recorded", "no_data", _cells(None)),
    ),
    revision=2,
    restated=("threshold", VERDICT),
    memory={**relation_memory(SHIFT), "moved": zeros, "seen": zeros},
    statistics={SHIFT: Statistic("distance of the parameters from where the update before left them", column=SHIFT)},
)
