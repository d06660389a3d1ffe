"""Rule ``first_ratio``: before any step was taken, rollout and update already disagree about the policy."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Judgement, above, settle


@dataclass(frozen=True, slots=True)
class FirstRatioLimits(Limits):
    """Bounds on ``updates.first_ratio_error``, nats."""

    warning: float = limit(1e-4, "float32 noise of sound runs stays under 1e-5 (set by design)", at_least=0.0)
    critical: float = limit(1e-2, "a ratio off by 1 % (set by design)", at_least=0.0)
    escalate: int = limit(10, "10 updates of detail for ratio and KL (set by design)")


def judge(frame: Frame, memory: Memory, limits: FirstRatioLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge the largest |log ratio| of the very first minibatch."""
    error = frame["first_ratio_error"]
    bounds = above(error, limits.warning, limits.critical)
    return [settle("first_ratio_error", error, bounds)]


def guard(frame: Frame, memory: Memory, limits: FirstRatioLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while the error stays on the same side of both bounds."""
    return DeferralGuard(LASTING, {"first_ratio_error": (limits.warning, limits.critical)})


RULE = Rule(
    name="first_ratio",
    table="updates",
    panels=("policy.first_ratio",),
    columns=("first_ratio_error",),
    limits=FirstRatioLimits,
    judge=judge,
    guard=guard,
    title="Rollout and update disagree",
    meaning="In the first minibatch no step has been taken yet, so every probability ratio must be 1. It is not: the "
    "update evaluates another policy than the one that acted.",
    look_first="Action masks stored at collection against those used in the update; log-probs that are stale, stored "
    "from an older policy or before the last step; actions shifted by a step against observations or log-probs; then "
    "dropout or batch norm in training mode, observation normalisation that moved on, hidden state at sequence starts.",
    reference="Huang et al. 2022, The 37 Implementation Details of PPO (debugging: the first ratio is 1)",
    examples=(
        Example("float noise", "ok", {"first_ratio_error": 2e-6}),
        Example("a small mismatch", "warning", {"first_ratio_error": 1e-3}),
        Example("masks differ", "critical", {"first_ratio_error": 0.8}),
        Example("a forbidden action", "critical", {"first_ratio_error": float("inf")}),
        Example("not recorded", "no_data", {"first_ratio_error": None}),
    ),
    causes=("numerical_instability",),
)
