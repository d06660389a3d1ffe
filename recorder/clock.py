"""When an update began, when its optimisation did, and how long both took."""

from __future__ import annotations

import time

STEP = 5.0
"""Seconds between two updates by which the wall clock may differ from the time that went by."""


class Clock:
    """The times of the update in progress. Lengths are of the monotonic clock; the time of day only dates them."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._optimising: float | None = None
        self._ended: float | None = None
        self._offset = time.time() - self._began
        self._steps: dict[int, float] = {}

    def optimise(self) -> None:
        """Note when optimisation begins; once it has begun this does nothing."""
        if self._optimising is None:
            self._optimising = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the update began."""
        return time.perf_counter() - self._began

    def cells(self, update: int, spent: float) -> dict[str, object]:
        """Return the columns of ``updates`` about time; ``spent`` are the recorder's own seconds."""
        now = self._ended = time.perf_counter()
        optimising = now if self._optimising is None else self._optimising
        return {
            "wall_time": self._time_of_day(now, update),
            "rollout_s": optimising - self._began,
            "optimisation_s": now - optimising,
            "recorder_ms": 1000 * spent,
            "recorder_fraction": spent / max(now - self._began, 1e-9),
        }

    def _time_of_day(self, now: float, update: int) -> float:
        """Return it; note where it was set since the update before. Order never comes from it."""
        wall = time.time()
        before, self._offset = self._offset, wall - now
        if abs(self._offset - before) > STEP:
            self._steps[update] = self._offset - before
        return wall

    def step(self, update: int) -> float | None:
        """Return by how many seconds the time of day was set before ``update`` ended, None when it was not."""
        return self._steps.pop(update, None)

    def next(self) -> None:
        """Begin the next update where the one before ended: the time in between, the recorder's own, counts too."""
        self._began = time.perf_counter() if self._ended is None else self._ended
        self._optimising = self._ended = None
