"""The first and last tenth of each run, and its worst incident."""

from __future__ import annotations

import math

import numpy as np
import pytest

from esper_analyze.comparison.summary_tables import tenths_table
from esper_analyze.comparison.tenths import tenths
from esper_analyze.runs.tenths import Tenths
from tests.comparison.made import cells, compared, comparison, still

NAN = math.nan


def test_means_are_of_the_first_and_the_last_tenth_of_what_was_measured() -> None:
    values = np.vstack([np.arange(40.0), [*range(21), *[NAN] * 19]])
    assert tenths(cells(values)) == (Tenths(1.5, 37.5, 4), Tenths(1.0, 19.0, 3))


@pytest.mark.parametrize("count", [1, 2, 9, 10])
def test_a_short_run_has_tenths_of_one_update(count: int) -> None:
    values = np.full((1, 12), NAN)
    values[0, :count] = np.arange(count)
    assert tenths(cells(values)) == (Tenths(0.0, count - 1.0, 1),)


def test_nan_in_a_tenth_is_its_mean_and_null_is_left_out() -> None:
    matrix = cells(np.array([[1.0] * 19 + [NAN], [1.0] * 19 + [NAN], [NAN] * 20]))
    matrix.nonfinite[0, 19], matrix.null[0, 19] = True, False
    broken, null, never = tenths(matrix)
    assert broken is not None
    assert (broken.first, broken.updates) == (1.0, 2)
    assert math.isnan(broken.last)
    assert null == Tenths(1.0, 1.0, 2)
    assert never is None


@pytest.mark.parametrize(
    ("first", "last", "ratio"),
    [(2.0, 5.0, 2.5), (0.0, 5.0, None), (-1.0, 5.0, None), (1.0, -1.0, None), (1.0, NAN, None), (1.0, math.inf, None)],
)
def test_a_ratio_is_of_finite_positive_means_only(first: float, last: float, ratio: float | None) -> None:
    assert Tenths(first, last, 1).ratio == ratio


def test_the_table_has_what_was_measured_and_the_worst_incident_by_run() -> None:
    values = still(2, 40)
    values[1, 36:] = 25.0
    runs = comparison([compared("kl_k3", values)], worst=("ok", "critical: kl_spike at update 3"))
    assert tenths_table(runs) == (
        ("run", "KL", "worst incident"),
        [("a", "100 → 100 (×1)", "ok"), ("b", "100 → 25 (×0.25)", "critical: kl_spike at update 3")],
    )
