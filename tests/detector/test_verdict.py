"""Bounds, and the one place where they become verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from esper_analyze.detector.signals import Signal
from esper_analyze.detector.verdict import Bounds, Excuse, Verdict, above, below, settle
from tests.detector.batches import signal

OK, NO_DATA, NOT_APPLICABLE, WARNING, CRITICAL = (
    int(verdict) for verdict in (Verdict.OK, Verdict.NO_DATA, Verdict.NOT_APPLICABLE, Verdict.WARNING, Verdict.CRITICAL)
)


def loss(*cells: float | None) -> Signal:
    return signal("updates", "policy_loss", [[cell] for cell in cells])


@pytest.mark.parametrize("n", [1, 40])
def test_where_nothing_is_to_be_said_every_cell_is_ok_and_its_value_stands(n: int) -> None:
    watched = loss(*[0.5] * n)
    judged = settle("policy_loss", watched, above(watched, 1.0, 2.0), needs=[loss(*[1.0] * n)])
    assert judged.code.tolist() == [[OK]] * n
    assert judged.value.tolist() == [[0.5]] * n
    assert np.isnan(judged.threshold).all()
    assert np.isnan(judged.baseline).all()
    assert judged.reason.tolist() == [[0]] * n


@pytest.mark.parametrize("n", [1, 40])
def test_not_applicable_goes_before_missing_before_nonfinite_before_bounds(n: int) -> None:
    at_once = Bounds(critical=np.ones((n, 1), bool), critical_at=7.0)
    everywhere, nowhere = np.ones((n, 1), bool), np.zeros((n, 1), bool)
    for cell, excuse, code, why, threshold in (
        (1.0, nowhere, CRITICAL, "", 7.0),
        (math.inf, nowhere, CRITICAL, "non-finite", math.nan),
        (None, nowhere, NO_DATA, "policy_loss is missing", math.nan),
        (None, everywhere, NOT_APPLICABLE, "excused", math.nan),
    ):
        judged = settle("policy_loss", loss(*[cell] * n), at_once, excuses=[Excuse(excuse, "excused")])
        said = {(int(a), judged.reasons[b]) for a, b in zip(judged.code[:, 0], judged.reason[:, 0], strict=True)}
        assert said == {(code, why)}
        assert np.array_equal(judged.threshold, np.full((n, 1), threshold), equal_nan=True)


def test_the_first_of_two_excuses_stands() -> None:
    where = np.ones((1, 1), bool)
    judged = settle("policy_loss", loss(1.0), Bounds(), excuses=[Excuse(where, "first"), Excuse(where, "second")])
    assert judged.reasons[judged.reason[0, 0]] == "first"


@pytest.mark.parametrize(("warning", "critical", "expected"), [(1.0, 3.0, "warning"), (3.0, 1.0, "critical")])
def test_a_critical_bound_inside_the_warning_is_not_lost(warning: float, critical: float, expected: str) -> None:
    for watched, bounds in (
        (loss(2.0), above(loss(2.0), warning, critical)),
        (loss(-2.0), below(loss(-2.0), -warning, -critical)),
    ):
        assert Verdict(int(settle("policy_loss", watched, bounds).code[0, 0])).word == expected


@pytest.mark.parametrize("cell", [None, math.nan, math.inf, -math.inf])
def test_a_signal_is_whole_when_every_cell_was_measured_and_is_finite(cell: float | None) -> None:
    watched = loss(1.0, cell, 2.0)
    assert not watched.all_finite
    assert watched.finite.ravel().tolist() == [True, False, True]
    assert watched.nonfinite.ravel().tolist() == [False, cell is not None, False]
    all_finite = loss(1.0, 2.0)
    assert all_finite.all_finite
    assert all_finite.finite.all()
    assert not all_finite.nonfinite.any()
