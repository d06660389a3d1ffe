"""Rule ``advantage_collapse``: the advantages hardly differ, so there is nothing to prefer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, early_known, early_level
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.rules.convergence import RETURNS_MEMORY, at_best, rise_steady
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle

RETURNS = "episode_return_mean"


@dataclass(frozen=True, slots=True)
class AdvantageCollapseLimits(Limits):
    """Bounds on ``updates.advantage_std``."""

    info: float = limit(0.1, "share of its own early level; solved runs get there (set by design)", at_least=0.0)
    better: float = limit(0.1, "information where returns rose by this share of their early mean: a task solved")
    warning: float = limit(1e-4, "solved runs came down to 6e-4 of their early level", at_least=0.0)
    critical: float = limit(1e-8, "the epsilon that loops normalise with", at_least=0.0)
    sustained: int = limit(5, "a single rollout without reward is not a collapse", at_least=1)
    early_updates: int = limit(10, "updates whose mean is the early level", at_least=1)


def judge(frame: Frame, memory: Memory, limits: AdvantageCollapseLimits) -> list[Judgement]:
    """Judge the spread of advantages against its own early level, and against nothing at all."""
    spread = frame["advantage_std"]
    early = early_level(spread.values, spread.finite, memory, limits.early_updates)
    narrow = spread.finite & (spread.values < limits.info * early)
    low = spread.finite & (spread.values < limits.warning * early)
    none = spread.finite & (spread.values < limits.critical)
    long_narrow = streak(narrow, spread.finite & ~narrow, memory["narrow"]) >= limits.sustained
    long_low = streak(low, spread.finite & ~low, memory["low"]) >= limits.sustained
    better = at_best(frame["episode_return_mean"], memory, limits.better)
    bounds = Bounds(
        info=long_narrow,
        warning=long_low | (long_narrow & ~better),
        critical=streak(none, spread.finite & ~none, memory["none"]) >= limits.sustained,
        info_at=limits.info * early,
        warning_at=np.where(long_low, limits.warning, limits.info) * early,
        critical_at=limits.critical,
    )
    return [settle(spread.name, spread, bounds, baseline=early)]


def guard(frame: Frame, memory: Memory, limits: AdvantageCollapseLimits) -> DeferralGuard | None:
    """Defer while the spread stays on the same side of every bound; returns matter once it is narrow."""
    spread = frame["advantage_std"]
    if not early_known(spread.finite, memory, limits.early_updates):
        return None
    early = early_level(spread.values, spread.finite, memory, limits.early_updates)
    lasting = min(until(memory[name], limits.sustained) for name in ("narrow", "low", "none"))
    sides = {spread.name: (limits.info * early, limits.warning * early, limits.critical), RETURNS: FREE}
    if not np.count_nonzero(memory["narrow"]):
        return DeferralGuard(lasting, sides)
    return DeferralGuard(min(lasting, rise_steady(frame[RETURNS], memory)), {**sides, RETURNS: ()})


def _cells(*values: float | None) -> dict[str, object]:
    return {"advantage_std": list(values)}


RULE = Rule(
    name="advantage_collapse",
    table="updates",
    figures=("value",),
    panels=("value.advantages",),
    columns=("advantage_std", "episode_return_mean"),
    context=("episode_return_mean",),
    limits=AdvantageCollapseLimits,
    judge=judge,
    guard=guard,
    title="Advantages collapsed",
    meaning="The advantages of a rollout hardly differ from each other. A loop that normalises them scales "
    "the remaining noise to unit size and trains on it; one that does not learns nothing. If returns rose before, the "
    "task may be solved, and this is information.",
    look_first="Rewards of those rollouts; whether every episode ends alike; explained_variance near 1 with a "
    "constant reward.",
    reference="Loops divide advantages by their standard deviation plus an epsilon: a smaller one scales noise up",
    examples=(
        Example("a sound spread", "ok", _cells(1.0)),
        Example("narrow for five updates", "warning", _cells(*[1.0] * 10, *[0.02] * 5), updates=15),
        Example(
            "narrow, and returns rose",
            "info",
            _cells(*[1.0] * 20, *[0.02] * 5) | {"episode_return_mean": [1.0 + 0.1 * i for i in range(25)]},
            updates=25,
        ),
        Example("no spread for five updates", "critical", _cells(*[1.0] * 10, *[0.0] * 5), updates=15),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"narrow": zeros, "low": zeros, "none": zeros, **EARLY_MEMORY, **RETURNS_MEMORY},
    causes=("numerical_instability",),
    confirmed_by="sustained",
    higher_is_worse=False,
    statistics={
        "advantage_std": Statistic("advantage_std", baseline="its mean over the first updates", column="advantage_std")
    },
    revision=3,
    restated=("threshold", VERDICT),
)
