"""What success looks like: returns rose and stayed. Shared by the rules on what then is low because it is learnt."""

from __future__ import annotations

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, Rolling, early_level
from esper_analyze.detector.rule import Condition, Memory
from esper_analyze.detector.signals import Bools, Floats, Frame
from esper_analyze.detector.streaks import nothing_yet

EPISODE_RETURN = "episode_return_mean"
EARLY_UPDATES = 3
"""Updates whose mean is the early level of returns."""
BETTER = 0.1
"""Share of their early level by which returns must have risen, or ``ERRORS``, if that is less."""
NEAR_BEST = 0.3
"""Share of the way from early returns to the best ones within which returns are at their best, or ``ERRORS``, if that
is more. Chosen on the known trainings of the fault bench, as ``ERRORS`` is."""
ERRORS = 3.0
"""Standard errors of the difference of two recent means."""
ROUNDING = 1e-9
"""Share of a mean by which two means of the same numbers never differ."""
RECENT, SCATTER = 10, 21
"""Updates whose mean is the recent level; updates from whose steps their scatter is estimated."""
STEP = 2 / np.sqrt(np.pi)
"""Mean |difference| of two draws from a normal distribution of unit variance."""


def _level(windows: Floats) -> Floats:
    """Return the recent mean and the standard error of the difference of two such means, [2, m].

    From successive differences (von Neumann et al. 1941), which a slow rise or a single fall hardly changes.
    """
    recent = windows[:, -RECENT:]
    deviation = np.abs(np.diff(windows, axis=1)).mean(axis=1) / STEP
    return np.stack([recent.mean(axis=1), deviation * np.sqrt(2 / recent.shape[1])])


_RECENT = Rolling(_level, size=2, length=SCATTER, every=1, first=3, inclusive=True)


def _at_best(frame: Frame, memory: Memory) -> Bools:
    """Return where the recent mean of returns is above the early one, and has not come down from the best one so far.

    Both beyond their own scatter. What is low then is low because the task is learnt. False while unknown.
    """
    returns = frame[EPISODE_RETURN]
    early = early_level(returns.values, returns.finite, memory, EARLY_UPDATES)
    level, error = _RECENT.baseline(returns.values, returns.finite, memory, "recent")
    best = np.fmax.accumulate(np.concatenate([memory["best"][None], level]), axis=0)[1:]
    memory["best"] = best[-1].copy()
    error = np.maximum(error, ROUNDING * np.abs(early))
    risen = level > early + np.minimum(BETTER * np.abs(early), ERRORS * error)
    at_best: Bools = risen & (level >= best - np.maximum(NEAR_BEST * np.abs(best - early), ERRORS * error))
    return at_best


AT_BEST = Condition(
    "at_best",
    (EPISODE_RETURN,),
    _at_best,
    "returns rose and stay near their best",
    {**EARLY_MEMORY, **_RECENT.memory("recent"), "best": nothing_yet},
)
