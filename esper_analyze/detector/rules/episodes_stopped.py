"""Rule ``episodes_stopped``: episodes ended after a time limit, and none ends any more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import nothing_yet, previous, streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

FINISHED, LENGTH = "episodes_finished", "episode_length_mean"
ALIKE = 2
"""Updates in a row with the same mean length as the one before, from which on a time limit ends the episodes."""


@dataclass(frozen=True, slots=True)
class EpisodesStoppedLimits(Limits):
    """Bounds on the updates since an episode ended."""

    times: float = limit(
        5.0,
        "times the longest such time before: of 490 known trainings two had more than 3, both with the fault",
        at_least=1.0,
    )
    updates: int = limit(10, "fewer updates without an end are too soon to say (set by design)", at_least=1)
    ends: int = limit(3, "updates with an end before: two times between them (set by design)", at_least=2)


def judge(frame: Frame, memory: Memory, limits: EpisodesStoppedLimits) -> list[Judgement]:
    """Judge the time since an episode ended against the longest such time before."""
    finished, length = frame[FINISHED], frame[LENGTH]
    ended = finished.finite & (finished.values > 0)
    before = memory["without"][None].copy()
    without = streak(finished.equals(0.0), ended, memory["without"])
    closed = np.where(ended, np.concatenate([before, without[:-1]]) + 1, 0)
    longest = np.maximum.accumulate(np.concatenate([memory["longest"][None], closed]), axis=0)
    memory["longest"][:], longest = longest[-1], longest[1:]
    measured = ended & length.finite
    alike = measured & (length.values == previous(length.values, measured, memory["length"]))
    limited = streak(alike, measured & ~alike, memory["alike"]) >= ALIKE
    often = tally(ended, memory["ends"]) >= limits.ends
    bound = np.maximum(limits.times * longest, limits.updates)
    stopped = often & (without >= bound)
    few = Excuse(finished.finite & ~often, "too few episodes ended to say how often they do", quiet=True)
    bounds = Bounds(info=stopped, warning=stopped & limited, info_at=bound, warning_at=bound)
    return [
        settle(
            finished.name, finished, bounds, excuses=[few], baseline=longest.astype(float), judged=without.astype(float)
        )
    ]


def guard(frame: Frame, memory: Memory, limits: EpisodesStoppedLimits) -> DeferralGuard | None:  # noqa: ARG001
    """Defer while episodes end in every update."""
    if np.count_nonzero(memory["without"]) or np.count_nonzero(memory["ends"] < limits.ends):
        return None
    return DeferralGuard(LASTING, {FINISHED: (0.0,), LENGTH: FREE})


def _cells(*ends: int | None, length: object = 100.0) -> dict[str, object]:
    return {FINISHED: list(ends), LENGTH: length}


RULE = Rule(
    name="episodes_stopped",
    table="updates",
    figures=("returns",),
    columns=(FINISHED, LENGTH),
    context=(LENGTH,),
    optional=True,
    limits=EpisodesStoppedLimits,
    judge=judge,
    guard=guard,
    title="No episode ends any more",
    meaning="Episodes ended at intervals, and for five times the longest of them none has. Where the last ones all "
    "had the same length, a time limit ended them: environments are then reset before it is reached, or "
    "their ends are no longer reported. Where lengths differed it is information: a policy may have "
    "learnt to stay in its episode.",
    look_first="Whether environments are reset when a rollout begins, whether the time limit was raised or its wrapper "
    "lost, and whether ends (terminated, truncated) still reach the loop.",
    reference="Pardo et al. 2018, Time Limits in Reinforcement Learning",
    examples=(
        Example("an end in each update", "ok", _cells(4, 4, 4), updates=3),
        Example("ends in every third update", "ok", _cells(*[4, 0, 0] * 10), updates=30),
        Example("none any more", "warning", _cells(*[4, 0, 0] * 3, *[0] * 13), updates=22),
        Example("none any more, too soon to say", "ok", _cells(*[4] * 9, *[0] * 9), updates=18),
        Example(
            "none any more, of growing length",
            "info",
            _cells(*[4, 4, 4, 4], *[0] * 12, length=[10.0, 20.0, 30.0, 40.0, *[None] * 12]),
            updates=16,
        ),
        Example("few ended", "not_applicable", _cells(4, *[0] * 30), updates=31),
        Example("not recorded", "no_data", _cells(None, length=None)),
    ),
    memory={"without": zeros, "longest": zeros, "ends": zeros, "alike": zeros, "length": nothing_yet},
    statistics={FINISHED: Statistic("updates since an episode ended", baseline="the longest time before")},
)
