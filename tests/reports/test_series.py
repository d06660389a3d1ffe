from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_analyze.replay.evidence import Evidence
from esper_analyze.runs.run import open_run
from esper_analyze.runs.series import (
    Series,
    all_series,
    by_subject,
    corners,
    envelope,
    rows_by_subject,
    with_gaps,
)
from tests.present import present
from tests.reports.synthetic import Rows, write_run

NAN, INF = float("nan"), float("inf")


def series(*cells: float | None, start: int = 0) -> Series:
    value = np.array([NAN if cell is None else cell for cell in cells])
    return Series(np.arange(start, start + len(cells)), value, np.array([cell is None for cell in cells], bool))


cell = st.one_of(st.none(), st.floats(-1e9, 1e9), st.sampled_from([NAN, INF, -INF, 0.0]))


def test_null_nan_and_zero_are_three_facts() -> None:
    three = series(None, NAN, 0.0)
    assert three.null.tolist() == [True, False, False]
    assert three.nonfinite.tolist() == [False, True, False]
    assert three.finite.tolist() == [False, False, True]


def test_last_is_the_last_measured_even_when_it_is_nan() -> None:
    assert np.isnan(present(series(1.0, NAN, None).last))
    assert series(1.0, 2.0, None).last == 2.0
    assert series(None).last is None


def test_the_largest_is_finite() -> None:
    assert series(1.0, INF, 3.0, NAN).largest == 2


def test_a_hole_in_the_updates_becomes_one_null_point() -> None:
    holed = with_gaps(Series(np.array([0, 1, 7, 8]), np.arange(4.0), np.zeros(4, bool)))
    assert holed.update.tolist() == [0, 1, 6, 7, 8]
    assert holed.null.tolist() == [False, False, True, False, False]


def test_without_holes_nothing_is_inserted() -> None:
    whole = series(1.0, None, 2.0)
    assert with_gaps(whole) is whole


@given(st.lists(cell, min_size=1, max_size=200), st.integers(1, 40))
def test_an_envelope_holds_every_extreme_and_its_mean_between(cells: list[float | None], pixels: int) -> None:
    whole = series(*cells, start=5)
    cut = envelope(whole, pixels)
    finite = whole.value[whole.finite]
    assert len(cut.update) <= pixels
    if len(finite):
        assert np.nanmin(cut.low) == finite.min()
        assert np.nanmax(cut.high) == finite.max()
    some = ~np.isnan(cut.mean)
    assert (cut.low[some] <= cut.mean[some]).all()
    assert (cut.mean[some] <= cut.high[some]).all()


@given(st.lists(cell, min_size=1, max_size=100), st.integers(1, 20))
def test_a_piece_without_a_finite_value_is_a_gap(cells: list[float | None], pixels: int) -> None:
    whole = series(*cells)
    cut = envelope(whole, pixels)
    width = cut.update[1] - cut.update[0] if len(cut.update) > 1 else len(cells)
    for place, start in enumerate(cut.update):
        measured = whole.finite[start : start + width].any()
        assert measured == (not np.isnan(cut.mean[place]))


def test_columns_keep_null_nan_and_infinity_from_the_shards(troubled: Evidence) -> None:
    columns = all_series(troubled.run, "updates", ["explained_variance", "value_loss", "ratio_max"])
    assert columns["explained_variance"].update[columns["explained_variance"].null].tolist() == [33, 34, 35]
    assert columns["value_loss"].update[columns["value_loss"].nonfinite].tolist() == [30]
    assert columns["ratio_max"].value[30] == INF


def test_subjects_come_apart_in_order_of_appearance(healthy: Evidence) -> None:
    heads = by_subject(healthy.run, "heads", ["grad_norm", "learnable_fraction"])
    assert list(heads) == ["slot", "op"]
    assert set(heads["slot"]["grad_norm"].value) == {0.0}


def test_a_table_without_subjects_is_refused(healthy: Evidence) -> None:
    with pytest.raises(ValueError, match="all_series"):
        by_subject(healthy.run, "updates", ["kl_k3"])


@given(st.lists(cell, min_size=1, max_size=200), st.integers(1, 40))
def test_corners_hold_the_first_last_least_and_greatest_of_each_stretch(cells: list[float | None], pixels: int) -> None:
    whole = series(*cells, start=3)
    thin = corners(whole, pixels)
    width = max(1, -(-len(cells) // pixels))
    points = dict(zip(thin.update[~thin.null].tolist(), thin.value[~thin.null].tolist(), strict=True))
    for start in range(0, len(cells), width):
        piece = slice(start, start + width)
        here = np.flatnonzero(whole.finite[piece]) + start
        kept = [value for update, value in points.items() if start <= update - 3 < start + width]
        assert len(kept) <= 4
        assert bool(kept) == bool(len(here))
        if len(here):
            assert (min(kept), max(kept)) == (whole.value[here].min(), whole.value[here].max())
            assert {3 + here[0], 3 + here[-1]} <= points.keys()


def test_a_spike_of_one_update_in_a_million_is_drawn_at_its_full_height() -> None:
    value = np.random.default_rng(0).normal(size=1_000_000)
    value[654_321] = 1e6
    thin = corners(Series(np.arange(len(value)), value, np.zeros(len(value), bool)), 400)
    assert thin.value[thin.update == 654_321].tolist() == [1e6]
    assert len(thin.update) <= 1_600


def test_a_stretch_without_values_is_a_gap_in_the_corners() -> None:
    value = np.ones(1_000)
    value[300:700] = NAN
    thin = corners(Series(np.arange(1_000), value, np.isnan(value)), 50)
    assert thin.null.sum() == 1
    assert 299 < int(thin.update[thin.null][0]) < 700


def test_rows_of_a_subject_are_the_same_however_many_are_read_at_once(
    troubled: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ["grad_norm", "zero_explained"]
    whole = rows_by_subject(troubled.run, "heads", columns)
    monkeypatch.setattr("esper_analyze.runs.series._CHUNK", 1)
    for name, rows in rows_by_subject(troubled.run, "heads", columns).items():
        assert rows.equals(whole[name])
    assert whole["slot"]["zero_explained"].to_list().count("unexplained") == 1


def test_the_last_of_two_rows_of_an_update_stands(tmp_path: Path) -> None:
    def twice(update: int, rows: Rows) -> None:
        if update == 2:
            rows["heads"].append({**rows["heads"][1], "grad_norm": 7.0})

    rows = rows_by_subject(open_run(write_run(tmp_path / "run", 4, twice)), "heads", ["grad_norm"])["op"]
    assert rows["update"].to_list() == [0, 1, 2, 3]
    assert rows["grad_norm"][2] == 7.0
