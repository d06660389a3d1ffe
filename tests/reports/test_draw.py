import warnings

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esper_analyze.reports.render.draw import bounds, finish, from_zero, line, magnitude, merged, scale, update_label
from esper_analyze.reports.render.figure import inline
from esper_analyze.runs.series import Series

NAN, INF = float("nan"), float("inf")


def series(*cells: float | None) -> Series:
    value = np.array([NAN if cell is None else cell for cell in cells])
    return Series(np.arange(len(cells)), value, np.array([cell is None for cell in cells], bool))


@pytest.fixture
def axes() -> Axes:
    return Figure().add_subplot()


def drawn_heights(axes: Axes, marker: object) -> list[float]:
    return [float(y) for drawn in axes.lines if drawn.get_marker() == marker for y in np.asarray(drawn.get_ydata())]


def test_a_missing_value_is_a_gap_and_never_zero(axes: Axes) -> None:
    line(axes, series(1.0, None, 3.0, 4.0))
    held = np.asarray(axes.lines[0].get_ydata())
    assert np.isnan(held[1])
    assert 0.0 not in held


def test_nan_and_infinities_are_marked_on_the_edges(axes: Axes) -> None:
    line(axes, series(1.0, NAN, INF, -INF, 2.0), label="loss")
    assert drawn_heights(axes, "x") == [1.0]
    assert [height > 0.5 for height in drawn_heights(axes, 6)] == [True]
    assert [height < 0.5 for height in drawn_heights(axes, 7)] == [True]
    assert axes.get_legend_handles_labels()[1] == ["loss (1 NaN, 2 infinite)"]


def test_a_value_between_two_gaps_is_a_dot(axes: Axes) -> None:
    line(axes, series(None, 5.0, None, 1.0, 2.0))
    assert drawn_heights(axes, ".") == [5.0]


def test_one_nan_in_a_hundred_thousand_updates_is_still_marked(axes: Axes) -> None:
    cells = np.ones(100_000)
    cells[777] = NAN
    line(axes, Series(np.arange(100_000), cells, np.zeros(100_000, bool)))
    marked = [drawn for drawn in axes.lines if drawn.get_marker() == "x"]
    assert np.asarray(marked[0].get_xdata()).tolist() == [777]
    assert sum(len(np.asarray(drawn.get_xdata())) for drawn in axes.lines) < 5_000


def test_many_nans_are_at_most_one_mark_a_pixel(axes: Axes) -> None:
    everywhere = Series(np.arange(50_000), np.full(50_000, NAN), np.zeros(50_000, bool))
    line(axes, everywhere)
    assert len(drawn_heights(axes, "x")) <= 2_000


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ((1.0, 2.0, 3.0), "linear"),
        ((1.0, 1.0, 1.0, 1e9), "log"),
        ((0.0, 1.0, 1.0, 1e9), "symlog"),
        ((-1.0, 1.0, 1.0, 1e9), "symlog"),
        ((), "linear"),
        ((0.0, 0.0), "linear"),
        ((None, NAN), "linear"),
    ],
)
def test_the_scale_fits_the_spread_and_keeps_zero(axes: Axes, cells: tuple[float | None, ...], kind: str) -> None:
    scale(axes, series(*cells))
    assert axes.get_yscale() == kind


def test_extreme_numbers_can_be_drawn(axes: Axes) -> None:
    wild = series(1e-320, 0.0, 1e300, -1e300, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        line(axes, wild)
        scale(axes, wild)
        finish(axes, "wild", last=True)
        axes.figure.canvas.draw()


def test_bounds_far_outside_do_not_squash_the_data(axes: Axes) -> None:
    line(axes, series(0.01, 0.02))
    before = len(axes.lines)
    bounds(axes, 5.0, None)
    assert len(axes.lines) == before
    bounds(axes, 0.015, None)
    assert len(axes.lines) == before + 1


def test_never_negative_numbers_begin_at_zero(axes: Axes) -> None:
    from_zero(axes, series(3.0, 4.0))
    low, high = axes.get_ylim()
    assert low <= 0
    assert high > 4


def test_spans_closer_than_a_pixel_are_one() -> None:
    assert merged([(0, 0), (1, 1), (500, 600)], 10.0) == [(0.0, 11.0), (500.0, 600.0)]
    assert len(merged([(t, t) for t in range(100_000)], 111.0)) == 1


@pytest.mark.parametrize(
    ("value", "label"), [(0, "0"), (0.5, "0.5"), (1e-5, "1e-5"), (2000, "2,000"), (1e6, "1e6"), (1e-310, "1e-310")]
)
def test_magnitudes_are_short(value: float, label: str) -> None:
    assert magnitude(value) == label


@pytest.mark.parametrize(("value", "label"), [(20, "20"), (0.5, ""), (1000, "1,000"), (2e5, "200 k"), (1e6, "1 M")])
def test_update_labels_are_whole(value: float, label: str) -> None:
    assert update_label(value) == label


def test_inline_svg_has_no_style_of_its_own_and_uses_variables() -> None:
    svg = '<?xml?><!DOCTYPE svg>\n<svg width="1pt" viewBox="0 0 9 9"><style type="text/css">*{}</style><g id="a">'
    svg += '<path style="stroke: #1f2328"/></g></svg>'
    assert inline(svg) == '<svg viewBox="0 0 9 9" aria-hidden="true"><g><path style="stroke: var(--ink)"/></g></svg>'
