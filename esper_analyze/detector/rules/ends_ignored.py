"""Rule ``ends_ignored``: episodes finish, and the returns know of no end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame, Ints
from esper_analyze.detector.streaks import zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle

MANY = 2.0**31
"""Episodes of an update from which on their number does not matter: sums of them stay within 64 bits."""


@dataclass(frozen=True, slots=True)
class EndsIgnoredLimits(Limits):
    """Bounds on ``updates.rollout_ends`` beside ``updates.episodes_finished``."""

    episodes: int = limit(
        3, "episodes without an end: one may be reported an update later than it ended (set by design)", at_least=1
    )


def judge(frame: Frame, memory: Memory, limits: EndsIgnoredLimits) -> list[Judgement]:
    """Judge how many episodes were reported since the returns last knew of an end."""
    ends, episodes = frame["rollout_ends"], frame["episodes_finished"]
    known = ends.finite & episodes.finite
    ended = known & (ends.values > 0)
    count = np.where(known, np.clip(episodes.values, 0.0, MANY), 0.0).astype(np.int64)
    without = _since(count, ended, memory["without"])
    bounds = Bounds(critical=known & (without >= limits.episodes), critical_at=float(limits.episodes))
    return [settle(ends.name, ends, bounds, needs=[episodes], judged=without.astype(np.float64))]


def _since(count: Ints, reset: np.ndarray, carried: Ints) -> Ints:
    """Return the sum of ``count`` since the last reset, 0 there; ``carried`` is changed as a streak's is."""
    total = np.cumsum(count, axis=0) + carried
    since: Ints = total - np.maximum.accumulate(np.where(reset, total, 0), axis=0)
    if len(since):
        carried[:] = since[-1]
    return since


def guard(frame: Frame, memory: Memory, limits: EndsIgnoredLimits) -> DeferralGuard | None:  # noqa: ARG001
    """Defer while the returns know of ends, or no episode finishes."""
    if np.count_nonzero(memory["without"]):
        return None
    return DeferralGuard(LASTING, {"rollout_ends": (0.0,), "episodes_finished": (0.0,)})


def _cells(*ends: int | None, episodes: int | None = 2) -> dict[str, object]:
    return {"rollout_ends": list(ends), "episodes_finished": episodes}


RULE = Rule(
    name="ends_ignored",
    table="updates",
    figures=("value",),
    columns=("rollout_ends", "episodes_finished"),
    optional=True,
    limits=EndsIgnoredLimits,
    judge=judge,
    guard=guard,
    title="Returns ignore where episodes end",
    meaning="Episodes finished, and not one timestep of the rollouts is marked as an end: values of the next episode "
    "count into the returns of the one before, and a lost episode costs nothing.",
    look_first="The flags that advantages are computed with (done, terminated, episode starts): whether they reach "
    "the computation, in the right order and type.",
    reference="Schulman et al. 2016: an estimate does not look beyond the end of its episode",
    examples=(
        Example("ends are known", "ok", _cells(2, 1, 3), updates=3),
        Example("no episode ended", "ok", _cells(0, 0, episodes=0), updates=2),
        Example("reported an update later", "ok", _cells(2, 0, 2), updates=3),
        Example("episodes without any end", "critical", _cells(2, 0, 0), updates=3),
        Example("not passed", "no_data", _cells(None)),
    ),
    memory={"without": zeros},
    statistics={"rollout_ends": Statistic("episodes finished since the returns last knew of an end", "episodes")},
)
