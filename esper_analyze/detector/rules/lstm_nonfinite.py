"""Rule ``lstm_nonfinite``: the recurrent state holds NaN or ±Inf."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, same
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Sign, Statistic, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Bounds, Judgement, settle

METRICS = ("has_nan", "has_inf")


@dataclass(frozen=True, slots=True)
class LstmNonfiniteLimits(Limits):
    """Nothing to set: any NaN or ±Inf is critical."""

    escalate: int = limit(20, "20 updates of detail for non-finite numbers (set by design)")


def judge(frame: Frame, memory: Memory, limits: LstmNonfiniteLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge both flags."""
    return [
        settle(metric, frame[metric], Bounds(critical=frame[metric].equals(1.0), critical_at=0.0)) for metric in METRICS
    ]


def guard(frame: Frame, memory: Memory, limits: LstmNonfiniteLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while both flags stay the same."""
    return DeferralGuard(LASTING, {metric: same(frame[metric]) for metric in METRICS})


RULE = Rule(
    name="lstm_nonfinite",
    table="lstm",
    panels=("lstm.state",),
    sign=Sign("▲", "exploding", "critical", "h or c is NaN or infinite"),
    columns=METRICS,
    limits=LstmNonfiniteLimits,
    judge=judge,
    guard=guard,
    title="LSTM state is NaN or Inf",
    meaning="The recurrent state is NaN or infinite and will stay so until it is reset; every action after it is "
    "drawn from garbage.",
    look_first="The update before: gradients and losses; observations that are NaN.",
    reference="A NaN in a recurrent state persists in every later step of its sequence",
    examples=(
        Example("finite", "ok", {"has_nan": False, "has_inf": False}),
        Example("NaN", "critical", {"has_nan": True, "has_inf": False}),
        Example("not recorded", "no_data", {"has_nan": None, "has_inf": False}),
    ),
    causes=("numerical_instability",),
    finiteness=True,
    statistics={metric: Statistic(f"{metric} (1: yes)", column=metric) for metric in METRICS},
)
