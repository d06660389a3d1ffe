"""A column's own typical level is the median of its last values, however the updates are cut."""

from __future__ import annotations

import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from esper_analyze.detector.baselines import Rolling, recent_median, recent_median_memory
from esper_analyze.detector.streaks import latest, nothing_yet

N, LENGTH, EVERY, FIRST = 140, 50, 20, 20


def by_hand(values: np.ndarray, usable: np.ndarray) -> list[float]:
    taken: list[float] = []
    level, held = math.nan, []
    for value, good in zip(values.tolist(), usable.tolist(), strict=True):
        held.append(level)
        if good:
            taken.append(value)
            if len(taken) >= FIRST and len(taken) % EVERY == 0:
                level = float(np.median(taken[-LENGTH:]))
    return held


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1.0, 0.8]), st.lists(st.integers(0, N), max_size=5), st.booleans())
def test_the_level_is_the_median_of_the_last_usable_values(
    seed: int, often: float, cuts: list[int], singly: bool
) -> None:
    rng = np.random.default_rng(seed)
    values, usable = rng.normal(size=(N, 3)), rng.random((N, 3)) < often
    usable[: rng.integers(0, 60), 2] = False
    memory = {name: first(3) for name, first in recent_median_memory("x").items()}
    parts = []
    for a, b in pairwise(sorted({0, N, *(range(N) if singly else cuts)})):
        parts.append(recent_median(values[a:b], usable[a:b], memory, "x"))
    held = np.concatenate(parts)
    for k in range(3):
        assert np.array_equal(held[:, k], by_hand(values[:, k], usable[:, k]), equal_nan=True)


def mean_and_spread(windows: np.ndarray) -> np.ndarray:
    return np.stack([windows.mean(axis=1), windows.std(axis=1)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, N), max_size=5), st.booleans(), st.booleans())
def test_rolling_statistics_are_the_same_bits_however_the_updates_are_cut(
    seed: int, cuts: list[int], singly: bool, inclusive: bool
) -> None:
    rng = np.random.default_rng(seed)
    values, usable = rng.normal(size=(N, 2)), rng.random((N, 2)) < 0.9
    rolling = Rolling(mean_and_spread, size=2, length=40, every=5, first=40, inclusive=inclusive)
    found = []
    for edges in ({0, N}, {0, N, *(range(N) if singly else cuts)}):
        memory = {name: first(2) for name, first in rolling.memory("x").items()}
        parts = [rolling.baseline(values[a:b], usable[a:b], memory, "x") for a, b in pairwise(sorted(edges))]
        found.append(np.concatenate(parts, axis=1).tobytes())
    assert found[0] == found[1]
    taken = values[usable[:, 0], 0]
    stop = len(taken) // 5 * 5
    last = rolling.baseline(values[:1], usable[:1] & False, memory, "x")[:, 0, 0]
    assert last.tolist() == pytest.approx([taken[stop - 40 : stop].mean(), taken[stop - 40 : stop].std()])


@pytest.mark.parametrize("singly", [False, True])
def test_latest_is_the_last_marked_value(singly: bool) -> None:
    rng = np.random.default_rng(0)
    values, where = rng.normal(size=(30, 2)), rng.random((30, 2)) < 0.3
    carried, parts, seen, expected = nothing_yet(2), [], nothing_yet(2), []
    for a, b in pairwise(range(31) if singly else (0, 11, 30)):
        parts.append(latest(values[a:b], where[a:b], carried))
    for i in range(30):
        seen = np.where(where[i], values[i], seen)
        expected.append(seen)
    assert np.array_equal(np.concatenate(parts), np.array(expected), equal_nan=True)
    assert np.array_equal(carried, seen, equal_nan=True)
