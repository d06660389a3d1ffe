"""Hysteresis: the worst of the last verdicts by bounds, however the updates are cut."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.hysteresis import Hold
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Verdict
from tests.detector.batches import judge_cells

OK = int(Verdict.OK)


def by_hand(code: np.ndarray, length: int) -> list[list[int]]:
    held = code.copy()
    for k in range(code.shape[1]):
        line: list[int] = []
        for i, one in enumerate(code[:, k].tolist()):
            if one >= OK:
                line.append(one)
                held[i, k] = max(line[-length:])
    return held.tolist()  # type: ignore[no-any-return]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.lists(st.integers(0, 30), max_size=5), st.booleans())
def test_the_worst_of_the_last_judged_verdicts_stands(seed: int, length: int, cuts: list[int], singly: bool) -> None:
    rng = np.random.default_rng(seed)
    code = np.where(rng.random((30, 3)) < 0.5, OK, rng.integers(1, 7, (30, 3))).astype(np.int8)
    code[:, 2] = OK
    hold, parts = Hold(length), []
    for a, b in pairwise(sorted({0, 30, *(range(30) if singly else cuts)})):
        held = hold.stand(code[a:b])
        parts.append(code[a:b] if held is None else held)
    assert np.concatenate(parts).tolist() == by_hand(code, length)


def test_an_alarm_is_cleared_after_so_many_calm_updates_and_said_again_only_then() -> None:
    cells = {"first_ratio_error": [6e-4, 0.0, 6e-4, 0.0, 0.0, 0.0, 6e-4]}
    for after, expected in (
        (1, [(0, "warning"), (1, "ok"), (2, "warning"), (3, "ok"), (6, "warning")]),
        (3, [(0, "warning"), (5, "ok"), (6, "warning")]),
        (5, [(0, "warning")]),
    ):
        detector = Detector()
        thresholds = Thresholds.defaults(detector.rules).changed("first_ratio", "clear_after", after)
        found = judge_cells(Detector(thresholds), "updates", cells, 7).findings
        assert [(one.update, one.verdict) for one in found if one.rule == "first_ratio"] == expected
