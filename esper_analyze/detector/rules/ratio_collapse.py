"""Rule ``ratio_collapse``: some sample's action became far less likely within one update."""

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
class RatioCollapseLimits(Limits):
    """Bounds on ``updates.ratio_min``."""

    warning: float = limit(0.1, "0.1 is a log-prob change of −2.3 nats (from a review of a PPO code base)")
    critical: float = limit(0.01, "0.01 is a log-prob change of −4.6 nats (set by design)")
    weight: float = limit(0.8, "as ratio_explosion: effective sample size below which such samples count")
    moved: float = limit(0.1, "as ratio_explosion: or kl_k3 above which they do, nats")
    moved_continuous: float = limit(0.3, "kl_k3 from which it counts with continuous actions; sound runs reach 0.28")
    at_once: float = limit(0.5, "kl_k3 that makes it critical: kl_spike's critical bound, nats")
    window_hits: int = limit(2, "as kl_spike: crossings within the window", at_least=1)
    window: int = limit(5, "as kl_spike: the present update included", at_least=1, below=LONGEST + 1)
    escalate: int = limit(10, "10 updates of detail for ratio and KL (set by design)")


def judge(frame: Frame, memory: Memory, limits: RatioCollapseLimits) -> list[Judgement]:
    """Judge the smallest joint ratio; with continuous actions only where the policy as a whole moved as well."""
    ratio, kl, ess = frame["ratio_min"], frame["kl_k3"], frame["ess_fraction"]
    excuse = inner_loop_not_measurable(frame)
    counts = ratio.finite & ~excuse.where
    counts &= ~frame["choice_fraction"].null | ~(kl.values <= limits.moved_continuous)
    weighs = ~(ess.values >= limits.weight) | ~(kl.values <= limits.moved)  # an unknown weight does not excuse it
    crossed, far = (counts & weighs & (ratio.values < bound) for bound in (limits.warning, limits.critical))
    again = recent(crossed, memory["crossed"], limits.window) >= limits.window_hits
    bounds = Bounds(
        info=ratio.values < limits.warning,
        warning=again | far,
        critical=far & ~(kl.values <= limits.at_once),
        warning_at=limits.warning,
        critical_at=limits.critical,
    )
    return [settle(ratio.name, ratio, bounds, excuses=[excuse])]


def guard(frame: Frame, memory: Memory, limits: RatioCollapseLimits) -> DeferralGuard | None:
    """Defer while the ratio stays on the same side of both bounds; KL matters beyond them."""
    ratio = frame["ratio_min"]
    if not steady(memory["crossed"], limits.window):
        return None
    sides: dict[str, Sequence[Side] | None] = {ratio.name: (limits.warning, limits.critical)}
    sides |= {
        "inner_loop_measurable": same(frame["inner_loop_measurable"]),
        "choice_fraction": FREE,
        "kl_k3": FREE,
        "ess_fraction": FREE,
    }
    if np.count_nonzero(ratio.values < max(limits.warning, limits.critical)):
        moves = (limits.moved, limits.moved_continuous, limits.at_once)
        sides |= {"choice_fraction": (), "kl_k3": moves, "ess_fraction": (limits.weight,)}
    return DeferralGuard(LASTING, sides)


def _cells(
    *ratio: float | None, kl: object = 0.2, ess: object = 0.9, choice: object = 1.0, measurable: bool = True
) -> dict[str, object]:
    cells = {"ratio_min": list(ratio), "kl_k3": kl, "ess_fraction": ess, "choice_fraction": choice}
    return {**cells, "inner_loop_measurable": measurable}


RULE = Rule(
    name="ratio_collapse",
    table="updates",
    panels=("policy.ratio",),
    columns=("ratio_min", "kl_k3", "ess_fraction", "choice_fraction", "inner_loop_measurable"),
    context=("kl_k3", "ess_fraction", "choice_fraction"),
    limits=RatioCollapseLimits,
    judge=judge,
    guard=guard,
    title="Probability ratio collapsed",
    meaning="At least one action became many times less likely within one update than it was when it was taken: "
    "the policy left what it had just tried. Samples in the tail of a shrinking Gaussian do so in sound runs; with "
    "continuous actions it is an alarm only when the policy as a whole moved too.",
    look_first="Learning rate and number of epochs; kl_k3 and clip_fraction of the same update; advantages with "
    "outliers.",
    reference="Schulman et al. 2017, Proximal Policy Optimization Algorithms, section 3",
    examples=(
        Example("a sound update", "ok", _cells(0.7)),
        Example("beyond the bound once", "info", _cells(0.05)),
        Example("twice in five updates", "warning", _cells(0.05, 0.6, 0.07), updates=3),
        Example("twice, while the policy hardly moves", "info", _cells(0.05, 0.05, kl=0.02), updates=2),
        Example("gone", "warning", _cells(0.001)),
        Example("gone, while the policy hardly moves", "info", _cells(0.001, 0.001, kl=0.02), updates=2),
        Example("gone, and a KL to match", "critical", _cells(0.001, kl=0.8)),
        Example("gone again", "warning", _cells(0.001, 0.002), updates=2),
        Example("a tail of a Gaussian", "info", _cells(0.001, 0.001, choice=None), updates=2),
        Example("not recorded", "no_data", _cells(None)),
        Example("one epoch of one minibatch", "not_applicable", _cells(1.0, measurable=False)),
    ),
    memory={"crossed": window(LONGEST)},
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
    follows=("ratio_explosion",),
    higher_is_worse=False,
    revision=2,
    restated=(VERDICT,),
)
