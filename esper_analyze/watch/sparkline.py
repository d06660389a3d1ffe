"""A number over the last updates in one line of text, with missing, non-finite and zero distinguished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from rich.text import Text

from esper_analyze.reports.render.style import VERDICTS

BARS = "▁▂▃▄▅▆▇█"
MISSING, BROKEN, ZERO = "·", "×", "0"
"""Signs of a cell that was not measured, contains NaN or ±Inf, or is exactly zero."""


def curve(values: Sequence[float | None], width: int) -> Text:
    """Return ``values`` in at most ``width`` cells, from their least to their largest, as a course of either sign."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    # Above zero: only a gradient's zero has a sign of its own.
    raised = [
        value if value is None or not math.isfinite(value) else value - low + (high - low or 1.0) / 8
        for value in values
    ]
    return sparkline(raised, width)


def sparkline(values: Sequence[float | None], width: int) -> Text:
    """Return ``values`` in at most ``width`` cells, from zero to their largest; a cell shows its largest value.

    In a cell, non-finite values take precedence over numbers, and numbers over missing values.
    """
    cells = _cells(values, width)
    top = max((value for value in cells if value is not None and math.isfinite(value)), default=0.0)
    drawn = Text()
    for value in cells:
        sign = _sign(value, top)
        drawn.append(sign, VERDICTS["critical"] if sign == BROKEN else "")
    return drawn


def _cells(values: Sequence[float | None], width: int) -> list[float | None]:
    count = min(len(values), width)
    edges = [len(values) * index // count for index in range(count + 1)] if count else []
    return [_largest(values[start:stop]) for start, stop in pairwise(edges)]


def _largest(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    broken = [value for value in measured if not math.isfinite(value)]
    return broken[0] if broken else max(measured, default=None)


def _sign(value: float | None, top: float) -> str:
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return BROKEN
    if value == 0:
        return ZERO
    share = value / top if top > 0 else 0.0
    return BARS[min(len(BARS) - 1, max(0, math.ceil(share * len(BARS)) - 1))]
