"""Rule ``value_divergence``: the critic's predictions left the scale of the returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import (
    EARLY_MEMORY,
    MEDIAN_FIRST,
    early_known,
    early_level,
    recent_median,
    recent_median_memory,
    recent_median_steady,
)
from esper_analyze.detector.conditions.applicability import RETURNS, returns_hardly_vary, returns_held
from esper_analyze.detector.conditions.convergence import EPISODE_RETURN
from esper_analyze.detector.conditions.rewards import REWARDS, UNREWARDED, nothing_rewarded
from esper_analyze.detector.conditions.shared import held
from esper_analyze.detector.conditions.stand_ins import COUNTED, LOGGED, RISING_MEMORY, only_of_log, rising, stands_in
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Bools, Frame
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

METRICS = ("value_nrmse", "bellman_error")
SCALED = METRICS[:1]
"""Those in standard deviations of the returns."""
LOSS = "value_loss"
"""What stands in for the Bellman error in a log: it grows as the square of the errors does."""
LOG = (LOSS, COUNTED)
COLUMNS = (*REWARDS, EPISODE_RETURN, *RETURNS)

WARM_UP = WarmUp("too early to know its typical level", lambda _, __: MEDIAN_FIRST + 1)


@dataclass(frozen=True, slots=True)
class ValueDivergenceLimits(Limits):
    """Factors over the column's own level (rolling median, or early mean if larger), and a floor under it."""

    nrmse_factor: float = limit(3.0, "recorded runs: sound ones stay below 3 × their own median", at_least=1.0)
    nrmse_floor: float = limit(5.0, "sound runs reach errors of 4.8 standard deviations of the returns", at_least=0.0)
    bellman_factor: float = limit(10.0, "as gradient_explosion: 10 × its own median", at_least=1.0)
    loss_factor: float = limit(100.0, "of a log: the square of what an error may grow by", at_least=1.0)
    critical_factor: float = limit(10.0, "ten times the warning", at_least=1.0)
    early_updates: int = limit(10, "updates whose mean is the early level", at_least=1)
    sustained: int = limit(3, "a single unusual rollout is not a divergence", at_least=1)
    spread: float = limit(0.01, "solved runs: returns within 1 % of their mean are no measure of errors", at_least=0.0)


def judge(frame: Frame, memory: Memory, limits: ValueDivergenceLimits) -> list[Judgement]:
    """Judge value error and Bellman error, or the value loss of a log, against their own baselines."""
    errors = [_judge_one(frame, memory, limits, *floor) for floor in _floors(limits)]
    used = stands_in(frame, METRICS[1])
    if used is None:
        return errors
    others = [
        Excuse(rising(frame, used, memory), "the return is the highest so far: errors grow with it"),
        Excuse(frame[LOSS].nonfinite, "non-finite: judged by numerical_instability", quiet=True),
    ]
    loss = _judge_one(frame, memory, limits, LOSS, limits.loss_factor, 0.0, others=others, of=used)
    return [*errors, only_of_log(loss, used)]


def _floors(limits: ValueDivergenceLimits) -> tuple[tuple[str, float, float], ...]:
    """Return metric, factor and floor of each."""
    return (METRICS[0], limits.nrmse_factor, limits.nrmse_floor), (METRICS[1], limits.bellman_factor, 0.0)


def _judge_one(
    frame: Frame,
    memory: Memory,
    limits: ValueDivergenceLimits,
    metric: str,
    factor: float,
    floor: float,
    others: Sequence[Excuse] = (),
    of: Bools | None = None,
) -> Judgement:
    signal, excuses = frame[metric], [nothing_rewarded(frame), *others]
    if metric in SCALED:
        excuses.append(returns_hardly_vary(frame, limits.spread))
    usable = signal.finite & ~np.logical_or.reduce([excuse.where for excuse in excuses])
    if of is not None:
        usable &= of
    early = early_level(signal.values, usable, _of(memory, metric), limits.early_updates)
    level = np.maximum(recent_median(signal.values, usable, memory, metric), early)
    comparable = usable & ~np.isnan(level)
    bound = np.maximum(factor * level, floor)
    far = np.maximum(limits.critical_factor * factor * level, limits.critical_factor * floor)
    high, extreme = comparable & (signal.values > bound), comparable & (signal.values > far)
    bounds = Bounds(
        warning=streak(high, comparable & ~high, memory[f"{metric}_high"]) >= limits.sustained,
        critical=streak(extreme, comparable & ~extreme, memory[f"{metric}_extreme"]) >= limits.sustained,
        warning_at=bound,
        critical_at=far,
    )
    young = WARM_UP.excuse(usable & ~comparable)
    return settle(metric, signal, bounds, excuses=[*excuses, young], baseline=level)


def _of(memory: Memory, metric: str) -> Memory:
    """Return the part of the memory that ``early_level`` needs for ``metric``; the arrays are shared."""
    return {name: memory[f"{metric}_{name}"] for name in EARLY_MEMORY}


