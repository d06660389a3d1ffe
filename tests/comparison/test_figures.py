"""What a comparison's figures show: their panels, lines, colours, marks and the band."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from esper_analyze.comparison.figures import Overlay, _label, _marks, draw, layout, overlays, quartiles, series, words
from esper_analyze.comparison.metrics import METRICS, TOPICS, Metric
from esper_analyze.comparison.side_by_side import ComparedMetric
from esper_analyze.reports.render.style import BAND, FIRST, SECOND, THIRD, VERDICTS, house_style, sheet
from tests.comparison.made import compared, comparison, parting, still

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAN, INF = math.nan, math.inf
LOSS = Metric("updates", "policy_loss", "Policy loss", "policy")


def numbered(count: int, **starts: int) -> list[ComparedMetric]:
    """Return ``count`` metrics of one topic for two runs; ``m3=20`` lets that one diverge at a column."""
    metrics = [Metric("updates", f"m{number}", f"Metric {number}", "policy") for number in range(count)]
    return [
        compared(metric, parting(2, b=starts[metric.column]) if metric.column in starts else still(2))
        for metric in metrics
    ]


def drawn(data: Overlay) -> list[Axes]:
    """Draw onto axes as the page has them."""
    shape = layout(data)
    with house_style():
        _, axes = sheet(shape.heights, shape.columns, shape.left)
        draw(data, axes)
    return list(axes)


def marks(axes: Axes) -> list[tuple[float, str]]:
    """Return place and colour of the dashed vertical lines."""
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    return [(float(np.asarray(line.get_xdata())[0]), str(line.get_color())) for line in dashed]


def test_there_is_a_figure_for_each_topic_that_was_measured_and_it_asks_something() -> None:
    of_each = [next(metric for metric in METRICS if metric.topic == topic) for topic in reversed(TOPICS)]
    found = overlays(comparison([compared(metric, still(2), "x") for metric in of_each]))
    assert [overlay.topic for overlay in found] == list(TOPICS)
    titles = ["Returns", "Policy change", "Value function", "Gradients", "Heads", "LSTM state"]
    assert [overlay.title for overlay in found] == titles
    assert len({overlay.asks for overlay in found}) == len(TOPICS)
    assert all(overlay.asks.endswith("?") for overlay in found)
    assert overlays(comparison([compared(LOSS, still(2))]))[0].drawing.name == "policy"


def test_a_metric_that_is_not_drawn_is_so_where_it_diverges_or_ends_apart() -> None:
    quiet = Metric("updates", "x", "X", "policy", drawn=False)
    assert overlays(comparison([compared(quiet, still(2))])) == []
    wild = 1000 * np.random.default_rng(0).normal(size=(2, 40))
    wild[0, 30:], wild[1, 30:] = 1.0, 9.0
    one_apart = 1000 * np.random.default_rng(0).normal(size=(3, 40))
    one_apart[:, 30:], one_apart[0, 30:] = 9.0, 1.0
    for values in (parting(2, b=20), wild, parting(5, b=20), one_apart):
        assert [len(overlay.panels) for overlay in overlays(comparison([compared(quiet, values)]))] == [1]


def test_of_more_than_eight_panels_those_that_diverge_are_shown_in_their_order() -> None:
    metrics = numbered(10, m9=20, m8=25)
    (found,) = overlays(comparison(metrics))
    assert [panel.metric.column for panel in found.panels] == ["m0", "m1", "m2", "m3", "m4", "m5", "m8", "m9"]


@pytest.mark.parametrize(
    ("runs", "starts", "lines", "band"),
    [
        (2, {"b": 20}, {0: FIRST, 1: SECOND}, False),
        (3, {"b": 20}, {0: THIRD, 1: VERDICTS["critical"], 2: THIRD}, False),
        (5, {}, dict.fromkeys(range(5), THIRD), False),
        (6, {}, {}, True),
        (8, {"h": 20, "a": 25}, {7: VERDICTS["critical"], 0: SECOND}, True),
    ],
)
def test_a_pair_has_two_colours_and_of_many_each_run_that_diverges_has_its_own(
    runs: int, starts: dict[str, int], lines: dict[int, str], band: bool
) -> None:
    (found,) = overlays(comparison([compared(LOSS, parting(runs, **starts))]))
    assert (found.lines, found.band) == (lines, band)


def several(*starts: int, runs: int = 4) -> Overlay:
    """Return the figure of runs that part each in a metric of its own, at a column each."""
    metrics = []
    for run, start in enumerate(starts):
        values = still(runs)
        values[run, start:] = 500.0
        metrics.append(compared(Metric("updates", f"m{run}", f"Metric {run}", "policy"), values))
    return overlays(comparison(metrics))[0]


def test_four_runs_at_most_have_a_colour_of_their_own() -> None:
    colours = [VERDICTS["critical"], SECOND, VERDICTS["ok"], VERDICTS["warning"]]
    found = several(24, 23, 22, 21, 20, runs=8)
    assert found.lines == dict(zip((4, 3, 2, 1), colours, strict=True))
    few = several(21, 22, 23, 24, 25, runs=5)
    assert few.lines == {**dict(zip(range(4), colours, strict=True)), 4: THIRD}


@pytest.mark.parametrize(
    ("panels", "columns", "heights"),
    [(1, 1, (24, 150)), (3, 1, (24, 150, 150, 150)), (4, 2, (24, 120, 120)), (5, 2, (24, 120, 120, 120))],
)
def test_more_than_three_panels_stand_two_in_a_row(panels: int, columns: int, heights: tuple[int, ...]) -> None:
    shape = layout(overlays(comparison(numbered(panels)))[0])
    assert (shape.columns, shape.heights) == (columns, heights)


def test_runs_that_stay_share_one_label_and_others_have_their_own() -> None:
    (found,) = overlays(comparison([compared(LOSS, parting(4, b=20))]))
    assert [_label(found, run) for run in range(4)] == ["3 runs more", "b", "", ""]
    (none,) = overlays(comparison([compared(LOSS, still(3))]))
    assert [_label(none, run) for run in range(3)] == ["3 runs", "", ""]
    (pair,) = overlays(comparison([compared(LOSS, still(2))], labels=("x\x1b" + "y" * 40, "b")))
    assert [_label(pair, run) for run in range(2)] == ["x" + "y" * 32 + "…", "b"]


def test_of_a_pair_only_the_first_divergence_is_marked_and_of_many_each_in_its_colour() -> None:
    values = parting(2, 60, b=20)
    (pair,) = overlays(comparison([compared(LOSS, values)]))
    assert sum(one is not None for one in pair.panels[0].judged.divergences) == 2
    assert _marks(pair, pair.panels[0]) == [(30, VERDICTS["critical"])]
    assert _marks(pair, compared(LOSS, still(2))) == []
    (many,) = overlays(comparison([compared(LOSS, parting(8, d=20, g=25))]))
    assert _marks(many, many.panels[0]) == [(30, VERDICTS["critical"]), (35, SECOND)]
    hidden = Overlay("policy", many.comparison, many.panels, {6: SECOND}, band=True)
    assert _marks(hidden, many.panels[0]) == [(35, SECOND)]


def test_a_pair_is_drawn_as_two_lines_over_its_updates_with_a_dashed_mark() -> None:
    rows = np.ones((2, 40), bool)
    rows[1, 35:] = False
    values = parting(2, b=20)
    (found,) = overlays(comparison([compared(LOSS, values, rows=rows)], rows=rows))
    key, panel = drawn(found)
    one, other = panel.lines[:2]
    assert (one.get_color(), other.get_color()) == (FIRST, SECOND)
    assert np.asarray(one.get_xdata()).tolist() == list(range(10, 50))
    assert np.asarray(other.get_xdata()).tolist() == list(range(10, 45))
    assert np.asarray(other.get_ydata()).tolist() == values[1, :35].tolist()
    assert marks(panel) == [(30.0, VERDICTS["critical"])]
    legend = key.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert not key.axison
    assert panel.axison
    assert (panel.get_title(loc="left"), panel.get_xlabel()) == ("Policy loss", "update")


def test_each_of_five_panels_has_its_title_and_the_last_of_each_column_its_axis() -> None:
    (found,) = overlays(comparison(numbered(5, m4=20)))
    axes = drawn(found)
    assert [panel.axison for panel in axes] == [False, False, *[True] * 5, False]
    panels = axes[2:7]
    assert [panel.get_title(loc="left") for panel in panels] == [f"Metric {number}" for number in range(5)]
    assert [panel.get_xlabel() for panel in panels] == ["", "", "", "update", "update"]
    assert [len(marks(panel)) for panel in panels] == [0, 0, 0, 0, 1]
    assert axes[1].get_legend() is None
    assert panels[3].xaxis.get_tick_params()["labelbottom"]  # the place below it is empty


def test_a_logarithmic_metric_has_a_logarithmic_axis() -> None:
    logged = Metric("updates", "x", "X", "policy", log=True)
    scales = [drawn(overlays(comparison([compared(metric, still(2))]))[0])[1].get_yscale() for metric in (LOSS, logged)]
    assert scales == ["linear", "log"]


def test_many_runs_are_a_band_of_those_without_a_line() -> None:
    values = parting(8, g=20) + np.arange(8.0)[:, None]
    values[3, 5] = NAN
    (found,) = overlays(comparison([compared(LOSS, values)]))
    panel = drawn(found)[1]
    outer, inner = panel.collections
    rest = np.delete(values, 6, axis=0)
    for area, colour in ((outer, BAND), (inner, FIRST)):
        shown = np.asarray(area.get_facecolor())[0, :3]
        assert np.allclose(shown, [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    assert inner.get_alpha() == 0.3
    for area, low, high in ((outer, 0, 100), (inner, 25, 75)):
        edges = np.asarray(area.get_paths()[0].vertices)
        for update in (10, 15, 30, 49):
            at = sorted(set(edges[edges[:, 0] == update, 1].tolist()))
            assert at == pytest.approx([np.nanpercentile(rest[:, update - 10], cut) for cut in (low, high)])
    middle, left = panel.lines[:2]
    assert middle.get_label() == "median of 7"
    assert np.asarray(middle.get_ydata()).tolist() == np.nanmedian(rest, axis=0).tolist()
    assert (left.get_color(), np.asarray(left.get_ydata()).tolist()) == (VERDICTS["critical"], values[6].tolist())
    assert [area.get_label() for area in (outer, inner)] == ["least to most", "middle half"]


def test_quartiles_ignore_what_is_no_number_and_are_nan_where_there_is_none() -> None:
    values = np.array([[1.0, NAN, 4.0], [2.0, NAN, INF], [5.0, NAN, NAN]])
    found = quartiles(np.where(np.isfinite(values), values, NAN))
    assert found[:, 0].tolist() == [1.0, 1.5, 2.0, 3.5, 5.0]
    assert np.isnan(found[:, 1]).all()
    assert found[:, 2].tolist() == [4.0] * 5
    assert np.isnan(quartiles(np.full((2, 3), NAN))).all()


def test_an_infinite_value_stays_out_of_the_band() -> None:
    values = still(6) + np.arange(6.0)[:, None]
    values[2, 7] = INF
    (found,) = overlays(comparison([compared(LOSS, values)]))
    middle = next(line for line in drawn(found)[1].lines if line.get_label() == "median of 5")
    assert np.asarray(middle.get_ydata())[7] == np.median([100.0, 101.0, 103.0, 104.0, 105.0])


def test_a_series_has_the_updates_of_its_run_and_tells_null_from_nan() -> None:
    values = np.array([[1.0, NAN, 3.0, NAN, INF], [1.0] * 5])
    rows = np.array([[True, True, True, False, True], [True] * 5])
    found = comparison([compared(LOSS, values, rows=rows)], rows=rows)
    one = series(found, found.metrics[0], 0)
    assert one.update.tolist() == [10, 11, 12, 14]
    assert one.null.tolist() == [False, True, False, False]
    assert one.value[[0, 2, 3]].tolist() == [1.0, 3.0, INF]


def test_the_words_of_a_figure_name_what_diverges_and_what_ends_apart() -> None:
    (quiet,) = overlays(comparison([compared(LOSS, still(2))]))
    assert words(quiet) == ["None of these diverges."]
    (found,) = overlays(comparison(numbered(3, m0=20, m2=20)))
    assert words(found) == [
        "Diverging: Metric 0, Metric 2. Dashed line: the first update outside the band.",
        "Different at the end: Metric 0, Metric 2.",
    ]
    wild = 1000 * np.random.default_rng(0).normal(size=(2, 40))
    wild[0, 30:], wild[1, 30:] = 1.0, 9.0
    (ends,) = overlays(comparison([compared(LOSS, wild), *numbered(1)]))
    assert words(ends) == ["Different at the end: Policy loss."]
    three = 1000 * np.random.default_rng(0).normal(size=(3, 40))
    three[:, 30:], three[0, 30:] = 9.0, 1.0
    (of_one,) = overlays(comparison([compared(LOSS, three)]))
    assert words(of_one) == ["Different at the end: Policy loss."]
    (left,) = overlays(comparison([compared(LOSS, parting(5, b=20))]))
    assert words(left)[0].startswith("Diverging: Policy loss.")
