"""Moving averages equal the plain recurrence, and their own bits however the updates are cut."""

from __future__ import annotations

import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from esper_analyze.detector.ema import ema_baseline, ema_memory

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
