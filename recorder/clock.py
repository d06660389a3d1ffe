"""Start and duration of each update and of its optimisation."""

from __future__ import annotations

import time

from esper_analyze.schema.row_types import UpdatesRow

STEP = 5.0
"""Seconds by which the wall clock may differ from the elapsed time between two updates."""


class Clock:
    """The times of the update in progress. Durations are monotonic; the wall clock only dates them."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._optimising: float | None = None
        self._ended: float | None = None
        self._offset = time.time() - self._began
        self._steps: dict[int, float] = {}

    def optimise(self) -> None:
        """Record the start of optimisation; later calls have no effect."""
        if self._optimising is None:
            self._optimising = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the update began."""
        return time.perf_counter() - self._began

    def cells(self, update: int, spent: float) -> UpdatesRow:
        """Return the time columns of ``updates``; ``spent``: the recorder's own seconds."""
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
        """Return the wall time; record if it was set since the previous update. Never used for ordering."""
        wall = time.time()
        before, self._offset = self._offset, wall - now
        if abs(self._offset - before) > STEP:
            self._steps[update] = self._offset - before
        return wall

    def step(self, update: int) -> float | None:
        """Return the seconds by which the wall clock was set before ``update`` ended; None if it was not."""
        return self._steps.pop(update, None)

    def next(self) -> None:
        """Begin the next update at the end of the previous one: the recorder's own time in between counts."""
        self._began = time.perf_counter() if self._ended is None else self._ended
        self._optimising = self._ended = None
