"""Moving averages equal the plain recurrence, and their own bits however the updates are cut."""

from __future__ import annotations

import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from esper_analyze.detector.ema import _powers, ema_baseline, ema_memory

pytestmark = pytest.mark.processor

N = 300


def by_hand(values: list[float], keep: float, warmup: int) -> list[float]:
    average, held = 0.0, []
    for i, value in enumerate(values):
        held.append(average if i >= warmup else math.nan)
        average = keep * average + (1 - keep) * value
        if i == warmup - 1:
            average /= 1 - keep**warmup
    return held


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1e-70, 0.01, 0.5, 0.9, 0.99, 0.9999]),
    st.integers(1, 12),
    st.lists(st.integers(0, N), max_size=5),
    st.booleans(),
)
def test_the_average_is_the_recurrence_and_its_bits_do_not_depend_on_the_cut(
    seed: int, keep: float, warmup: int, cuts: list[int], singly: bool
) -> None:
    rng = np.random.default_rng(seed)
    values, usable = rng.lognormal(size=(N, 2)), rng.random((N, 2)) < 0.9
    usable[:, 0] = True
    found = []
    for edges in ({0, N}, {0, N, *(range(N) if singly else cuts)}):
        memory = {name: first(2) for name, first in ema_memory("x", 1).items()}
        parts = [
            ema_baseline(values[a:b, None], usable[a:b, None], memory, "x", keep=keep, warmup=warmup)
            for a, b in pairwise(sorted(edges))
        ]
        found.append(np.concatenate(parts)[:, 0])
    assert found[0].tobytes() == found[1].tobytes()
    for k in range(2):
        rows = np.flatnonzero(usable[:, k])
        expected = by_hand(values[rows, k].tolist(), keep, warmup)
        assert found[0][rows, k].tolist() == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert np.isnan(found[0][~usable[:, k], k]).all()


@pytest.mark.parametrize("keep", [0.0, 1e-61, 1e-60, 2e-60, 1e-30, 1e-3, 0.1, 0.2, 0.5, 0.9, 0.99])
def test_a_block_is_as_long_as_its_powers_stay_large(keep: float) -> None:
    """Its weights are the inverse powers: they must not overflow what they multiply."""
    decay, weight = _powers(keep)
    length = len(weight)
    expected = max(n for n in range(65) if n == 0 or keep**n >= 1e-60 * (1 - 1e-9))
    assert length in (expected, expected - 1 if keep in (1e-60, 1e-30, 1e-3, 0.1) else expected)
    assert decay.tolist() == pytest.approx([keep**j for j in range(length + 1)], rel=1e-12)
    assert weight.tolist() == pytest.approx([(1 - keep) / keep**j for j in range(1, length + 1)], rel=1e-12)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_several_metrics_of_several_subjects_each_follow_their_own_recurrence(keep: float) -> None:
    rng = np.random.default_rng(3)
    values, usable = rng.lognormal(size=(150, 2, 3)), rng.random((150, 2, 3)) < 0.8
    usable[:, 1, 2] = False
    usable[:, 0, 1] = True
    found = []
    for edges in ((0, 150), range(151), (0, 1, 2, 70, 71, 150)):
        memory = {name: first(3) for name, first in ema_memory("x", 2).items()}
        parts = [ema_baseline(values[a:b], usable[a:b], memory, "x", keep=keep, warmup=4) for a, b in pairwise(edges)]
        found.append(np.concatenate(parts))
        assert memory["x_count"].tolist() == usable.sum(axis=0).tolist()
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    for r, k in np.ndindex(2, 3):
        rows = np.flatnonzero(usable[:, r, k])
        expected = by_hand(values[rows, r, k].tolist(), keep, 4)
        assert found[0][rows, r, k].tolist() == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert np.isnan(found[0][~usable[:, r, k], r, k]).all()


def test_subjects_in_step_and_others_are_averaged_alike() -> None:
    """Two subjects with equally many values, and one that came later: the others do not mind it."""
    rng = np.random.default_rng(4)
    values = rng.lognormal(size=(200, 1, 3))
    usable = np.ones((200, 1, 3), bool)
    late = usable.copy()
    late[:5, 0, 2] = False
    found = []
    for on in (usable, late):
        memory = {name: first(3) for name, first in ema_memory("x", 1).items()}
        parts = [ema_baseline(values[i : i + 1], on[i : i + 1], memory, "x", keep=0.9, warmup=3) for i in range(200)]
        found.append(np.concatenate(parts))
    assert found[0][:, 0, :2].tobytes() == found[1][:, 0, :2].tobytes()


def test_first_values_of_an_average() -> None:
    memory = {name: first(3) for name, first in ema_memory("x", 2).items()}
    assert set(memory) == {"x_anchor", "x_sum", "x_count"}
    for cells in memory.values():
        assert cells.shape == (2, 3)
        assert not cells.any()
    assert memory["x_count"].dtype == np.int64
