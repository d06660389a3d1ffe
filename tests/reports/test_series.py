import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_analyze.reports.evidence import Evidence
from esper_analyze.reports.series import Series, all_series, by_subject, envelope, with_gaps

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
    assert np.isnan(series(1.0, NAN, None).last)
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
