"""Rule ``ratio_explosion``: some sample's joint probability ratio left the trust region by far."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.rules.excuses import inner_loop_not_measurable
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Judgement, above, settle


@dataclass(frozen=True, slots=True)
class RatioExplosionLimits(Limits):
    """Bounds on ``updates.ratio_max``."""

    warning: float = limit(5.0, "subsystem review: 5 is a log-prob change of 1.6 nats")
    critical: float = limit(20.0, "detector specification: 3 nats")
    escalate: int = limit(10, "detector specification: ratio and KL 10")


def judge(frame: Frame, memory: Memory, limits: RatioExplosionLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge the largest joint ratio of each update."""
    ratio = frame["ratio_max"]
    bounds = above(ratio, limits.warning, limits.critical)
    return [settle("ratio_max", ratio, bounds, excuses=[inner_loop_not_measurable(frame)])]


RULE = Rule(
    name="ratio_explosion",
    table="updates",
    columns=("ratio_max", "inner_loop_measurable"),
    limits=RatioExplosionLimits,
    judge=judge,
    title="Probability ratio exploded",
    meaning="At least one action became many times more likely within one update than it was when it was taken. "
    "The clipped objective gives such samples no gradient back, so the policy cannot be pulled in again.",
    look_first="Learning rate and number of epochs; then kl_k3 and clip_fraction of the same update; then the "
    "worst transitions.",
    reference="Schulman et al. 2017, Proximal Policy Optimization Algorithms, section 3",
    examples=(
        Example("a sound update", "ok", {"ratio_max": 1.4, "inner_loop_measurable": True}),
        Example("drifting", "warning", {"ratio_max": 7.0, "inner_loop_measurable": True}),
        Example("out of reach", "critical", {"ratio_max": 300.0, "inner_loop_measurable": True}),
        Example("NaN never passes", "critical", {"ratio_max": float("nan"), "inner_loop_measurable": True}),
        Example("not recorded", "no_data", {"ratio_max": None, "inner_loop_measurable": True}),
        Example("one epoch of one minibatch", "not_applicable", {"ratio_max": 1.0, "inner_loop_measurable": False}),
    ),
    causes=("first_ratio", "numerical_instability", "kl_spike", "entropy_collapse"),
)
