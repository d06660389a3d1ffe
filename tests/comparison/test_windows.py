"""Windows around an update and order statistics, beside their plain definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from esper_analyze.comparison.windows import LEAST_REACH, PACE, order_statistic_of_others, reach, windowed_least

INF, NAN = math.inf, math.nan


def test_a_window_reaches_three_tenths_of_the_updates_so_far_and_two_at_least() -> None:
    assert (PACE, LEAST_REACH) == (0.3, 2)
    first, last = reach(40)
    assert [first[t] for t in (0, 1, 2, 9, 10, 20, 39)] == [0, 0, 0, 7, 7, 14, 28]
    assert [last[t] for t in (0, 1, 2, 9, 10, 20, 39)] == [2, 3, 4, 11, 13, 26, 39]


@pytest.mark.parametrize("updates", [0, 1, 2, 3])
def test_a_window_stays_within_the_updates_that_there_are(updates: int) -> None:
    first, last = reach(updates)
    assert first.tolist() == [0] * updates
    assert last.tolist() == [updates - 1] * updates


@pytest.mark.parametrize("updates", [0, 1, 2])
def test_the_least_of_a_short_row(updates: int) -> None:
    values = np.arange(3.0, 3.0 + updates)[None]
    assert windowed_least(values).tolist() == [[3.0] * updates]


@pytest.mark.parametrize("updates", [5, 31, 200])
def test_the_least_of_each_window_is_the_least_of_its_cells(updates: int) -> None:
    values = np.random.default_rng(updates).normal(size=(3, updates))
    values[1, ::4], values[2, 2::5] = NAN, -INF
    found = windowed_least(values)
    first, last = reach(updates)
    for row, series in enumerate(values):
        known = np.flatnonzero(np.isfinite(series))
        for t in range(updates):
            window = series[first[t] : last[t] + 1]
            within = known[0] <= t <= known[-1]
            assert found[row, t] == (window[np.isfinite(window)].min(initial=INF) if within else INF)


def test_before_the_first_value_and_after_the_last_there_is_no_least() -> None:
    values = np.array([[NAN, NAN, 5.0, NAN, 4.0, NAN, INF]])
    assert windowed_least(values).tolist() == [[INF, INF, 4.0, 4.0, 4.0, INF, INF]]
    assert windowed_least(np.full((1, 3), NAN)).tolist() == [[INF] * 3]


def test_a_run_is_left_out_of_the_order_of_the_others_ties_included() -> None:
    values = np.array([[1.0], [2.0], [2.0], [INF]])
    for rank, expected in enumerate(([2.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0], [INF, INF, INF, 2.0])):
        found = order_statistic_of_others(values, np.full(values.shape, rank))
        assert found[:, 0].tolist() == expected


def test_a_rank_beyond_the_last_is_no_value_and_each_cell_has_its_own_rank() -> None:
    values = np.array([[1.0, 7.0], [2.0, 6.0], [3.0, 5.0]])
    rank = np.array([[0, 1], [1, 0], [2, 9]])
    assert order_statistic_of_others(values, rank).tolist() == [[2.0, 6.0], [3.0, 5.0], [INF, INF]]
    assert order_statistic_of_others(np.array([[4.0]]), np.array([[0]])).tolist() == [[INF]]
