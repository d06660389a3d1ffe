"""Rule ``lstm_explosion``: the recurrent state has grown out of range."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, steady
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Sign, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import recent, window
from esper_analyze.detector.verdict import Bounds, Judgement, settle

LONGEST = 50
"""Bound on ``window``: the flags of so many updates are carried, whatever the window is set to."""
METRICS = ("c_env_rms_max", "c_rms", "h_rms")


@dataclass(frozen=True, slots=True)
class LstmExplosionLimits(Limits):
    """Bounds on root mean squares of the state."""

    warning: float = limit(5.0, "rms above 5, where tanh is 0.9999 (set by design: TELE-340)", at_least=0.0)
    critical: float = limit(10.0, "rms above 10 (set by design: TELE-340)", at_least=0.0)
    window_hits: int = limit(3, "a sound run crossed once", at_least=1)
    window: int = limit(5, "as kl_spike: the present update included", at_least=1, below=LONGEST + 1)
    one_environment: float = limit(
        2.0, "factor on the bounds for the worst environment: sound runs reach 7.3", at_least=1.0
    )


def judge(frame: Frame, memory: Memory, limits: LstmExplosionLimits) -> list[Judgement]:
    """Judge the cell state of the worst environment, of all, and the hidden state; one crossing is information."""
    judgements = []
    for metric in METRICS:
        signal, factor = frame[metric], limits.one_environment if metric == METRICS[0] else 1.0
        warning, critical = factor * limits.warning, factor * limits.critical
        crossed = signal.finite & (signal.values > warning)
        bounds = Bounds(
            info=crossed,
            warning=recent(crossed, memory[metric], limits.window) >= limits.window_hits,
            critical=signal.values > critical,
            warning_at=warning,
            critical_at=critical,
        )
        judgements.append(settle(metric, signal, bounds))
    return judgements


def guard(frame: Frame, memory: Memory, limits: LstmExplosionLimits) -> DeferralGuard | None:  # noqa: ARG001
    """Defer while each metric stays on the same side of its bounds."""
    if not all(steady(memory[metric], limits.window) for metric in METRICS):
        return None
    factors = {metric: limits.one_environment if metric == METRICS[0] else 1.0 for metric in METRICS}
    return DeferralGuard(LASTING, {name: (by * limits.warning, by * limits.critical) for name, by in factors.items()})


def _cells(worst: float | None, c: float | None = 0.8) -> dict[str, object]:
    return {"c_env_rms_max": worst, "c_rms": c, "h_rms": 0.3}


RULE = Rule(
    name="lstm_explosion",
    table="lstm",
    panels=("lstm.state",),
    sign=Sign("▲", "exploding", "critical", "c leaves the range its gates can work in"),
    sign_order=1,
    columns=METRICS,
    limits=LstmExplosionLimits,
    judge=judge,
    guard=guard,
    title="LSTM state exploded",
    meaning="The cell state integrates without forgetting and leaves the range its gates can work in. |h| ≤ 1 always "
    "holds for an nn.LSTM without projection, so the bound on h can only fire on something else.",
    look_first="Forget gates near 1 (saturation), resets at episode starts, learning rate of the recurrent layer.",
    reference="Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
    examples=(
        Example("in range", "ok", _cells(1.2)),
        Example("one environment is further out than the rest", "ok", _cells(7.0)),
        Example("out once", "info", _cells(8.0, 6.0)),
        Example("one environment is out", "warning", _cells(12.0), updates=3),
        Example("all are out", "warning", _cells(8.0, 6.0), updates=3),
        Example("far out", "critical", _cells(12.0, 11.0)),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory=dict.fromkeys(METRICS, window(LONGEST)),
    causes=("numerical_instability", "lstm_nonfinite"),
    follows=(
        "kl_spike",
        "gradient_explosion",
    ),
)
