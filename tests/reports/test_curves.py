"""The numbers of a figure, from which the page's script draws it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from esper_analyze.reports.render.curves import CurvePanel, fitting
from esper_analyze.reports.render.draw import area, bounds, finish, line, scale
from esper_analyze.reports.render.figure import drawn
from esper_analyze.reports.render.section import Drawing, Layout
from esper_analyze.reports.render.style import FIRST, SECOND, VERDICTS
from esper_analyze.runs.series import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAN = float("nan")


def series(values: Sequence[float], null: Sequence[int] = ()) -> Series:
    value = np.array(values, float)
    return Series(np.arange(len(value)), value, np.isin(np.arange(len(value)), list(null)))


def panels(draw: Callable[[Any, Sequence[Axes]], None], rows: int = 1, columns: int = 1) -> tuple[CurvePanel, ...]:
    return drawn(Drawing("one", lambda _: Layout((90,) * rows, columns), draw), None).panels


def test_a_panel_has_the_values_as_measured_and_a_gap_where_nothing_was() -> None:
    def draw(_: Any, axes: Sequence[Axes]) -> None:
        line(axes[0], series([1.0, 2.123456789, NAN, 4.0, 5.0], null=[3]), FIRST, "loss")
        line(axes[0], series([0.0] * 5), SECOND, "zero")
        finish(axes[0], "Loss", last=True)

    (panel,) = panels(draw)
    assert (panel.title, panel.height, panel.scale) == ("Loss", 90, "linear")
    loss, alone, zero = panel.curves
    assert (alone.label, alone.points, alone.x, alone.y) == ("loss (1 NaN) (alone)", True, [4], [5])
    assert (loss.label, loss.colour) == ("loss (1 NaN)", "--first")
    known = {x: y for x, y in zip(loss.x, loss.y, strict=True) if y is not None}
    assert known == {0: 1, 1: 2.12346, 4: 5}
    assert set(zero.y) == {0}
    assert panel.marks == (("cross", 2.0),)


def test_bounds_spans_and_areas_are_there() -> None:
    def draw(_: Any, axes: Sequence[Axes]) -> None:
        area(axes[0], series([0.0, 0.0, 0.0]), series([1.0, 2.0, 1.0]), FIRST)
        line(axes[0], series([0.5, 1.0, 0.5]))
        bounds(axes[0], 0.8, 1.5)
        axes[0].axvspan(0.5, 1.5, color=VERDICTS["critical"])
        finish(axes[0], "x", last=True)

    (panel,) = panels(draw)
    assert panel.bounds == ((0.8, VERDICTS["warning"]), (1.5, VERDICTS["critical"]))
    assert panel.spans == ((0.5, 1.5, VERDICTS["critical"]),)
    ((colour, x, y),) = panel.areas
    assert colour == "--first"
    assert {(0, 0), (1, 2), (2, 0)} <= set(zip(x, y, strict=True))
    assert panel.curves[0].label == "value"


@pytest.mark.parametrize(("values", "expected"), [([1.0, 10.0, 1e5], "log"), ([0.0, 1e-3, 1e5], "symlog")])
def test_the_scale_is_that_of_the_drawing(values: list[float], expected: str) -> None:
    def draw(_: Any, axes: Sequence[Axes]) -> None:
        line(axes[0], series(values))
        scale(axes[0], series(values), log=True)
        finish(axes[0], "x", last=True)

    (panel,) = panels(draw)
    assert panel.scale == expected
    assert (panel.linear_below > 0) == (expected == "symlog")
    assert panel.low < panel.high


def test_a_line_is_called_as_it_is_named_here_whatever_is_in_other_panels() -> None:
    def draw(_: Any, axes: Sequence[Axes]) -> None:
        line(axes[0], series([1.0, 2.0]), FIRST, "norm")
        line(axes[0], series([1.0, 1.0]), SECOND, "_not in the legend")
        line(axes[1], series([1.0, NAN, 2.0]), FIRST)
        finish(axes[1], "x", last=True)

    top, below = panels(draw, rows=2)
    assert [curve.label for curve in top.curves] == ["norm", "not in the legend"]
    assert {curve.label for curve in below.curves} == {"value (1 NaN)", "value (1 NaN) (alone)"}


def test_of_many_updates_the_extremes_and_the_mean_are_kept() -> None:
    values = np.zeros(100_000)
    values[54_321] = 7.0

    def draw(_: Any, axes: Sequence[Axes]) -> None:
        line(axes[0], series(values.tolist()), FIRST, "spike")
        finish(axes[0], "x", last=True)

    (panel,) = panels(draw)
    outline, mean = panel.curves
    assert (outline.label, mean.label) == ("spike (extremes)", "spike")
    assert outline.x == outline.y == []
    assert outline.extremes is not None
    found = outline.extremes.values
    (at,) = np.flatnonzero(found["high"] == 7)
    assert outline.extremes.first + at * outline.extremes.width + found["high_at"][at] == 54_321
    assert 2_048 < len(found) <= 4_096
    assert len(mean.x) < 1_000


def test_a_page_has_as_fine_lines_as_it_has_room_for() -> None:
    def draw(_: Any, axes: Sequence[Axes]) -> None:
        line(axes[0], series(np.arange(50_000.0).tolist()), FIRST, "rises")
        finish(axes[0], "x", last=True)

    one = panels(draw)
    fine, coarse = fitting([one])[0], fitting([one] * 30)[29]
    (rises, joined) = fine[0].curves[0].extremes, coarse[0].curves[0].extremes
    assert rises is not None
    assert joined is not None
    assert len(rises.values) > 2 * len(joined.values) > 1_000
    assert 30 * 16 * len(joined.values) <= 900_000
    assert joined.values["low"][0] == 0
    assert joined.values["high"][-1] == 49_999


def test_a_figure_of_something_else_has_none() -> None:
    def heat(_: Any, axes: Sequence[Axes]) -> None:
        axes[0].imshow(np.zeros((2, 2)))
        finish(axes[0], "x", last=True)

    def against(_: Any, axes: Sequence[Axes]) -> None:
        line(axes[0], series([1.0, 2.0]))
        finish(axes[0], "x", last=True, x="learning rate")

    assert panels(heat) == panels(against) == ()
