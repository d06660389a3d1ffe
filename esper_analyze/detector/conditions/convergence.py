"""What success looks like: returns rose and stayed. Shared by the rules on what then is low because it is learnt."""

from __future__ import annotations

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, early_level, rolling_mean
from esper_analyze.detector.rule import Condition, Memory
from esper_analyze.detector.signals import Bools, Frame
from esper_analyze.detector.streaks import nothing_yet

EPISODE_RETURN = "episode_return_mean"
EARLY_UPDATES = 3
"""Updates whose mean is the early level of returns."""
BETTER = 0.1
"""Share of their early level by which returns must have risen: those of sound runs rose by half or more."""
NEAR_BEST = 0.2
"""Share of the way from early returns to the best ones within which returns are at their best."""
_RECENT = rolling_mean(10, first=3)


def _at_best(frame: Frame, memory: Memory) -> Bools:
    """Return where the recent mean of returns is above the early one, and has not come down from the best one so far.

    What is low then is low because the task is learnt. False while unknown.
    """
    returns = frame[EPISODE_RETURN]
    early = early_level(returns.values, returns.finite, memory, EARLY_UPDATES)
    level = _RECENT.baseline(returns.values, returns.finite, memory, "recent")[0]
    best = np.fmax.accumulate(np.concatenate([memory["best"][None], level]), axis=0)[1:]
    memory["best"] = best[-1].copy()
    risen: Bools = (level > early + BETTER * np.abs(early)) & (level >= best - NEAR_BEST * np.abs(best - early))
    return risen


AT_BEST = Condition(
    "at_best",
    (EPISODE_RETURN,),
    _at_best,
    "returns rose and stay near their best",
    {**EARLY_MEMORY, **_RECENT.memory("recent"), "best": nothing_yet},
)
