"""Where runs part: laws on made-up series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.comparison.divergence import DivergenceResult, find_divergences
from esper_analyze.comparison.windows import PACE, order_statistic_of_others, windowed_least
from esper_analyze.detector.signals import Floats

UPDATES = 80


def cells(*rows: Floats) -> MetricMatrix:
    """Cells of which NaN is NaN: nothing is missing."""
    values = np.array(rows, dtype=float)
    broken = ~np.isfinite(values)
    return MetricMatrix(values, broken, np.zeros(values.shape, bool))


def noisy(runs: int, seed: int, *, updates: int = UPDATES, memory: float = 0.0) -> Floats:
    """Stationary noise of standard deviation 1 around 10, each value remembering ``memory`` of the one before."""
    noise: Floats = np.random.default_rng(seed).normal(size=(runs, updates + 100)) * np.sqrt(1 - memory**2)
    for update in range(1, noise.shape[1]):
        noise[:, update] += memory * noise[:, update - 1]
    return 10 + noise[:, 100:]


def firsts(judged: DivergenceResult) -> list[int | None]:
    return [None if one is None else one.index for one in judged.divergences]


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.9]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_identical_runs_never_part(seed: int, memory: float, log: bool) -> None:
    own = noisy(1, seed, memory=memory)[0]
    own[seed % UPDATES] = np.nan
    assert find_divergences(cells(own, own, own), log=log).divergences == (None, None, None)


@given(st.integers(0, 10_000), st.integers(2, UPDATES - 6), st.sampled_from([-1.0, 1.0]), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_a_shift_well_above_noise_is_found_within_a_few_updates(seed: int, t: int, sign: float, runs: int) -> None:
    values = noisy(runs, seed)
    values[0, t:] += sign * 40.0
    found = firsts(find_divergences(cells(*values)))
    assert found[0] is not None
    assert t <= found[0] <= t + 3
    assert runs == 2 or found[1:] == [None] * (runs - 1)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_order_of_runs_and_their_size_do_not_matter(seed: int) -> None:
    values = noisy(5, seed)
    values[seed % 5, 40:] += 30.0
    order = np.random.default_rng(seed).permutation(5)
    found = firsts(find_divergences(cells(*values)))
    assert firsts(find_divergences(cells(*values[order]))) == [found[run] for run in order]
    assert firsts(find_divergences(cells(*(1000 * values)))) == found
    assert firsts(find_divergences(cells(*(-values)))) == found


@pytest.mark.parametrize("runs", [2, 3, 5, 12])
@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_stationary_noise_parts_in_less_than_one_of_a_hundred(runs: int, memory: float) -> None:
    trials = [find_divergences(cells(*noisy(runs, seed, memory=memory))) for seed in range(200 // runs)]
    assert sum(any(one.divergences) for one in trials) <= len(trials) // 100


def test_learning_the_same_a_little_later_is_no_parting() -> None:
    updates = np.arange(200)
    noise = np.random.default_rng(0).normal(size=(2, 200))
    curves = [100 / (1 + np.exp(-(updates * pace - 90) / 10)) for pace in (1.0, 1 + 0.7 * PACE)]
    assert firsts(find_divergences(cells(*(np.array(curves) + noise)))) == [None, None]
    assert any(find_divergences(cells(curves[0] + noise[0], np.zeros(200) + noise[1])).divergences)


def test_nan_parts_in_its_very_update_and_only_the_run_that_has_it() -> None:
    values = noisy(4, 1)
    values[2, 33] = np.nan
    judged = find_divergences(cells(*values))
    assert firsts(judged) == [None, None, 33, None]
    assert judged.divergences[2] is not None
    assert judged.divergences[2].kind == "nonfinite"


def test_nan_in_all_runs_parts_nobody() -> None:
    values = noisy(3, 2)
    values[:, 20:] = np.nan
    assert not any(find_divergences(cells(*values)).divergences)


@pytest.mark.parametrize("one", [np.nan, np.inf, -np.inf, 10.0])
@pytest.mark.parametrize("other", [np.nan, np.inf, -np.inf])
def test_nan_and_both_infinities_are_three_facts(one: float, other: float) -> None:
    values = np.repeat(noisy(1, 9), 2, axis=0)
    values[0, 30:], values[1, 30:] = one, other
    same = str(one) == str(other)
    assert firsts(find_divergences(cells(*values))) == (
        [None, None] if same else [None if np.isfinite(one) else 30, 30]
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_a_metric_that_ceases_to_be_measured_parts_unless_it_is_sparse(sparse: bool) -> None:
    values = noisy(3, 3)
    null = np.zeros(values.shape, bool)
    null[1, 50:] = True
    null[0, 10] = True  # once is nothing
    found = find_divergences(
        MetricMatrix(np.where(null, np.nan, values), np.zeros(values.shape, bool), null), sparse=sparse
    )
    assert firsts(found) == ([None] * 3 if sparse else [None, 50, None])


def test_a_run_that_ends_or_begins_late_does_not_part() -> None:
    values = noisy(5, 4)
    absent = np.zeros(values.shape, bool)
    absent[0, 30:] = absent[1, :40] = True
    found = find_divergences(
        MetricMatrix(np.where(absent, np.nan, values), np.zeros(values.shape, bool), np.zeros(values.shape, bool))
    )
    assert not any(found.divergences)


def test_one_spike_is_no_parting() -> None:
    values = noisy(5, 5)
    values[0, 40] += 1000.0
    assert not any(find_divergences(cells(*values)).divergences)


def test_two_faulty_runs_of_ten_do_not_hide_each_other() -> None:
    values = noisy(10, 6)
    values[:2, 40:] += 60.0
    assert firsts(find_divergences(cells(*values))) == [40, 40, *[None] * 8]


def test_too_few_values_are_not_judged_but_nan_is_seen() -> None:
    values = noisy(2, 7, updates=4)
    values[0, 2] = np.nan
    values[1] += 1000.0
    judged = find_divergences(cells(*values))
    assert np.isnan(judged.noise)
    assert firsts(judged) == [2, None]


def test_zero_beside_numbers_parts_on_a_logarithmic_scale() -> None:
    values = np.exp(0.3 * noisy(2, 8) - 10)
    values[0, 40:] = 0.0
    assert firsts(find_divergences(cells(*values), log=True))[0] == 40


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_windowed_least_is_the_least_of_each_window(updates: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(2, updates))
    values[np.random.default_rng(seed).random(values.shape) < 0.3] = np.nan
    found = windowed_least(values)
    for update in range(updates):
        wide = max(2, int(PACE * update))
        near = values[:, max(0, update - wide) : update + wide + 1]
        goes_on = np.isfinite(values[:, : update + 1]).any(axis=1) & np.isfinite(values[:, update:]).any(axis=1)
        expected = np.where(goes_on, np.where(np.isnan(near), np.inf, near).min(axis=1), np.inf)
        assert found[:, update].tolist() == expected.tolist()


@given(st.integers(2, 7), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_of_others_leaves_out_the_run_itself(runs: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 4, (runs, 5)).astype(float)
    place = np.full(values.shape, seed % runs)
    found = order_statistic_of_others(values, place)
    for run in range(runs):
        rest = np.sort(np.concatenate([np.delete(values, run, axis=0), np.full((1, 5), np.inf)]), axis=0)
        assert found[run].tolist() == rest[min(seed % runs, runs - 1)].tolist()
