"""Whether a training goes on: it appends to its write-ahead log at every update, and that is watched from outside."""

from __future__ import annotations

import os
from collections import deque

LEAST = 60.0
"""Seconds without an update that are never a stall …"""
TYPICAL = 10.0
"""… nor are so many median times between updates …"""
LONGEST = 2.0
"""… nor so many times the longest pause of the run so far: evaluations and saving return …"""
UNKNOWN = 600.0
"""… nor is this many seconds as long as the time between two updates is not known."""
_REMEMBERED = 1000
"""Times between updates of which the median is taken: the last ones."""


class LogGrowth:
    """The write-ahead log in ``folder``: files named ``prefix`` and a number of ``digits``; only sizes are read."""

    def __init__(self, folder: str, prefix: str, digits: int) -> None:
        self._folder, self._prefix, self._digits = folder, prefix, digits
        self._number, self._size = 0, 0
        self.grown()

    @property
    def position(self) -> tuple[int, int]:
        """Number and size in bytes of the newest file, as last seen."""
        return self._number, self._size

    def grown(self) -> bool:
        """Return whether something was appended since the last call."""
        newest = self._newest()
        if newest is None or newest <= (self._number, self._size):
            return False
        self._number, self._size = newest
        return True

    def _newest(self) -> tuple[int, int] | None:
        """Return number and size of the newest file; None without one. Sealed files are deleted, numbers go up."""
        for number in (self._number + 1, self._number):
            size = self._size_of(number)
            if size is not None:
                return number, size
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - pathlib takes memory
        except OSError:
            return None
        numbers = [name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)]
        newest = max((int(number) for number in numbers if number.isdecimal()), default=None)
        size = None if newest is None else self._size_of(newest)
        return None if newest is None or size is None else (newest, size)

    def _size_of(self, number: int) -> int | None:
        try:
            return os.stat(f"{self._folder}/{self._prefix}{number:0{self._digits}d}").st_size  # noqa: PTH116
        except OSError:
            return None


class UpdateTimes:
    """The times between a run's updates, and how long a pause may last. All times are monotonic, in seconds.

    The time until the first update is none between updates: a compiler or a data set may take it.
    """

    def __init__(self, now: float) -> None:
        self.last = now
        """When the last update came, at first when the watch began."""
        self.longest = 0.0
        self._gaps: deque[float] = deque(maxlen=_REMEMBERED)
        self._first = True

    def note(self, now: float) -> None:
        """Note that an update came."""
        if not self._first:
            self._gaps.append(now - self.last)
            self.longest = max(self.longest, self._gaps[-1])
        self.last, self._first = now, False

    @property
    def typical(self) -> float | None:
        """The median; None before the second update."""
        return sorted(self._gaps)[len(self._gaps) // 2] if self._gaps else None

    @property
    def limit(self) -> float:
        """Seconds without an update after which the training has stalled."""
        typical = self.typical
        return UNKNOWN if typical is None else max(LEAST, TYPICAL * typical, LONGEST * self.longest)

    def stalled(self, now: float) -> bool:
        """Whether the training has stored nothing for longer than it ever should."""
        return now - self.last > LEAST and now - self.last > self.limit
