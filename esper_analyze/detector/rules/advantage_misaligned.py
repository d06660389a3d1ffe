"""Rule ``advantage_misaligned``: updates do not move the policy towards what was better than expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from esper_analyze.detector.baselines import Rolling
from esper_analyze.detector.conditions.applicability import inner_loop_not_measurable
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, before, same
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Floats, Frame
from esper_analyze.detector.streaks import streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

UPDATES = 5
"""Updates whose mean is judged."""


def _mean_and_error(windows: Floats, bound: float) -> Floats:
    """Return the mean of each window and, where it is not above ``bound``, its standard error (else NaN), [2, m]."""
    mean, error = windows.mean(axis=1), np.full(len(windows), np.nan)
    low = np.flatnonzero(mean <= bound)
    if len(low):
        with np.errstate(over="ignore", invalid="ignore"):
            error[low] = windows[low].std(axis=1, ddof=1) / np.sqrt(UPDATES)
    return np.stack([mean, error])


def _rolling(bound: float) -> Rolling:
    return Rolling(
        partial(_mean_and_error, bound=bound), size=2, length=UPDATES, every=1, first=UPDATES, inclusive=True
    )


WARM_UP = WarmUp("too early: the first steps of sound trainings overshoot", lambda limits, _: limits.least)


@dataclass(frozen=True, slots=True)
class AdvantageMisalignedLimits(Limits):
    """Bounds on the mean of ``updates.advantage_alignment`` over 5 updates."""

    warning: float = limit(0.0, "no correlation: the policy does not follow the advantages (by definition)")
    sustained: int = limit(
        10,
        "updates for which it must last to be critical: Adam overshoots in the first ones of sound trainings",
        at_least=1,
    )
    errors: float = limit(
        2.0,
        "standard errors below it at which nothing excuses it; solved runs of the fault bench come to 1.9",
        at_least=0.0,
    )
    least: int = limit(
        15,
        "updates: in the first ones Adam overshoots, and an untrained critic moves a shared trunk",
        at_least=UPDATES,
    )
    critical: float = limit(-0.05, "it moves against them: sound updates are at +0.1 and above (set by design)")


def judge(frame: Frame, memory: Memory, limits: AdvantageMisalignedLimits) -> list[Judgement]:
    """Judge the mean of the last five correlations of log-ratio and advantage."""
    alignment = frame["advantage_alignment"]
    excuse = inner_loop_not_measurable(frame)
    usable = alignment.finite & ~excuse.where
    mean, error = _rolling(limits.warning).baseline(alignment.values, usable, memory, "mean")
    known = tally(usable, memory["known"])
    young = WARM_UP.excuse(usable & (known < limits.least))
    undefined = Excuse(
        alignment.null & frame["kl_k3"].finite & (known > 0), "nothing moved, or all advantages are alike", quiet=True
    )
    against = usable & (known >= limits.least) & (mean <= limits.critical)
    bounds = Bounds(
        info=mean <= limits.warning,
        warning=(mean <= limits.warning) & (~AT_BEST.holds(frame) | (mean < limits.warning - limits.errors * error)),
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
    lasting = before(memory["known"], usable[-1], limits.least)
    measurable = same(frame["inner_loop_measurable"])
    kl: Sequence[Side] | None = () if np.count_nonzero(alignment.null) else FREE  # it says why there is no alignment
    sides = {alignment.name: (bound,), "inner_loop_measurable": measurable, "kl_k3": kl, EPISODE_RETURN: FREE}
    return DeferralGuard(lasting, {**sides, **free(AT_BEST)})


def _cells(*values: float | None, measurable: bool = True) -> dict[str, object]:
    return {"advantage_alignment": list(values), "inner_loop_measurable": measurable}


_RISING = {EPISODE_RETURN: [1.0 + 0.1 * i for i in range(15)]}
_NONE = [0.1, -0.2, 0.1, -0.2, 0.1]

RULE = Rule(
    name="advantage_misaligned",
    table="updates",
    figures=("policy",),
    columns=("advantage_alignment", "inner_loop_measurable", "kl_k3", EPISODE_RETURN),
    context=("kl_k3", EPISODE_RETURN),
    conditions=(AT_BEST,),
    limits=AdvantageMisalignedLimits,
    warm_up=WARM_UP,
    judge=judge,
    guard=guard,
    title="The policy does not follow the advantages",
    meaning="Over five updates actions that were better than expected did not become more likely (warning; where "
    "returns stay near their best and it is within its scatter there is nothing left to follow, and it is "
    "information), or became less likely for long (critical). The loss is then not the one that was meant: the sign of "
    "the advantages or of the loss, or advantages that belong to other samples.",
    look_first="The sign of advantages and policy loss; whether advantages, actions and observations of a minibatch "
    "are of the same samples (shuffled, reshaped, rolled).",
    reference="Schulman et al. 2017, equation 7: its gradient raises log-probs in proportion to the advantage",
    examples=(
        Example("a sound update", "ok", _cells(*[0.2] * 15), updates=15),
        Example("low in one of five", "ok", _cells(*[0.2] * 12, -0.1, 0.2, 0.2), updates=15),
        Example("none at all", "warning", _cells(*[0.2] * 10, *[0.01, -0.02] * 3), updates=16),
        Example("the other way", "warning", _cells(*[0.2] * 10, *[-0.2] * 5), updates=15),
        Example(
            "the other way, and returns are at their best",
            "warning",
            _cells(*[0.2] * 10, *[-0.2, -0.1, -0.3, -0.2, -0.2]) | _RISING,
            updates=15,
        ),
        Example(
            "none at all, and returns are at their best", "info", _cells(*[0.2] * 10, *_NONE) | _RISING, updates=15
        ),
        Example("the other way for long", "critical", _cells(*[-0.2] * 24), updates=24),
        Example("too early to say", "not_applicable", _cells(-0.2, -0.2), updates=2),
        Example("one epoch of one minibatch", "not_applicable", _cells(None, measurable=False)),
        Example("nothing moved any more", "not_applicable", _cells(*[0.2] * 15, None) | {"kl_k3": 0.0}, updates=16),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"against": zeros, "known": zeros, **_rolling(0.0).memory("mean")},
    causes=("advantage_inconsistent", "numerical_instability", "first_ratio"),
    higher_is_worse=False,
    statistics={"advantage_alignment": Statistic(f"mean of advantage_alignment over {UPDATES} updates")},
    reach=UPDATES,
    revision=2,
    restated=(VERDICT,),
)
