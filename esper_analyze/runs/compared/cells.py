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
    """A metric: ``value`` [runs, updates], NaN unless finite; ``nonfinite`` and ``null`` say why it is not.

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
    def runs(self) -> int:
        """How many runs there are."""
        return len(self.value)

    @property
    def known(self) -> Bools:
        """Runs that measured anything at all."""
        found: Bools = np.any(self.finite | self.nonfinite, axis=1)
        return found

    def scaled(self, *, log: bool) -> Floats:
        """Return the values to be judged: as they are, or their natural logarithm."""
        if not log:
            return self.value
        early = np.concatenate([early_values(row) for row in self.value])
        positive = early[early > 0]
        if not len(positive):
            positive = self.value[self.finite & (self.value > 0)]
        least = FLOOR * float(np.median(positive)) if len(positive) else 1.0
        return np.log(np.maximum(self.value, least))


def early_values(values: Floats) -> Floats:
    """Return the first finite ones of ``values``, at most ``EARLY``."""
    return values[np.isfinite(values)][:EARLY]
