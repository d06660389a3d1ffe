"""Rule ``lstm_explosion``: the recurrent state has grown out of range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, early_level, recent_median, recent_median_memory
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free
from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Sign, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import recent, window
from esper_analyze.detector.verdict import Bounds, Judgement, settle

LONGEST = 50
"""Bound on ``window``: the flags of so many updates are carried, whatever the window is set to."""
METRICS = ("c_env_rms_max", "c_rms", "h_rms")


@dataclass(frozen=True, slots=True)
class LstmExplosionLimits(Limits):
    """Bounds on root mean squares of the state."""

    info: float = limit(5.0, "rms above 5: tanh of a state of 5 is 0.9999, its gradient 2e-4", at_least=0.0)
    warning: float = limit(
        50.0,
        "a cell state grows by at most 1 a step: memories that count reach 20 in sound trainings of the fault bench",
        at_least=0.0,
    )
    critical: float = limit(200.0, "a state that counts every step of 200 without forgetting", at_least=0.0)
    growth: float = limit(
        3.0, "times its own level: in sound runs a cell state grows slowly as episodes get longer", at_least=0.0
    )
    window_hits: int = limit(3, "a sound run crossed once", at_least=1)
    window: int = limit(5, "as kl_spike: the present update included", at_least=1, below=LONGEST + 1)
    early_updates: int = limit(10, "updates whose mean is its level until 20 are known", at_least=1)
    one_environment: float = limit(
        2.0, "factor on the bounds for the worst environment: sound runs reach 7.3", at_least=1.0
    )


def judge(frame: Frame, memory: Memory, limits: LstmExplosionLimits) -> list[Judgement]:
    """Judge the cell state of the worst environment, of all, and the hidden state; one crossing is information.

    So is a state that grew while returns rise or are at their best: longer episodes and a longer memory do that.
    """
    judgements, harmless = [], AT_BEST.holds(frame)
    for metric in METRICS:
        signal, factor = frame[metric], limits.one_environment if metric == METRICS[0] else 1.0
        early = early_level(signal.values, signal.finite, _named(memory, metric), limits.early_updates)
        level = recent_median(signal.values, signal.finite, memory, f"{metric}_level")
        level = np.where(np.isnan(level), early, level)
        bound = (limits.info, limits.warning, limits.critical)
        beyond, out, far = (signal.finite & (signal.values > factor * by) for by in bound)
        grown = signal.values > limits.growth * level
        bounds = Bounds(
            info=beyond,
            warning=(recent(out & grown, memory[metric], limits.window) >= limits.window_hits) & ~harmless,
            critical=(recent(far & grown, memory[f"{metric}_far"], limits.window) >= limits.window_hits) & ~harmless,
            info_at=factor * limits.info,
            warning_at=np.fmax(factor * limits.warning, limits.growth * level),
            critical_at=np.fmax(factor * limits.critical, limits.growth * level),
        )
        judgements.append(settle(metric, signal, bounds, baseline=level))
    return judgements


def _named(memory: Memory, metric: str) -> Memory:
    return {name: memory[f"{metric}_{name}"] for name in EARLY_MEMORY}


def guard(frame: Frame, memory: Memory, limits: LstmExplosionLimits) -> DeferralGuard | None:
    """Defer while no metric is out of range."""
    if any(np.count_nonzero(memory[name]) for metric in METRICS for name in (metric, f"{metric}_far")):
        return None
    factors = {metric: limits.one_environment if metric == METRICS[0] else 1.0 for metric in METRICS}
    lowest = min(limits.info, limits.warning, limits.critical)
    if any(np.count_nonzero(frame[name].values > by * lowest) for name, by in factors.items()):
        return None
    sides = {name: (by * lowest,) for name, by in factors.items()}
    return DeferralGuard(LASTING, {**sides, f"updates.{EPISODE_RETURN}": FREE, **free(AT_BEST)})


def _cells(*worst: float | None, c: object = 0.8) -> dict[str, object]:
    return {"c_env_rms_max": list(worst), "c_rms": c, "h_rms": 0.3}


RISING = {f"updates.{EPISODE_RETURN}": [1.0 + 0.1 * i for i in range(13)]}

RULE = Rule(
    name="lstm_explosion",
    table="lstm",
    panels=("lstm.state",),
    sign=Sign("▲", "exploding", "critical", "c leaves the range its gates can work in"),
    sign_order=1,
    columns=METRICS,
    beside={"updates": (EPISODE_RETURN,)},
    conditions=(AT_BEST,),
    limits=LstmExplosionLimits,
    judge=judge,
    guard=guard,
    title="LSTM state exploded",
    meaning="The cell state integrates without forgetting and leaves the range its gates can work in, several times as "
    "large as it has been: the median of its last 50 updates (the baseline). One that grew there slowly, or "
    "while returns rise or stay near their best, is information: episodes got longer. |h| ≤ 1 always "
    "holds for an nn.LSTM without projection, so the bound on h can only fire on something else.",
    look_first="Forget gates near 1 (saturation), resets at episode starts, learning rate of the recurrent layer.",
    reference="Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
    examples=(
        Example("in range", "ok", _cells(1.2)),
        Example("one environment is further out than the rest", "ok", _cells(7.0)),
        Example("out once", "info", _cells(*[1.0] * 10, 12.0), updates=11),
        Example("a memory that counts", "info", _cells(*[1.0] * 10, *[24.0] * 3), updates=13),
        Example("one environment is out", "warning", _cells(*[1.0] * 10, *[120.0] * 3), updates=13),
        Example("all are out", "warning", _cells(*[1.0] * 13, c=[1.0] * 10 + [80.0] * 3), updates=13),
        Example("far out", "critical", _cells(*[1.0] * 13, c=[1.0] * 10 + [250.0] * 3), updates=13),
        Example("it grew slowly", "info", _cells(*[1.0] * 120, c=[1.0 + 0.5 * i for i in range(120)]), updates=120),
        Example("and returns rose", "info", _cells(*[1.0] * 10, *[120.0] * 3) | RISING, updates=13),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={
        **{f"{metric}{part}": window(LONGEST) for metric in METRICS for part in ("", "_far")},
        **{f"{metric}_{name}": first for metric in METRICS for name, first in EARLY_MEMORY.items()},
        **{name: first for metric in METRICS for name, first in recent_median_memory(f"{metric}_level").items()},
    },
    causes=("numerical_instability", "lstm_nonfinite"),
    follows=(
        "kl_spike",
        "gradient_explosion",
    ),
    revision=4,
    restated=("threshold", "baseline", VERDICT),
)
