"""Rule ``value_collapse``: the critic explains less than nothing, for its phase of training and its own start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, early_known, early_level
from esper_analyze.detector.conditions.applicability import RETURNS, returns_hardly_vary, returns_held
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.rewards import REWARDS, UNREWARDED, nothing_rewarded
from esper_analyze.detector.conditions.shared import free, held
from esper_analyze.detector.conditions.stand_ins import (
    COUNTED,
    LOGGED,
    VALUE_LOG,
    VALUE_MEMORY,
    unexplained,
    value_error,
)
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, before, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Floats, Frame, Ints, Signal
from esper_analyze.detector.streaks import streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, excused, settle

_SOURCE = "by phase of training: a critic is bad at first and must improve (from a review of a PPO code base)"

_PHASES = np.array([0.10, 0.25, 0.75])


@dataclass(frozen=True, slots=True)
class ValueCollapseLimits(Limits):
    """Bounds on ``updates.explained_variance`` by phase of progress (half-open: < 10 %, < 25 %, < 75 %, rest)."""

    spread: float = limit(0.01, "solved runs: returns within 1 % of their mean", at_least=0.0)
    warmup: float = limit(-0.5, _SOURCE)
    early: float = limit(-0.2, _SOURCE)
    mid: float = limit(0.0, _SOURCE)
    late: float = limit(0.1, _SOURCE)
    critical_below: float = limit(1.0, "this far below the warning (set by design)")
    sustained: int = limit(
        20, "updates in a row: in known sound trainings of the fault bench it lasted for up to 15", at_least=1
    )
    error: float = limit(1.1, "value_nrmse of a critic that knows the mean return is 1: then it is information")
    worse: float = limit(
        1.25,
        "times its value_nrmse of the first updates: else it was never better, and does not collapse",
        at_least=0.0,
    )
    early_updates: int = limit(10, "updates whose mean is the critic's own early level")
    warmup_updates: int = limit(50, "warm-up where progress is unknown (set by design)")
    least_updates: int = limit(
        200, "a plan of fewer updates passes through the phases as slowly as one of so many", at_least=1
    )


def judge(frame: Frame, memory: Memory, limits: ValueCollapseLimits) -> list[Judgement]:
    """Judge explained variance against its phase's bound, while it is not above its own early level.

    Where returns are at their best it is information: what is left of their variance is noise that no critic explains.
    """
    ev = frame["explained_variance"]
    excuses = [returns_hardly_vary(frame, limits.spread), nothing_rewarded(frame), *unexplained(frame, memory)]
    usable = ev.finite & ~excused(excuses)
    bound = bound_of_phase(frame, memory, limits)
    early = early_level(ev.values, usable, memory, limits.early_updates)
    stuck = usable & ~(ev.values > early)
    low = stuck & (ev.values < bound)
    error = value_error(frame)
    named = {name: memory[f"error_{name}"] for name in EARLY_MEMORY}
    worse = limits.worse * early_level(error.values, usable & error.finite, named, limits.early_updates)
    off = low & ~(error.values <= np.fmax(limits.error, worse))
    far_below = bound - limits.critical_below
    far = off & (ev.values < far_below)
    learnt = AT_BEST.holds(frame)
    bounds = Bounds(
        info=streak(low, usable & ~low, memory["low"]) >= limits.sustained,
        warning=(streak(off, usable & ~off, memory["off"]) >= limits.sustained) & ~learnt,
        critical=(streak(far, usable & ~far, memory["far"]) >= limits.sustained) & ~learnt,
        warning_at=bound,
        critical_at=far_below,
    )
    return [settle("explained_variance", ev, bounds, excuses=excuses, baseline=early)]


def bound_of_phase(frame: Frame, memory: Memory, limits: ValueCollapseLimits) -> Floats:
    """Return the bound of each update's phase, [n, k]; where progress is unknown the updates recorded are counted."""
    return _bound(frame["progress"], tally(frame.present, memory["updates"]), limits)


def _bound(progress: Signal, number: Ints, limits: ValueCollapseLimits) -> Floats:
    bounds = np.array([limits.warmup, limits.early, limits.mid, limits.late])
    reached = np.minimum(progress.values, number / limits.least_updates)
    phased: Floats = bounds[_PHASES.searchsorted(reached, side="right")]
    if progress.all_finite:
        return phased
    unknown = np.where(number <= limits.warmup_updates, limits.warmup, limits.mid)
    return np.where(progress.finite, phased, unknown)


def _first_update(share: float, limits: ValueCollapseLimits) -> int:
    """Return the first number of updates that ``least_updates`` count as ``share`` of the training."""
    number = math.floor(share * limits.least_updates)
    return number if number / limits.least_updates >= share else number + 1


