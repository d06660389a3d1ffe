"""Change points of a whole series, found afterwards: where its level moved to another, apart from its own wandering.

The series is cut into bins longer than its memory, and levels are fitted to the bins by optimal partitioning under a
penalty for each change (Jackson et al. 2005; the optimum that ``ruptures`` calls KernelCPD with a linear kernel). The
noise that the penalty rests on comes from differences between neighbouring bins, so a step does not widen it, and from
how differences grow with distance, so neither does memory narrow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from esper_analyze.detector.signals import Floats, Ints
from esper_analyze.runs.series import Series
from esper_analyze.wording import number

MOST_BINS = 100
LEAST_BINS = 15
"""With fewer bins a series is too short against its own memory for anything to be said."""
PENALTY = 4.0
"""Price of a change, in units of noise × ln(bins)."""
LEAST_PIECE = 3
"""Bins that a level lasts at least."""
LEAST_CHANGE = 0.3
"""A change by a smaller share of the level is not told."""
_MOST_MEMORY = 0.98
_NORMAL = 0.6745
"""Median of |x| of a standard normal x."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A level that moved at about ``update``, from ``before`` to ``after``."""

    update: int
    before: float
    after: float

    @property
    def told(self) -> str:
        """Name the change."""
        moved = "rose" if self.after > self.before else "fell"
        factor = self.after / self.before if self.before > 0 else 0.0
        times = f", × {number(factor)}" if factor > 0 else ""
        return f"{moved} at about update {self.update:,}, from {number(self.before)} to {number(self.after)}{times}"


def change_points(series: Series) -> tuple[ChangePoint, ...] | None:
    """Return where the level of ``series`` moved to another, None when it is too short to tell.

    What is never zero or negative is held on a logarithmic scale: levels are then geometric means.
    """
    value, update = series.value[series.finite], series.update[series.finite]
    if len(value) < LEAST_BINS:
        return None
    positive = bool((value > 0).all())
    width = _bin_width(np.log(value) if positive else value)
    count = len(value) // width
    if count < LEAST_BINS:
        return None
    bins = (np.log(value) if positive else value)[: count * width].reshape(count, width).mean(axis=1)
    cuts = partition(bins, PENALTY * noise(bins) * float(np.log(count)))
    edges = [0, *cuts, count]
    levels = [float(bins[a:b].mean()) for a, b in pairwise(edges)]
    levels = [float(np.exp(level)) for level in levels] if positive else levels
    found = zip(cuts, levels, levels[1:], strict=False)
    points = (ChangePoint(int(update[cut * width]), before, after) for cut, before, after in found)
    return tuple(
        one for one in points if abs(one.after - one.before) > LEAST_CHANGE * max(abs(one.before), abs(one.after))
    )


def partition(bins: Floats, penalty: float) -> list[int]:
    """Return where to cut ``bins`` into levels, so that squared error plus ``penalty`` per level is least."""
    total, squares = (np.concatenate([[0.0], np.cumsum(cells)]) for cells in (bins - bins[0], (bins - bins[0]) ** 2))
    least = np.full(len(bins) + 1, np.inf)
    least[0], came = 0.0, np.zeros(len(bins) + 1, np.int64)
    for end in range(LEAST_PIECE, len(bins) + 1):
        start = np.arange(end - LEAST_PIECE + 1)
        spread = squares[end] - squares[start] - (total[end] - total[start]) ** 2 / (end - start)
        cost = least[start] + spread + penalty
        came[end] = int(cost.argmin())
        least[end] = cost[came[end]]
    cuts, end = [], int(came[-1])
    while end:
        cuts.append(end)
        end = int(came[end])
    return cuts[::-1]


def noise(bins: Floats) -> float:
    """Return the variance that levels of ``bins`` would have by their noise alone, for each bin they last."""
    memory = min(_memory(bins), 0.9)
    apart = float(np.median(np.abs(np.diff(bins))) / _NORMAL) ** 2 / 2
    return apart / (1 - memory) * (1 + memory) / (1 - memory)


def _bin_width(value: Floats) -> int:
    memory = _memory(value)
    lasting = (1 + memory) / (1 - memory)
    return max(1, -(-len(value) // MOST_BINS), int(np.ceil(2 * (lasting - 1))))


def _memory(value: Floats) -> float:
    """Return the autocorrelation of neighbours, as if first order, by how differences grow with their distance."""
    one, two, four = (float(np.median(np.abs(value[lag:] - value[:-lag]))) ** 2 for lag in (1, 2, 4))
    if not one:
        return 0.0
    return float(np.clip(max(two / one - 1, (four / one - 1) / 3), 0.0, _MOST_MEMORY))


def levels_of(points: tuple[ChangePoint, ...], first: int, last: int) -> tuple[Ints, Floats]:
    """Return a line through the levels between ``points``, from update ``first`` to ``last``."""
    update = np.array([first, *(one.update for one in points for _ in (0, 1)), last], np.int64)
    value = np.array([points[0].before, *(v for one in points for v in (one.before, one.after)), points[-1].after])
    return update, value
