"""Streaks and windows over consecutive updates, vectorised, with state carried from batch to batch.

All of them use integers or booleans, so the result is the same for every cut of the updates into batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from esper_analyze.detector.signals import Bools, Floats, Ints


def zeros(k: int) -> Ints:
    """First value of a streak: no hits yet for any of k subjects."""
    return np.zeros(k, np.int64)


def blank(k: int) -> Floats:
    """First value of a carried number: 0.0 for any of k subjects."""
    return np.zeros(k)


def window(longest: int) -> Callable[[int], Bools]:
    """First value of a window over up to ``longest`` updates: no hits yet for any of k subjects."""
    return lambda k: np.zeros((longest - 1, k), bool)


def tally(hit: Bools, carried: Ints) -> Ints:
    """Return hits so far, [n, k]. ``carried`` [k] is the number before the first update; changed like a streak's."""
    count = hit + carried if len(hit) == 1 else np.cumsum(hit, axis=0, dtype=np.int64) + carried
    if len(count):
        carried[:] = count[-1]
    return count


def streak(hit: Bools, reset: Bools, carried: Ints) -> Ints:
    """Return hits since the last reset, [n, k]; updates that neither hit nor reset keep the count.

    ``carried`` [k] is the count before the first update; it is changed in place to the count after the last.
    """
    if _calm(hit, carried):
        return _nothing(hit.shape)
    if len(hit) == 1:
        count = hit.astype(np.int64) + carried
        np.copyto(count, 0, where=reset)
    else:
        total = np.cumsum(hit, axis=0, dtype=np.int64) + carried
        count = total - np.maximum.accumulate(np.where(reset, total, 0), axis=0)
    if len(count):
        carried[:] = count[-1]
    return count


def recent(hit: Bools, carried: Bools, length: int) -> Ints:
    """Return how many of the last ``length`` updates hit, the present one included, [n, k].

    ``carried`` [longest − 1, k] holds the flags before the first update and is changed in place; ``length`` is at
    most ``longest``.
    """
    back = len(carried)
    if _calm(hit, carried):
        return _nothing(hit.shape)
    flags = np.concatenate([carried, hit])
    if len(hit) == 1:
        carried[:] = flags[1:]
        return np.add.reduce(flags[len(flags) - length :], axis=0, dtype=np.int64, keepdims=True)
    total = np.concatenate([np.zeros((1, hit.shape[1]), np.int64), np.cumsum(flags, axis=0, dtype=np.int64)])
    if back:
        carried[:] = flags[len(flags) - back :]
    first = back + 1 - length
    count: Ints = total[back + 1 :] - total[first : first + len(hit)]
    return count


@lru_cache(maxsize=64)
def _nothing(shape: tuple[int, ...]) -> Ints:
    """Return zeros: a read-only broadcast of one cell."""
    return np.broadcast_to(np.int64(0), shape)


def remember(hit: Bools, carried: Bools) -> None:
    """Update a window as ``recent`` does, without counting."""
    flags = np.concatenate([carried, hit[-len(carried) :]]) if len(hit) < len(carried) else hit
    carried[:] = flags[len(flags) - len(carried) :]


def _calm(hit: Bools, carried: Ints | Bools) -> bool:
    """Whether there are no hits and none are carried: the usual case, in which everything stays at 0."""
    return not np.count_nonzero(hit) and not np.count_nonzero(carried)


def nothing_yet(k: int) -> Floats:
    """First value of what ``latest`` carries: NaN for any of k subjects."""
    return np.full(k, np.nan)


def latest(values: Floats, where: Bools, carried: Floats) -> Floats:
    """Return the value at the last update that ``where`` marks, the present one included, [n, k].

    ``carried`` [k] is the value before the first update; it is changed in place to the one after the last.
    """
    if len(where) == 1:
        np.copyto(carried, values[0], where=where[0])
        return carried[None].copy()
    if not np.count_nonzero(where):
        return np.broadcast_to(carried.copy(), values.shape)
    rows = np.maximum.accumulate(
        np.where(where, np.arange(1, len(where) + 1).reshape(-1, *(1,) * (where.ndim - 1)), 0), axis=0
    )
    line = np.concatenate([carried[None], values])
    values_: Floats = np.take_along_axis(line, rows, axis=0)
    if len(values_):
        carried[:] = values_[-1]
    return values_


def previous(values: Floats, where: Bools, carried: Floats) -> Floats:
    """Return the value at the last update before each that ``where`` marks, [n, k]; NaN without.

    ``carried`` [k] is the value before the first update; it is changed in place to the last one marked.
    """
    line = np.concatenate([carried[None], np.where(where, values, np.nan)])
    rows = np.where(np.isnan(line), 0, np.arange(len(line))[:, None])
    filled: Floats = np.take_along_axis(line, np.maximum.accumulate(rows, axis=0), axis=0)
    carried[:] = filled[-1]
    return filled[:-1]
