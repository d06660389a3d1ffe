"""Whether runs end differently: their last tenths do not overlap, with or without an update at which they diverge.

Of each run the last tenth of its finite values is taken, at least ``LEAST_LAST``, up to the last update that another
run measured too. Its band reaches from the 10 % to the 90 % quantile, so that a few odd updates do not make bands
overlap. A run ends differently when its band does not overlap those of the others, of which, as in ``divergence``, one
in five is left out at each end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.comparison.divergence import DROPPED, RELATIVE
from esper_analyze.detector.signals import Floats

LAST = 0.1
"""Share of a run's values that counts as its end."""
LEAST_LAST = 5
"""Least number of values in a run's end."""
LEAST_KNOWN = 3
"""With fewer values a run's end is not judged."""
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class EndDifference:
    """A run's end that differs from the others': medians of its last values, and of the others'."""

    run: float
    others: float
    values: int
    """Number of values in the run's end."""


def end_differences(cells: MetricMatrix, *, log: bool = False, least: float = 0.0) -> tuple[EndDifference | None, ...]:
    """Return for each run how its end differs from the others', None where they overlap or values are too few.

    ``least`` is a distance, on the scale judged, that does not count; neither does 1 % of the values' size.
    """
    scaled = cells.scaled(log=log)
    ends = [_last_indices(cells, run) for run in range(cells.runs)]
    bands = np.array([_band(scaled[run, places]) for run, places in enumerate(ends)])
    size = 1.0 if log else float(np.nanmedian(np.abs(bands[:, 1]))) if np.isfinite(bands).any() else 0.0
    margin = max(least, RELATIVE * size)
    return tuple(_end_difference(cells, ends, bands, run, margin) for run in range(cells.runs))


def _last_indices(cells: MetricMatrix, run: int) -> np.ndarray:
    """Return the columns of the last values of ``run``."""
    others = np.delete(cells.finite, run, axis=0)
    shared = np.flatnonzero(others.any(axis=0))
    columns = np.flatnonzero(cells.finite[run])
    columns = columns[columns <= shared[-1]] if len(shared) else columns[:0]
    return columns[-max(LEAST_LAST, math.ceil(LAST * len(columns))) :]


def _band(values: Floats) -> Floats:
    enough = len(values) >= LEAST_KNOWN
    return np.quantile(values, QUANTILES) if enough else np.full(len(QUANTILES), np.nan)


def _end_difference(
    cells: MetricMatrix, ends: list[np.ndarray], bands: Floats, run: int, margin: float
) -> EndDifference | None:
    others = np.delete(bands, run, axis=0)
    others = others[np.isfinite(others).all(axis=1)]
    low, _, high = bands[run]
    if not np.isfinite(bands[run]).all() or len(others) < min(2, cells.runs - 1):
        return None
    dropped = len(others) // DROPPED
    least, most = np.sort(others[:, 0])[dropped], np.sort(others[:, 2])[::-1][dropped]
    if low - most <= margin and least - high <= margin:
        return None
    rest = [
        float(np.median(cells.value[other, ends[other]]))
        for other in range(cells.runs)
        if other != run and len(ends[other])
    ]
    last_values = cells.value[run, ends[run]]
    return EndDifference(float(np.median(last_values)), float(np.median(rest)), len(last_values))
