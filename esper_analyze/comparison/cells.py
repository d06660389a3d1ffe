"""One metric of several runs over the same updates, with missing, non-finite and finite cells distinguished."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from esper_analyze.detector.signals import Bools, Floats

EARLY = 20
"""Number of a run's first finite values from which its noise is estimated."""
FLOOR = 1e-6
"""On a logarithmic scale, values below this share of the early median, zero included, count as equal."""


@dataclass(frozen=True)
class MetricMatrix:
    """A metric: ``value`` [runs, updates] as measured, ±Inf too; ``nonfinite`` and ``null`` say why it is not a number.

    Where a run has no row, a cell is neither finite, nor non-finite, nor null.
    """

    value: Floats
    nonfinite: Bools
    null: Bools

    @cached_property
    def finite(self) -> Bools:
        """Where a finite number was measured [runs, updates]."""
        return np.isfinite(self.value)

    @property
    def measured(self) -> Bools:
        """Where anything was measured, NaN and ±Inf included."""
        return self.finite | self.nonfinite

    @property
    def kinds(self) -> tuple[Bools, Bools, Bools]:
        """Where NaN, where +Inf and where -Inf was measured."""
        infinite = self.nonfinite & np.isinf(self.value)
        return self.nonfinite & ~infinite, infinite & (self.value > 0), infinite & (self.value < 0)

    @property
    def runs(self) -> int:
        """The number of runs."""
        return len(self.value)

    @property
    def has_measurements(self) -> Bools:
        """Runs that measured anything at all."""
        any_measured: Bools = np.any(self.measured, axis=1)
        return any_measured

    def scaled(self, *, log: bool) -> Floats:
        """Return the values to be judged: as they are, or their natural logarithm."""
        numbers = np.where(self.finite, self.value, np.nan)
        if not log:
            return numbers
        early = np.concatenate([early_values(row) for row in self.value])
        positive = early[early > 0]
        if not len(positive):
            positive = self.value[self.finite & (self.value > 0)]
        least = FLOOR * float(np.median(positive)) if len(positive) else 1.0
        return np.log(np.maximum(numbers, least))


def early_values(values: Floats) -> Floats:
    """Return the first ``EARLY`` finite ``values``."""
    return values[np.isfinite(values)][:EARLY]
