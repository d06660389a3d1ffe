"""A column's own typical level is the median of its last values, however the updates are cut."""

from __future__ import annotations

import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from esper_analyze.detector.baselines import (
    EARLY_MEMORY,
    Rolling,
    early_known,
    early_level,
    recent_median,
    recent_median_memory,
)
from esper_analyze.detector.deferral_guards import LASTING
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


@pytest.mark.parametrize("length", [1, 2, 10])
@pytest.mark.parametrize("seed", range(6))
def test_the_early_level_is_the_mean_of_the_first_usable_values_so_far(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    values, usable = rng.integers(-9, 9, (40, 3)).astype(float), rng.random((40, 3)) < rng.choice([0.2, 0.7, 1.0])
    usable[:, 2] = False
    values[~usable] = math.nan
    expected = np.full((40, 3), math.nan)
    for k in range(2):
        for i in range(40):
            first = values[: i + 1, k][usable[: i + 1, k]][:length]
            expected[i, k] = first.sum() / len(first) if len(first) else math.nan
    for edges in ((0, 40), range(41), (0, 1, 3, 4, 20, 40), (0, *sorted(rng.choice(39, 6, replace=False) + 1), 40)):
        memory = {name: first(3) for name, first in EARLY_MEMORY.items()}
        parts = []
        for a, b in pairwise(edges):
            known = early_known(usable[a:b], memory, length)
            level = early_level(values[a:b], usable[a:b], memory, length)
            if known and b == a + 1:  # final for what stays usable: nothing was added
                again = early_level(values[a:b] + 5.0, usable[a:b], memory, length)
                assert np.array_equal(again, level, equal_nan=True)
            parts.append(level)
        assert np.array_equal(np.concatenate(parts), expected, equal_nan=True)
    assert memory["early_count"].tolist() == np.minimum(usable.sum(axis=0), length).tolist()


def test_an_early_level_is_known_when_enough_values_came_or_none_is_usable() -> None:
    memory = {f"x_{name}": np.asarray(cells) for name, cells in (("early_count", [2, 3]), ("early_sum", [1.0, 1.0]))}
    for usable, known in (([True, True], False), ([False, True], True), ([True, False], False), ([False, False], True)):
        assert early_known(np.array([[True, True], usable]), memory, 3, "x_") is known
    assert early_known(np.array([[True, True]]), memory, 2, "x_")


INTERVALS = [(7, 3, 3), (7, 3, 4), (6, 4, 1), (5, 5, 5), (4, 1, 2)]
"""Values of a window, after how many of them it is taken again, and how many must have come."""


def latest_count(windows: np.ndarray) -> np.ndarray:
    """Return the newest value of each window, and how many there are."""
    return np.stack([windows[:, -1], np.full(len(windows), float(windows.shape[1]))])


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize(
    ("length", "every", "first"), [(7, 3, 3), (7, 3, 4), (6, 4, 1), (5, 5, 5), (4, 1, 2), (3, 2, 6)]
)
def test_statistics_are_taken_of_the_last_values_at_each_interval_from_the_first_on(
    length: int, every: int, first: int, inclusive: bool
) -> None:
    rng = np.random.default_rng(length + every)
    values, usable = np.arange(80.0).reshape(40, 2), rng.random((40, 2)) < 0.8
    rolling = Rolling(latest_count, size=2, length=length, every=every, first=first, inclusive=inclusive)
    expected = np.full((2, 40, 2), math.nan)
    for k in range(2):
        level, taken = np.full(2, math.nan), list[float]()
        for i in range(40):
            before = level
            if usable[i, k]:
                taken.append(float(values[i, k]))
                if len(taken) >= first and len(taken) % every == 0:
                    level = np.array([taken[-1], float(min(len(taken), length))])
            expected[:, i, k] = level if inclusive else before
    for edges in ((0, 40), range(41), (0, 1, 2, 9, 10, 30, 40)):
        memory = {name: make(2) for name, make in rolling.memory("x").items()}
        parts = [rolling.baseline(values[a:b], usable[a:b], memory, "x") for a, b in pairwise(edges)]
        assert np.array_equal(np.concatenate(parts, axis=1), expected, equal_nan=True)


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize(
    ("length", "every", "first"), [(7, 3, 3), (7, 3, 4), (6, 4, 1), (5, 5, 5), (4, 1, 2), (50, 20, 20)]
)
@pytest.mark.parametrize("usable", [(True, True), (True, False), (False, False)])
def test_a_baseline_is_steady_until_it_is_taken_again(
    length: int, every: int, first: int, inclusive: bool, usable: tuple[bool, bool]
) -> None:
    """Every value is new, so that each time it is taken it changes."""
    rolling = Rolling(latest_count, size=2, length=length, every=every, first=first, inclusive=inclusive)
    for came in range(1, 2 * every + first + 2):
        memory = {name: make(2) for name, make in rolling.memory("x").items()}
        values = np.arange(2.0 * (came + 70)).reshape(-1, 2)
        on = np.ones((came, 2), bool)
        on[: came // 3, 1] = False  # of the second subject fewer have come
        on[-1] = usable
        rolling.baseline(values[:came], on, memory, "x")
        steady = rolling.steady(memory, "x", on)
        expected = changes_after(rolling, values[:came], on, values[came:])
        assert min(steady, LASTING) == expected


def changes_after(rolling: Rolling, values: np.ndarray, usable: np.ndarray, later: np.ndarray) -> int:
    """Return how many of the ``later`` values leave the baseline what it is at the last update."""
    memory = {name: make(2) for name, make in rolling.memory("x").items()}
    at_once = np.concatenate([values, later])
    on = np.concatenate([usable, np.repeat(usable[-1:], len(later), axis=0)])
    course = rolling.baseline(at_once, on, memory, "x")[:, len(values) - 1 :, usable[-1]]
    same = [np.array_equal(course[:, 0], course[:, i], equal_nan=True) for i in range(1, course.shape[1])]
    return min(same.index(False) if False in same else LASTING, LASTING)


@pytest.mark.parametrize("odd", ["nothing", "usable", "count", "ring"])
def test_subjects_that_share_a_row_have_baselines_of_their_own_where_they_differ(odd: str) -> None:
    """A column of the update, joined to three heads: one row in memory for all of them."""
    rng = np.random.default_rng(1)
    values, usable = np.broadcast_to(rng.normal(size=(90, 1)), (90, 3)), np.ones((90, 3), bool)
    earlier, taken = rng.normal(size=(30, 3)), np.ones((30, 3), bool)
    usable[4:9, 1] = odd != "usable"
    taken[5, 2] = odd != "count"
    if odd != "ring":
        earlier[:] = earlier[:, :1]
    found = []
    for later in (values, values.copy()):
        memory = {name: first(3) for name, first in recent_median_memory("x").items()}
        before = recent_median(earlier, taken, memory, "x")
        level = recent_median(later, usable, memory, "x")
        found.append((before.tolist(), level.tolist(), {name: cells.tolist() for name, cells in memory.items()}))
    assert repr(found[0]) == repr(found[1])
    for k in range(3):
        line = np.concatenate([earlier[:, k], values[:, k]])
        on = np.concatenate([taken[:, k], usable[:, k]])
        assert np.array_equal(np.array(found[0][1])[:, k], by_hand(line, on)[30:], equal_nan=True)


def test_a_baseline_given_before_does_not_change_later() -> None:
    memory = {name: first(2) for name, first in recent_median_memory("x").items()}
    ones = np.ones((1, 2))
    earlier = [recent_median(i * ones, ones > 0, memory, "x") for i in range(45)]
    whole = recent_median(np.ones((70, 2)), np.ones((70, 2), bool), memory, "x")
    copies = [one.copy() for one in (*earlier, whole)]
    recent_median(np.full((80, 2), 9.0), np.ones((80, 2), bool), memory, "x")
    for _ in range(25):
        recent_median(9.0 * ones, ones > 0, memory, "x")
    for one, copy in zip((*earlier, whole), copies, strict=True):
        assert np.array_equal(one, copy, equal_nan=True)


class Counting:
    """A statistic that notes how many windows it was taken of, in how many calls."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        self.calls.append(len(windows))
        return latest_count(windows)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("usable_from", [0, 5])
def test_of_subjects_that_share_a_row_one_is_computed_for_all(usable_from: int, k: int) -> None:
    counting = Counting()
    rolling = Rolling(counting, size=2, length=7, every=3, first=7)
    memory = {name: first(k) for name, first in rolling.memory("x").items()}
    values, usable = np.broadcast_to(np.arange(40.0)[:, None], (40, k)), np.ones((40, k), bool)
    usable[:usable_from] = False
    level = rolling.baseline(values, usable, memory, "x")
    assert counting.calls == [len(range(9, 40 - usable_from + 1, 3))]
    apart = {name: first(k) for name, first in rolling.memory("x").items()}
    assert np.array_equal(level, rolling.baseline(values.copy(), usable, apart, "x"), equal_nan=True)
    for name, cells in apart.items():
        assert np.array_equal(memory[name], cells, equal_nan=True)
    assert memory["x_count"].tolist() == [40 - usable_from] * k


def test_subjects_in_step_are_computed_together_and_others_each_by_itself() -> None:
    for odd, calls in ((None, [12 * 3]), (3, [12] * 3)):
        counting = Counting()
        rolling = Rolling(counting, size=2, length=6, every=3, first=6)
        memory = {name: first(3) for name, first in rolling.memory("x").items()}
        values, usable = np.arange(123.0).reshape(41, 3), np.ones((41, 3), bool)
        usable[-1, 1] = odd is None
        rolling.baseline(values, usable, memory, "x")
        assert counting.calls == calls
        counting.calls.clear()
        rolling.baseline(values[:1], usable[:1], memory, "x")
        assert counting.calls == ([3] if odd is None else [2])  # the forty-second value of each, but of one subject


def test_an_even_window_has_the_mean_of_its_two_middle_values_for_a_median() -> None:
    memory = {name: first(1) for name, first in recent_median_memory("x").items()}
    values = np.array([*[1.0] * 10, *[4.0] * 10, 0.0])[:, None]
    assert recent_median(values, np.ones((21, 1), bool), memory, "x")[-1] == 2.5
