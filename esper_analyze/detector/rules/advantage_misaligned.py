"""Rule ``advantage_misaligned``: updates do not move the policy towards what was better than expected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import Rolling
from esper_analyze.detector.conditions.applicability import inner_loop_not_measurable
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, before, same
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.rules.convergence import BETTER, RETURNS_MEMORY, at_best
from esper_analyze.detector.signals import Floats, Frame
from esper_analyze.detector.streaks import streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

EPISODES = "episode_return_mean"
UPDATES = 5
"""Updates whose mean is judged."""


def _means(windows: Floats) -> Floats:
    return np.asarray(windows.mean(axis=1))[None, :]


_MEAN = Rolling(_means, length=UPDATES, every=1, first=UPDATES, inclusive=True)
WARM_UP = WarmUp("too few updates for a mean", lambda *_: UPDATES)


@dataclass(frozen=True, slots=True)
class AdvantageMisalignedLimits(Limits):
    """Bounds on the mean of ``updates.advantage_alignment`` over 5 updates."""

    warning: float = limit(0.0, "no correlation: the policy does not follow the advantages (by definition)")
    better: float = limit(0.1, BETTER)
    sustained: int = limit(
        10,
        "updates for which it must last to be critical: Adam overshoots in the first ones of sound trainings",
        at_least=1,
    )
    critical: float = limit(-0.05, "it moves against them: sound updates are at +0.1 and above (set by design)")


def judge(frame: Frame, memory: Memory, limits: AdvantageMisalignedLimits) -> list[Judgement]:
    """Judge the mean of the last five correlations of log-ratio and advantage."""
    alignment = frame["advantage_alignment"]
    excuse = inner_loop_not_measurable(frame)
    usable = alignment.finite & ~excuse.where
    mean = _MEAN.baseline(alignment.values, usable, memory, "mean")[0]
    young = WARM_UP.excuse(usable & np.isnan(mean))
    known = tally(usable, memory["known"]) > 0
    undefined = Excuse(
        alignment.null & frame["kl_k3"].finite & known, "nothing moved, or all advantages are alike", quiet=True
    )
    against = usable & (mean <= limits.critical)
    bounds = Bounds(
        info=mean <= limits.warning,
        warning=(mean <= limits.warning) & ~at_best(frame[EPISODES], memory, limits.better),
        critical=streak(against, usable & ~against, memory["against"]) >= limits.sustained,
        warning_at=limits.warning,
        critical_at=limits.critical,
    )
    return [settle(alignment.name, alignment, bounds, excuses=[excuse, young, undefined], judged=mean)]


def guard(frame: Frame, memory: Memory, limits: AdvantageMisalignedLimits) -> DeferralGuard | None:
    """Defer while every value that can be in the mean is above the bounds."""
    alignment, bound = frame["advantage_alignment"], max(limits.warning, limits.critical)
    if np.count_nonzero(~(memory["mean_ring"] > bound)):
        return None
    usable = alignment.finite & ~inner_loop_not_measurable(frame).where
    lasting = before(memory["mean_count"], usable[-1], UPDATES)
    measurable = same(frame["inner_loop_measurable"])
    return DeferralGuard(
        lasting, {alignment.name: (bound,), "inner_loop_measurable": measurable, "kl_k3": FREE, EPISODES: FREE}
    )


def _cells(*values: float | None, measurable: bool = True) -> dict[str, object]:
    return {"advantage_alignment": list(values), "inner_loop_measurable": measurable}


RULE = Rule(
    name="advantage_misaligned",
    table="updates",
    figures=("policy",),
    columns=("advantage_alignment", "inner_loop_measurable", "kl_k3", EPISODES),
    context=("kl_k3", EPISODES),
    limits=AdvantageMisalignedLimits,
    warm_up=WARM_UP,
    judge=judge,
    guard=guard,
    title="The policy does not follow the advantages",
    meaning="Over five updates actions that were better than expected did not become more likely (warning; where "
    "returns stay near their best there is nothing left to follow, and it is information), or became less likely "
    "for long (critical). The loss is then not the one that was meant: the sign of the advantages or of the loss, "
    "or advantages that belong to other samples.",
    look_first="The sign of advantages and policy loss; whether advantages, actions and observations of a minibatch "
    "are of the same samples (shuffled, reshaped, rolled).",
    reference="Schulman et al. 2017, equation 7: its gradient raises log-probs in proportion to the advantage",
    examples=(
        Example("a sound update", "ok", _cells(*[0.2] * 5), updates=5),
        Example("low in one of five", "ok", _cells(0.2, 0.2, -0.1, 0.2, 0.2), updates=5),
        Example("none at all", "warning", _cells(*[0.01, -0.02] * 3), updates=6),
        Example("the other way", "warning", _cells(*[-0.2] * 5), updates=5),
        Example("the other way for long", "critical", _cells(*[-0.2] * 14), updates=14),
        Example("too early to say", "not_applicable", _cells(-0.2, -0.2), updates=2),
        Example("one epoch of one minibatch", "not_applicable", _cells(None, measurable=False)),
        Example("nothing moved any more", "not_applicable", _cells(*[0.2] * 5, None) | {"kl_k3": 0.0}, updates=6),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"against": zeros, "known": zeros, **_MEAN.memory("mean"), **RETURNS_MEMORY},
    causes=("numerical_instability", "first_ratio"),
    higher_is_worse=False,
    statistics={"advantage_alignment": Statistic(f"mean of advantage_alignment over {UPDATES} updates")},
    reach=UPDATES,
)
