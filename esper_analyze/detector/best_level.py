"""How far the mean of the newest episodes is below the best such mean before, and how much of that is chance.

Windows are counted in episodes: where many end in an update a few updates say enough, where few end it takes more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from esper_analyze.detector.baselines import First
from esper_analyze.detector.rule import Memory
from esper_analyze.detector.signals import Floats, Ints, Signal
from esper_analyze.detector.streaks import zeros

EPISODES, UPDATES = 20, 3
"""Least number of episodes in a mean, and of updates they come from. So a mean has ``EPISODES`` updates at most."""
FIRST = 10
"""Updates with finished episodes before the first mean that is judged."""
SCATTER = 40
"""Updates before the newest mean whose steps say how much one episode scatters; or of all, where that is more."""
_WIDTH = EPISODES + SCATTER + 1

LEVEL_MEMORY: Mapping[str, First] = {
    "level_values": lambda k: np.zeros((_WIDTH - 1, k)),
    "level_episodes": lambda k: np.zeros((_WIDTH - 1, k)),
    "level_count": zeros,
    "level_past": lambda k: np.tile([[[np.nan]], [[1.0]], [[0.0]]], (1, EPISODES, k)),
}
"""The memory that ``below_best`` needs: newest last. ``level_past``: best mean, its episodes, squared steps in all."""


@dataclass(frozen=True, slots=True)
class Level:
    """Mean of the newest episodes, the best such mean before, and the standard error of their difference, [n, k].

    NaN where no episode finished or it is too early; the error also where the mean is hardly below the best one.
    """

    mean: Floats
    best: Floats
    error: Floats


def below_best(means: Signal, episodes: Signal, memory: Memory, share: float) -> Level:
    """Return the level of ``means``, each the mean of so many ``episodes`` of an update (one, where it is not known).

    The error is that of two means of single episodes; how much one of them scatters follows from the steps between
    successive updates (von Neumann et al. 1941), which a slow rise or a single fall hardly changes. It is taken where
    the mean is below the best one by ``share`` of that.
    """
    counts = np.where(episodes.finite & (episodes.values >= 1), episodes.values, 1.0)
    level = np.full((3, *means.values.shape), np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(means.values.shape[1]):
            rows = np.flatnonzero(means.finite[:, k])
            if len(rows):
                alone = {name: memory[name][..., k] for name in LEVEL_MEMORY}
                level[:, rows, k] = _levels(means.values[rows, k], counts[rows, k], alone, share)
    return Level(*level)


def _levels(values: Floats, counts: Floats, memory: Mapping[str, Any], share: float) -> Floats:
    """Return mean, best mean and error after each of ``values`` [m] of one subject, and bring its memory up to date."""
    number, before = len(values), int(memory["level_count"])
    line = np.concatenate([memory["level_values"], values])
    weights = np.concatenate([memory["level_episodes"], counts])
    memory["level_values"][:], memory["level_episodes"][:] = line[number:], weights[number:]
    memory["level_count"][...] = before + number
    length, total, taken = _newest(line, weights, number)
    older = before + 1 + np.arange(number) - length
    mean = np.where((taken >= EPISODES) & (older >= 0), total / taken, np.nan)
    steps = _squared_steps(line, weights)
    started = EPISODES + np.arange(number) - length
    best, of_best, scatter = _past(mean, taken, steps[-number:], memory)[:, started]
    error = np.full(number, np.nan)
    best[older < FIRST] = np.nan
    fallen = np.flatnonzero(best - mean >= share * np.abs(best))
    if len(fallen):
        recent = _in_a_row(steps) / _in_a_row((weights[:-1] > 0).astype(np.float64))
        single = np.fmax(recent[fallen + EPISODES - length[fallen]], scatter[fallen] / (older[fallen] - 1))
        error[fallen] = np.sqrt(single * (1 / taken[fallen] + 1 / of_best[fallen]))
    return np.stack([mean, best, error])


def _newest(line: Floats, weights: Floats, number: int) -> tuple[Ints, Floats, Floats]:
    """Return of the newest mean after each of the last ``number`` values: its updates, their sum, its episodes, [m]."""
    products = line * weights
    start = len(line) - number
    length = np.ones(number, np.int64)
    total, taken = products[start:].copy(), weights[start:].copy()
    for back in range(1, EPISODES):
        few = (taken < EPISODES) | (back < UPDATES)
        if not few.any():
            break
        older = slice(start - back, len(line) - back)
        np.add(total, products[older], out=total, where=few)
        np.add(taken, weights[older], out=taken, where=few)
        length[few] = back + 1
    return length, total, taken


def _squared_steps(values: Floats, counts: Floats) -> Floats:
    """Return of each step between values its square as if both were single episodes; 0 where there is only one."""
    known = counts > 0
    share = np.divide(1.0, counts, out=np.zeros(counts.shape), where=known)
    return np.where(known[:-1] & known[1:], np.diff(values) ** 2 / (share[1:] + share[:-1]), 0.0)


def _past(mean: Floats, taken: Floats, steps: Floats, memory: Mapping[str, Any]) -> Floats:
    """Return best mean so far, its episodes, and the sum of squared steps, of the updates before and each new one."""
    past = memory["level_past"]
    best = np.fmax.accumulate(np.concatenate([past[0, -1:], mean]))
    risen = np.flatnonzero(~np.isnan(mean) & ~(mean <= best[:-1])) + 1
    at = np.zeros(len(best), np.int64)
    at[risen] = risen
    of_best = np.concatenate([past[1, -1:], taken])[np.maximum.accumulate(at)]
    scatter = np.cumsum(np.concatenate([past[2, -1:], steps]))
    line = np.concatenate([past, np.stack([best, of_best, scatter])[:, 1:]], axis=1)
    past[:] = line[:, -EPISODES:]
    return line


def _in_a_row(numbers: Floats) -> Floats:
    """Return the sum of every ``SCATTER`` numbers in a row, added in the same order wherever a batch begins."""
    sums, width = numbers, 1
    while SCATTER % (2 * width) == 0:
        sums, width = sums[:-width] + sums[width:], 2 * width
    places = len(numbers) - SCATTER + 1
    total: Floats = np.sum([sums[start : start + places] for start in range(0, SCATTER, width)], axis=0)
    return total
