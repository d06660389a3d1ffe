"""A series as a line of text height, inside a table of the page."""

from __future__ import annotations

import numpy as np

from esper_analyze.reports.render import html
from esper_analyze.runs.series import Series, corners
from esper_analyze.wording import number

WIDE, HIGH = 110, 22
_COLUMNS = 36
"""Stretches of updates that are drawn, four points each at most: no spike is lost."""


def sparkline(series: Series, low: float = 0.0, high: float | None = None) -> str:
    """Return ``series`` as an inline SVG between ``low`` and ``high`` (default: its greatest value), named in words.

    Where NaN or ±Inf was measured a cross stands on the upper edge, in the colour of a critical verdict.
    """
    if series.empty:
        return '<span class="none">–</span>'
    thin = corners(series, _COLUMNS)
    first, last = int(series.update[0]), max(int(series.update[-1]), int(series.update[0]) + 1)
    top = max(float(thin.value[~thin.null].max(initial=0.0)), low) if high is None else high
    span = (top - low) or 1.0
    x = 2 + (WIDE - 4) * (thin.update - first) / (last - first)
    y = 2 + (HIGH - 4) * (1 - np.clip((thin.value - low) / span, 0.0, 1.0))
    lines = "".join(_polyline(x[piece], y[piece]) for piece in _pieces(thin))
    where = 2 + (WIDE - 4) * (series.update[series.nonfinite] - first) / (last - first)
    crosses = "".join(_cross(float(at)) for at in np.unique(np.round(where)))
    return (
        f'<svg class="spark" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{html.text(_words(series))}">'
        f"{lines}{crosses}</svg>"
    )


def _pieces(series: Series) -> list[slice]:
    """Return the stretches without a null point."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], series.null, [True]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _polyline(x: np.ndarray, y: np.ndarray) -> str:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    if len(x) == 1:
        return f'<circle cx="{x[0]:.1f}" cy="{y[0]:.1f}" r="1.2" class="dot"/>'
    return f'<polyline points="{points}"/>'


def _cross(x: float) -> str:
    return f'<path class="broken" d="M{x - 3:.0f} 1l6 6m0 -6l-6 6"/>'


def _words(series: Series) -> str:
    numbers = series.value[series.finite]
    if not len(numbers):
        return "never finite"
    broken = int(series.nonfinite.sum())
    more = f", {broken:,} NaN or infinite" if broken else ""
    ends = f"from {number(float(numbers[0]))} to {number(float(numbers[-1]))}"
    return f"{ends}, least {number(float(numbers.min()))}, greatest {number(float(numbers.max()))}{more}"
