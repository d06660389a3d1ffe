"""How much of a training is done, by the plan of the framework that runs it."""

from __future__ import annotations

from typing import Any


class TrainingPlan:
    """Counts what is done across several trainings of one run, and compares it with what is planned.

    Frameworks know the length of one call only (``learn``, ``train``). The first call's plan is the run's. A later
    call that plans more, or less, shows that the whole is trained in pieces whose number nobody knows: then
    ``progress`` is None from there on, instead of falling back.
    """

    def __init__(self) -> None:
        self.done = 0
        self._start = self._counted = 0
        self._total: int | None = None
        self._changed = False

    def reach(self, counted: int, total: int | None) -> None:
        """Take the framework's own count of what is done, once an update, and what it is to reach (None: unknown).

        A count that does not rise has begun again at 0.
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
        """Share of the plan that is done, in [0, 1]; None when the plan is unknown or was changed."""
        return None if self._total is None or self._changed else min(self.done / self._total, 1.0)

    def cells(self, *, planned: bool) -> dict[str, Any]:
        """Return the cell ``progress``; none where the recorder was given the run's length and computes it itself."""
        return {} if planned else {"progress": self.progress}
