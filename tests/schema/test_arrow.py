"""Arrow schemas derive from the declared tables, and a change of a column changes the fingerprint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.schema import BY_NAME, TABLES, Column, Kind, Table
from esper_analyze.schema.arrow import (
    TYPES,
    arrow_schema,
    fingerprint,
    float_columns,
    integer_columns,
    schema_fingerprint,
    word_columns,
)
from esper_analyze.schema.column import RANK, UPDATE, choice, real, text

SMALL = Table(
    "small",
    "A table of two facts.",
    ("rank", "update", "head"),
    (
        RANK,
        UPDATE,
        text("head", "name of the head", required=True),
        real("kl", "mean(r − 1 − log r)", "nats", "mean over samples", "not handed over"),
        choice("kind", "distribution", ("categorical", "gaussian")),
    ),
)


def with_column(number: int, **changes: object) -> Table:
    columns = list(SMALL.columns)
    columns[number] = replace(columns[number], **changes)  # type: ignore[arg-type]
    return replace(SMALL, columns=tuple(columns))


def test_meaning_unit_reducer_and_empty_travel_with_the_field() -> None:
    assert arrow_schema(SMALL).field("kl").metadata == {
        b"meaning": "mean(r − 1 − log r)".encode(),
        b"unit": b"nats",
        b"reducer": b"mean over samples",
        b"empty": b"not handed over",
    }
    assert arrow_schema(SMALL).field("kind").metadata[b"choices"] == b"categorical,gaussian"
    assert arrow_schema(SMALL).metadata == {b"meaning": b"A table of two facts."}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_says_what_it_means_and_what_empty_means(table: Table) -> None:
    schema = arrow_schema(table)
    assert schema.names == list(table.names)
    assert len(set(schema.names)) == len(schema.names)
    for column, field in zip(table.columns, schema, strict=True):
        assert field.type == TYPES[column.kind]
        assert field.nullable is not column.required
        assert field.metadata[b"meaning"].decode() == column.meaning != ""
        assert field.metadata[b"empty"]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_keys_are_declared_columns_that_are_never_null(table: Table) -> None:
    assert all(table.column(name).required for name in table.key)


def test_no_column_is_a_dictionary_and_numbers_have_64_bits() -> None:
    types = {field.type for table in TABLES for field in arrow_schema(table)}
    assert types <= {pa.float64(), pa.int64(), pa.bool_(), pa.string()}


@pytest.mark.parametrize(
    "changed",
    [
        with_column(3, name="kl_k3"),
        with_column(3, kind=Kind.INT),
        with_column(3, required=True),
        replace(SMALL, columns=SMALL.columns[:-1]),
        replace(SMALL, columns=SMALL.columns[::-1]),
    ],
    ids=["renamed", "retyped", "required", "removed", "reordered"],
)
def test_the_fingerprint_changes_when_a_column_does(changed: Table) -> None:
    assert fingerprint(changed) != fingerprint(SMALL)


def test_the_fingerprint_does_not_change_with_the_wording() -> None:
    assert fingerprint(with_column(3, meaning="said better")) == fingerprint(SMALL)


def test_tables_have_different_fingerprints() -> None:
    assert len({fingerprint(table) for table in TABLES}) == len(TABLES)


def test_parquet_keeps_fingerprint_and_meaning(tmp_path: Path) -> None:
    pq.write_table(arrow_schema(SMALL).empty_table(), tmp_path / "small.parquet")
    back = pq.read_schema(tmp_path / "small.parquet")
    assert schema_fingerprint(back) == fingerprint(SMALL)
    assert back.field("kl").metadata[b"unit"] == b"nats"


def test_float_and_integer_columns_are_told_apart() -> None:
    assert float_columns(SMALL) == ["kl"]
    assert integer_columns(SMALL) == ["rank", "update"]
    assert word_columns(SMALL) == ["head", "kind"]


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(KeyError, match="table small has no column 'kl_k9'"):
        SMALL.column("kl_k9")


def test_the_subject_of_a_row_is_the_key_beyond_rank_and_update() -> None:
    assert SMALL.subject == "head"
    assert BY_NAME["updates"].subject is None
    assert BY_NAME["lstm"].subject == "phase"


def test_a_required_column_is_never_empty() -> None:
    never = {column.empty for table in TABLES for column in table.columns if column.required}
    assert never == {"never"}
    assert isinstance(SMALL.column("head"), Column)
