"""What is exported and imported again is what it was: null stays null, NaN stays NaN, numbers to the last bit."""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esper_analyze.cli import run as command_line
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.write import write_imported
from esper_analyze.runs.run import open_run
from esper_analyze.schema.column import Column, Kind, Table
from esper_analyze.schema.tables import EPISODES, GROUPS, HEADS, STEPS, UPDATES

PLACED = ("rank", "update", "seq")
_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1, max_size=6)
Rows = dict[str, list[dict[str, Any]]]


def cells(column: Column) -> st.SearchStrategy[Any]:
    """Draw a cell of ``column``; integers as large as float64 holds them all."""
    if column.kind is Kind.FLOAT:
        kind: st.SearchStrategy[Any] = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])
    elif column.kind is Kind.INT:
        kind = st.integers(0, 2**24)
    elif column.kind is Kind.BOOL:
        kind = st.booleans()
    else:
        kind = st.sampled_from(column.choices) if column.choices else _WORDS
    return kind if column.required else st.none() | kind


def rows(table: Table, updates: int, subjects: tuple[str, ...] = ("",)) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Draw rows of ``table``: of each update one a subject, with a few columns that are ever filled."""
    named_by = table.subject if subjects != ("",) else None
    free = [column for column in table.columns if column.name not in (*PLACED, named_by)]
    required = [column for column in free if column.required]
    some = st.lists(st.sampled_from(free), max_size=4, unique_by=lambda column: column.name)

    def filled(columns: list[Column]) -> st.SearchStrategy[list[dict[str, Any]]]:
        named = {column.name: cells(column) for column in (*required, *columns)}
        placed = [(update, subject) for update in range(updates) for subject in subjects]
        one = [
            st.fixed_dictionaries({"update": st.just(update), **named}).map(
                partial(operator.or_, {named_by: subject} if named_by else {})
            )
            for update, subject in placed
        ]
        return st.tuples(*one).map(list)

    return some.flatmap(filled)


drawn = st.fixed_dictionaries(
    {
        "updates": rows(UPDATES, 3),
        "heads": rows(HEADS, 3, ("op", 'a/b, "c"')),
        "groups": rows(GROUPS, 2, ("all",)),
        "steps": rows(STEPS, 2),
        "episodes": rows(EPISODES, 2),
    }
)


@contextmanager
def made(held: Rows) -> Iterator[Path]:
    """Write ``held`` as a run in a folder of its own."""
    with TemporaryDirectory() as folder:
        found = Imported("made up", rows={table: [dict(row) for row in some] for table, some in held.items()})
        write_imported(Path(folder) / "run", found)
        yield Path(folder)


def back(folder: Path, to: str, *more: str, suffix: str = "") -> dict[str, list[dict[str, Any]]]:
    """Export the run in ``folder``, import that, and return what the tables hold then."""
    out = folder / f"out{suffix}"
    assert command_line(["export", str(folder / "run"), "--to", to, "--out", str(out), *more]) == 0
    assert command_line(["import", str(out), "--out", str(folder / "again")]) == 0
    return held_in(folder / "again")


def held_in(path: Path) -> dict[str, list[dict[str, Any]]]:
    run = open_run(path)
    tables = ("updates", "heads", "groups", "steps", "episodes")
    return {name: [_comparable(row) for row in run.frame(name).drop("seq", "rank").to_dicts()] for name in tables}


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    return {name: struct.pack("<d", cell) if _is_sound(cell) else str(cell) for name, cell in row.items()}


def _is_sound(cell: object) -> bool:
    return isinstance(cell, float) and not math.isnan(cell)


few = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(drawn)
@pytest.mark.parametrize("to", ["csv", "jsonl"])
def test_tables_row_by_row_come_back_as_they_were(to: str, held: Rows) -> None:
    with made(held) as folder:
        assert back(folder, to) == held_in(folder / "run")


@few
@given(drawn)
def test_one_parquet_file_brings_back_what_is_of_an_update(held: Rows) -> None:
    with made(held) as folder:
        was, now = held_in(folder / "run"), back(folder, "parquet", suffix=".parquet")
        assert now["updates"] == was["updates"]
        for table in ("heads", "groups"):
            assert by_subject(now[table]) == filled(was[table])


@few
@given(drawn)
def test_tensorboard_brings_back_numbers_as_float32(held: Rows) -> None:
    with made(held) as folder:
        rows_now = open_run_again(folder)
        for was, now in zip(open_run(folder / "run").frame("updates").to_dicts(), rows_now, strict=True):
            for column in UPDATES.columns:
                if column.kind is not Kind.TEXT and column.name != "seq":
                    assert same_single(was[column.name], now[column.name]), column.name


def open_run_again(folder: Path) -> list[dict[str, Any]]:
    back(folder, "tensorboard")
    return open_run(folder / "again").frame("updates").to_dicts()


def same_single(was: object, now: object) -> bool:
    """Whether both are the same cell, floats as float32 holds them."""
    if not isinstance(was, float) or not isinstance(now, float):
        return was == now and type(was) is type(now)
    if math.isnan(was):
        return math.isnan(now)
    try:
        (single,) = struct.unpack("<f", struct.pack("<f", was))
        return bool(single == now)
    except OverflowError:
        return now == math.copysign(math.inf, was)


def filled(rows_held: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return rows by update and subject, those out that hold nothing else: a wide file has no place for them."""
    found = by_subject(rows_held)
    return {key: row for key, row in found.items() if any(cell != "None" for cell in list(row.values())[2:])}


def by_subject(rows_held: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["update"], row.get("head", row.get("group", ""))): row for row in rows_held}
