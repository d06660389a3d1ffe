"""Hysteresis: the worst of the last verdicts by bounds, however the updates are cut."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.hysteresis import Hysteresis
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Verdict
from tests.detector.batches import judge_cells

OK, WARNING, CRITICAL = int(Verdict.OK), int(Verdict.WARNING), int(Verdict.CRITICAL)


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
    of_metric, parts = Hysteresis(length), []
    for a, b in pairwise(sorted({0, 30, *(range(30) if singly else cuts)})):
        held = of_metric.apply(code[a:b])
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


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8])
def test_verdicts_saved_under_another_length_are_taken_up_as_far_as_they_fit(length: int) -> None:
    """The verdicts before: critical, then a warning, then two that were ok; then eight that are ok."""
    saved = [[CRITICAL, OK], [WARNING, OK], [OK, OK], [OK, WARNING]]
    of_metric = Hysteresis(length)
    of_metric.resume(saved)
    found = []
    for _ in range(8):
        code = np.full((1, 2), OK, np.int8)
        held = of_metric.apply(code)
        found.append((code if held is None else held)[0].tolist())
    for k in range(2):
        line = [row[k] for row in saved]
        expected = []
        for _ in range(8):
            line.append(OK)
            expected.append(max(line[-length:]))
        assert [row[k] for row in found] == expected


def test_a_subject_that_comes_later_has_no_verdicts_before() -> None:
    of_metric = Hysteresis(3)
    first = of_metric.apply(np.array([[CRITICAL]], np.int8))
    assert first is not None
    assert first.tolist() == [[CRITICAL]]
    second = of_metric.apply(np.array([[OK, OK]], np.int8))
    assert second is not None
    assert second.tolist() == [[CRITICAL, OK]]
    assert of_metric.last.shape == (2, 2)
    third = of_metric.apply(np.array([[OK, WARNING, OK], [OK, OK, OK]], np.int8))
    assert third is not None
    assert third.tolist() == [[CRITICAL, WARNING, OK], [OK, WARNING, OK]]


def test_nothing_is_saved_where_no_update_came() -> None:
    of_metric = Hysteresis(4)
    of_metric.resume([])
    assert of_metric.apply(np.full((2, 1), OK, np.int8)) is None
