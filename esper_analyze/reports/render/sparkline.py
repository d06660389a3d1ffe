"""A series as a line of text height, inside a table of the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.runs.series import Series, corners
from esper_analyze.wording import number

WIDE, HIGH = 110, 22
_COLUMNS = 36
"""Stretches of updates that are drawn, four points each at most: no spike is lost."""
_ARM = 3
"""Half the width of a cross."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Sparkline:
    """Pieces of a line and the left ends of crosses, in pixels, and the series in words."""

    pieces: tuple[tuple[Point, ...], ...]
    crosses: tuple[int, ...]
    words: str
    width: int
    height: int


def sparkline(
    series: Series, low: float = 0.0, high: float | None = None, size: tuple[int, int] = (WIDE, HIGH)
) -> Sparkline | None:
    """Return ``series`` between ``low`` and ``high`` (default: its greatest value), None where nothing was measured.

    ``size``: width and height in pixels.

    Where NaN or ±Inf was measured a cross stands on the upper edge, in the colour of a critical verdict.
    """
    if series.empty:
        return None
    wide, tall = size
    thin = corners(series, _COLUMNS * wide // WIDE)
    first, last = int(series.update[0]), max(int(series.update[-1]), int(series.update[0]) + 1)
    top = max(float(thin.value[~thin.null].max(initial=0.0)), low) if high is None else high
    span = (top - low) or 1.0
    x = 2 + (wide - 4) * (thin.update - first) / (last - first)
    y = 2 + (tall - 4) * (1 - np.clip((thin.value - low) / span, 0.0, 1.0))
    pieces = tuple(tuple(zip(x[piece].tolist(), y[piece].tolist(), strict=True)) for piece in _pieces(thin))
    where = 2 + (wide - 4) * (series.update[series.nonfinite] - first) / (last - first)
    return Sparkline(pieces, tuple(int(at) - _ARM for at in np.unique(np.round(where))), _words(series), wide, tall)


def _pieces(series: Series) -> list[slice]:
    """Return the stretches without a null point."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], series.null, [True]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _words(series: Series) -> str:
    numbers = series.value[series.finite]
    if not len(numbers):
        return "never finite"
    broken = int(series.nonfinite.sum())
    more = f", {broken:,} NaN or infinite" if broken else ""
    ends = f"from {number(float(numbers[0]))} to {number(float(numbers[-1]))}"
    return f"{ends}, least {number(float(numbers.min()))}, greatest {number(float(numbers.max()))}{more}"
