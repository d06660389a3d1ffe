"""Rule ``value_fit_lost``: from one update to the next the critic no longer predicts the returns as it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import Rolling
from esper_analyze.detector.conditions.applicability import RETURNS, returns_hardly_vary, returns_held
from esper_analyze.detector.conditions.convergence import EPISODE_RETURN, ROUNDING
from esper_analyze.detector.conditions.rewards import REWARDS, UNREWARDED, nothing_rewarded
from esper_analyze.detector.conditions.shared import held
from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard, Side
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Bools, Floats, Frame, Signal
from esper_analyze.detector.streaks import tally, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle

NEWER, OLDER = 3, 20
"""Updates in the window that is judged, and in the one before it."""
LEAST = 13
"""Updates before the first verdict."""
AHEAD = 8
"""Updates that a guard covers."""
NARROWEST = 1e-3
"""Least scatter of the older values."""
LARGEST_CORRELATION = 0.99
"""Bound on |correlation|: Fisher's z of a perfect one is infinite."""
LOWEST = -1.0
"""Bound on explained variance, which can fall to any number where returns hardly vary."""


def _fall(windows: Floats) -> Floats:
    """Return how far the newer mean fell, and the same in its standard errors, [2, m]; NaN unless all newer are lower.

    The error is that of two means of values that scatter as the older ones do.
    """
    older, newer = windows[:, :-NEWER], windows[:, -NEWER:]
    fall, errors = np.full((2, len(windows)), np.nan)
    highest = np.maximum(np.maximum(newer[:, 0], newer[:, 1]), newer[:, 2])
    rows = np.flatnonzero((highest < older[:, 0]) & (highest < older[:, -1]))  # few are left to be compared in full
    rows = rows[highest[rows] < older[rows].min(axis=1)]
    if len(rows):
        older, newer = older[rows], newer[rows]
        scatter = np.maximum(older.std(axis=1, ddof=1), NARROWEST)
        fall[rows] = older.mean(axis=1) - newer.mean(axis=1)
        errors[rows] = fall[rows] / (scatter * np.sqrt(1 / NEWER + 1 / older.shape[1]))
    return np.stack([fall, errors])


def _rise(windows: Floats) -> Floats:
    """Return how far the newer mean is above the older one, in its standard errors, [1, m]."""
    older, newer = windows[:, :-NEWER], windows[:, -NEWER:]
    before = older.mean(axis=1)
    scatter = np.maximum(older.std(axis=1, ddof=1), ROUNDING * np.abs(before))
    return np.asarray((newer.mean(axis=1) - before) / (scatter * np.sqrt(1 / NEWER + 1 / older.shape[1])))[None]


_WINDOWS = Rolling(_fall, size=2, length=NEWER + OLDER, every=1, first=LEAST, inclusive=True)
_RETURNS = Rolling(_rise, length=NEWER + OLDER, every=1, first=LEAST, inclusive=True)

WARM_UP = WarmUp("too early to know how well the critic fits", lambda *_: LEAST)


@dataclass(frozen=True, slots=True)
class ValueFitLostLimits(Limits):
    """Bounds on the fall of ``updates.explained_variance`` and of Fisher's z of ``value_return_correlation``: both."""

    spread: float = limit(0.01, "solved runs: returns within 1 % of their mean", at_least=0.0)
    fall: float = limit(0.3, "a fall that matters: from a correlation of 0.5 to 0.25 (set by design)", at_least=0.0)
    errors: float = limit(
        4.0,
        "standard errors: sound trainings of the known half of the fault bench come to 3.5, faults to 4.6",
        at_least=0.0,
    )
    rise: float = limit(
        1.5,
        "standard errors by which returns rose: in known sound trainings whose critic lost its fit it was 1.9 or more, "
        "with most faults less (fault bench)",
        at_least=0.0,
    )


def judge(frame: Frame, memory: Memory, limits: ValueFitLostLimits) -> list[Judgement]:
    """Judge the last 3 updates against the 20 before: all are lower, by more than these scatter, in both measures."""
    correlation, ev = frame["value_return_correlation"], frame["explained_variance"]
    excuses = [returns_hardly_vary(frame, limits.spread), nothing_rewarded(frame)]
    usable = correlation.finite & ev.finite & ~excuses[0].where & ~excuses[1].where
    z = np.arctanh(np.clip(correlation.values, -LARGEST_CORRELATION, LARGEST_CORRELATION))
    fall, lost = _lost(z, usable, memory, "correlation", limits)
    fell = _lost(np.maximum(ev.values, LOWEST), usable, memory, "variance", limits)[1]
    young = WARM_UP.excuse(usable & (tally(usable, memory["number"]) < LEAST))
    returns = frame[EPISODE_RETURN]
    rise = _RETURNS.baseline(returns.values, returns.finite, memory, "returns")[0]
    outrun = (rise > limits.rise) & (correlation.values > 0.0)
    no_fit = usable & lost & fell
    bounds = Bounds(info=no_fit, warning=no_fit & ~outrun, warning_at=limits.fall)
    watched = Signal(correlation.name, np.where(ev.nonfinite, np.nan, correlation.values), correlation.null)
    return [settle(watched.name, watched, bounds, excuses=[*excuses, young], needs=[ev], judged=fall)]


