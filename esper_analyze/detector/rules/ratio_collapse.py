"""Rule ``ratio_collapse``: some sample's action became far less likely within one update."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.rules.excuses import inner_loop_not_measurable
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Judgement, below, settle


@dataclass(frozen=True, slots=True)
class RatioCollapseLimits(Limits):
    """Bounds on ``updates.ratio_min``."""

    warning: float = limit(0.1, "subsystem review: 0.1 is a log-prob change of −2.3 nats")
    critical: float = limit(0.01, "detector specification: −4.6 nats")
    escalate: int = limit(10, "detector specification: ratio and KL 10")


def judge(frame: Frame, memory: Memory, limits: RatioCollapseLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge the smallest joint ratio of each update."""
    ratio = frame["ratio_min"]
    bounds = below(ratio, limits.warning, limits.critical)
    return [settle("ratio_min", ratio, bounds, excuses=[inner_loop_not_measurable(frame)])]


RULE = Rule(
    name="ratio_collapse",
    table="updates",
    columns=("ratio_min", "inner_loop_measurable"),
    limits=RatioCollapseLimits,
    judge=judge,
    title="Probability ratio collapsed",
    meaning="At least one action became many times less likely within one update than it was when it was taken: "
    "the policy left what it had just tried.",
    look_first="Learning rate and number of epochs; kl_k3 and clip_fraction of the same update; advantages with "
    "outliers.",
    reference="Schulman et al. 2017, Proximal Policy Optimization Algorithms, section 3",
    examples=(
        Example("a sound update", "ok", {"ratio_min": 0.7, "inner_loop_measurable": True}),
        Example("drifting", "warning", {"ratio_min": 0.05, "inner_loop_measurable": True}),
        Example("gone", "critical", {"ratio_min": 0.001, "inner_loop_measurable": True}),
        Example("not recorded", "no_data", {"ratio_min": None, "inner_loop_measurable": True}),
        Example("one epoch of one minibatch", "not_applicable", {"ratio_min": 1.0, "inner_loop_measurable": False}),
    ),
    causes=("first_ratio", "numerical_instability", "kl_spike", "entropy_collapse"),
    higher_is_worse=False,
)
