"""A column's own levels: its early mean, and statistics of its last values, refreshed now and then.

Exact however the updates are cut: which values a statistic is taken of follows from how many came before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from esper_analyze.detector.carry import blank, zeros
from esper_analyze.detector.rule import Memory
from esper_analyze.detector.signals import Bools, Floats, Ints

First = Callable[[int], np.ndarray[Any, Any]]

EARLY_MEMORY: Mapping[str, First] = {"early_count": zeros, "early_sum": blank}
"""The memory that ``early_level`` needs."""


def early_level(values: Floats, usable: Bools, memory: Memory, length: int) -> Floats:
    """Return the mean of the first ``length`` usable values up to each update (NaN before the first), [n, k].

    Needs ``EARLY_MEMORY``.
    """
    if length and not np.count_nonzero(memory["early_count"] < length):
        return np.broadcast_to(memory["early_sum"] / memory["early_count"], values.shape)
    level = np.full(values.shape, np.nan)
    for k in range(values.shape[1]):
        count, total = int(memory["early_count"][k]), float(memory["early_sum"][k])
        start = 0
        while count < length and start < len(values):
            if usable[start, k]:
                count, total = count + 1, total + float(values[start, k])
            level[start, k] = total / count if count else np.nan
            start += 1
        level[start:, k] = total / count if count else np.nan
        memory["early_count"][k], memory["early_sum"][k] = count, total
    return level


@dataclass(frozen=True, slots=True)
class Rolling:
    """Statistics of the last ``length`` usable values, taken anew after every ``every`` of them.

    ``statistics`` maps windows [m, w] to [s, m], each row by itself; windows are shorter than ``length`` only between
    the ``first`` and the ``length``-th value. What each update is held against leaves that update out, unless
    ``inclusive``.
    """

    statistics: Callable[[Floats], Floats]
    size: int = 1
    length: int = 50
    every: int = 20
    first: int = 20
    inclusive: bool = False

    def memory(self, name: str) -> Mapping[str, First]:
        """Return the memory needed under ``name``."""
        return {
            f"{name}_ring": lambda k: np.zeros((self.length, k)),
            f"{name}_count": zeros,
            f"{name}_level": lambda k: np.full((self.size, k), np.nan),
        }

    def held(self, values: Floats, usable: Bools, memory: Memory, name: str) -> Floats:
        """Return what each value is held against, [s, n, k]: NaN until enough usable values came."""
        ring, count, level = (memory[f"{name}_{part}"] for part in ("ring", "count", "level"))
        if len(values) == 1:
            after = self._take_one(values[0], usable[0], ring, count, level)
            memory[f"{name}_level"] = after
            return (after if self.inclusive else level)[:, None, :]
        level = memory[f"{name}_level"] = level.copy()  # what was returned before must not change
        result = np.empty((self.size, *values.shape))
        if self._alike(values, usable, ring, count):
            first = {f"{name}_{part}": memory[f"{name}_{part}"][..., :1].copy() for part in ("ring", "count", "level")}
            result[:] = self.held(values[:, :1], usable[:, :1], first, name)
            for part in ("ring", "count", "level"):
                memory[f"{name}_{part}"][:] = first[f"{name}_{part}"]
            return result
        for k in range(values.shape[1]):
            rows = np.flatnonzero(usable[:, k])
            line = values[:, k] if len(rows) == len(values) else values[rows, k]
            taken, found = self._refreshed(line, ring[:, k], int(count[k]))
            levels = np.concatenate([level[:, k : k + 1], found], axis=1)
            edges = rows[taken - 1] + (0 if self.inclusive else 1)  # the update from which a level holds
            result[:, :, k] = np.repeat(levels, np.diff(edges, prepend=0, append=len(values)), axis=1)
            level[:, k] = levels[:, -1]
            self._keep(line, ring[:, k], int(count[k]))
            count[k] += len(rows)
        return result

    @staticmethod
    def _alike(values: Floats, usable: Bools, ring: Floats, count: Ints) -> bool:
        """Whether one row of an update speaks for all subjects: then one of them is enough to look at."""
        return (
            values.shape[1] > 1
            and values.strides[1] == 0
            and bool((usable == usable[:, :1]).all() and (count == count[0]).all() and (ring == ring[:, :1]).all())
        )

    def _take_one(self, values: Floats, usable: Bools, ring: Floats, count: Ints, level: Floats) -> Floats:
        """Take in a single update; return the levels after it, the array given where none changed."""
        taken = np.flatnonzero(usable)
        before = count[taken]
        ring[before % self.length, taken] = values[taken]
        count += usable
        due = taken[((before + 1) % self.every == 0) & (before + 1 >= self.first)]
        if not len(due):
            return level
        after = level.copy()
        for k in due:
            window = self._newest(ring[:, k], int(count[k]))
            after[:, k] = self.statistics(window[None, :])[:, 0]
        return after

    def _newest(self, ring: Floats, count: int) -> Floats:
        """Return the values kept of ``count``, oldest first."""
        if count < self.length:
            return ring[:count].copy()
        return np.roll(ring, -(count % self.length))

    def _refreshed(self, values: Floats, ring: Floats, count: int) -> tuple[Ints, Floats]:
        """Return after how many of ``values`` (``count`` others came before) statistics are taken, and them [s, m]."""
        start = max((count // self.every + 1) * self.every, -(-self.first // self.every) * self.every)
        due = np.arange(start, count + len(values) + 1, self.every)
        if not len(due):
            return due, np.zeros((self.size, 0))
        before = self._newest(ring, count)
        line, offset = np.concatenate([before, values]), count - len(before)
        short = [line[None, : stop - offset] for stop in due[due < self.length]]
        parts = [self.statistics(window) for window in short]
        if len(short) < len(due):
            windows = np.lib.stride_tricks.sliding_window_view(line, self.length)
            chosen = windows[due[len(short)] - self.length - offset :: self.every][: len(due) - len(short)]
            parts.append(self.statistics(np.ascontiguousarray(chosen)))
        return due - count, np.concatenate(parts, axis=1)

    def _keep(self, values: Floats, ring: Floats, count: int) -> None:
        newest = values[-self.length :]
        ring[(count + len(values) - len(newest) + np.arange(len(newest))) % self.length] = newest


def _median(windows: Floats) -> Floats:
    """Return the median of each window; ``np.median`` would look for NaN as well, which never enters one."""
    upper = windows.shape[1] // 2
    middle = np.partition(windows, (upper - 1, upper), axis=1)
    if windows.shape[1] % 2:
        return middle[None, :, upper]
    return (middle[None, :, upper - 1] + middle[None, :, upper]) / 2


_TYPICAL = Rolling(_median)


def typical_memory(name: str) -> Mapping[str, First]:
    """Return the memory that ``typical`` needs under ``name``."""
    return _TYPICAL.memory(name)


def typical(values: Floats, usable: Bools, memory: Memory, name: str) -> Floats:
    """Return the median of the last 50 usable values before each, refreshed after every 20th, [n, k].

    NaN until 20 came.
    """
    found: Floats = _TYPICAL.held(values, usable, memory, name)[0]
    return found