def _lost(values: Floats, usable: Bools, memory: Memory, name: str, limits: ValueFitLostLimits) -> tuple[Floats, Bools]:
    """Return how far ``values`` fell, and where that is beyond the bounds."""
    fall, errors = _WINDOWS.baseline(values, usable, memory, name)
    return fall, (fall > limits.fall) & (errors > limits.errors)


def guard(frame: Frame, memory: Memory, limits: ValueFitLostLimits) -> DeferralGuard | None:
    """Defer while the correlation stays above one that will be among the older ones of each of the next updates.

    The newer ones are then not all lower than the older ones.
    """
    correlation, ev = frame["value_return_correlation"], frame["explained_variance"]
    returns = returns_held(frame, limits.spread)
    if returns is None:
        return None
    sides: dict[str, Sequence[Side] | None] = {
        correlation.name: (),
        ev.name: (),
        **dict.fromkeys((EPISODE_RETURN, *REWARDS), FREE),
        **held(frame, UNREWARDED),
        **returns,
    }
    excused = returns_hardly_vary(frame, limits.spread).where | UNREWARDED.holds(frame)
    if np.count_nonzero(excused | correlation.null | ev.null):
        return DeferralGuard(LASTING, sides)
    last = _WINDOWS.newest(memory, "correlation")
    if len(last) < LEAST:
        return None
    stay = last[max(len(last) + AHEAD - NEWER - OLDER, 0) : 1 - NEWER]
    side = np.tanh(stay.min()) + ROUNDING
    if not correlation.values[-1, 0] > side:
        return None
    return DeferralGuard(AHEAD, {**sides, correlation.name: (side,)})


def _cells(correlation: object, variance: object = None) -> dict[str, object]:
    scale = {"return_variance": 4.0, "return_mean": 10.0, "ev_low_variance": False, "reward_min": 0.0}
    cells = {"value_return_correlation": correlation, "explained_variance": variance or correlation}
    return {**cells, **scale, "reward_max": 1.0}


def _returns(newer: float) -> dict[str, object]:
    return {EPISODE_RETURN: [*[1.0, 2.0] * 8, *[newer] * 3]}


_SOUND = [0.8, 0.7] * 8
_NOISY = [0.8, 0.0] * 8

RULE = Rule(
    name="value_fit_lost",
    table="updates",
    figures=("value",),
    panels=("value.explained",),
    columns=("value_return_correlation", "explained_variance", *RETURNS, EPISODE_RETURN, *REWARDS),
    context=(*RETURNS, EPISODE_RETURN, *REWARDS),
    conditions=(UNREWARDED,),
    limits=ValueFitLostLimits,
    warm_up=WARM_UP,
    judge=judge,
    guard=guard,
    title="The critic no longer fits the returns",
    meaning="In the last 3 updates the critic predicted the returns worse than in any of the 20 before, by more than "
    "these scatter, both in order (correlation) and in size (explained variance). A critic loses its fit slowly, "
    "if at all: what it is to predict has changed (the sign or scale of rewards, the discount, where episodes "
    "end, the environment, the scale of observations), or the critic itself was replaced or took far too large a step. "
    "Where returns have just risen it is information: a policy that gets better meets what the critic has not seen.",
    look_first="What changed at this update: rewards (sign, scale, a wrapper), discount, ends of episodes, "
    "observations and their normaliser, parameters that were loaded or reset; then learning rate and value loss.",
    reference="Fisher 1921 (z of a correlation); explained variance compared with its own scatter",
    examples=(
        Example("a sound critic", "ok", _cells(_SOUND), updates=16),
        Example("it fits no longer", "warning", _cells([*_SOUND, 0.0, -0.2, 0.1]), updates=19),
        Example("returns rose", "info", _cells([*_SOUND, 0.1, 0.0, 0.1]) | _returns(9.0), updates=19),
        Example("returns did not", "warning", _cells([*_SOUND, 0.1, 0.0, 0.1]) | _returns(1.9), updates=19),
        Example("the opposite", "warning", _cells([*_SOUND, -0.6, -0.7, -0.6]) | _returns(9.0), updates=19),
        Example("for two updates", "ok", _cells([*_SOUND, 0.0, -0.2]), updates=18),
        Example("within its own scatter", "ok", _cells([*_NOISY, -0.1, -0.2, -0.1]), updates=19),
        Example("off, in the right order", "ok", _cells([*_SOUND, 0.7, 0.7, 0.7], [*_SOUND, *[-1.0] * 3]), updates=19),
        Example("too early to say", "not_applicable", _cells([0.8] * 12), updates=12),
        Example("constant returns", "not_applicable", _cells(None) | {"ev_low_variance": True}),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={
        "number": zeros,
        **_WINDOWS.memory("correlation"),
        **_WINDOWS.memory("variance"),
        **_RETURNS.memory("returns"),
    },
    causes=(
        "returns_inconsistent",
        "ends_ignored",
        "environments_alike",
        "setting_changed",
        "observations_changed",
        "parameters_changed",
        "losses_inconsistent",
        "policy_replaced",
        "numerical_instability",
        "first_ratio",
        "kl_spike",
    ),
    statistics={
        "value_return_correlation": Statistic(
            f"fall of the correlation of values and returns (Fisher's z) over {NEWER} updates",
            baseline=f"its mean over the {OLDER} before",
        )
    },
    reach=NEWER + OLDER,
    revision=2,
    restated=(VERDICT,),
)
