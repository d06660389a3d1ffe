"""Bounds, and the one place where they become verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from esper_analyze.detector.signals import Signal
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, Verdict, above, below, is_all_ok, settle
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


@pytest.mark.parametrize("n", [1, 3])
def test_what_was_not_judged_has_neither_value_nor_baseline(n: int) -> None:
    """The first cell lacks what is needed, the second is excused, the third is critical, the fourth is fine."""
    watched = signal("heads", "entropy", [[1.0, 2.0, 9.0, 4.0]] * n)
    needed = signal("heads", "kind", [[None, "categorical", "categorical", "categorical"]] * n)
    where = np.array([[False, True, False, False]] * n)
    baseline = np.array([[10.0, 20.0, 30.0, 40.0]] * n)
    judged = settle(
        "entropy", watched, above(watched, 5.0, 8.0), needs=[needed], excuses=[Excuse(where, "why")], baseline=baseline
    )
    nan = math.nan
    assert judged.code.tolist() == [[NO_DATA, NOT_APPLICABLE, CRITICAL, OK]] * n
    assert np.array_equal(judged.value, [[nan, nan, 9.0, 4.0]] * n, equal_nan=True)
    assert np.array_equal(judged.baseline, [[nan, nan, 30.0, 40.0]] * n, equal_nan=True)
    assert np.array_equal(judged.threshold, [[nan, nan, 8.0, nan]] * n, equal_nan=True)
    words = [judged.reasons[number] for number in judged.reason[-1].tolist()]
    assert words == ["kind is missing", "why", "", ""]


def test_of_several_missing_columns_the_last_named_one_stands_and_a_cause_that_is_known_before_all() -> None:
    gone = loss(None)
    judged = settle("policy_loss", gone, Bounds(), needs=[signal("updates", "kl_k3", [[None]])])
    assert judged.reasons[judged.reason[0, 0]] == "policy_loss is missing"
    judged = settle("policy_loss", gone, Bounds(), missing="every loss")
    assert judged.reasons[judged.reason[0, 0]] == "every loss is missing"
    everywhere = np.ones((1, 1), bool)
    judged = settle("policy_loss", gone, Bounds(), unknown=[Excuse(everywhere, "nobody looked")])
    assert (judged.code.tolist(), judged.reasons[judged.reason[0, 0]]) == ([[NO_DATA]], "nobody looked")


def test_quiet_excuses_are_marked_by_their_number() -> None:
    where = [np.array([[i == k for k in range(4)]]) for i in range(4)]
    excuses = [Excuse(where[0], "loud"), Excuse(where[1], "quiet", quiet=True), Excuse(where[2], "hush", quiet=True)]
    watched = signal("heads", "entropy", [[1.0] * 4])
    judged = settle("entropy", watched, Bounds(), excuses=excuses)
    words = [judged.reasons[number] for number in judged.reason[0].tolist()]
    assert words == ["loud", "quiet", "hush", ""]
    assert {judged.reasons[number] for number in judged.quiet} == {"quiet", "hush"}
    nowhere = [Excuse(where[0] & where[1], "nowhere", quiet=True)]
    assert settle("entropy", watched, Bounds(), excuses=nowhere).quiet == frozenset()


def test_information_has_its_own_bound_or_that_of_the_warning() -> None:
    watched = signal("heads", "entropy", [[1.0, 2.0, 3.0, 4.0]])
    info, warning, critical = (watched.values > bound for bound in (1.5, 2.5, 3.5))
    bounds = Bounds(info=info, warning=warning, critical=critical, info_at=1.5, warning_at=2.5, critical_at=3.5)
    judged = settle("entropy", watched, bounds)
    assert judged.code.tolist() == [[OK, int(Verdict.INFO), WARNING, CRITICAL]]
    assert np.array_equal(judged.threshold, [[math.nan, 1.5, 2.5, 3.5]], equal_nan=True)
    bounds.info_at = None
    assert settle("entropy", watched, bounds).threshold[0, 1] == 2.5


def test_a_signal_that_counts_what_is_not_finite_is_not_held_to_be_finite_itself() -> None:
    watched = loss(math.inf)
    assert settle("policy_loss", watched, Bounds(), nonfinite=False).code.tolist() == [[OK]]
    assert settle("policy_loss", watched, Bounds()).code.tolist() == [[CRITICAL]]


def test_the_statistic_stands_for_the_signal_but_where_that_is_not_finite() -> None:
    watched = signal("heads", "entropy", [[1.0, math.inf, None]])
    judged = settle("entropy", watched, Bounds(), judged=np.array([[7.0, 8.0, 9.0]]))
    assert np.array_equal(judged.value, [[7.0, math.inf, math.nan]], equal_nan=True)
    assert judged.code.tolist() == [[OK, CRITICAL, NO_DATA]]
    assert settle("entropy", signal("heads", "entropy", [[1.0]]), Bounds(), judged=np.array([[7.0]])).value == 7.0


def test_only_what_was_settled_as_ok_everywhere_is_known_to_be() -> None:
    watched = loss(0.5, 0.6)
    judged = settle("policy_loss", watched, above(watched, 1.0, 2.0))
    assert is_all_ok(judged.code)
    assert is_all_ok(settle("policy_loss", watched, Bounds(), needs=[loss(1.0, 2.0)]).code)
    assert not is_all_ok(settle("policy_loss", watched, Bounds(), needs=[loss(1.0, None)]).code)
    assert not is_all_ok(judged.code.copy())
    assert not is_all_ok(settle("policy_loss", watched, above(watched, 0.55, 2.0)).code)
    assert not is_all_ok(settle("policy_loss", loss(0.5, None), Bounds()).code)


@pytest.mark.parametrize("bound", [above, below])
def test_bounds_that_nothing_crosses_are_none(bound: Callable[[Signal, float, float], Bounds]) -> None:
    watched, (warning, critical) = loss(0.0), (1.0, 2.0) if bound is above else (-1.0, -2.0)
    assert bound(watched, warning, critical).warning is False
    turned = bound(watched, critical, warning)
    assert np.asarray(turned.warning).tolist() == [[False]]
    assert np.asarray(turned.critical).tolist() == [[False]]
    assert np.asarray(bound(loss(critical), warning, critical).critical).tolist() == [[False]]
    assert np.asarray(bound(loss(critical), warning, warning).critical).tolist() == [[True]]


def test_judgements_of_stretches_joined_are_one_with_the_reasons_of_all() -> None:
    cells: list[list[object]] = [[1.0, None], [math.nan, 9.0], [2.0, 3.0], [4.0, None]]
    parts = []
    quiet = np.array([[True, False]])
    for row, excuse in zip(cells, ("", "young", "old", ""), strict=True):
        watched = signal("heads", "entropy", [row])
        excuses = [Excuse(quiet, excuse, quiet=excuse == "young")] if excuse else []
        parts.append(settle("entropy", watched, above(watched, 5.0, 8.0), excuses=excuses, baseline=watched.values + 1))
    joined = Judgement.joined(parts)
    assert joined.metric == "entropy"
    for name in ("code", "value", "threshold", "baseline"):
        whole = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(getattr(joined, name), whole, equal_nan=True)
    words = [[joined.reasons[number] for number in row] for row in joined.reason.tolist()]
    assert words == [["", "entropy is missing"], ["young", ""], ["old", ""], ["", "entropy is missing"]]
    assert {joined.reasons[number] for number in joined.quiet} == {"young"}
    assert joined.standing is joined.code
    joined.after_hysteresis = joined.code.copy()
    assert joined.standing is joined.after_hysteresis
