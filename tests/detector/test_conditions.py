"""Conditions of the complete training: evaluated once an update, whoever reads them, and the same for every cut."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.conditions.convergence import AT_BEST
from esper_analyze.detector.conditions.relation import established, establishing, relation_memory
from esper_analyze.detector.conditions.rewards import UNREWARDED
from esper_analyze.detector.conditions.shared import SharedConditions
from esper_analyze.detector.conditions.stand_ins import LOGGED
from esper_analyze.detector.detector import Detector
from esper_analyze.detector.rule import Condition, Memory, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Batch, Bools, Frame
from tests.detector.batches import batch, frame, run_cut

BY_RULE = {rule.name: rule for rule in RULES}
READERS = [rule for rule in RULES if rule.conditions]
CONDITIONS = (AT_BEST, UNREWARDED, LOGGED)


def returns(*values: float | None) -> Batch:
    return batch({"updates": frame("updates", {"episode_return_mean": [[value] for value in values]})})


def held(condition: Condition, one: Batch, rule: Rule = BY_RULE["gradient_vanishing"]) -> list[float]:
    joined = SharedConditions([replace(rule, conditions=(condition,))]).joined(wide(one))
    values: list[float] = joined.frames["conditions"][condition.name].values[:, 0].tolist()
    return values


def wide(one: Batch) -> Batch:
    """Return the batch with every column that conditions read; null where it does not have it."""
    n = len(one.update)
    mine = one.frames["updates"].columns if "updates" in one.frames else {}
    blank = frame("updates", {name: [[None]] * n for one_ in CONDITIONS for name in one_.columns})
    return replace(one, frames={"updates": replace(blank, columns={**blank.columns, **mine})})


def test_a_rule_names_the_columns_of_its_conditions_among_those_it_reads() -> None:
    for rule in READERS:
        read = set(rule.columns if rule.table == "updates" else rule.beside["updates"])
        assert {name for condition in rule.conditions for name in condition.columns} <= read, rule.name
    assert {condition.name for rule in READERS for condition in rule.conditions} == {one.name for one in CONDITIONS}


def swings(middle: float, step: float, n: int) -> list[float]:
    """Return ``2 * n`` values that lie by turns below and above ``middle``, ``step`` apart."""
    return [middle - step / 2, middle + step / 2] * n


def bound(step: float) -> float:
    """Return three standard errors of the difference of two means of ten values that all lie ``step`` apart.

    Two draws of unit variance lie 2 / √π apart on average, and a difference of two means of ten has a variance of 2/10.
    """
    return 3 * step * math.sqrt(math.pi) / 2 * math.sqrt(2 / 10)


def test_returns_are_at_their_best_from_when_they_rose_until_they_have_lost_three_tenths_of_it() -> None:
    course = [10.0] * 5 + [20.0] * 10 + [17.0] * 10 + [16.9]
    assert held(AT_BEST, returns(*course)) == [0.0] * 5 + [1.0] * 20 + [0.0]
    assert held(AT_BEST, returns(None, None, *[-10.0] * 3, None, -1.0, float("nan"))) == [0.0] * 6 + [1.0] * 2


def test_returns_that_scatter_have_risen_beyond_a_tenth() -> None:
    assert bound(4.0) > 1.0, "a tenth of 10 is less"
    course = [*[10.0] * 3, *swings(11.0, 4.0, 10), 9.1]
    assert held(AT_BEST, returns(*course)) == [0.0] * 23 + [1.0]


@pytest.mark.parametrize("early", [10.0, -10.0])
@pytest.mark.parametrize(("errors", "best"), [(0.999, 0.0), (1.001, 1.0)])
def test_returns_that_hardly_scatter_have_risen_beyond_three_standard_errors(
    early: float, errors: float, best: float
) -> None:
    assert bound(0.2) < 1.0, "a tenth of 10 is more"
    course = [*[early] * 3, *swings(early + errors * bound(0.2), 0.2, 11)]
    assert held(AT_BEST, returns(*course))[-1] == best


@pytest.mark.parametrize(("errors", "best"), [(0.999, 1.0), (1.001, 0.0)])
def test_returns_that_scatter_stay_near_their_best_within_three_standard_errors(errors: float, best: float) -> None:
    assert 3.0 < bound(4.0) < 9.0, "three tenths of the way from 10 to 20 are less"
    course = [*[10.0] * 3, *swings(20.0, 4.0, 11), *swings(20.0 - errors * bound(4.0), 4.0, 11)]
    assert held(AT_BEST, returns(*course))[-1] == best


def test_a_scatter_that_is_over_does_not_count() -> None:
    """It is that of the last twenty steps: after so many at 15, half of the way down from 20 is a fall."""
    course = [*[10.0] * 3, *swings(20.0, 16.0, 11), *[15.0] * 21]
    assert bound(16.0) > 5.0
    assert held(AT_BEST, returns(*course))[-1] == 0.0


@pytest.mark.parametrize("level", [0.7, -0.3, 1 / 3, 2.3, -1.6, 0.0])
def test_returns_that_are_always_the_same_never_rose(level: float) -> None:
    assert held(AT_BEST, returns(*[level] * 40)) == [0.0] * 40


@pytest.mark.parametrize(
    ("least", "most", "mean", "unrewarded"),
    [
        (0.0, 0.0, 3.0, 1.0),
        (0.0, 0.1, 0.0, 0.0),
        (-0.1, 0.0, 0.0, 0.0),
        (None, None, 0.0, 1.0),
        (None, None, 3.0, 0.0),
        (None, None, None, 0.0),
        (float("nan"), 0.0, 0.0, 0.0),
    ],
)
def test_a_rollout_is_unrewarded_where_every_reward_is_0(
    least: float | None, most: float | None, mean: float | None, unrewarded: float
) -> None:
    columns = {"reward_min": [[least]], "reward_max": [[most]], "episode_return_mean": [[mean]]}
    assert held(UNREWARDED, batch({"updates": frame("updates", columns)})) == [unrewarded]


def test_a_condition_is_evaluated_once_an_update_for_all_rules() -> None:
    calls = []

    def counting(frame_: Frame, memory: Memory) -> Bools:
        calls.append(len(frame_.present))
        return AT_BEST.evaluate(frame_, memory)

    counted = replace(AT_BEST, evaluate=counting)
    rules = [replace(rule, conditions=(counted, UNREWARDED, LOGGED)) for rule in READERS]
    columns = dict.fromkeys(Detector(rules=rules).wanted["updates"])
    cells = {name: [[None]] * 7 for name in columns} | {"episode_return_mean": [[float(i)] for i in range(7)]}
    Detector(rules=rules).process(batch({"updates": frame("updates", cells)}))
    assert calls == [7]


def test_without_rows_of_updates_a_condition_does_not_hold_and_nothing_is_forgotten() -> None:
    shared = SharedConditions([BY_RULE["gradient_vanishing"]])
    shared.joined(wide(returns(*[1.0] * 5, *[9.0] * 5)))
    gone = shared.joined(Batch(np.arange(10, 12), {}))
    assert gone.frames["conditions"]["at_best"].values.tolist() == [[1.0], [1.0]]
    assert gone.frames["conditions"]["unrewarded"].values.tolist() == [[0.0], [0.0]]
    assert shared.joined(Batch(np.zeros(0, np.int64), {})).frames == {}


def _entropies(n: int) -> dict[str, list[list[Any]]]:
    return {
        "episode_return_mean": [[1.0 + (i > 9)] for i in range(n)],
        "entropy_norm": [[0.05 if i > 20 else 0.9] for i in range(n)],
        "choice_fraction": [[1.0]] * n,
        "entropy": [[1.0]] * n,
        "choices_unknown": [[False]] * n,
        "minibatches": [[8]] * n,
    }


@pytest.mark.parametrize("cut", [(), (15,), (9, 12, 25)])
def test_carried_state_goes_with_a_checkpoint(cut: tuple[int, ...]) -> None:
    rule = BY_RULE["entropy_collapse"]
    whole = batch({"updates": frame("updates", _entropies(40))})
    expected = run_cut(Detector(rules=[rule]), whole, cut)
    first, second = Detector(rules=[rule]), Detector(rules=[rule])
    findings = list(first.process(whole.part(0, 15)).findings)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    findings += second.process(whole.part(15, 40)).findings
    assert [(one.update, one.verdict) for one in findings] == [(21, "info")]
    assert [finding for outcome in expected for finding in outcome.findings] == findings


def test_a_checkpoint_without_conditions_starts_them_fresh_and_one_that_does_not_fit_is_refused() -> None:
    rule = BY_RULE["entropy_collapse"]
    detector = Detector(rules=[rule])
    detector.process(batch({"updates": frame("updates", _entropies(15))}))
    state = detector.state_dict()
    older = {name: part for name, part in state.items() if name != "conditions"}
    fresh = Detector(rules=[rule])
    fresh.load_state_dict(older)
    assert repr(fresh.state_dict()["conditions"]) == repr(Detector(rules=[rule]).state_dict()["conditions"])
    broken = {**state, "conditions": {"at_best": {**state["conditions"]["at_best"], "best": [1.0, 2.0]}}}
    with pytest.raises(ValueError, match="saved state of condition at_best does not fit: 'best' must hold"):
        fresh.load_state_dict(broken)


@pytest.mark.parametrize(
    ("held", "since"),
    [
        ("+++-", 2),
        ("-+++", 3),
        ("--++-+++", None),
        ("--++-++++", 8),
        ("---+++-++++-++++++", 17),
        ("?+?+?+", 5),
        ("+-+-+-", None),
    ],
)
def test_a_relation_is_established_where_it_held_in_three_updates_in_a_row_and_in_more_than_it_ever_did_not(
    held: str, since: int | None
) -> None:
    holds, known = (np.array([[sign in signs] for sign in held]) for signs in ("+", "+-"))
    whole = established(holds, known, {name: first(1) for name, first in relation_memory("a").items()}, "a", 3)
    assert next(iter(np.flatnonzero(whole).tolist()), None) == since
    assert since is None or whole[since:].all()
    memory: Memory = {name: first(1) for name, first in relation_memory("a").items()}
    single = []
    for one, there in zip(holds, known, strict=True):
        lasting = establishing(memory, "a", 3)
        single.append(established(one[None], there[None], memory, "a", 3)[0])
        if since is not None and len(single) - 1 == since:
            assert lasting == 0
    np.testing.assert_array_equal(whole, single)
