"""One foreign cell as one of ours, by type: missing is null, NaN stays NaN, nonsense is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from esper_analyze.interchange.cells import CellError, fitted, flag, real, whole_number
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.series import LogRow, Named, ScalarLog, cell, leave_out, mapped_cells
from esper_analyze.schema.column import choice, count, text
from esper_analyze.schema.column import flag as flag_column
from esper_analyze.schema.column import real as real_column

NAN, INF = math.nan, math.inf


def same(one: object, other: object) -> bool:
    return repr(one) == repr(other)


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        (None, None), ("", None), ("  ", None), (0.0, 0.0), (NAN, NAN), (3, 3.0), (True, 1.0), (" 1.5 ", 1.5),
        ("1e3", 1000.0), ("nan", NAN), ("NaN", NAN), ("inf", INF), ("Infinity", INF), ("-Inf", -INF),
        (" -infinity ", -INF), (2**53 + 1, float(2**53)),
    ],
)  # fmt: skip
def test_a_number(cell: object, number: float | None) -> None:
    assert same(real(cell), number)


@pytest.mark.parametrize("cell", ["x", "1,5", [], {}, b"1", 10**400, "tensor(1.)"])
def test_what_is_no_number_is_refused(cell: object) -> None:
    with pytest.raises(CellError):
        real(cell)


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        (None, None), ("", None), (0, 0), (-7, -7), (2**63 - 1, 2**63 - 1), (-(2**63), -(2**63)), (3.0, 3),
        ("12", 12), ("12.0", 12), ("9007199254740993", 2**53 + 1), (" 5 ", 5), (True, 1),
        ("-9223372036854775808", -(2**63)),
    ],
)  # fmt: skip
def test_a_whole_number(cell: object, number: int | None) -> None:
    assert same(whole_number(cell), number)


@pytest.mark.parametrize(
    "cell", [0.5, "0.5", NAN, INF, "nan", -INF, 2**63, -(2**63) - 1, "9223372036854775808", 1e19, "x"]
)
def test_a_fraction_or_what_has_no_64_bits_is_no_whole_number(cell: object) -> None:
    with pytest.raises(CellError):
        whole_number(cell)


@pytest.mark.parametrize(
    ("cell", "truth"),
    [
        (None, None), ("", None), (True, True), (False, False), ("true", True), (" False ", False), ("TRUE", True),
        (1, True), (0, False), (1.0, True), (0.0, False), ("1", True), ("0.0", False),
    ],
)  # fmt: skip
def test_true_and_false(cell: object, truth: bool | None) -> None:
    assert flag(cell) is truth


@pytest.mark.parametrize("cell", [2, -1, 0.5, NAN, "yes", "2"])
def test_anything_else_is_neither_true_nor_false(cell: object) -> None:
    with pytest.raises(CellError):
        flag(cell)


WORDS = choice("state", "state", ("a", "b", "c"))


@pytest.mark.parametrize(
    ("cell", "word"), [(None, None), ("", None), ("a", "a"), ("c", "c"), (0, "a"), (2.0, "c"), ("1", "b"), ("2.0", "c")]
)
def test_a_choice_is_one_of_its_words_or_its_position(cell: object, word: str | None) -> None:
    assert fitted(WORDS, cell) == word


@pytest.mark.parametrize("cell", [-1, 3, "d", "A", 0.5, " ", NAN])
def test_a_word_or_position_that_there_is_not_is_refused(cell: object) -> None:
    with pytest.raises(CellError):
        fitted(WORDS, cell)


@pytest.mark.parametrize(
    ("column", "cell", "held"),
    [
        (real_column("x", "x"), "1", 1.0),
        (count("x", "x"), "1", 1),
        (flag_column("x", "x"), "1", True),
        (text("x", "x"), 1.5, "1.5"),
        (text("x", "x"), "", None),
        (text("x", "x"), None, None),
        (text("x", "x", required=True), None, ""),
        (text("x", "x", required=True), "", ""),
    ],
)
def test_a_cell_is_what_its_column_holds(column: Any, cell: object, held: object) -> None:
    assert same(fitted(column, cell), held)


def test_a_cell_that_cannot_be_read_is_null_and_counted() -> None:
    imported = Imported("x")
    assert cell(imported, "updates", "kl_k3", "0.5", "here") == 0.5
    assert imported.losses.rows() == []
    assert cell(imported, "updates", "kl_k3", "much", "here") is None
    assert imported.losses.sentences() == ["1 × unreadable value, taken as null: here"]
    assert imported.losses.lost == 0


NAMES = {"a": Named("kl_k3", "of the last"), "b": Named("entropy"), "c": Named("kl_k1")}


def test_names_of_a_source_become_columns_and_say_where_they_came_from() -> None:
    imported = Imported("x", columns={"updates.entropy": "earlier"})
    found = mapped_cells(imported, LogRow(4, None, {"a": "0.5", "b": 1.0, "d": 2.0}), NAMES)
    assert found == {"kl_k3": 0.5, "entropy": 1.0}
    assert imported.columns == {"updates.entropy": "earlier", "updates.kl_k3": "a; of the last"}
    assert mapped_cells(imported, LogRow(4, None, {"c": None}), NAMES) == {"kl_k1": None}
    assert "updates.kl_k1" not in imported.columns  # null in every row
    mapped_cells(imported, LogRow(4, None, {"c": "?"}), NAMES)
    assert imported.losses.sentences() == ["1 × unreadable value, taken as null: c at 4"]


def test_what_no_column_holds_is_listed() -> None:
    imported = Imported("x")
    leave_out(imported, ["b", "a", "c", "a"], ["c", "d"])
    assert imported.left_out == {"a": "no column holds it", "b": "no column holds it"}
    assert list(imported.left_out) == ["a", "b"]


def test_points_of_one_step_are_a_row_with_their_latest_clock() -> None:
    log, imported = ScalarLog(), Imported("x")
    for name, step, value, wall in (
        ("a", 2, 1.0, 30.0), ("b", 2, 2.0, 10.0), ("a", 1, 3.0, None), ("a", 2, 4.0, 20.0), ("c", 2, 5.0, 99.0),
        ("b", 7, 6.0, 5.0),
    ):  # fmt: skip
        log.add(name, step, value, wall)
    found = log.rows(lambda name: name != "c", imported)
    assert found == [
        LogRow(1, None, {"a": 3.0}), LogRow(2, 30.0, {"a": 4.0, "b": 2.0}), LogRow(7, 5.0, {"b": 6.0}),
    ]  # fmt: skip
    assert imported.losses.rows() == [
        {"update": 0, "kind": "logged_twice", "rows": 0,
         "detail": "1 × value logged twice at one step, the later one is used: a"}
    ]  # fmt: skip
    assert found[1].begins("b", "x")
    assert not found[0].begins("b", "x")
