"""Rule ``advantage_misaligned``: updates do not move the policy towards what was better than expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.applicability import inner_loop_not_measurable, nothing_to_choose
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, before, same
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import recent, streak, tally, window, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

UPDATES = 10
"""Updates whose signs are counted."""
WARM_UP = WarmUp("too early: the first steps of sound trainings overshoot", lambda limits, _: limits.least)


@dataclass(frozen=True, slots=True)
class AdvantageMisalignedLimits(Limits):
    """Bounds on how often ``updates.advantage_alignment`` is not positive in 10 updates."""

    level: float = limit(0.0, "no correlation: the policy does not follow the advantages (by definition)")
    info: int = limit(7, "of 10 updates (set by design)", at_least=1)
    often: int = limit(9, "of 10 updates: none of 123 sound trainings of the fault bench's known half", at_least=1)
    learnt: int = limit(
        15, "updates in a row where returns are at their best: 2 in 65,536 if signs are random", at_least=1
    )
    sustained: int = limit(10, "updates for which it must last to be critical (set by design)", at_least=1)
    least: int = limit(
        15, "updates: in the first ones Adam overshoots, and an untrained critic moves a shared trunk", at_least=1
    )


def judge(frame: Frame, memory: Memory, limits: AdvantageMisalignedLimits) -> list[Judgement]:
    """Judge in how many of the last ten updates log-ratio and advantage were not correlated positively."""
    alignment = frame["advantage_alignment"]
    excuse = inner_loop_not_measurable(frame)
    usable = alignment.finite & ~excuse.where
    known = tally(usable, memory["known"])
    young = WARM_UP.excuse(usable & (known < limits.least))
    undefined = Excuse(
        alignment.null & frame["kl_k3"].finite & (known > 0), "nothing moved, or all advantages are alike", quiet=True
    )
    low = usable & (alignment.values <= limits.level)
    count = recent(low, memory["window"], UPDATES)
    always = streak(low, usable & ~low, memory["low"]) >= limits.learnt
    often = usable & (known >= limits.least) & (count >= limits.often) & (~AT_BEST.holds(frame) | always)
    bounds = Bounds(
        info=count >= limits.info,
        warning=often,
        critical=streak(often, usable & ~often, memory["often"]) >= limits.sustained,
        info_at=float(limits.info),
        warning_at=float(limits.often),
        critical_at=float(limits.often),
    )
    counted = count.astype(np.float64)
    excuses = [excuse, young, undefined, nothing_to_choose(frame)]
    return [settle(alignment.name, alignment, bounds, excuses=excuses, judged=counted)]


def guard(frame: Frame, memory: Memory, limits: AdvantageMisalignedLimits) -> DeferralGuard | None:
    """Defer while all updates that count are above the level."""
    if np.count_nonzero(memory["window"]) or np.count_nonzero(memory["low"]):
        return None
    alignment = frame["advantage_alignment"]
    usable = alignment.finite & ~inner_loop_not_measurable(frame).where
    lasting = before(memory["known"], usable[-1], limits.least)
    kl: Sequence[Side] | None = () if np.count_nonzero(alignment.null) else FREE  # it says why there is no alignment
    measurable = same(frame["inner_loop_measurable"])
    sides = {alignment.name: (limits.level,), "inner_loop_measurable": measurable, "kl_k3": kl, EPISODE_RETURN: FREE}
    return DeferralGuard(lasting, {**sides, "choice_fraction": (0.0,), **free(AT_BEST)})


def _cells(*values: float | None, measurable: bool = True, choice: float = 1.0) -> dict[str, object]:
    return {"advantage_alignment": list(values), "inner_loop_measurable": measurable, "choice_fraction": choice}


RULE = Rule(
    name="advantage_misaligned",
    table="updates",
    figures=("policy",),
    columns=("advantage_alignment", "inner_loop_measurable", "kl_k3", "choice_fraction", EPISODE_RETURN),
    context=("kl_k3", "choice_fraction", EPISODE_RETURN),
    conditions=(AT_BEST,),
    limits=AdvantageMisalignedLimits,
    warm_up=WARM_UP,
    judge=judge,
    guard=guard,
    title="The policy does not follow the advantages",
    meaning="In nine of ten updates actions that were better than expected did not become more likely (critical where "
    "it lasts); in sound trainings they do in all but a few, unless returns are at their best and nothing is left to "
    "follow. The loss is then not the one that was meant: the sign of the advantages or of the loss, or advantages "
    "that belong to other samples.",
    look_first="The sign of advantages and policy loss; whether advantages, actions and observations of a minibatch "
    "are of the same samples (shuffled, reshaped, rolled).",
    reference="Schulman et al. 2017, equation 7: its gradient raises log-probs in proportion to the advantage",
    examples=(
        Example("a sound update", "ok", _cells(*[0.2] * 15), updates=15),
        Example("low in a few of ten", "ok", _cells(*[0.2] * 5, *[-0.1, 0.2] * 5), updates=15),
        Example("in most of ten", "info", _cells(*[0.2] * 8, *[-0.1] * 7), updates=15),
        Example("none at all", "warning", _cells(*[0.2] * 6, *[0.0, -0.02] * 4, -0.01), updates=15),
        Example("the other way for long", "critical", _cells(*[-0.2] * 24), updates=24),
        Example("too early to say", "not_applicable", _cells(-0.2, -0.2), updates=2),
        Example("one epoch of one minibatch", "not_applicable", _cells(None, measurable=False)),
        Example("no head ever had a choice", "not_applicable", _cells(None, choice=0.0)),
        Example("nothing moved any more", "not_applicable", _cells(*[0.2] * 15, None) | {"kl_k3": 0.0}, updates=16),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"often": zeros, "low": zeros, "known": zeros, "window": window(UPDATES)},
    causes=("advantage_inconsistent", "numerical_instability", "first_ratio"),
    follows=("setting_changed",),
    statistics={
        "advantage_alignment": Statistic(
            f"updates of the last {UPDATES} without a positive advantage_alignment", "updates"
        )
    },
    reach=UPDATES,
    revision=4,
    restated=(VERDICT,),
)
