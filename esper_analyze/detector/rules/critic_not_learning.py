"""Rule ``critic_not_learning``: explained variance is still low and no better than when training began."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import (
    EARLY_MEMORY,
    Rolling,
    early_known,
    early_level,
    recent_median,
    recent_median_memory,
    recent_median_steady,
)
from esper_analyze.detector.conditions.applicability import RETURNS, returns_hardly_vary, returns_held
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.rewards import REWARDS, UNREWARDED, nothing_rewarded
from esper_analyze.detector.conditions.shared import held
from esper_analyze.detector.conditions.stand_ins import (
    COUNTED,
    LOGGED,
    VALUE_LOG,
    VALUE_MEMORY,
    stands_in,
    unexplained,
    value_error,
)
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, before, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Floats, Frame
from esper_analyze.detector.streaks import streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, excused, settle


def _upper(windows: Floats) -> Floats:
    return np.stack([np.percentile(windows, 90, axis=1), np.percentile(np.abs(windows), 90, axis=1)])


_UPPER = Rolling(_upper, size=2, every=5, first=25, inclusive=True)
"""Of a log: what nine in ten of the last 50 explained variances are below, and their absolute values."""
WARM_UP = WarmUp(
    "too early to expect a critic to have learnt",
    lambda limits, _: limits.after,
    of_log=lambda limits: limits.after_in_log,
)


@dataclass(frozen=True, slots=True)
class CriticNotLearningLimits(Limits):
    """Bounds on the median of the last 50 values of ``updates.explained_variance``."""

    spread: float = limit(0.01, "solved runs: returns within 1 % of their mean", at_least=0.0)
    low: float = limit(0.1, "a critic above this explains something, whatever it did at its start")
    error: float = limit(
        2.0,
        "a critic that knows the mean return is off by 1 standard deviation; sound runs of the known half reach 1.6",
        at_least=0.0,
    )
    margin: float = limit(0.05, "explained variance must exceed its own early level by this much")
    early_updates: int = limit(10, "updates whose mean is the critic's own early level", at_least=1)
    sustained: int = limit(
        50,
        "updates of being off: in sound runs a critic follows rising returns from behind (set by design)",
        at_least=1,
    )
    after: int = limit(60, "sound recurrent runs took up to 50 updates to leave their start", at_least=20)
    after_in_log: int = limit(
        30, "public logs show it in so few; 3 of 87 known sound logs of tutorial tasks are as low", at_least=20
    )
    nothing: float = limit(
        0.02, "explained variance on either side of 0, for 25 updates: predictions that do not vary", at_least=0.0
    )


def judge(frame: Frame, memory: Memory, limits: CriticNotLearningLimits) -> list[Judgement]:
    """Judge the recent level of explained variance against its own early level; an alarm if it is far off as well."""
    ev, nrmse = frame["explained_variance"], value_error(frame)
    excuses = [returns_hardly_vary(frame, limits.spread), nothing_rewarded(frame), *unexplained(frame, memory)]
    usable = ev.finite & ~excused(excuses)
    early = early_level(ev.values, usable, memory, limits.early_updates)
    level = recent_median(ev.values, usable, memory, "recent")
    off = recent_median(nrmse.values, usable & nrmse.finite, memory, "nrmse")
    number = tally(usable, memory["number"])
    stuck = usable & (number >= limits.after) & (level < limits.low) & (level <= early + limits.margin)
    learnt = AT_BEST.holds(frame)
    lost = stuck & ~(off <= limits.error) & ~learnt
    long = streak(lost, usable & ~lost, memory["lost"]) >= limits.sustained
    early_on, used = usable & (number < limits.after), stands_in(frame, nrmse.name)
    if used is not None:  # a log does not say by how much the critic is off
        upper, away = _UPPER.baseline(ev.values, usable & used, memory, "upper")
        known = used & usable & (number >= limits.after_in_log)
        never = (known & (upper < limits.low)) | (used & usable & (away < limits.nothing))
        early_on, long = early_on & ~known & ~never, long | never
    young = WARM_UP.excuse(early_on)
    bounds = Bounds(info=stuck, warning=long, warning_at=limits.low)
    return [settle(ev.name, ev, bounds, excuses=[*excuses, young], needs=[nrmse], baseline=early, judged=level)]


def guard(frame: Frame, memory: Memory, limits: CriticNotLearningLimits) -> DeferralGuard | None:
    """Defer until the levels are refreshed."""
    returns = returns_held(frame, limits.spread)
    ev, nrmse = frame["explained_variance"], frame["value_nrmse"]
    if returns is None:
        return None
    usable = ev.finite & ~returns_hardly_vary(frame, limits.spread).where & ~UNREWARDED.holds(frame)
    lasting = before(memory["number"], usable[-1], limits.after)
    if np.count_nonzero(usable & (memory["number"] >= limits.after)):
        if not early_known(usable, memory, limits.early_updates):
            return None
        lasting = min(
            recent_median_steady(memory, "recent", usable),
            recent_median_steady(memory, "nrmse", usable & nrmse.finite),
        )
    lasting = min(lasting, until(memory["lost"], limits.sustained))
    sides = {ev.name: (), nrmse.name: (), **dict.fromkeys((EPISODE_RETURN, *REWARDS, *VALUE_LOG), FREE)}
    return DeferralGuard(lasting, {**sides, **held(frame, AT_BEST, UNREWARDED, LOGGED), **returns})


def _cells(*values: float | None, error: float | None = 1.0, low: bool = False) -> dict[str, object]:
    scale = {"value_nrmse": error, "return_variance": 4.0, "return_mean": 10.0}
    return {"explained_variance": list(values), "ev_low_variance": low, COUNTED: 8, **scale}


def _log(*values: float) -> dict[str, object]:
    return {"explained_variance": list(values), "value_loss": 4.0, EPISODE_RETURN: 10.0, COUNTED: None}


RULE = Rule(
    name="critic_not_learning",
    table="updates",
    figures=("value",),
    columns=("explained_variance", "value_nrmse", *RETURNS, EPISODE_RETURN, *REWARDS, *VALUE_LOG),
    context=("value_nrmse", *RETURNS, EPISODE_RETURN, *REWARDS, *VALUE_LOG),
    conditions=(AT_BEST, UNREWARDED, LOGGED),
    limits=CriticNotLearningLimits,
    warm_up=WARM_UP,
    judge=judge,
    guard=guard,
    title="The critic does not learn",
    meaning="Over the last 50 updates the critic explained next to nothing of the returns, and no more than in its "
    "first ten updates (the baseline). If it at least knows the mean return, this is information: there may be "
    "nothing to predict. If it is off by more for long, it does not learn, and the policy is trained on its errors. "
    "A log of another tool does not say by how much: there it is a warning where nine in ten of 30 updates or more are "
    "that low, although there may be nothing to predict.",
    look_first="Whether the value loss reaches the critic (its gradient norm and update_ratio), vf_coef, value "
    "clipping with returns far larger than the clip, observations that do not hold what the return depends on.",
    reference="Explained variance compared with its own early level; Engstrom et al. 2020, "
    "Implementation Matters in Deep RL",
    examples=(
        Example("a critic that learns", "ok", _cells(*[0.0] * 10, *[0.5] * 60), updates=70),
        Example("low, but better than at its start", "ok", _cells(*[-0.6] * 10, *[0.05] * 60), updates=70),
        Example("no better than at its start, but it knows the mean", "info", _cells(*[0.0] * 70), updates=70),
        Example("no better, and off for long", "warning", _cells(*[0.02, -0.03] * 60, error=3.0), updates=120),
        Example("a log: never above the bound", "warning", _log(*[-0.1] * 10, *[0.02] * 20), updates=30),
        Example("a log: exactly nothing", "warning", _log(0.001, *[0.002] * 24), updates=25),
        Example("too early to say", "not_applicable", _cells(*[-0.1] * 30), updates=30),
        Example("constant returns", "not_applicable", _cells(None, low=True)),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={
        "number": zeros,
        "lost": zeros,
        **EARLY_MEMORY,
        **recent_median_memory("recent"),
        **recent_median_memory("nrmse"),
        **VALUE_MEMORY,
        **_UPPER.memory("upper"),
    },
    causes=(
        "observations_changed",
        "parameters_changed",
        "returns_inconsistent",
        "ends_ignored",
        "environments_alike",
        "numerical_instability",
        "value_fit_lost",
        "critic_constant",
    ),
    follows=(
        "value_collapse",
        "value_divergence",
        "kl_spike",
        "entropy_collapse",
    ),
    higher_is_worse=False,
    statistics={
        "explained_variance": Statistic(
            "median of explained_variance over up to 50 updates", baseline="its mean over the first updates"
        )
    },
    reach=70,  # 50 values, refreshed after every twentieth
    revision=7,
    restated=("value", VERDICT),
)
