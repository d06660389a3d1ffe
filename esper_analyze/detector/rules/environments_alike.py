"""Rule ``environments_alike``: all environments show the same observations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free
from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle


@dataclass(frozen=True, slots=True)
class EnvironmentsAlikeLimits(Limits):
    """Bounds on ``updates.environments_distinct``."""

    sustained: int = limit(
        3,
        "updates from which on it is an alarm where environments were never told apart: equal starts need some steps",
        at_least=1,
    )


def judge(frame: Frame, memory: Memory, limits: EnvironmentsAlikeLimits) -> list[Judgement]:
    """Judge whether the values of all environments are the same: at once where they differed before."""
    distinct, count, spread = frame["environments_distinct"], frame["environments"], frame["value_std"]
    several = distinct.finite & count.finite & (count.values > 1)
    flat = several & spread.finite & (spread.values <= 0)
    alike = several & ~flat & (distinct.values <= 1)
    differed = tally(several & (distinct.values > 1), memory["differed"]) > 0
    long = streak(alike, several & ~alike, memory["alike"]) >= limits.sustained
    single = Excuse(distinct.finite & count.finite & ~several, "a single environment", quiet=True)
    constant = Excuse(flat, "all values are equal", quiet=True)
    bounds = Bounds(info=alike, warning=alike & (long | differed) & ~AT_BEST.holds(frame), warning_at=1.0)
    return [settle(distinct.name, distinct, bounds, excuses=[single, constant], needs=[count])]


def guard(frame: Frame, memory: Memory, limits: EnvironmentsAlikeLimits) -> DeferralGuard | None:  # noqa: ARG001
    """Defer while they differ."""
    if np.count_nonzero(memory["alike"]):
        return None
    sides = {"environments_distinct": (1.0,), "environments": (1.0,), "value_std": (0.0,)}
    return DeferralGuard(LASTING, {**sides, EPISODE_RETURN: FREE, **free(AT_BEST)})


def _cells(*distinct: int | None, count: int | None = 8, spread: float = 1.0) -> dict[str, object]:
    return {"environments_distinct": list(distinct), "environments": count, "value_std": spread}


_ROSE = {EPISODE_RETURN: [1.0 + i for i in range(20)]}

RULE = Rule(
    name="environments_alike",
    table="updates",
    figures=("value",),
    columns=("environments_distinct", "environments", "value_std", EPISODE_RETURN),
    context=("value_std", EPISODE_RETURN),
    optional=True,
    conditions=(AT_BEST,),
    limits=EnvironmentsAlikeLimits,
    judge=judge,
    guard=guard,
    title="All environments are the same",
    meaning="The values of all environments are equal at every timestep, so they show the same observations: a rollout "
    "of many environments then has the information of one. Where returns stay near their best it is information: "
    "a policy that has become certain plays equal games alike.",
    look_first="How environments are made and reset (one random seed for all, one object in a list several times), and "
    "how their observations are stacked.",
    reference="Samples of equal environments are no independent samples: the gradient's noise is that of one of them",
    examples=(
        Example("they differ", "ok", _cells(8)),
        Example("some are alike", "ok", _cells(8, 3), updates=2),
        Example("alike all at once", "warning", _cells(8, 1), updates=2),
        Example("alike from the start", "warning", _cells(1, 1, 1), updates=3),
        Example("alike in the first rollout", "info", _cells(1)),
        Example("alike when solved", "info", _cells(*[8] * 19, 1) | _ROSE, updates=20),
        Example("a single environment", "not_applicable", _cells(1, count=1)),
        Example("a constant critic", "not_applicable", _cells(1, spread=0.0)),
        Example("not passed", "no_data", _cells(None, count=None)),
    ),
    memory={"alike": zeros, "differed": zeros},
    causes=("numerical_instability",),
    confirmed_by="sustained",
    higher_is_worse=False,
    revision=2,
    restated=(VERDICT,),
)
