"""Baselines of a column: its early mean, and statistics of its last values, refreshed at intervals.

Exact for every cut of the updates into batches: the values in a statistic depend only on how many came before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING
from esper_analyze.detector.rule import Memory
from esper_analyze.detector.signals import Bools, Floats, Ints
from esper_analyze.detector.streaks import blank, zeros

First = Callable[[int], np.ndarray[Any, Any]]

EARLY_MEMORY: Mapping[str, First] = {"early_count": zeros, "early_sum": blank}
"""The memory that ``early_level`` needs."""


def early_level(values: Floats, usable: Bools, memory: Memory, length: int) -> Floats:
    """Return the mean of the first ``length`` usable values up to each update (NaN before the first), [n, k].

    Needs ``EARLY_MEMORY``.
    """
    counts, totals = memory["early_count"], memory["early_sum"]
    growing = _growing(usable, counts, length)
    if len(values) == 1 and growing is not None:
        np.add(totals, values[0], out=totals, where=growing)
        counts += growing
    before = _means(totals, counts)
    if len(values) == 1 or growing is None:
        return np.broadcast_to(before, values.shape)
    level = np.broadcast_to(before, values.shape).copy()
    for k in np.flatnonzero(growing).tolist():
        count, total = int(counts[k]), float(totals[k])
        start = 0
        while count < length and start < len(values):
            if usable[start, k]:
                count, total = count + 1, total + float(values[start, k])
            level[start, k] = total / count if count else np.nan
            start += 1
        level[start:, k] = total / count if count else np.nan
        counts[k], totals[k] = count, total
    return level


def _growing(usable: Bools, counts: Ints, length: int) -> Bools | None:
    """Return the subjects whose early level changes with ``usable`` values [n, k]; None if none does."""
    few = counts < length
    if not np.count_nonzero(few):
        return None
    growing: Bools = few & (usable[0] if len(usable) == 1 else np.logical_or.reduce(usable, axis=0))
    return growing if np.count_nonzero(growing) else None


def _means(totals: Floats, counts: Ints) -> Floats:
    """Return totals / counts, NaN where nothing was counted."""
    if np.count_nonzero(counts) == len(counts):
        return totals / counts
    with np.errstate(invalid="ignore"):
        return totals / counts


def early_known(usable: Bools, memory: Memory, length: int, prefix: str = "") -> bool:
    """Whether the early level is final, as long as the same values stay ``usable`` as in the last update."""
    return _growing(usable[-1:], memory[f"{prefix}early_count"], length) is None


@dataclass(frozen=True, slots=True)
class Rolling:
    """Statistics of the last ``length`` usable values, refreshed after every ``every`` of them.

    ``statistics`` maps windows [m, w] to [s, m], each row by itself; windows are shorter than ``length`` only between
    the ``first`` and the ``length``-th value. The baseline of an update excludes that update, unless ``inclusive``.
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

    def baseline(self, values: Floats, usable: Bools, memory: Memory, name: str) -> Floats:
        """Return the baseline of each value, [s, n, k]: NaN until there were enough usable values."""
        ring, count, level = (memory[f"{name}_{part}"] for part in ("ring", "count", "level"))
        if len(values) == 1:
            after = self._take_one(values[0], usable[0], ring, count, level)
            memory[f"{name}_level"] = after
            return (after if self.inclusive else level)[:, None, :]
        level = memory[f"{name}_level"] = level.copy()  # arrays returned earlier must not change
        result = np.empty((self.size, *values.shape))
        if self._alike(values, usable, ring, count):
            first = {f"{name}_{part}": memory[f"{name}_{part}"][..., :1].copy() for part in ("ring", "count", "level")}
            result[:] = self.baseline(values[:, :1], usable[:, :1], first, name)
            for part in ("ring", "count", "level"):
                memory[f"{name}_{part}"][:] = first[f"{name}_{part}"]
            return result
        if _in_step(usable, count):
            self._take_many(values, slice(None), np.arange(len(values)), ring, count, level, result)
            return result
        for k in range(values.shape[1]):
            rows = np.flatnonzero(usable[:, k])
            self._take_many(values, slice(k, k + 1), rows, ring, count, level, result)
        return result

    @staticmethod
    def _alike(values: Floats, usable: Bools, ring: Floats, count: Ints) -> bool:
        """Whether all subjects share one row per update, so that computing one of them is enough."""
        return (
            values.shape[1] > 1
            and values.strides[1] == 0
            and bool((usable == usable[:, :1]).all() and (count == count[0]).all() and (ring == ring[:, :1]).all())
        )

    def newest(self, memory: Memory, name: str) -> Floats:
        """Return the last values of the only subject, oldest first."""
        return self._newest(memory[f"{name}_ring"], int(memory[f"{name}_count"][0]))[:, 0]

    def steady(self, memory: Memory, name: str, usable: Bools) -> int:
        """Return for how many more updates the baseline stays the same, if the same values stay ``usable``."""
        counts = memory[f"{name}_count"][usable[-1]]
        if not len(counts):
            return LASTING
        if not self.inclusive and np.count_nonzero((counts % self.every == 0) & (counts >= self.first)):
            return 0
        due = np.maximum((counts // self.every + 1) * self.every, -(-self.first // self.every) * self.every)
        return int(np.minimum.reduce(due - counts)) - self.inclusive

    def _take_one(self, values: Floats, usable: Bools, ring: Floats, count: Ints, level: Floats) -> Floats:
        """Add a single update; return the levels after it, the same array if none changed."""
        if len(values) == 1:
            if not usable[0]:
                return level
            columns = _ALONE
        else:
            columns = np.flatnonzero(usable)
        before = count[columns]
        ring[before % self.length, columns] = values[columns]
        count += usable
        after = before + 1
        due = columns[(after % self.every == 0) & (after >= self.first)]
        if not len(due):
            return level
        refreshed = level.copy()
        for number in set(count[due].tolist()):
            alike = due[count[due] == number]
            refreshed[:, alike] = self.statistics(_by_row(self._newest(ring[:, alike], number)))
        return refreshed

    def _take_many(
        self, values: Floats, group: slice, rows: Ints, ring: Floats, count: Ints, level: Floats, result: Floats
    ) -> None:
        """Add the usable ``rows`` of subjects with equal counts; write the baselines of their updates to ``result``."""
        number = int(count[group][0])
        usable = values[:, group] if len(rows) == len(values) else values[rows, group]
        refreshes, refreshed = self._refreshed(usable, ring[:, group], number)
        levels = np.concatenate([level[:, None, group], refreshed], axis=1)
        edges = rows[refreshes - 1] + (0 if self.inclusive else 1)  # the update from which a level holds
        result[:, :, group] = np.repeat(levels, np.diff(edges, prepend=0, append=len(values)), axis=1)
        level[:, group] = levels[:, -1]
        self._keep(usable, ring[:, group], number)
        count[group] += len(rows)

    def _newest(self, ring: Floats, count: int) -> Floats:
        """Return the values in the ring after ``count`` values, oldest first."""
        if count < self.length:
            return ring[:count].copy()
        start = count % self.length
        return np.concatenate([ring[start:], ring[:start]])

    def _refreshed(self, values: Floats, ring: Floats, count: int) -> tuple[Ints, Floats]:
        """Return after how many ``values`` [n, k] (``count`` came before) statistics are due, and these [s, m, k]."""
        start = max((count // self.every + 1) * self.every, -(-self.first // self.every) * self.every)
        due = np.arange(start, count + len(values) + 1, self.every)
        k = values.shape[1]
        if not len(due):
            return due, np.zeros((self.size, 0, k))
        before = self._newest(ring, count)
        line, offset = np.concatenate([before, values]), count - len(before)
        short = [line[: stop - offset] for stop in due[due < self.length]]
        parts = [self.statistics(_by_row(window))[:, None] for window in short]
        if len(short) < len(due):
            windows = np.lib.stride_tricks.sliding_window_view(line, self.length, axis=0)  # [places, k, w]
            chosen = windows[due[len(short)] - self.length - offset :: self.every]
            statistics_ = self.statistics(np.ascontiguousarray(chosen).reshape(-1, self.length))
            parts.append(statistics_.reshape(self.size, -1, k))
        return due - count, np.concatenate(parts, axis=1)

    def _keep(self, values: Floats, ring: Floats, count: int) -> None:
        newest = values[-self.length :]
        ring[(count + len(values) - len(newest) + np.arange(len(newest))) % self.length] = newest


_ALONE = np.zeros(1, np.int64)
"""Index of the only subject."""


def _in_step(usable: Bools, count: Ints) -> bool:
    """Whether every value is usable and every subject has as many before."""
    if len(count) == 1:
        return bool(np.count_nonzero(usable) == usable.size)
    return bool(len(count)) and np.count_nonzero(usable) == usable.size and not np.count_nonzero(count != count[0])


def _by_row(windows: Floats) -> Floats:
    """Return windows [w, k] as contiguous rows [k, w], so that sums have a fixed order."""
    return np.ascontiguousarray(windows.T)


def _mean(windows: Floats) -> Floats:
    return np.asarray(windows.mean(axis=1))[None, :]


def rolling_mean(length: int, *, first: int) -> Rolling:
    """Return the mean of the last ``length`` usable values, the present one included, from the ``first`` one on."""
    return Rolling(_mean, length=length, every=1, first=first, inclusive=True)


def _median(windows: Floats) -> Floats:
    """Return the median of each window of an even length; ``np.median`` would also check for NaN, which none contains.

    Sorting 50 numbers takes a tenth of the time of a partition at two indices, which numpy does not vectorise.
    """
    upper = windows.shape[1] // 2
    ordered = np.sort(windows, axis=1)
    return (ordered[None, :, upper - 1] + ordered[None, :, upper]) / 2


_RECENT_MEDIAN = Rolling(_median)
MEDIAN_FIRST = _RECENT_MEDIAN.first
"""Usable values before the first ``recent_median``."""


def recent_median_memory(name: str) -> Mapping[str, First]:
    """Return the memory that ``recent_median`` needs under ``name``."""
    return _RECENT_MEDIAN.memory(name)


def recent_median(values: Floats, usable: Bools, memory: Memory, name: str) -> Floats:
    """Return the median of the last 50 usable values before each, refreshed after every 20th, [n, k].

    NaN before the 20th.
    """
    median: Floats = _RECENT_MEDIAN.baseline(values, usable, memory, name)[0]
    return median


def recent_median_steady(memory: Memory, name: str, usable: Bools) -> int:
    """Return for how many more updates the median stays the same; see ``Rolling.steady``."""
    return _RECENT_MEDIAN.steady(memory, name, usable)
