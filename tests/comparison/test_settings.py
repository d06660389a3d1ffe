"""Settings that differ between runs: those of run.json, and those that every update recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.comparison.settings import differences, opaque, used

NAN, INF = math.nan, math.inf


def test_what_identifies_a_run_is_no_setting_but_a_key_of_that_name_further_down_is() -> None:
    naming = ("run_id", "created", "name", "schema_version", "rule_revisions", "notes")
    one: dict[str, Any] = dict.fromkeys(naming, "a")
    assert differences([one, dict.fromkeys(naming, "b")]) == []
    assert differences([{"policy": {"name": "a"}}, {"policy": {"name": "b"}}]) == [("policy.name", ("a", "b"))]


def test_equal_settings_are_not_listed_and_a_missing_one_is_a_dash() -> None:
    found = differences([{"a": 1, "b": 2, "c": None}, {"a": 1, "c": 3}, {"b": 2, "c": 3}])
    assert found == [("a", ("1", "1", "–")), ("b", ("2", "–", "2")), ("c", ("–", "3", "3"))]


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.5, "x", "0.5"),
        (True, "x", "true"),
        ([1, 2], "x", "[1, 2]"),
        ("tanh", "x", "tanh"),
        ({"y": {"z": 1}}, "x.y.z", "1"),
        ({}, "x", "{}"),
        ("<function f at 0x7f001>", "x", "<function f>"),
        ("<function f at 0x7f00g>", "x", "<function fg>"),
    ],
)
def test_a_setting_is_named_by_its_path_and_spelt_as_json(value: object, name: str, text: str) -> None:
    assert differences([{"x": value}, {"w": 0}]) == [(name, (text, "–")), ("w", ("–", "0"))]


def test_a_run_without_any_setting_has_none() -> None:
    assert differences([{}, {}]) == []
    assert differences([]) == []


def test_settings_come_by_kind_hyperparameters_first_and_thresholds_last() -> None:
    kinds = ["thresholds", "versions", "other", "seeds", "heads", "policy", "framework", "algorithm", "hyperparameters"]
    infos = [{kind: {"b": run, "a": run} for kind in kinds} for run in (0, 1)]
    names = [name for name, _ in differences(infos)]
    assert names == [f"{kind}.{letter}" for kind in reversed(kinds) for letter in "ba"]
    bare = [dict.fromkeys(kinds, run) for run in (0, 1)]
    assert [name for name, _ in differences(bare)] == list(reversed(kinds))


def test_functions_are_named_because_two_of_one_name_may_differ() -> None:
    one = {"hyperparameters": {"clip": "<function constant at 0x7f1>", "n": 3}}
    two = {"hyperparameters": {"clip": "<function constant at 0x7f2>", "lr": "<function g>", "note": "a <function"}}
    assert differences([one, two]) != []
    assert ("hyperparameters.clip", ("<function constant>",) * 2) not in differences([one, two])
    assert opaque([one, two]) == ["hyperparameters.clip", "hyperparameters.lr"]
    assert opaque([{"x": 1}]) == []


def cells(*rows: Sequence[float | None]) -> MetricMatrix:
    """Return cells of which None is null."""
    value = np.array([[NAN if cell is None else cell for cell in row] for row in rows], float)
    null = np.array([[cell is None for cell in row] for row in rows])
    return MetricMatrix(value, ~null & ~np.isfinite(value), null)


def told(*rows: Sequence[float | None]) -> tuple[str, ...] | None:
    """Return what ``used`` says of runs that all have every update, 10, 11 and so on."""
    matrix = cells(*rows)
    found = used("lr", matrix, np.ones(matrix.value.shape, bool), 10 + np.arange(matrix.value.shape[1]))
    if found is None:
        return None
    assert found[0] == "lr, as used"
    return found[1]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (([1.0, 1.0], [1.0, 1.0]), None),
        (([1.0, 1.0], [1.0, 1.0 + 9e-7]), None),  # one of them came through float32
        (([1.0, 1.0], [1.0, 1.0 + 1.5e-6]), ("1 at update 11", "1 at update 11")),
        (([1.0, NAN], [1.0, 1.0]), None),  # NaN is no setting
        (([1.0, NAN], [1.0, NAN]), None),
        (([2.0, 0.0, 3.0, 2.0], [2.0] * 4), ("2, 0 at update 11", "2")),
        (([1.0, 1.0], [1.0, 1.01]), ("1", "1 → 1.01")),
        (([3e-4, 3e-4], [1e-4, 1e-4]), ("0.0003", "0.0001")),
        (([1.0, 1.0, 1.0], [1.0, 5.0, 1.0]), ("1", "1, 5 at update 11")),
        (([1.0, 2.0, 9.0, 1.0], [1.0, 1.0, 1.0, 1.0]), ("1, 9 at update 12", "1")),
        (([1.0, None, 1.0], [1.0, 1.0, 1.0]), ("– at update 11", "1 at update 11")),
        (([None, None], [1.0, 1.0]), ("–", "1")),
        (([1.0, 1.0], [None, 1.0]), ("1", "– → 1")),
        (([None, None], [None, None]), None),
        (([0.0, 0.0], [0.0, 1e-30]), ("0", "0 → 1e-30")),
        (([1.0, 1.0], [1.0, 1.00002]), ("1 at update 11", "1 at update 11")),
    ],
)
def test_a_setting_that_every_update_records_is_told_where_it_differs(
    rows: tuple[list[float | None], ...], words: tuple[str, ...] | None
) -> None:
    assert told(*rows) == words


def test_of_several_runs_that_change_alike_but_at_another_time_the_first_difference_is_told() -> None:
    late, early = [1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 2.0, 2.0]
    assert told(late, early, early) == ("1 at update 12", "2 at update 12", "2 at update 12")


def test_an_update_that_one_run_alone_has_shows_no_difference() -> None:
    matrix = MetricMatrix(np.array([[1.0, 5.0], [1.0, NAN]]), np.zeros((2, 2), bool), np.zeros((2, 2), bool))
    rows = np.array([[True, True], [True, False]])
    assert used("lr", matrix, rows, np.array([0, 1])) is None


def test_a_run_that_has_ended_makes_no_difference_between_others() -> None:
    none = np.zeros((3, 2), bool)
    matrix = MetricMatrix(np.array([[1.0, 1.0], [1.0, 1.0], [1.0, NAN]]), none, none)
    assert used("lr", matrix, np.isfinite(matrix.value), np.array([0, 1])) is None


def test_a_run_that_has_none_of_the_updates_is_a_dash() -> None:
    matrix = MetricMatrix(np.array([[1.0], [2.0], [NAN]]), np.zeros((3, 1), bool), np.zeros((3, 1), bool))
    found = used("lr", matrix, np.array([[True], [True], [False]]), np.array([4]))
    assert found == ("lr, as used", ("1", "2", "–"))


def test_a_large_update_has_separators() -> None:
    matrix = cells([1.0, 5.0, 1.0], [1.0, 1.0, 1.0])
    found = used("lr", matrix, np.ones((2, 3), bool), np.array([1000, 2000, 3000]))
    assert found == ("lr, as used", ("1, 5 at update 2,000", "1"))
    shifted = used("lr", cells([1.0, 1.0, 2.0], [1.0, 2.0, 2.0]), np.ones((2, 3), bool), np.array([1, 2000, 3000]))
    assert shifted == ("lr, as used", ("1 at update 2,000", "2 at update 2,000"))
