"""Whether runs end apart: their last tenths do not overlap, whether or not an update can be named at which they part.

Of each run the last tenth of its finite values is taken, at least ``LEAST_LAST``, up to the last update that another
run measured too. Its band reaches from the 10 % to the 90 % quantile, so that a few odd updates do not join what lies
apart. A run ends apart when its band lies wholly beyond those of the others, of which, as in ``parting``, one in five
is left out at each end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from esper_analyze.comparison.cells import Cells
from esper_analyze.comparison.divergence import DROPPED, RELATIVE
from esper_analyze.detector.signals import Floats

LAST = 0.1
"""Share of a run's values that is its end."""
LEAST_LAST = 5
"""Values that are the end of a short run."""
LEAST_KNOWN = 3
"""Values without which nothing is said of a run's end."""
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class Apart:
    """The end of a run that lies beyond those of the others: medians of its last values, and of the others'."""

    own: float
    others: float
    values: int
    """How many values of the run are its end."""


def apart(cells: Cells, *, log: bool = False, least: float = 0.0) -> tuple[Apart | None, ...]:
    """Return for each run how its end lies apart from the others, None where it overlaps or is not known.

    ``least`` is a distance, on the scale judged, that does not count; neither does 1 % of the values' size.
    """
    scaled = cells.scaled(log=log)
    ends = [_end(cells, run) for run in range(cells.runs)]
    bands = np.array([_band(scaled[run, places]) for run, places in enumerate(ends)])
    size = 1.0 if log else float(np.nanmedian(np.abs(bands[:, 1]))) if np.isfinite(bands).any() else 0.0
    margin = max(least, RELATIVE * size)
    return tuple(_apart(cells, ends, bands, run, margin) for run in range(cells.runs))


def _end(cells: Cells, run: int) -> np.ndarray:
    """Return the places of the last values of ``run``."""
    others = np.delete(cells.finite, run, axis=0)
    shared = np.flatnonzero(others.any(axis=0))
    own = np.flatnonzero(cells.finite[run])
    own = own[own <= shared[-1]] if len(shared) else own[:0]
    return own[-max(LEAST_LAST, math.ceil(LAST * len(own))) :]


def _band(values: Floats) -> Floats:
    known = len(values) >= LEAST_KNOWN
    return np.quantile(values, QUANTILES) if known else np.full(len(QUANTILES), np.nan)


def _apart(cells: Cells, ends: list[np.ndarray], bands: Floats, run: int, margin: float) -> Apart | None:
    others = np.delete(bands, run, axis=0)
    others = others[np.isfinite(others).all(axis=1)]
    low, _, high = bands[run]
    if not np.isfinite(bands[run]).all() or len(others) < min(2, cells.runs - 1):
        return None
    dropped = len(others) // DROPPED
    least, most = np.sort(others[:, 0])[dropped], np.sort(others[:, 2])[::-1][dropped]
    if low - most <= margin and least - high <= margin:
        return None
    rest = [float(np.median(cells.value[one, ends[one]])) for one in range(cells.runs) if one != run and len(ends[one])]
    own = cells.value[run, ends[run]]
    return Apart(float(np.median(own)), float(np.median(rest)), len(own))
