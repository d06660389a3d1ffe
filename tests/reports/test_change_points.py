import importlib.util

import numpy as np
import pytest

from esper_analyze.reports.sections.change_points import LEAST_PIECE, change_points, noise, partition
from esper_analyze.runs.series import Series


def whole(value: np.ndarray) -> Series:
    return Series(np.arange(len(value)), value, np.zeros(len(value), bool))


def wandering(seed: int, length: int, memory: float) -> np.ndarray:
    """First-order autocorrelated noise of variance 1."""
    kicks = np.random.default_rng(seed).normal(size=length) * np.sqrt(1 - memory**2)
    value = np.empty(length)
    value[0] = kicks[0]
    for place in range(1, length):
        value[place] = memory * value[place - 1] + kicks[place]
    return value


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, 0.97])
def test_autocorrelated_noise_has_no_change_points(memory: float) -> None:
    found = change_points(whole(10 + wandering(1, 100_000, memory)))
    assert found == ()


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_short_noise_hardly_has_any(memory: float) -> None:
    found = [change_points(whole(10 + wandering(seed, 400, memory))) for seed in range(40)]
    assert sum(len(one or ()) for one in found) <= 2


@pytest.mark.parametrize(("length", "memory"), [(200, 0.0), (2_000, 0.5), (50_000, 0.9)])
def test_a_step_is_found_where_it_is_and_named(length: int, memory: float) -> None:
    value = np.exp(0.2 * wandering(2, length, memory))
    value[length // 2 :] *= 5
    (one,) = change_points(whole(value)) or ()
    assert abs(one.update - length // 2) <= 0.03 * length
    assert one.words.startswith(f"rose at about update {one.update:,}, from ")
    assert 4 < one.after / one.before < 6


def test_a_series_too_short_against_its_own_memory_is_not_judged() -> None:
    assert change_points(whole(wandering(3, 60, 0.97))) is None
    assert change_points(whole(np.ones(5))) is None


def test_constants_and_what_was_never_measured_have_none() -> None:
    assert change_points(whole(np.zeros(500))) == ()
    assert change_points(Series(np.arange(9), np.full(9, np.nan), np.ones(9, bool))) is None


def test_a_change_of_a_few_percent_is_not_told() -> None:
    value = 100 + 0.1 * wandering(4, 1_000, 0.0)
    value[500:] += 5
    assert change_points(whole(value)) == ()


@pytest.mark.skipif(importlib.util.find_spec("ruptures") is None, reason="ruptures is not installed")
def test_the_levels_are_those_that_ruptures_finds() -> None:
    import ruptures

    for seed in range(20):
        bins = wandering(seed, 80, 0.3)
        bins[30:] += seed % 4
        penalty = 4 * noise(bins) * np.log(80)
        theirs = ruptures.KernelCPD(kernel="linear", min_size=LEAST_PIECE).fit(bins[:, None]).predict(pen=penalty)
        assert partition(bins, penalty) == theirs[:-1]
