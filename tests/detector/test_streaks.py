"""Streaks and windows: what a plain loop counts, however the updates are cut into batches."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from esper_analyze.detector.streaks import blank, latest, nothing_yet, recent, remember, streak, tally, window, zeros

SETTINGS = settings(max_examples=80, deadline=None)
CUTS = st.lists(st.integers(0, 30), max_size=5)


def flags(seed: int, often: float) -> np.ndarray:
    return np.random.default_rng(seed).random((30, 3)) < often


@SETTINGS
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.6]), CUTS, st.booleans())
def test_a_streak_counts_hits_since_the_last_reset(seed: int, often: float, cuts: list[int], singly: bool) -> None:
    hit, reset = flags(seed, often), flags(seed + 1, 0.2)
    carried, parts = zeros(3), []
    for a, b in pairwise(sorted({0, 30, *(range(30) if singly else cuts)})):
        parts.append(streak(hit[a:b], reset[a:b], carried))
    count, expected = zeros(3), []
    for i in range(30):
        count = np.where(reset[i], 0, count + hit[i])
        expected.append(count)
    assert np.concatenate(parts).tolist() == np.array(expected).tolist()
    assert carried.tolist() == expected[-1].tolist()


@SETTINGS
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.6]), st.integers(1, 6), CUTS, st.booleans())
def test_a_window_counts_the_last_updates(seed: int, often: float, length: int, cuts: list[int], singly: bool) -> None:
    hit = flags(seed, often)
    carried, parts = window(6)(3), []
    for a, b in pairwise(sorted({0, 30, *(range(30) if singly else cuts)})):
        parts.append(recent(hit[a:b], carried, length))
    expected = [hit[max(0, i + 1 - length) : i + 1].sum(axis=0).tolist() for i in range(30)]
    assert np.concatenate(parts).tolist() == expected
    assert carried.tolist() == hit[-5:].tolist()


@SETTINGS
@given(st.integers(0, 2**32), CUTS)
def test_a_tally_counts_all_of_them(seed: int, cuts: list[int]) -> None:
    hit = flags(seed, 0.5)
    carried, parts = zeros(3), []
    for a, b in pairwise(sorted({0, 1, 30, *cuts})):
        parts.append(tally(hit[a:b], carried))
    assert np.concatenate(parts).tolist() == np.cumsum(hit, axis=0).tolist()
    assert carried.tolist() == hit.sum(axis=0).tolist()


def test_no_updates_change_nothing() -> None:
    nothing = np.zeros((0, 2), bool)
    carried, seen = np.array([3, 0]), np.array([[True, False]])
    assert streak(nothing, nothing, carried).shape == tally(nothing, carried).shape == (0, 2)
    assert recent(nothing, seen, 2).shape == (0, 2)
    assert carried.tolist() == [3, 0]
    assert seen.tolist() == [[True, False]]


@pytest.mark.parametrize("longest", [2, 3, 7])
def test_a_window_that_is_only_remembered_holds_what_a_counted_one_does(longest: int) -> None:
    rng = np.random.default_rng(longest)
    hit = rng.random((40, 2)) < 0.4
    for edges in ((0, 40), range(41), (0, 1, 3, 9, 10, 40)):
        counted, remembered = window(longest)(2), window(longest)(2)
        for a, b in pairwise(edges):
            recent(hit[a:b], counted, longest)
            remember(hit[a:b], remembered)
            assert remembered.tolist() == counted.tolist()
            held = min(b, longest - 1)
            assert remembered[longest - 1 - held :].tolist() == hit[b - held : b].tolist()


def test_hits_that_were_carried_are_counted_where_there_are_no_new_ones() -> None:
    none = np.zeros((4, 2), bool)
    carried = np.array([2, 0])
    assert streak(none, none, carried).tolist() == [[2, 0]] * 4
    reset = np.array([[False, False], [True, True], [False, False], [False, False]])
    assert streak(none, reset, carried).tolist() == [[2, 0], [0, 0], [0, 0], [0, 0]]
    assert carried.tolist() == [0, 0]
    flags = np.array([[True, False], [False, False], [True, False]])
    assert recent(none, flags, 4).tolist() == [[2, 0], [1, 0], [1, 0], [0, 0]]
    assert not flags.any()


def test_first_values() -> None:
    for first, kind in ((zeros(2), np.int64), (blank(2), np.float64)):
        assert first.tolist() == [0, 0]
        assert first.dtype == kind
    assert np.isnan(nothing_yet(3)).tolist() == [True] * 3
    assert window(5)(3).shape == (4, 3)
    assert not window(5)(3).any()


@pytest.mark.parametrize("n", [1, 2, 6])
def test_the_latest_of_several_rows_at_once_is_each_cell_s_own(n: int) -> None:
    """Two metrics of three subjects, as a rule over both hands them over; where nothing is marked, the carried one."""
    rng = np.random.default_rng(n)
    values, where = rng.normal(size=(n, 2, 3)), rng.random((n, 2, 3)) < 0.4
    where[:, 0, 0] = False
    for marked in (where, where & False):
        carried = np.arange(6.0).reshape(2, 3)
        before = carried.copy()
        found = latest(values, marked, carried)
        for i in range(n):
            before = np.where(marked[i], values[i], before)
            assert found[i].tolist() == before.tolist()
        assert carried.tolist() == before.tolist()
        carried[:] = 99.0
        assert found[-1].tolist() == before.tolist(), "what was returned does not change later"
