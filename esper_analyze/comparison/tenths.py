"""Each run at its beginning and at its end: means of a metric over the first and the last tenth of its updates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.wording import number

TENTH = 0.1
"""Share of a run's measured updates that is its beginning, and that is its end; one update at least."""
TITLES = {
    "episode_return_mean": "return",
    "kl_k3": "KL",
    "entropy": "entropy",
    "explained_variance": "EV",
    "clip_fraction": "clipped",
}
"""The columns of table updates that are summarised, and their short titles."""


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


def tenths(cells: MetricMatrix) -> tuple[Tenths | None, ...]:
    """Return each run's tenths of one metric, None for a run that never measured it."""
    return tuple(_of_run(cells, run) for run in range(cells.runs))


def _of_run(cells: MetricMatrix, run: int) -> Tenths | None:
    values = cells.value[run][cells.measured[run]]
    if not len(values):
        return None
    count = math.ceil(TENTH * len(values))
    with np.errstate(invalid="ignore"):  # +Inf and −Inf in one tenth: their mean is NaN
        return Tenths(float(values[:count].mean()), float(values[-count:].mean()), count)
