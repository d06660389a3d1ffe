"""One metric of several runs over the same updates, with missing, non-finite and finite kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from esper_analyze.detector.signals import Bools, Floats

EARLY = 20
"""Values of a run, its first, that say how noisy it is."""
FLOOR = 1e-6
"""On a logarithmic scale, values below this share of the early median are all the same; zero is one of them."""


@dataclass(frozen=True)
class Cells:
    """A metric: ``value`` [runs, updates] as measured, ±Inf too; ``nonfinite`` and ``null`` say why it is no number.

    Where a run has no row, a cell is neither finite, nor non-finite, nor null.
    """

    value: Floats
    nonfinite: Bools
    null: Bools

    @cached_property
    def finite(self) -> Bools:
        """Where a finite number was measured."""
        return np.isfinite(self.value)

    @property
    def measured(self) -> Bools:
        """Where anything was measured, NaN and ±Inf too."""
        return self.finite | self.nonfinite

    @property
    def kinds(self) -> tuple[Bools, Bools, Bools]:
        """Where NaN, where +Inf and where -Inf was measured: three facts."""
        infinite = self.nonfinite & np.isinf(self.value)
        return self.nonfinite & ~infinite, infinite & (self.value > 0), infinite & (self.value < 0)

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self.value)

    @property
    def known(self) -> Bools:
        """Runs that measured anything at all."""
        found: Bools = np.any(self.measured, axis=1)
        return found

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
    """Return the first finite ones of ``values``, at most ``EARLY``."""
    return values[np.isfinite(values)][:EARLY]