def guard(frame: Frame, memory: Memory, limits: ValueCollapseLimits) -> DeferralGuard | None:
    """Defer while explained variance stays above its phase's bound or early level, else on one side of all bounds."""
    ev, progress = frame["explained_variance"], frame["progress"]
    returns = returns_held(frame, limits.spread)
    if returns is None:
        return None
    usable = ev.finite & ~returns_hardly_vary(frame, limits.spread).where & ~UNREWARDED.holds(frame)
    measured = usable & frame["value_nrmse"].finite
    if not early_known(usable, memory, limits.early_updates):
        return None
    if not early_known(measured, memory, limits.early_updates, "error_"):
        return None
    named = {name: memory[f"error_{name}"] for name in EARLY_MEMORY}
    worse = limits.worse * early_level(frame["value_nrmse"].values, measured, named, limits.early_updates)
    early = early_level(ev.values, usable, memory, limits.early_updates)
    bound = _bound(progress, memory["updates"], limits)
    lasting = min(until(memory[name], limits.sustained) for name in ("low", "off", "far"))
    phases = [limits.warmup_updates + 1, *(_first_update(share, limits) for share in _PHASES.tolist())]
    lasting = min([lasting, *(before(memory["updates"], frame.present[-1], number) for number in phases)])
    enough = np.fmin(early, np.maximum(bound, bound - limits.critical_below))
    sides: dict[str, Sequence[Side] | None] = {
        ev.name: (enough,),
        progress.name: tuple(_PHASES),
        "value_nrmse": FREE,
        **dict.fromkeys((EPISODE_RETURN, *REWARDS, *VALUE_LOG), FREE),
        **free(AT_BEST),
        **held(frame, UNREWARDED, LOGGED),
    }
    if np.count_nonzero(usable & ~(ev.values > enough)):
        sides |= {
            ev.name: (early, bound, bound - limits.critical_below),
            "value_nrmse": (limits.error, worse),
            **held(frame, AT_BEST),
        }
    return DeferralGuard(lasting, {**sides, **returns})


_WORSE = [2.0] * 10 + [3.0] * 50
"""A ``value_nrmse`` that grew."""


def _cells(
    *values: float | None, progress: float | None = 0.5, low: bool = False, error: object = 2.0
) -> dict[str, object]:
    scale = {"value_nrmse": error, "return_variance": 4.0, "return_mean": 10.0}
    return {"explained_variance": list(values), "progress": progress, "ev_low_variance": low, COUNTED: 8, **scale}


def _learnt() -> dict[str, object]:
    return _cells(*[-3.0] * 60, error=_WORSE) | {EPISODE_RETURN: [*[10.0] * 10, *[90.0] * 50]}


RULE = Rule(
    name="value_collapse",
    table="updates",
    figures=("value",),
    panels=("value.explained",),
    columns=("explained_variance", "progress", "value_nrmse", *RETURNS, EPISODE_RETURN, *REWARDS, *VALUE_LOG),
    context=("progress", "value_nrmse", *RETURNS, EPISODE_RETURN, *REWARDS, *VALUE_LOG),
    conditions=(AT_BEST, UNREWARDED, LOGGED),
    limits=ValueCollapseLimits,
    judge=judge,
    guard=guard,
    title="Value function collapsed",
    meaning="The critic predicts returns worse than their mean would, later in training than it may, and is no "
    "better than when it started. Advantages are then mostly the critic's own error.",
    look_first="value_loss against policy_loss and vf_coef; scale of rewards and returns; the critic's gradient norm "
    "and how much of it clipping leaves.",
    reference="Andrychowicz et al. 2021, What Matters in On-Policy RL",
    examples=(
        Example("a sound critic", "ok", _cells(*[0.6] * 6), updates=6),
        Example(
            "below its phase's bound, twenty updates running",
            "warning",
            _cells(*[-0.3] * 39, error=_WORSE[:39]),
            updates=39,
        ),
        Example("below 0 but better than at its start", "ok", _cells(-0.9, *[-0.3] * 8), updates=9),
        Example("below 0, but it knows the mean return", "info", _cells(*[-0.02] * 69, error=1.01), updates=69),
        Example("below 0, but it never knew more", "info", _cells(*[-0.3] * 60), updates=60),
        Example("far below", "critical", _cells(*[-1.5] * 60, error=_WORSE), updates=60),
        Example("early training", "ok", _cells(*[-0.3] * 6, progress=0.05), updates=6),
        Example("a short training, after as few updates", "ok", _cells(*[-0.3] * 6, progress=0.9), updates=6),
        Example("all returns alike at their best", "info", _learnt(), updates=60),
        Example("constant returns", "not_applicable", _cells(None, low=True), updates=1),
        Example("not recorded", "no_data", _cells(None), updates=1),
    ),
    memory={
        "low": zeros,
        "off": zeros,
        "far": zeros,
        "updates": zeros,
        **EARLY_MEMORY,
        **{f"error_{name}": first for name, first in EARLY_MEMORY.items()},
        **VALUE_MEMORY,
    },
    causes=(
        "observations_changed",
        "parameters_changed",
        "losses_inconsistent",
        "returns_inconsistent",
        "ends_ignored",
        "environments_alike",
        "numerical_instability",
        "value_fit_lost",
    ),
    follows=(
        "value_divergence",
        "gradient_explosion",
        "first_ratio",
        "kl_spike",
        "spike_then_silence",
        "entropy_collapse",
    ),
    confirmed_by="sustained",
    higher_is_worse=False,
    statistics={
        "explained_variance": Statistic(
            "explained_variance", baseline="its mean over the first updates", column="explained_variance"
        )
    },
    revision=4,
    restated=("threshold", VERDICT),
)
