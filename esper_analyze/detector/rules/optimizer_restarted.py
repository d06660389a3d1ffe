"""Rule ``optimizer_restarted``: the optimizer lost the moments it had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import tally, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle


@dataclass(frozen=True, slots=True)
class OptimizerRestartedLimits(Limits):
    """Bounds on ``updates.optimizer_state_lost``."""

    lost: float = limit(0.999, "moments that were reset are all 0 (by definition)", at_least=0.0)
    often: int = limit(3, "from so many times on it is a recipe, and information (set by design)", at_least=1)


def judge(frame: Frame, memory: Memory, limits: OptimizerRestartedLimits) -> list[Judgement]:
    """Judge whether the moments are gone; a training that does so again and again means it."""
    share = frame["optimizer_state_lost"]
    lost = share.finite & (share.values >= limits.lost)
    count = tally(lost, memory["lost"])
    bounds = Bounds(info=lost, warning=lost & (count < limits.often), warning_at=limits.lost)
    return [settle(share.name, share, bounds)]


def guard(frame: Frame, memory: Memory, limits: OptimizerRestartedLimits) -> DeferralGuard | None:  # noqa: ARG001
    """Defer while the moments are there."""
    share = frame["optimizer_state_lost"]
    if np.count_nonzero(share.values[-1] >= limits.lost):
        return None
    return DeferralGuard(LASTING, {share.name: (limits.lost,)})


def _cells(*lost: float | None) -> dict[str, object]:
    return {"optimizer_state_lost": list(lost)}


RULE = Rule(
    name="optimizer_restarted",
    table="updates",
    figures=("timeline",),
    columns=("optimizer_state_lost",),
    optional=True,
    limits=OptimizerRestartedLimits,
    judge=judge,
    guard=guard,
    title="The optimizer lost its moments",
    meaning="The optimizer's moments were gone or 0 at the first step of this update, although they were there before: "
    "another optimizer, or a state that was not restored. Its first steps are as large as the learning rate allows, "
    "whatever the gradient.",
    look_first="What happened before this update: a new optimizer, a checkpoint without the optimizer's state, a copy "
    "of the model.",
    reference="Kingma and Ba 2015: the size of a step follows from the moments, and is about the learning rate in "
    "the first one",
    examples=(
        Example("carried on", "ok", _cells(0.0, 0.0), updates=2),
        Example("restored from a checkpoint", "ok", _cells(0.0, 0.02), updates=2),
        Example("moments reset", "warning", _cells(0.0, 1.0), updates=2),
        Example("moments reset in each update", "info", _cells(0.0, 1.0, 1.0, 1.0), updates=4),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"lost": zeros},
)
