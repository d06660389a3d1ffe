"""Rule ``ratio_explosion``: some sample's joint probability ratio left the trust region by far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.applicability import inner_loop_not_measurable
from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard, Side, same, steady
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import recent, window
from esper_analyze.detector.verdict import Bounds, Judgement, settle

LONGEST = 50
"""Bound on ``window``: the flags of so many updates are carried, whatever the window is set to."""


@dataclass(frozen=True, slots=True)
class RatioExplosionLimits(Limits):
    """Bounds on ``updates.ratio_max``."""

    warning: float = limit(5.0, "5 is a log-prob change of 1.6 nats (from a review of a PPO code base)", at_least=0.0)
    critical: float = limit(20.0, "20 is a log-prob change of 3 nats (set by design)", at_least=0.0)
    weight: float = limit(0.8, "effective sample size below which such samples count; sound runs stay above 0.87")
    critical_weight: float = limit(0.5, "half of the samples' worth is lost")
    moved: float = limit(0.1, "or the policy moved: kl_spike's warning, nats (all ratios alike have full weight)")
    at_once: float = limit(0.5, "kl_k3 that makes it critical: kl_spike's critical bound, nats")
    window_hits: int = limit(2, "as kl_spike: crossings within the window", at_least=1)
    window: int = limit(5, "as kl_spike: the present update included", at_least=1, below=LONGEST + 1)
    escalate: int = limit(10, "10 updates of detail for ratio and KL (set by design)")


def judge(frame: Frame, memory: Memory, limits: RatioExplosionLimits) -> list[Judgement]:
    """Judge the largest joint ratio; one sample among thousands is information, many, or again and again, an alarm."""
    ratio, ess, kl = frame["ratio_max"], frame["ess_fraction"], frame["kl_k3"]
    excuse = inner_loop_not_measurable(frame)
    usable = ratio.finite & ~excuse.where
    crossed, far = usable & (ratio.values > limits.warning), usable & (ratio.values > limits.critical)
    # an unknown weight does not excuse it
    heavy = crossed & (~(ess.values >= limits.weight) | ~(kl.values <= limits.moved))
    extreme = far & (~(ess.values >= limits.critical_weight) | ~(kl.values <= limits.at_once))
    again = recent(heavy, memory["heavy"], limits.window) >= limits.window_hits
    bounds = Bounds(
        info=crossed,
        warning=again | extreme,
        critical=extreme & ~(kl.values <= limits.at_once),
        warning_at=limits.warning,
        critical_at=limits.critical,
    )
    return [settle(ratio.name, ratio, bounds, excuses=[excuse])]


def guard(frame: Frame, memory: Memory, limits: RatioExplosionLimits) -> DeferralGuard | None:
    """Defer while the ratio stays on the same side of both bounds; weight and KL matter beyond them."""
    ratio = frame["ratio_max"]
    if not steady(memory["heavy"], limits.window):
        return None
    sides: dict[str, Sequence[Side] | None] = {ratio.name: (limits.warning, limits.critical)}
    sides |= {"inner_loop_measurable": same(frame["inner_loop_measurable"]), "ess_fraction": FREE, "kl_k3": FREE}
    if np.count_nonzero(ratio.values > min(limits.warning, limits.critical)):
        weights, moves = (limits.weight, limits.critical_weight), (limits.moved, limits.at_once)
        sides |= {"ess_fraction": weights, "kl_k3": moves}
    return DeferralGuard(LASTING, sides)


def _cells(*ratio: float | None, ess: object = 0.3, kl: object = 0.2, measurable: bool = True) -> dict[str, object]:
    return {"ratio_max": list(ratio), "ess_fraction": ess, "kl_k3": kl, "inner_loop_measurable": measurable}


RULE = Rule(
    name="ratio_explosion",
    table="updates",
    panels=("policy.ratio",),
    columns=("ratio_max", "ess_fraction", "kl_k3", "inner_loop_measurable"),
    context=("ess_fraction", "kl_k3"),
    limits=RatioExplosionLimits,
    judge=judge,
    guard=guard,
    title="Probability ratio exploded",
    meaning="At least one action became many times more likely within one update than it was when it was taken. "
    "The clipped objective gives such samples no gradient back, so the policy cannot be pulled in again. Single ones "
    "are usual with continuous actions; it is an alarm when such samples make up much of the weight (effective sample "
    "size (Σr)²/(N Σr²)).",
    look_first="Learning rate and number of epochs; then kl_k3 and clip_fraction of the same update; then the "
    "worst transitions.",
    reference="Schulman et al. 2017, Proximal Policy Optimization Algorithms, section 3",
    examples=(
        Example("a sound update", "ok", _cells(1.4)),
        Example("one sample among thousands", "info", _cells(30.0, ess=0.95)),
        Example("beyond the bound once", "info", _cells(7.0)),
        Example("twice in five updates", "warning", _cells(7.0, 1.2, 9.0), updates=3),
        Example("far out, with weight", "warning", _cells(30.0)),
        Example("far out, and a KL to match", "critical", _cells(30.0, kl=0.8)),
        Example("far out again", "warning", _cells(30.0, 25.0), updates=2),
        Example("far out, with an unknown weight", "critical", _cells(30.0, ess=None, kl=None)),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("not recorded", "no_data", _cells(None)),
        Example("one epoch of one minibatch", "not_applicable", _cells(1.0, measurable=False)),
    ),
    memory={"heavy": window(LONGEST)},
    causes=(
        "setting_changed",
        "observations_changed",
        "parameters_changed",
        "losses_inconsistent",
        "optimizer_restarted",
        "first_ratio",
        "numerical_instability",
        "kl_spike",
        "entropy_collapse",
    ),
    revision=2,
    restated=(VERDICT,),
)
