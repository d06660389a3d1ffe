"""A run at its beginning and at its end: means of a metric over the first and the last tenth of its updates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.signals import Floats
from esper_analyze.wording import number

TENTH = 0.1
"""Share of a run's measured updates that is its beginning, and that is its end; one update at least."""


@dataclass(frozen=True, slots=True)
class Tenths:
    """Means over the first and the last tenth of a run's measured updates, ``updates`` each.

    Updates without a measurement are left out; one that is NaN or infinite makes the mean so.
    """

    first: float
    last: float
    updates: int

    @property
    def ratio(self) -> float | None:
        """Last over first; None unless both are finite and positive."""
        sound = 0 < self.first < math.inf and 0 < self.last < math.inf
        return self.last / self.first if sound else None

    @property
    def words(self) -> str:
        """First, last and their ratio."""
        ratio = "" if self.ratio is None else f" (×{number(self.ratio)})"
        return f"{number(self.first)} → {number(self.last)}{ratio}"


def tenths_of(measured: Floats) -> Tenths | None:
    """Return the tenths of the values that were measured, None without any."""
    if not len(measured):
        return None
    count = math.ceil(TENTH * len(measured))
    with np.errstate(invalid="ignore", over="ignore"):  # +Inf and −Inf in one tenth: their mean is NaN
        return Tenths(float(measured[:count].mean()), float(measured[-count:].mean()), count)
