"""SQL over shards: typed when there are none, one exact file when a name holds wildcards or quotes."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.schema import TABLES, VERSIONS, Kind, Table, views
from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.history import Version
from esper_analyze.schema.macros import Macro
from esper_analyze.schema.page import schema_page, table_facts, version_facts
from esper_analyze.schema.views import literal_path, quote_identifier, quote_text, select_rows, select_shards
from tests.schema.test_arrow import SMALL

SQL_TYPES = {Kind.FLOAT: "DOUBLE", Kind.INT: "BIGINT", Kind.BOOL: "BOOLEAN"}


def described(statement: str) -> list[tuple[str, str]]:
    with duckdb.connect() as connection:
        return [(name, kind) for name, kind, *_ in connection.execute(f"describe {statement}").fetchall()]


def write(path: Path, update: int) -> None:
    rows = {"rank": [0], "update": [update], "head": ["op"], "kl": [None], "kind": ["gaussian"]}
    pq.write_table(pa.table(rows, schema=arrow_schema(SMALL)), path)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_view_without_shards_is_empty_and_typed(table: Table) -> None:
    statement = select_shards(table, [])
    expected = [(column.name, SQL_TYPES.get(column.kind, "VARCHAR")) for column in table.columns]
    assert described(statement) == expected
    with duckdb.connect() as connection:
        assert connection.execute(statement).fetchall() == []


def test_a_view_with_shards_has_the_same_columns_as_one_without(tmp_path: Path) -> None:
    write(tmp_path / "small-000001.parquet", 3)
    statement = select_shards(SMALL, [str(tmp_path / "small-000001.parquet")])
    assert described(statement) == described(select_shards(SMALL, []))


@pytest.mark.parametrize("name", ["a*.parquet", "a?.parquet", "a[bc].parquet", "it's.parquet"])
def test_exactly_the_named_file_is_read(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, 1)
    for other in ("ab.parquet", "ac.parquet", "axx.parquet"):
        write(tmp_path / other, 2)
    with duckdb.connect() as connection:
        found = connection.execute(select_shards(SMALL, [str(tmp_path / name)])).fetchall()
    assert found == [(0, 1, "op", None, "gaussian")]


@pytest.mark.parametrize("at_once", [1, 2, 3, views.FILES_AT_ONCE])
def test_shards_and_tables_in_memory_are_read_up_to_their_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(views, "FILES_AT_ONCE", at_once)
    for update in (1, 2, 3):
        write(tmp_path / f"small-{update}.parquet", update)
    paths = [str(tmp_path / f"small-{update}.parquet") for update in (1, 2, 3)]
    tail = pa.table({"kl": [0.5, 0.25], "update": [7, 8], "rank": [0, 0], "head": ["a", "b"], "kind": [None, None]})
    sources = {"rank": "rank", "update": "update", "head": "kind", "kl": None, "kind": "kind"}

    def found(shards: list[tuple[list[str], int | None, dict[str, str | None] | None]], until: int | None) -> object:
        statements = select_rows(SMALL, shards, [("tail", until)])
        assert all(statement.count("small-") <= at_once for statement in statements)
        with duckdb.connect() as connection:
            connection.register("tail", tail)
            return sorted(row[1:4] for row in connection.execute(" union all ".join(statements)).fetchall())

    rows = [(1, "op", None), (2, "op", None), (3, "op", None)]
    assert found([(paths, None, None)], None) == [*rows, (7, "a", 0.5), (8, "b", 0.25)]
    assert found([(paths, 3, None), ([], 1, None)], 8) == [*rows[:2], (7, "a", 0.5)]
    assert found([(paths[:1], 2, sources), (paths[1:], None, None)], 0) == [(1, "gaussian", None), *rows[1:]]
    assert found([], 8) == [(7, "a", 0.5)]
    with duckdb.connect() as connection:
        (nothing,) = select_rows(SMALL, [([], None, None)], [])
        assert connection.execute(nothing).fetchall() == []


def test_quotes_cannot_be_closed_from_inside() -> None:
    assert quote_identifier('a"; drop table b; --') == '"a""; drop table b; --"'
    assert quote_text("it's") == "'it''s'"
    assert literal_path("runs/[1]*.parquet") == "runs/[[]1][*].parquet"


def test_the_page_names_every_table_column_and_choice() -> None:
    page = schema_page(TABLES, VERSIONS)
    assert page.startswith(f"# What is recorded (schema {VERSIONS[-1].number})")
    history = page.split("\n## Versions\n")[1]
    assert all(f"| {version.number} | {version.meaning} |" in history for version in VERSIONS)
    assert "groups: zero_fraction, hist_zero" in history
    for table in TABLES:
        section = page.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        for column in table.columns:
            assert f"| {column.name} | {column.kind.value} |" in section
            assert all(choice in section for choice in column.choices)
        assert [found["name"] for found in table_facts(table)["columns"]] == list(table.names)  # type: ignore[attr-defined]


def test_a_bar_in_a_meaning_does_not_break_the_pages_table() -> None:
    for line in schema_page(TABLES, VERSIONS).split("\n## Versions\n")[0].splitlines():
        if line.startswith("| "):
            assert line.replace("\\|", "").count("|") == 7, line


def test_a_version_is_plain_data() -> None:
    version = Version("1.1", "wider", ("new",), {"small": ("spread",)}, {"small": {"kl": "kl_k3"}})
    assert version_facts(version) == {
        "version": "1.1",
        "meaning": "wider",
        "tables": ["new"],
        "columns": {"small": ["spread"]},
        "renamed": {"small": {"kl": "kl_k3"}},
    }
    history = schema_page([SMALL], (Version("1.0", "first"), version)).split("## Versions")[1].splitlines()
    assert history[-2:] == [
        "| 1.1 | wider | new | small: spread | small: kl_k3 → kl |",
        "| 1.0 | first |  |  |  |",
    ]


def test_a_macro_is_created_under_its_name_and_shown_without_arguments() -> None:
    macro = Macro("twice", "what is twice?", (), "select 2 * x as y", "x := 4")
    with duckdb.connect() as connection:
        connection.execute(macro.create)
        assert connection.execute(macro.example).fetchall() == [(8,)]
        assert connection.execute("from twice(x := 5)").fetchall() == [(10,)]
