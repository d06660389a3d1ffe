"""Change points of a complete series, found after the run: where its level changed by more than its own wandering.

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
"""With fewer bins a series is too short, given its autocorrelation, to be tested."""
PENALTY = 4.0
"""Price of a change, in units of noise × ln(bins)."""
LEAST_PIECE = 3
"""Least number of bins in a level."""
LEAST_CHANGE = 0.3
"""A change by a smaller share of the level is not reported."""
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
    def words(self) -> str:
        """The change in words."""
        moved = "rose" if self.after > self.before else "fell"
        factor = self.after / self.before if self.before > 0 else 0.0
        times = f", × {number(factor)}" if factor > 0 else ""
        return f"{moved} at about update {self.update:,}, from {number(self.before)} to {number(self.after)}{times}"


def change_points(series: Series) -> tuple[ChangePoint, ...] | None:
    """Return the change points of ``series``, None when it is too short to tell.

    A series that is always positive is tested on a logarithmic scale: levels are then geometric means.
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
    moves = zip(cuts, levels, levels[1:], strict=False)
    points = (ChangePoint(int(update[cut * width]), before, after) for cut, before, after in moves)
    return tuple(
        point
        for point in points
        if abs(point.after - point.before) > LEAST_CHANGE * max(abs(point.before), abs(point.after))
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
    lag_1, lag_2, lag_4 = (float(np.median(np.abs(value[lag:] - value[:-lag]))) ** 2 for lag in (1, 2, 4))
    if not lag_1:
        return 0.0
    return float(np.clip(max(lag_2 / lag_1 - 1, (lag_4 / lag_1 - 1) / 3), 0.0, _MOST_MEMORY))


def levels_of(points: tuple[ChangePoint, ...], first: int, last: int) -> tuple[Ints, Floats]:
    """Return a line through the levels between ``points``, from update ``first`` to ``last``."""
    update = np.array([first, *(point.update for point in points for _ in (0, 1)), last], np.int64)
    value = np.array(
        [points[0].before, *(v for point in points for v in (point.before, point.after)), points[-1].after]
    )
    return update, value
