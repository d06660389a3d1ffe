"""Extremes of values around each update, and order statistics of all runs but one."""

from __future__ import annotations

import numpy as np

from esper_analyze.detector.signals import Floats, Ints

PACE = 0.3
"""How much sooner or later another run may reach the same point, as a share of the updates so far."""
LEAST_REACH = 2
"""Updates of tolerance at the very beginning."""


def reach(updates: int) -> tuple[Ints, Ints]:
    """Return first and last update (inclusive) of the window around each of ``updates``."""
    index = np.arange(updates)
    wide = np.maximum(LEAST_REACH, (PACE * index).astype(np.int64))
    return np.maximum(index - wide, 0), np.minimum(index + wide, max(updates - 1, 0))


def windowed_least(values: Floats) -> Floats:
    """Return the least finite value of each row [runs, updates] within ``reach``; +Inf where there is none.

    Before a row's first finite value and after its last it is +Inf too.

    Every window is covered by two stretches whose lengths are powers of two (a sparse table, one level at a time).
    """
    first, last = reach(values.shape[1])
    level = np.log2(last - first + 1).astype(np.int64)
    table = np.where(np.isfinite(values), values, np.inf)
    least = np.full(values.shape, np.inf)
    for step in range(int(level.max(initial=0)) + 1):
        at = level == step
        least[:, at] = np.minimum(table[:, first[at]], table[:, last[at] - (1 << step) + 1])
        table = np.minimum(table[:, : -(1 << step)], table[:, 1 << step :])
    finite = np.isfinite(values)
    going_on = np.logical_or.accumulate(finite, axis=1) & np.logical_or.accumulate(finite[:, ::-1], axis=1)[:, ::-1]
    return np.where(going_on, least, np.inf)


def order_statistic_of_others(values: Floats, rank: Ints) -> Floats:
    """Return, for each run and update, the ``rank``-th least of the other runs' values [runs, updates].

    +Inf stands for no value. ``rank`` [runs, updates] counts from 0; beyond the last one it is +Inf.
    """
    runs = len(values)
    ordered = np.sort(np.concatenate([values, np.full((2, values.shape[1]), np.inf)]), axis=0)
    rank = np.minimum(rank, runs)
    at = np.take_along_axis(ordered, rank, axis=0)
    after = np.take_along_axis(ordered, rank + 1, axis=0)
    return np.where(values <= at, after, at)
