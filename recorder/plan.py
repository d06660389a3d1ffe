"""Progress of a training against the length planned by its framework."""

from __future__ import annotations

from typing import Any


class TrainingPlan:
    """Counts the steps of several trainings of one run against the planned total.

    Frameworks know only the length of one call (``learn``, ``train``). The first call's plan is the run's. A later
    call that plans another total shows that the run is trained in pieces of unknown number: from then on ``progress``
    is None, instead of decreasing.
    """

    def __init__(self) -> None:
        self.done = 0
        self._start = self._counted = 0
        self._total: int | None = None
        self._changed = False

    def reach(self, counted: int, total: int | None) -> None:
        """Record, once an update, the framework's own count of steps and its planned total (None: unknown).

        A count that does not increase has restarted at 0.
        """
        if counted <= self._counted:
            self._start = self.done
        self._counted, self.done = counted, self._start + counted
        if total is None or total <= 0:
            self._changed = True
            return
        if self._total is None:
            self._total = self._start + total
        self._changed |= self._start + total != self._total

    @property
    def progress(self) -> float | None:
        """Completed share of the plan in [0, 1]; None if the plan is unknown or has changed."""
        return None if self._total is None or self._changed else min(self.done / self._total, 1.0)

    def cells(self, *, planned: bool) -> dict[str, Any]:
        """Return the cell ``progress``; empty if the recorder knows the run's length (``planned``) and computes it."""
        return {} if planned else {"progress": self.progress}
