"""Cells of one metric: what is finite, NaN, infinite, null or absent, and the scale on which values are judged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from esper_analyze.comparison.cells import EARLY, FLOOR, MetricMatrix, early_values

NAN, INF = math.nan, math.inf
CELLS = MetricMatrix(
    np.array([[1.0, NAN, INF, -INF, NAN, NAN], [NAN] * 6]),
    np.array([[False, True, True, True, False, False], [False] * 6]),
    np.array([[False, False, False, False, True, False], [True] * 6]),
)
"""Of the first run: a number, NaN, +Inf, -Inf, null, no row; of the second: null only."""


def measured(*rows: list[float]) -> MetricMatrix:
    """Return cells that were all measured."""
    value = np.array(rows, float)
    return MetricMatrix(value, ~np.isfinite(value), np.zeros(value.shape, bool))


def test_each_kind_of_cell_is_told_apart() -> None:
    assert CELLS.finite[0].tolist() == [True, False, False, False, False, False]
    assert CELLS.measured[0].tolist() == [True, True, True, True, False, False]
    nan, above, below = (kind[0].tolist() for kind in CELLS.kinds)
    assert nan == [False, True, False, False, False, False]
    assert above == [False, False, True, False, False, False]
    assert below == [False, False, False, True, False, False]
    assert not any(kind[1].any() for kind in CELLS.kinds)


def test_a_run_that_measured_only_nan_has_measurements_and_one_of_nulls_has_none() -> None:
    assert CELLS.runs == 2
    assert CELLS.has_measurements.tolist() == [True, False]
    assert measured([NAN, NAN]).has_measurements.tolist() == [True]


def test_only_finite_values_are_judged() -> None:
    plain = CELLS.scaled(log=False)
    assert plain[0, 0] == 1.0
    assert np.isnan(plain[0, 1:]).all()
    assert np.isnan(CELLS.scaled(log=True)[0, 1:]).all()


def test_a_logarithm_is_natural_and_cut_at_a_millionth_of_the_early_median() -> None:
    early = [2.0, 4.0, 8.0]  # of a run of three values all are early
    found = measured(early, [0.0, -5.0, 4e-6]).scaled(log=True)
    median = float(np.median([2.0, 4.0, 8.0, 4e-6]))  # the positive ones of both runs
    assert FLOOR == 1e-6
    assert found[0] == pytest.approx(np.log(early))
    assert found[1] == pytest.approx([math.log(1e-6 * median)] * 2 + [math.log(4e-6)])


def test_the_floor_is_of_the_first_twenty_finite_values() -> None:
    row = [NAN, *[1.0] * 20, *[1e9] * 100, 0.0]
    assert EARLY == 20
    assert measured(row).scaled(log=True)[0, -1] == pytest.approx(math.log(1e-6))


def test_where_no_early_value_is_positive_the_floor_is_of_the_later_ones() -> None:
    found = measured([0.0] * 20 + [0.3, INF, NAN, 0.0]).scaled(log=True)[0]
    assert found[20] == pytest.approx(math.log(0.3))
    assert found[[0, 23]] == pytest.approx(math.log(3e-7))


def test_where_no_value_is_positive_all_are_equal() -> None:
    assert measured([0.0, -1.0], [-3.0, 0.0]).scaled(log=True).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21])
def test_early_are_the_first_twenty_finite_values(count: int) -> None:
    numbers = [float(number) for number in range(count)]
    mixed = np.array([INF, NAN, *numbers[:5], -INF, *numbers[5:]])
    assert early_values(mixed).tolist() == numbers[:20]
