"""Rule ``critic_constant``: the critic explains exactly nothing, for long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, excused, settle


@dataclass(frozen=True, slots=True)
class CriticConstantLimits(Limits):
    """Bounds on ``updates.explained_variance``."""

    spread: float = limit(0.01, "solved runs: returns within 1 % of their mean", at_least=0.0)
    band: float = limit(1e-3, "|EV| < 1e-3 (set by design)", at_least=0.0)
    error: float = limit(1.1, "value_nrmse of a critic that knows the mean return is 1: then it is information")
    warning_updates: int = limit(20, "20 updates in a row (set by design)", at_least=1)
    critical_updates: int = limit(100, "100 updates in a row (set by design)", at_least=1)


def judge(frame: Frame, memory: Memory, limits: CriticConstantLimits) -> list[Judgement]:
    """Judge how long explained variance has been indistinguishable from 0."""
    ev = frame["explained_variance"]
    excuses = [returns_hardly_vary(frame, limits.spread), nothing_rewarded(frame), *unexplained(frame, memory)]
    usable = ev.finite & ~excused(excuses)
    flat = usable & (np.abs(ev.values) < limits.band)
    length = streak(flat, usable & ~flat, memory["flat"])
    off = ~(value_error(frame).values <= limits.error) & ~AT_BEST.holds(frame)
    bounds = Bounds(
        info=length >= limits.warning_updates,
        warning=(length >= limits.warning_updates) & off,
        critical=(length >= limits.critical_updates) & off,
        warning_at=limits.band,
        critical_at=limits.band,
    )
    return [settle(ev.name, ev, bounds, excuses=excuses, judged=np.abs(ev.values))]


def guard(frame: Frame, memory: Memory, limits: CriticConstantLimits) -> DeferralGuard | None:
    """Defer while explained variance stays inside, or stays outside, of the band."""
    returns = returns_held(frame, limits.spread)
    if returns is None:
        return None
    long = np.count_nonzero(memory["flat"] >= min(limits.warning_updates, limits.critical_updates))
    lasting = until(memory["flat"], limits.warning_updates, limits.critical_updates)
    error = (limits.error,) if long else FREE
    sides: dict[str, Sequence[Side] | None] = {"explained_variance": (-limits.band, limits.band), "value_nrmse": error}
    sides |= {**dict.fromkeys((EPISODE_RETURN, *REWARDS, *VALUE_LOG), FREE), **held(frame, UNREWARDED, LOGGED)}
    sides |= held(frame, AT_BEST) if long else free(AT_BEST)
    return DeferralGuard(lasting, {**sides, **returns})


def _cells(*values: float | None, low: bool = False, error: float | None = 3.0) -> dict[str, object]:
    scale = {"value_nrmse": error, "return_variance": 4.0, "return_mean": 10.0}
    return {"explained_variance": list(values), "ev_low_variance": low, COUNTED: 8, **scale}


RULE = Rule(
    name="critic_constant",
    table="updates",
    figures=("value",),
    panels=("value.explained",),
    columns=("explained_variance", "value_nrmse", *RETURNS, EPISODE_RETURN, *REWARDS, *VALUE_LOG),
    context=("value_nrmse", *RETURNS, EPISODE_RETURN, *REWARDS, *VALUE_LOG),
    conditions=(AT_BEST, UNREWARDED, LOGGED),
    limits=CriticConstantLimits,
    judge=judge,
    guard=guard,
    title="The critic predicts a constant",
    meaning="Explained variance has been 0 to three digits for many updates although the returns vary: the critic "
    "predicts the same value everywhere. It is not trained, or its targets are too large for it to reach. Where it "
    "knows the mean return, there may be nothing to predict, and it is information.",
    look_first="vf_coef and whether the value loss reaches the critic; the critic's gradient norm; the scale of "
    "returns against value_mean.",
    reference="Andrychowicz et al. 2021, What Matters in On-Policy RL",
    examples=(
        Example("a sound critic", "ok", _cells(*[0.6] * 25), updates=25),
        Example("constant, and it knows the mean return", "info", _cells(*[0.0002] * 20, error=1.0), updates=20),
        Example("constant for twenty updates", "warning", _cells(*[0.0002] * 20), updates=20),
        Example("constant for a hundred updates", "critical", _cells(*[-0.0002] * 100), updates=100),
        Example("constant returns", "not_applicable", _cells(None, low=True)),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"flat": zeros, **VALUE_MEMORY},
    causes=(
        "observations_changed",
        "parameters_changed",
        "returns_inconsistent",
        "environments_alike",
        "numerical_instability",
        "kl_spike",
        "spike_then_silence",
        "entropy_collapse",
    ),
    follows=(
        "value_divergence",
        "gradient_explosion",
    ),
    confirmed_by="warning_updates",
    higher_is_worse=False,
    statistics={"explained_variance": Statistic("|explained_variance|")},
    revision=5,
    restated=("value", VERDICT),
)
