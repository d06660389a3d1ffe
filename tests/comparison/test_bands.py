"""Noise, bands and lasting stretches, beside numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esper_analyze.comparison import divergence
from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.comparison.divergence import Divergence, bands, find_divergences, run_noise
from esper_analyze.comparison.ends import LAST, LEAST_LAST, QUANTILES
from esper_analyze.comparison.words import READING
from esper_analyze.detector.signals import Bools, Floats
from tests.comparison.test_cells import measured

NAN, INF = math.nan, math.inf
STD = 1.0 / (0.6745 * math.sqrt(2))
"""Standard deviation of values whose steps have a median size of 1."""


def outside(index: int, size: float) -> Divergence:
    """Return a divergence of about that size."""
    about: Any = pytest.approx(size)
    return Divergence(index, "beyond", about)


def flat(runs: int, updates: int = 30, *, swing: float = 1.0) -> Floats:
    """Return runs that go up and down by ``swing`` in every update, around 100."""
    return np.tile(100 + swing * (np.arange(updates) % 2), (runs, 1))


def test_the_page_says_the_method_s_numbers() -> None:
    method = " ".join(READING[0].split())
    assert f"{divergence.HITS} of {divergence.STRETCH} updates" in method
    assert f"more than {divergence.SIGMAS:.0f} standard deviations" in method
    assert f"at least {divergence.FENCE} interquartile ranges" in method
    assert f"{divergence.DROPPED == 5 and 'a fifth'} at each end" in method
    assert f"from the {QUANTILES[0]:.0%} to the {QUANTILES[2]:.0%}".replace("%", " %") in method
    assert f"the last {'tenth' if LAST == 0.1 else ''} of a run ({LEAST_LAST} values at least" in method
    assert f"by more than {divergence.RELATIVE:.0%} of its size".replace("%", " %") in method
    assert (divergence.FEW, divergence.LEAST_EARLY) == (4, 6)


def test_noise_needs_six_finite_early_values() -> None:
    assert math.isnan(run_noise(np.array([1.0, 2.0, 3.0, 4.0, 5.0, NAN, INF])))
    assert run_noise(np.array([1.0, 2.0, NAN, 3.0, 4.0, 5.0, 6.0])) == pytest.approx(2 * STD)  # lag 2


def test_noise_is_of_the_larger_of_two_lags() -> None:
    assert run_noise(np.array([0.0, 1.0] * 9)) == pytest.approx(STD)  # lag 4, a quarter of 18 values, sees no step
    slow = np.repeat([0.0, 3.0, 0.0, 3.0], 5)  # only lag 5 sees the swing
    assert run_noise(slow) == pytest.approx(3 * STD)
    assert run_noise(np.concatenate([slow, np.arange(100.0) ** 3])) == pytest.approx(3 * STD)
    twos = np.array([0.0, 0.0, 4.0, 4.0] * 2)  # eight values: lag 2
    assert run_noise(twos) == pytest.approx(4 * STD)


def test_a_steady_rise_is_noise_unless_it_is_levelled() -> None:
    rise = np.arange(0.0, 40.0, 2.0)
    assert run_noise(rise) == pytest.approx(10 * STD)  # lag 5
    assert run_noise(rise, level=True) == 0.0
    bent = np.array([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0])  # steps of 1 to 6; of lag 2: 3, 5, 7, 9, 11
    assert run_noise(bent) == pytest.approx(7 * STD)
    assert run_noise(bent, level=True) == pytest.approx(2 * STD)


def test_noise_of_a_pair_adds_in_quadrature_and_of_a_group_is_the_median_times_root_two() -> None:
    one, other = flat(1)[0], flat(1, swing=3.0)[0]
    assert find_divergences(measured(one.tolist(), other.tolist())).noise == pytest.approx(STD * math.sqrt(10))
    three = find_divergences(measured(*([row.tolist() for row in (one, other, flat(1, swing=2.0)[0])])))
    assert three.noise == pytest.approx(2 * STD * math.sqrt(2))
    short = np.where(np.arange(30) < 5, other, NAN)
    with_one = find_divergences(measured(one.tolist(), short.tolist()))
    assert with_one.noise == pytest.approx(STD * math.sqrt(2))


def test_the_least_noise_is_a_hundredth_of_the_early_size_or_a_sixth_of_what_never_counts() -> None:
    still = measured([-50.0] * 20 + [1e6] * 30, [50.0] * 20 + [1e6] * 30)
    assert find_divergences(still).noise == pytest.approx(0.5)
    assert find_divergences(still, least=60.0).noise == pytest.approx(10.0)
    assert find_divergences(measured([7.0] * 50, [7.0] * 50), log=True).noise == pytest.approx(0.01)
    assert find_divergences(measured([0.0] * 50, [0.0] * 50)).noise == np.finfo(float).tiny


@pytest.mark.parametrize(("runs", "counts"), [(4, True), (5, False)])
def test_of_five_runs_a_steady_rise_is_no_noise(runs: int, counts: bool) -> None:
    rise = (100 + np.arange(30.0)).tolist()
    noise = find_divergences(measured(*[rise] * runs)).noise
    assert noise == pytest.approx(5 * STD * math.sqrt(2) if counts else 0.01 * np.median(rise[:20]))


def test_the_band_of_a_pair_is_the_other_s_window_and_six_sigmas() -> None:
    values = np.array([[0.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    low, high = bands(values, 0.5)
    assert low[0].tolist() == [-2.0, -2.0, -2.0, -1.0, 0.0, 1.0]
    assert high[0].tolist() == [6.0, 7.0, 8.0, 9.0, 9.0, 9.0]
    assert (low[1].tolist(), high[1].tolist()) == ([-3.0] * 6, [3.0] * 6)


def test_without_others_there_is_no_band() -> None:
    values = np.array([[1.0] * 4, [2.0, 2.0, NAN, NAN], [3.0, NAN, NAN, NAN]])
    low, high = bands(values, 1.0)
    assert low[0].tolist() == [2.0 - 6, -INF, -INF, -INF]  # of three runs two others are needed
    assert high[0].tolist() == [3.0 + 6, INF, INF, INF]
    four = np.array([[1.0] * 2, [2.0] * 2, [3.0, NAN], [NAN] * 2])
    low, high = bands(four, 1.0)
    assert (low[0].tolist(), high[0].tolist()) == ([-4.0, -INF], [9.0, INF])


def test_of_four_others_the_band_reaches_to_tukey_s_fence() -> None:
    values = np.repeat(np.array([[50.0], [0.0], [1.0], [10.0], [11.0]]), 3, axis=1)
    low, high = bands(values, 0.1)
    # quartiles of 0, 1, 10, 11 by lower rank: 0 and 11 (from above likewise), so the fence lies 16.5 beyond
    assert low[0] == pytest.approx([0 - 1.5 * 11] * 3)
    assert high[0] == pytest.approx([11 + 1.5 * 11] * 3)


def test_the_fence_is_at_least_that_of_noise() -> None:
    values = np.repeat(np.array([[50.0], [5.0], [5.0], [5.0], [5.0]]), 3, axis=1)
    low, high = bands(values, 10.0)
    assert low[0] == pytest.approx([5 - 60.0] * 3)  # six sigmas reach beyond 1.5 · 1.35 of them
    assert high[0] == pytest.approx([5 + 60.0] * 3)


def test_of_five_others_one_is_left_out_at_each_end() -> None:
    values = np.repeat(np.array([[50.0], [-1000.0], [1.0], [2.0], [3.0], [1000.0]]), 3, axis=1)
    low, high = bands(values, 1.0)
    # others -1000, 1, 2, 3, 1000: without the ends 1 to 3; quartiles at rank 1: 1 and 3
    assert low[0] == pytest.approx([min(1 - 6.0, 1 - 1.5 * 2)] * 3)
    assert high[0] == pytest.approx([max(3 + 6.0, 3 + 1.5 * 2)] * 3)
    wide = bands(values, 0.01)
    assert wide[0][0] == pytest.approx([1 - 1.5 * 2] * 3)
    assert wide[1][0] == pytest.approx([3 + 1.5 * 2] * 3)


def test_the_fence_of_others_that_are_alike_is_two_sigmas_wide() -> None:
    values = np.repeat(np.array([[50.0], *[[5.0]] * 4, [-100.0]]), 3, axis=1)
    five = bands(values, 1.0)
    assert five[0][0] == pytest.approx([5 - 6.0] * 3)  # the fence is 1.5 · 1.35 = 2.025 beyond: six sigmas reach on


@pytest.mark.parametrize(
    ("marks", "at"),
    [
        ("....11111", 4),
        ("....11110", 4),
        ("....10111", 4),
        ("...1011.1", None),
        ("11011....", 0),
        ("1.111....", 0),
        ("1..111...", None),
        ("....1.111", 4),
        (".....1111", 5),
        ("......111", None),
        (".1.1.1111", 3),
    ],
)
def test_a_divergence_lasts_four_of_five_updates(marks: str, at: int | None) -> None:
    values = np.full((2, 40), 100.0)
    values[0, 31:] += [1000.0 if mark == "1" else 0.0 for mark in marks]
    # a few updates before, at most their window's reach, the other run's range is the same: it never moves
    found = find_divergences(measured(*values.tolist()))
    first = found.divergences[0]
    assert (None if first is None else first.index) == (None if at is None else 31 + at)


@pytest.mark.parametrize(("value", "beyond"), [(106.0, False), (106.01, True), (94.0, False), (93.99, True)])
def test_on_the_edge_of_the_band_is_inside(value: float, beyond: bool) -> None:
    values = np.full((3, 60), 100.0)
    values[0, 40:56] = value
    assert find_divergences(measured(*values.tolist())).noise == 1.0
    assert (find_divergences(measured(*values.tolist())).divergences[0] is not None) is beyond
    values[0, 40:] = [*[100.0] * 17, value, value, value]
    pending = find_divergences(measured(*values.tolist())).pending[0]
    assert (None if pending is None else pending.index) == (57 if beyond else None)


@pytest.mark.parametrize("side", [-500.0, 500.0])
def test_of_two_sides_the_first_counts(side: float) -> None:
    values = np.full((3, 60), 100.0)
    values[0, 30:] += side
    values[0, 45:] -= 2 * side
    assert find_divergences(measured(*values.tolist())).divergences[0] == outside(30, 494.0)


def test_a_divergence_stays_on_one_side() -> None:
    values = np.full((2, 40), 100.0)
    values[0, 30:] += [500.0, -500.0] * 5
    assert find_divergences(measured(*values.tolist())).divergences[0] is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_size_is_in_standard_deviations_beyond_the_band(sign: float) -> None:
    values = sign * np.full((2, 60), 100.0)
    values[0, 30:] += sign * 50.0
    found = find_divergences(measured(*values.tolist()))
    # noise is 1 % of 100 · √2 · √½; the other is outside as soon as 0.7 of an update is beyond 30
    noise = found.noise
    assert noise == pytest.approx(1.0)
    assert found.divergences[0] == outside(30, 44.0)
    assert found.divergences[1] == outside(42, 44.0)


@pytest.mark.parametrize(
    ("last", "at"),
    [
        ([150.0, 150.0, 150.0], 37),
        ([150.0, 100.0, 150.0], 39),
        ([150.0, NAN, 150.0], 37),
        ([150.0, 150.0, NAN], 37),
        ([150.0, 150.0, 100.0], None),
        ([50.0, 150.0, 150.0], 38),
        ([150.0, 50.0, 50.0], 38),
        ([NAN, NAN, 106.1], 39),
        ([NAN, NAN, 105.9], None),
        ([NAN, NAN, 93.9], 39),
        ([NAN, NAN, 94.1], None),
    ],
)
def test_the_last_values_outside_on_one_side_are_pending(last: list[float], at: int | None) -> None:
    values = np.full((3, 40), 100.0)
    values[0, 37:] = last
    found = find_divergences(MetricMatrix(values, np.zeros(values.shape, bool), np.zeros(values.shape, bool)))
    assert found.noise == pytest.approx(1.0)
    assert found.divergences == (None, None, None)
    size = abs(last[at - 37] - 100.0) - 6.0 if at else 0.0
    assert found.pending == (outside(at, size) if at else None, None, None)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_a_size_is_a_number_of_standard_deviations(scale: float) -> None:
    values = scale * np.full((3, 40), 100.0)
    values[0, 30:] = scale * 200.0
    found = find_divergences(measured(*values.tolist()))
    assert found.noise == pytest.approx(scale)
    assert found.divergences[0] == outside(30, 94.0)
    values[0, :38] = scale * 100.0
    assert find_divergences(measured(*values.tolist())).pending[0] == outside(38, 94.0)


def test_a_run_that_was_outside_all_along_is_pending_from_its_first_value() -> None:
    still = [100.0] * 20
    late = [NAN] * 18 + [500.0] * 2
    cells = MetricMatrix(np.array([late, still, still]), np.zeros((3, 20), bool), np.zeros((3, 20), bool))
    found = find_divergences(cells)
    assert found.pending[0] == outside(18, 400.0 - 6.0)
    assert found.pending[1:] == (None, None)


def test_a_run_that_diverges_is_not_pending_as_well() -> None:
    values = np.full((3, 40), 100.0)
    values[0, 20:] = 500.0
    found = find_divergences(measured(*values.tolist()))
    assert found.divergences[0] == outside(20, 394.0)
    assert found.pending == (None, None, None)


def test_a_run_without_a_value_is_neither() -> None:
    values = np.full((3, 40), 100.0)
    values[2] = NAN
    found = find_divergences(
        MetricMatrix(values, np.zeros(values.shape, bool), np.zeros(values.shape, bool)), sparse=True
    )
    assert (found.divergences, found.pending) == ((None,) * 3, (None,) * 3)


def nulls(*rows: str) -> tuple[Floats, Bools]:
    """Return values and nulls of rows: ``1`` was measured, ``0`` is null, and where there is ``.`` there is no row."""
    marks = np.array([list(row) for row in rows])
    return np.where(marks == "1", 1.0, NAN), marks == "0"


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (("1111100000", "1111111111"), [5, None]),
        (("1111100000", "11111....."), [None, None]),  # the other has ended: nothing continues
        (("1111101000", "1111111111"), [5, None]),
        (("1111101010", "1111111111"), [None, None]),
        (("1111111000", "1111111111"), [None, None]),
        (("1111110000", "1111111111"), [6, None]),
        (("0000000000", "1111111111"), [None, None]),  # never measured: not missing
        (("1111100000", "1111100000", "1111111111"), [None, None, None]),  # one with it, one without: no majority
        (("1111100000", "1111111111", "1111111111"), [5, None, None]),
        (("1111100000", "1111111111", "1111111111", "1111111111", "1111100000"), [5, None, None, None, 5]),
        (("11111.....", "1111111111", "1111111111"), [None, None, None]),  # a run that ended is not missing
    ],
)
def test_a_metric_is_missing_where_most_others_go_on_with_it(rows: tuple[str, ...], found: list[int | None]) -> None:
    values, null = nulls(*rows)
    result = find_divergences(MetricMatrix(values, np.zeros(values.shape, bool), null))
    assert [None if one is None else one.index for one in result.divergences] == found
    assert {one.kind for one in result.divergences if one} <= {"missing"}
    assert all(math.isinf(one.size) for one in result.divergences if one)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ([NAN, 1.0, 1.0], [True, False, False]),
        ([NAN, NAN, 1.0], [False, False, False]),  # as many others have the same as something else
        ([NAN, NAN, 1.0, 1.0], [True, True, False, False]),
        ([NAN, NAN, NAN, 1.0], [False] * 4),
        ([INF, -INF, NAN], [True, True, True]),
        ([INF, INF, -INF], [False, False, True]),
    ],
)
def test_what_most_others_have_is_no_divergence(column: list[float], found: list[bool]) -> None:
    values = np.full((len(column), 12), 1.0)
    values[:, 7] = column
    result = find_divergences(measured(*values.tolist()))
    assert [one is not None and (one.index, one.kind) == (7, "nonfinite") for one in result.divergences] == found


def test_others_that_measured_nothing_do_not_vote_on_nan() -> None:
    values = np.full((3, 12), 1.0)
    values[0, 7] = NAN
    nonfinite = np.isnan(values)
    values[1:, 7] = NAN
    result = find_divergences(MetricMatrix(values, nonfinite, ~nonfinite & np.isnan(values)))
    assert result.divergences == (None, None, None)


def test_the_first_of_several_causes_counts() -> None:
    values = np.full((3, 60), 100.0)
    values[0, 20:] = 900.0
    values[0, 40] = NAN
    assert find_divergences(measured(*values.tolist())).divergences[0] == outside(20, 794.0)
    values[0, 10] = NAN
    first = find_divergences(measured(*values.tolist())).divergences[0]
    assert first == Divergence(10, "nonfinite")
    assert first == replace(first, size=INF)
