"""Every version of the schema has its number, and what is declared of the past gives the columns of the past."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_analyze.schema import TABLES, VERSION, VERSIONS
from esper_analyze.schema.arrow import arrow_schema, fingerprint
from esper_analyze.schema.column import real
from esper_analyze.schema.history import Version, is_newer, is_newer_major, parsed, was_declared
from esper_analyze.schema.views import select_shards
from esper_analyze.storage.block import Block
from esper_analyze.storage.shapes import former_names, history, shapes, upgraded, with_names
from tests.present import present
from tests.schema.test_arrow import SMALL

MARKS = {
    "updates": [
        "d44b1327d50ba530",
        "e4ff0dcb88b54f9c",
        "403601b6f1e28ee9",
        "9cef0d974105619e",
        "301ffb8947384fa9",
        "badb85ac1381d356",
        "06a2ac09bb7a2f99",
    ],
    "steps": ["8a884208a56b14b4"],
    "heads": ["8335678586148f21", "87d3011c48b3414b", "f1850514cbeef1f0", "f3f264a3db8ec9b1"],
    "groups": ["96773964349a7aa8", "9329bf899c840629", "4eef6d9c94e1412f"],
    "layers": ["55cfe7818cb84c97"],
    "lstm": ["e9c7875d96548f30", "400178935395f08f"],
    "slots": ["f5d1f11a26eae70a"],
    "transitions": ["09afb4b664842aac"],
    "tensors": ["38bca644b70dd1e3"],
    "episodes": ["da53add39dc106fc"],
    "levels": ["189eeb6d5f8123fa"],
    "findings": ["3c23ca76d01f0429"],
    "events": ["e82fdfd49018d045"],
    "losses_of_data": ["4b607612c757da65"],
    "ranks": ["0f45190e7c5fde91"],
}
"""Fingerprints in the manifests of the past, the last first. Only new ones may be put in front."""

LATER = (
    Version("1.0", "the first"),
    Version("1.1", "how it is spread", columns={"small": ("spread",)}, renamed={"small": {"kl": "kl_k3"}}),
    Version("1.2", "another name again", columns={"small": ("tail",)}, renamed={"small": {"breadth": "spread"}}),
)
SMALL_TODAY = replace(SMALL, columns=(*SMALL.columns, real("breadth", "how wide"), real("tail", "how heavy")))


def test_a_change_of_a_table_is_a_new_version_and_the_past_stays() -> None:
    found = {table.name: list(shapes(table)) for table in TABLES}
    changed = {name: marks for name, marks in found.items() if marks != MARKS.get(name)}
    assert not changed, "declare a new Version in schema/history.py, and put the new fingerprint in front in MARKS"
    assert set(found) == set(MARKS)


def test_versions_are_numbered_upwards_and_say_what_they_changed() -> None:
    numbers = [present(parsed(version.number)) for version in VERSIONS]
    assert numbers == sorted(set(numbers))
    assert parsed(VERSION) == numbers[-1]
    assert all(version.meaning.endswith(".") for version in VERSIONS)


def test_what_was_added_later_may_be_empty_and_is_declared() -> None:
    by_name = {table.name: table for table in TABLES}
    for version in VERSIONS:
        assert set(version.tables) <= set(by_name)
        for name, columns in version.columns.items():
            assert not any(by_name[name].column(column).required for column in columns)


def test_the_shapes_of_a_table_follow_from_its_versions() -> None:
    today, middle, first = history(SMALL_TODAY, LATER)
    assert [one.version for one in (today, middle, first)] == ["1.2", "1.1", "1.0"]
    assert middle.table.names == ("rank", "update", "head", "kl", "kind", "spread")
    assert first.table.names == ("rank", "update", "head", "kl_k3", "kind")
    assert first.sources["kl"] == "kl_k3"
    assert (middle.sources["breadth"], middle.sources["tail"]) == ("spread", None)
    assert (first.sources["breadth"], first.sources["tail"]) == (None, None)
    assert today.current
    assert not middle.current


def test_a_table_has_no_shape_from_before_it_was_there() -> None:
    assert [one.version for one in history(SMALL, (Version("1.0", "a"), Version("1.1", "b", tables=("small",))))] == [
        "1.1"
    ]


def test_renamed_columns_keep_their_cells_and_new_ones_are_null_in_arrow_and_sql_alike(tmp_path: Path) -> None:
    first = history(SMALL_TODAY, LATER)[-1]
    rows = {"rank": [0, 0], "update": [1, 2], "head": ["op", "op"], "kl_k3": [float("nan"), 0.5], "kind": [None, None]}
    data = pa.table(rows, schema=arrow_schema(first.table))
    pq.write_table(data, tmp_path / "small-000001.parquet")
    arrow = upgraded(SMALL_TODAY, first, data, SMALL_TODAY.names)
    with duckdb.connect() as connection:
        statement = select_shards(SMALL_TODAY, [str(tmp_path / "small-000001.parquet")], first.sources)
        sql = connection.execute(statement).fetchall()
        empty = connection.execute(f"describe {select_shards(SMALL_TODAY, [])}").fetchall()
        assert connection.execute(f"describe {statement}").fetchall() == empty
    assert str(arrow.to_pylist()[0]["kl"]) == str(sql[0][3]) == "nan"
    assert [tuple(row.values()) for row in arrow.to_pylist()][1] == sql[1] == (0, 2, "op", 0.5, None, None, None)
    assert [field.type for field in arrow.schema] == [field.type for field in arrow_schema(SMALL_TODAY)]


@pytest.mark.parametrize(
    ("number", "newer", "major"),
    [("1.0", False, False), (VERSION, False, False), ("1.999", True, False), ("2.0", True, True), ("99.0", True, True),
     ("0.9", False, False), ("", False, False), ("x", False, False), ("2.0.1", False, False)],
)  # fmt: skip
def test_what_is_newer_is_known_by_its_number(number: str, newer: bool, major: bool) -> None:
    assert (is_newer(number), is_newer_major(number)) == (newer, major)


def test_only_versions_that_there_were_are_declared() -> None:
    assert [version.number for version in VERSIONS if not was_declared(version.number)] == []
    assert not any(map(was_declared, ("", "0.9", "99.0", f"{VERSION}.0")))


@given(st.text())
def test_no_text_breaks_the_reading_of_a_number(text: str) -> None:
    assert is_newer(text) or not is_newer_major(text)


def test_wording_is_no_new_version() -> None:
    said_better = replace(SMALL, columns=tuple(replace(column, meaning="said better") for column in SMALL.columns))
    assert fingerprint(said_better) == fingerprint(SMALL)


def test_a_logged_row_has_today_s_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esper_analyze.storage.shapes.VERSIONS", LATER)
    names = former_names(SMALL_TODAY)
    assert names == {"kl_k3": "kl", "spread": "breadth"}
    assert with_names([{"kl_k3": 0.5, "head": "op"}], names) == [{"kl": 0.5, "head": "op"}]
    assert with_names(Block(1, {"spread": [2.0]}), names).as_rows() == [{"breadth": 2.0}]  # type: ignore[union-attr]