def guard(frame: Frame, memory: Memory, limits: ValueDivergenceLimits) -> DeferralGuard | None:
    """Defer while both errors stay on the same side of the bounds; bounds by a rolling median hold until it changes."""
    returns = returns_held(frame, limits.spread)
    if returns is None:
        return None
    promises = [_held_one(frame, memory, limits, *floor) for floor in _floors(limits)]
    if None in promises:
        return None
    given_by_all = [promise for promise in promises if promise is not None]
    return DeferralGuard(
        min(updates for updates, _ in given_by_all),
        {
            **{metric: sides for metric, (_, sides) in zip(METRICS, given_by_all, strict=True)},
            **dict.fromkeys((*COLUMNS, *LOG), FREE),
            **held(frame, UNREWARDED, LOGGED),
            **returns,
        },
    )


def _held_one(
    frame: Frame, memory: Memory, limits: ValueDivergenceLimits, metric: str, factor: float, floor: float
) -> tuple[int, tuple[Side, ...]] | None:
    """Return for how many updates the bounds of ``metric`` stay the same, and these bounds."""
    signal = frame[metric]
    usable = signal.finite & ~UNREWARDED.holds(frame)
    if metric in SCALED:
        usable &= ~returns_hardly_vary(frame, limits.spread).where
    if not early_known(usable, memory, limits.early_updates, f"{metric}_"):
        return None
    lasting = min(until(memory[f"{metric}_{name}"], limits.sustained) for name in ("high", "extreme"))
    early = early_level(signal.values, usable, _of(memory, metric), limits.early_updates)
    level = np.maximum(memory[f"{metric}_level"], early)
    lowest = np.maximum(factor * early, floor)  # the level is never below the early one
    steady = recent_median_steady(memory, metric, usable)
    if steady and np.count_nonzero((signal.values < lowest) & ~np.isnan(level)) == level.size:
        return lasting, (lowest,)
    far = np.maximum(limits.critical_factor * factor * level, limits.critical_factor * floor)
    return min(lasting, steady), (np.maximum(factor * level, floor), far)


def _cells(*nrmse: float | None, bellman: object = 0.3, variance: float = 4.0) -> dict[str, object]:
    scale = {"return_variance": variance, "return_mean": 10.0, "ev_low_variance": False, COUNTED: 8}
    return {"value_nrmse": list(nrmse), "bellman_error": bellman} | scale


def _log(*loss: float) -> dict[str, object]:
    return {LOSS: list(loss), EPISODE_RETURN: 10.0, COUNTED: None}


RULE = Rule(
    name="value_divergence",
    table="updates",
    figures=("value",),
    panels=("value.error",),
    columns=(*METRICS, *COLUMNS, *LOG),
    context=(*COLUMNS, *LOG),
    conditions=(UNREWARDED, LOGGED),
    limits=ValueDivergenceLimits,
    warm_up=WARM_UP,
    judge=judge,
    guard=guard,
    title="Value predictions left the scale of returns",
    meaning="Explained variance is a ratio, independent of scale. This rule compares the critic's error, in standard "
    "deviations of the returns, and the one-step error |r + γV' − V| with their own level (the baseline: rolling "
    "median, or early mean if larger), which shows a diverging critic or rewards that changed their scale.",
    look_first="Rewards of those rollouts (scale, outliers, a wrapper that normalises); learning rate of the critic; "
    "value clipping.",
    reference="van Hasselt et al. 2018, Deep RL and the Deadly Triad (soft divergence)",
    examples=(
        Example("a sound critic", "ok", _cells(*[0.6] * 25), updates=25),
        Example("large all along", "ok", _cells(*[7.0] * 25), updates=25),
        Example("far above its own level", "warning", _cells(*[0.6] * 22, 9.0, 9.0, 9.0), updates=25),
        Example("blown up", "critical", _cells(*[0.6] * 22, 90.0, 95.0, 99.0), updates=25),
        Example(
            "Bellman error at twelve times its level",
            "warning",
            _cells(*[0.6] * 25, bellman=[*[0.3] * 22, *[3.6] * 3]),
            updates=25,
        ),
        Example(
            "returns that hardly vary", "not_applicable", _cells(*[0.6] * 22, *[90.0] * 3, variance=1e-3), updates=25
        ),
        Example(
            "the value loss of a log at 150 times its level", "warning", _log(*[2.0] * 22, *[300.0] * 3), updates=25
        ),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("too early to say", "not_applicable", _cells(0.6)),
        Example("not recorded", "no_data", _cells(None, bellman=None)),
    ),
    memory={
        **RISING_MEMORY,
        **{
            name: first
            for metric in (*METRICS, LOSS)
            for name, first in {
                **recent_median_memory(metric),
                **{f"{metric}_{name}": first for name, first in EARLY_MEMORY.items()},
                f"{metric}_high": zeros,
                f"{metric}_extreme": zeros,
            }.items()
        },
    },
    statistics={LOSS: Statistic("value loss", baseline="median of its last values, or mean of the first", column=LOSS)},
    meanings={
        LOSS: "The value loss is a hundred times what it was, for three updates, while returns were not at their "
        "highest: the critic diverges, or the rewards changed their scale. A log has no error in units of the returns."
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
    confirmed_by="sustained",
    revision=4,
    restated=("threshold", "baseline", VERDICT),
)
