"""Rule ``advantage_collapse``: the advantages hardly differ, so there is nothing to prefer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, early_known, early_level
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.rewards import REWARDS, UNREWARDED, largest_reward
from esper_analyze.detector.conditions.shared import free, held
from esper_analyze.detector.conditions.stand_ins import COUNTED, LOGGED, only_of_log, stands_in
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Bools, Frame, Ints, Signal
from esper_analyze.detector.streaks import streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

REWARD = REWARDS[1]
"""The metric of the verdicts on rewards."""
GROUPS = "reward_zero_std_fraction"
"""What a log of GRPO or RLOO has of advantages."""


@dataclass(frozen=True, slots=True)
class AdvantageCollapseLimits(Limits):
    """Bounds on ``updates.advantage_std``, and on how long no step is rewarded."""

    narrow: float = limit(
        0.1, "share of its own early level: information, sound runs get there (set by design)", at_least=0.0
    )
    critical: float = limit(1e-8, "the epsilon that loops normalise with", at_least=0.0)
    sustained: int = limit(5, "a single rollout without reward is not a collapse", at_least=1)
    early_updates: int = limit(10, "updates whose mean is the early level", at_least=1)
    rewarded: int = limit(10, "updates with a reward before which one that stays away may just be rare", at_least=1)
    gap: float = limit(
        3.0,
        "times the longest time without reward so far; in known sparse tasks of the fault bench it grew by 1.5 at most",
        at_least=1.0,
    )


def judge(frame: Frame, memory: Memory, limits: AdvantageCollapseLimits) -> list[Judgement]:
    """Judge the spread of advantages in rewarded rollouts, how long none has been rewarded, and groups of a log."""
    judged = [_spread(frame, memory, limits), _rewards(frame, memory, limits)]
    used = stands_in(frame, "advantage_std")
    return judged if used is None else [*judged, _groups(frame, memory, limits, used)]


def _groups(frame: Frame, memory: Memory, limits: AdvantageCollapseLimits, used: Bools) -> Judgement:
    """Judge the share of groups whose rewards are all equal, where a log says it: of all groups none teaches."""
    share = frame[GROUPS]
    every = used & share.finite & (share.values >= 1.0)
    long = streak(every, used & share.finite & ~every, memory["groups"]) >= limits.sustained
    bounds = Bounds(info=long, warning=long & ~AT_BEST.holds(frame), info_at=1.0, warning_at=1.0)
    judged = settle(GROUPS, share, bounds, excuses=[Excuse(share.null & frame.present, "no groups", quiet=True)])
    return only_of_log(judged, used)


def _spread(frame: Frame, memory: Memory, limits: AdvantageCollapseLimits) -> Judgement:
    spread, solved = frame["advantage_std"], AT_BEST.holds(frame)
    silent = Excuse(UNREWARDED.holds(frame), "no step was rewarded: the advantages are the critic's error", quiet=True)
    usable = spread.finite & ~silent.where
    early = early_level(spread.values, usable, memory, limits.early_updates)
    narrow = usable & (spread.values < limits.narrow * early)
    none = usable & (spread.values < limits.critical)
    long_narrow = streak(narrow, usable & ~narrow, memory["narrow"]) >= limits.sustained
    long_none = streak(none, usable & ~none, memory["none"]) >= limits.sustained
    bounds = Bounds(
        info=long_narrow | long_none,
        critical=long_none & ~solved,
        info_at=limits.narrow * early,
        critical_at=limits.critical,
    )
    return settle(spread.name, spread, bounds, excuses=[silent], baseline=early)


def _rewards(frame: Frame, memory: Memory, limits: AdvantageCollapseLimits) -> Judgement:
    largest, returns = largest_reward(frame), frame[EPISODE_RETURN]
    silent, rewarded = largest == 0.0, largest > 0.0
    before = memory["silent"].copy()
    length = streak(silent, rewarded, memory["silent"])
    longest = _longest(np.concatenate([before[None], length]), rewarded, memory)
    enough = tally(rewarded, memory["rewarded"]) >= limits.rewarded
    bound = np.maximum(limits.gap * longest, limits.sustained)
    paid = ~returns.null & (returns.values != 0.0)  # then a reward was lost, however good returns are
    stopped = silent & enough & (length >= bound) & ~(AT_BEST.holds(frame) & ~paid)
    bounds = Bounds(info=silent & (length >= limits.sustained), warning=stopped, info_at=0.0, warning_at=0.0)
    broken = frame[REWARD].nonfinite | frame[REWARDS[0]].nonfinite
    excuses = [
        Excuse(broken, "non-finite: judged by numerical_instability", quiet=True),
        Excuse(frame.present & np.isnan(largest) & ~broken, "neither rewards nor returns were recorded", quiet=True),
    ]
    return settle(REWARD, Signal(REWARD, largest, np.isnan(largest)), bounds, excuses=excuses)


def _longest(length: Ints, rewarded: Bools, memory: Memory) -> Ints:
    """Return the most updates in a row without reward that ended so far, [n, k]; ``length`` has one update before."""
    ended = np.where(rewarded, length[:-1], 0)
    longest = np.maximum.accumulate(np.concatenate([memory["longest"][None], ended]))[1:]
    if len(longest):
        memory["longest"] = longest[-1].copy()
    return longest


def guard(frame: Frame, memory: Memory, limits: AdvantageCollapseLimits) -> DeferralGuard | None:
    """Defer while the spread stays on the same side of every bound and steps are rewarded."""
    spread = frame["advantage_std"]
    if np.count_nonzero(memory["silent"]) or np.count_nonzero(UNREWARDED.holds(frame)):
        return None
    if not early_known(spread.finite, memory, limits.early_updates):
        return None
    early = early_level(spread.values, spread.finite, memory, limits.early_updates)
    lasting = min(until(memory[name], limits.sustained) for name in ("narrow", "none"))
    sides: dict[str, Sequence[Side] | None] = {
        spread.name: (limits.narrow * early, limits.critical),
        EPISODE_RETURN: () if np.count_nonzero(frame[REWARD].null) else FREE,  # it stands in for rewards
        **dict.fromkeys(REWARDS, ()),
        **dict.fromkeys((GROUPS, COUNTED), FREE),
        **held(frame, UNREWARDED, LOGGED),
    }
    return DeferralGuard(
        lasting, {**sides, **(held(frame, AT_BEST) if np.count_nonzero(memory["none"]) else free(AT_BEST))}
    )


def _cells(*values: float | None) -> dict[str, object]:
    return {"advantage_std": list(values), "reward_min": 0.0, "reward_max": 1.0, COUNTED: 8}


def _unrewarded(*rewards: float, returns: float = 2.0) -> dict[str, object]:
    return _cells(1.0) | {"advantage_std": 1.0, "reward_max": list(rewards), EPISODE_RETURN: returns}


RULE = Rule(
    name="advantage_collapse",
    table="updates",
    figures=("value",),
    panels=("value.advantages",),
    columns=("advantage_std", EPISODE_RETURN, *REWARDS, GROUPS, COUNTED),
    context=(EPISODE_RETURN, *REWARDS, GROUPS, COUNTED),
    conditions=(AT_BEST, UNREWARDED, LOGGED),
    limits=AdvantageCollapseLimits,
    judge=judge,
    guard=guard,
    title="Advantages collapsed",
    meaning="The advantages of a rollout do not differ from each other although it was rewarded, or no rollout has "
    "been rewarded for much longer than ever before. A loop that normalises advantages scales the remaining noise to "
    "unit size and trains on it; one that does not learns nothing. Advantages that have become narrow are information, "
    "and so are all of these where returns rose and stay near their best: nothing is left to prefer.",
    meanings={
        GROUPS: "In every group all rewards are equal, update after update: relative to their group all responses are "
        "as good, so that nothing is learnt from them.",
        REWARD: "No rollout has been rewarded for much longer than ever before: the policy is trained on the critic's "
        "errors alone. Before rewards have come often it is information: there is nothing to learn from yet.",
    },
    look_first="Rewards of those rollouts; whether every episode ends alike; explained_variance near 1 with a "
    "constant reward.",
    reference="Loops divide advantages by their standard deviation plus an epsilon: a smaller one scales noise up",
    examples=(
        Example("a sound spread", "ok", _cells(1.0)),
        Example("narrow for five updates", "info", _cells(*[1.0] * 10, *[0.02] * 5), updates=15),
        Example(
            "narrow, and returns rose",
            "info",
            _cells(*[1.0] * 20, *[0.02] * 5) | {"episode_return_mean": [1.0 + 0.1 * i for i in range(25)]},
            updates=25,
        ),
        Example("no spread for five updates", "critical", _cells(*[1.0] * 10, *[0.0] * 5), updates=15),
        Example("rewards stay away for five updates", "warning", _unrewarded(*[1.0] * 20, *[0.0] * 5), updates=25),
        Example("rewards are as rare as before", "info", _unrewarded(*[0.0] * 4, *[1.0] * 20, *[0.0] * 6), updates=30),
        Example("no reward yet", "info", _unrewarded(*[0.0] * 25, returns=0.0), updates=25),
        Example("no group of a log differs", "warning", {GROUPS: [1.0] * 5, COUNTED: None}, updates=5),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("not recorded", "no_data", {"advantage_std": None}),
    ),
    memory={**dict.fromkeys(("narrow", "none", "silent", "rewarded", "longest", "groups"), zeros), **EARLY_MEMORY},
    causes=("numerical_instability",),
    confirmed_by="sustained",
    higher_is_worse=False,
    statistics={
        "advantage_std": Statistic("advantage_std", baseline="its mean over the first updates", column="advantage_std"),
        REWARD: Statistic("largest |reward| of a rollout"),
        GROUPS: Statistic("share of groups whose rewards are all equal", column=GROUPS),
    },
    revision=6,
    restated=("threshold", VERDICT),
)
