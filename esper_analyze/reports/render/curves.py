"""What a drawn figure shows over updates as numbers, from which the page draws it again to be hovered and zoomed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from esper_analyze.reports.render.draw import EXTREMES_OF, UPDATES
from esper_analyze.reports.render.style import VARIABLES
from esper_analyze.runs.series import EXTREMES, Extremes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_DIGITS = 6
"""Significant digits of a value: more than a reader can tell apart."""
_UNNAMED = "_child"
"""What matplotlib calls a line that has no label."""
_MOST_BYTES = 900_000
"""Characters of a page for closer looks at its lines."""
_MARKS = {"x": "cross", 6: "up", 7: "down"}

Numbers = list[float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """A line, or points: ``x`` are updates, ``y`` values; None where nothing finite was measured.

    ``extremes``: of a line drawn by its extremes, those that a closer look needs; they stand for ``x`` and ``y``.
    """

    label: str
    colour: str
    width: float
    points: bool
    x: Numbers
    y: Numbers
    extremes: Extremes | None = None


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """One axes: its curves, bounds (value and colour), spans (first and last update, colour), areas and edge marks.

    ``scale``: "linear", "log" or "symlog", that one linear below ``linear_below``. ``low``, ``high``: the y axis as it
    is drawn. ``marks``: where NaN and ±Inf were measured, as (kind, update).
    """

    title: str
    height: int
    scale: str
    linear_below: float
    low: float
    high: float
    curves: tuple[Curve, ...]
    bounds: tuple[tuple[float, str], ...]
    spans: tuple[tuple[float, float, str], ...]
    areas: tuple[tuple[str, Numbers, Numbers], ...]
    marks: tuple[tuple[str, float], ...]


def panels_of(figure: Figure) -> tuple[CurvePanel, ...]:
    """Return the panels of a figure whose axes all are lines over updates, row by row; none for another figure."""
    axes = figure.axes
    lowest = min((one.get_position().y0 for one in axes), default=0.0)
    labels = [one.get_xlabel() for one in axes if math.isclose(one.get_position().y0, lowest)]
    if not labels or not all(label.startswith(UPDATES) for label in labels):
        return ()
    if any(one.images or one.texts or not list(_data_lines(one)) for one in axes):
        return ()
    height = figure.get_figheight() * 72
    return tuple(_panel(one, round(one.get_position().height * height)) for one in axes)


def fitting(figures: Sequence[tuple[CurvePanel, ...]]) -> list[tuple[CurvePanel, ...]]:
    """Return the panels of a page's figures, their lines as fine as the page has room for."""
    shown = [curve.extremes for panels in figures for panel in panels for curve in panel.curves if curve.extremes]
    size = sum(len(extremes.values) for extremes in shown) * EXTREMES.itemsize * 4 / 3  # in base 64
    number = max(1, math.ceil(size / _MOST_BYTES))

    def joined(panel: CurvePanel) -> CurvePanel:
        curves = [replace(curve, extremes=curve.extremes and curve.extremes.joined(number)) for curve in panel.curves]
        return replace(panel, curves=tuple(curves))

    return [tuple(map(joined, panels)) for panels in figures]


def columns_of(figure: Figure) -> int:
    """Return how many axes stand side by side."""
    return len({round(one.get_position().x0, 3) for one in figure.axes})


def _data_lines(axes: Axes) -> Iterator[Line2D]:
    return (line for line in axes.lines if line.get_transform() == axes.transData and np.size(line.get_xdata()))


def _panel(axes: Axes, height: int) -> CurvePanel:
    low, high = axes.get_ylim()
    scale: Any = axes.yaxis.get_transform()
    return CurvePanel(
        title=axes.get_title(loc="left") or axes.get_title(),
        height=height,
        scale=axes.get_yscale(),
        linear_below=float(getattr(scale, "linthresh", 0.0)),
        low=float(low),
        high=float(high),
        curves=tuple(_curves(axes)),
        bounds=tuple(_bounds(axes)),
        spans=tuple(_spans(axes)),
        areas=tuple(_areas(axes)),
        marks=tuple(_marks(axes)),
    )


def _curves(axes: Axes) -> Iterator[Curve]:
    """Yield the lines.

    Thin ones through the corners of pixels are named after the mean that lies over them, points between two gaps after
    the line before them.
    """
    lines = list(_data_lines(axes))
    only = "value" if len({line.get_color() for line in lines}) == 1 else ""
    names = [_name(line, only) for line in lines]
    for place, line in enumerate(lines):
        points = str(line.get_linestyle()) == "None"
        name, thin = names[place], line.get_alpha() is not None and place + 1 < len(lines)
        if str(line.get_label()).startswith(_UNNAMED):
            if points and place:
                name = f"{names[place - 1]} (alone)".strip()
            elif thin:
                name = f"{names[place + 1]} (extremes)".strip()
        extremes = EXTREMES_OF.get(line)
        x, y = ([], []) if extremes else (_numbers(line.get_xdata()), _numbers(line.get_ydata()))
        look = _colour(line.get_color()), float(line.get_linewidth())
        yield Curve(name, *look, points, x, y, extremes)


def _name(line: Line2D, only: str) -> str:
    """Return the label of a line, also one that a "_" keeps out of the legend; without one ``only``."""
    label = str(line.get_label())
    name = "" if label.startswith(_UNNAMED) else label.removeprefix("_").strip()
    return f"{only} {name}".strip() if not name or name.startswith("(") else name  # "(": the count of its NaN


def _bounds(axes: Axes) -> Iterator[tuple[float, str]]:
    for line in axes.lines:
        if line.get_transform() == axes.get_yaxis_transform(which="grid"):
            yield float(np.asarray(line.get_ydata())[0]), _colour(line.get_color())


def _spans(axes: Axes) -> Iterator[tuple[float, float, str]]:
    for patch in axes.patches:
        box = patch.get_path().get_extents(patch.get_patch_transform())
        yield float(box.x0), float(box.x1), _colour(patch.get_facecolor())


def _areas(axes: Axes) -> Iterator[tuple[str, Numbers, Numbers]]:
    for collection in axes.collections:
        faces: Any = collection.get_facecolor()
        for path in collection.get_paths():
            corners = np.asarray(path.vertices)
            yield _colour(faces[0]), _numbers(corners[:, 0]), _numbers(corners[:, 1])


def _marks(axes: Axes) -> Iterator[tuple[str, float]]:
    for line in axes.lines:
        kind = _MARKS.get(line.get_marker())
        if kind and line.get_transform() == axes.get_xaxis_transform():
            yield from ((kind, float(x)) for x in np.asarray(line.get_xdata(), float))


def _numbers(values: Any) -> Numbers:
    return [_short(value) for value in np.asarray(values, float).tolist()]


def _short(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 2**53 else float(f"{value:.{_DIGITS}g}")


def _colour(colour: Any) -> str:
    from matplotlib.colors import to_hex

    named = str(to_hex(colour))
    return VARIABLES.get(named, named)
