"""Streaks and windows: what a plain loop counts, however the updates are cut into batches."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from esper_analyze.detector.streaks import recent, streak, tally, window, zeros

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
