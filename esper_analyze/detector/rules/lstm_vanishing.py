"""Rule ``lstm_vanishing``: the recurrent state is close to zero, so it carries no memory."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Sign, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Judgement, below, settle

METRICS = ("h_rms", "c_rms")


@dataclass(frozen=True, slots=True)
class LstmVanishingLimits(Limits):
    """Bounds on root mean squares of the state."""

    warning: float = limit(1e-4, "rms below 1e-4 (set by design)")
    critical: float = limit(1e-6, "rms below 1e-6 (set by design: TELE-340)")


def judge(frame: Frame, memory: Memory, limits: LstmVanishingLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge hidden and cell state."""
    signals = [frame[metric] for metric in METRICS]
    return [settle(signal.name, signal, below(signal, limits.warning, limits.critical)) for signal in signals]


def guard(frame: Frame, memory: Memory, limits: LstmVanishingLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while both metrics stay on the same side of both bounds."""
    return DeferralGuard(LASTING, dict.fromkeys(METRICS, (limits.warning, limits.critical)))


RULE = Rule(
    name="lstm_vanishing",
    table="lstm",
    panels=("lstm.state",),
    sign=Sign("▼", "vanishing", "warning", "its size has all but gone"),
    sign_order=2,
    columns=METRICS,
    limits=LstmVanishingLimits,
    judge=judge,
    guard=guard,
    title="LSTM state vanished",
    meaning="Hidden or cell state is next to zero everywhere: the policy has no memory to act on.",
    look_first="Whether the state is carried from step to step at all, or reset at every one; input scale.",
    reference="Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
    examples=(
        Example("in range", "ok", {"h_rms": 0.3, "c_rms": 0.8}),
        Example("small", "warning", {"h_rms": 5e-5, "c_rms": 0.8}),
        Example("nothing", "critical", {"h_rms": 0.0, "c_rms": 0.8}),
        Example("not recorded", "no_data", {"h_rms": None, "c_rms": 0.8}),
    ),
    causes=("numerical_instability", "lstm_nonfinite"),
    higher_is_worse=False,
)
