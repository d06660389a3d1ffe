"""Validation names each thing that is wrong with data or rows, and nothing when nothing is."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.validate import row_faults, schema_faults, table_faults
from tests.schema.test_arrow import SMALL

ROWS = {
    "rank": [0, 0, 0],
    "update": [0, 1, 2],
    "head": ["op", "op", "op"],
    "kl": [0.0, None, math.nan],
    "kind": ["categorical", "gaussian", None],
}


def data(**changes: list[object]) -> pa.Table:
    return pa.table({**ROWS, **changes}, schema=arrow_schema(SMALL))


def test_null_nan_and_zero_are_all_welcome_in_a_float_column() -> None:
    assert table_faults(SMALL, data()) == []


def test_a_missing_column_is_named() -> None:
    assert table_faults(SMALL, data().drop_columns(["kl"])) == ["column kl is missing"]


def test_a_column_that_is_not_declared_is_named() -> None:
    extra = data().append_column("loss", pa.array([1.0, 2.0, 3.0]))
    assert table_faults(SMALL, extra) == ["column loss is not declared"]


def test_a_column_of_another_type_is_named_with_both_types() -> None:
    schema = arrow_schema(SMALL)
    retyped = schema.set(schema.get_field_index("kl"), pa.field("kl", pa.float32()))
    assert schema_faults(SMALL, retyped) == ["column kl has type float, declared is double"]


def test_the_first_column_is_checked_like_any_other() -> None:
    schema = arrow_schema(SMALL)
    retyped = schema.set(0, pa.field("rank", pa.string()))
    assert schema_faults(SMALL, retyped) == ["column rank has type string, declared is int64"]


def test_a_doubled_column_is_named() -> None:
    schema = arrow_schema(SMALL)
    assert "column kl occurs twice" in schema_faults(SMALL, schema.append(schema.field("kl")))


def test_another_order_of_columns_is_a_fault() -> None:
    assert table_faults(SMALL, data().select(SMALL.names[::-1])) == ["columns are not in the declared order"]


def test_a_null_where_none_may_be_is_counted() -> None:
    assert table_faults(SMALL, pa.table({**ROWS, "head": ["op", None, None]}, schema=nullable())) == [
        "column head has 2 nulls, none are allowed"
    ]


def nullable() -> pa.Schema:
    """Return the schema without its promise that required columns hold no null, so that one can be broken."""
    return pa.schema([field.with_nullable(True) for field in arrow_schema(SMALL)])


def test_a_value_outside_the_choices_is_quoted() -> None:
    found = table_faults(SMALL, data(kind=["categorical", "beta", None]))
    assert found == ["column kind has the value 'beta', not one of its choices"]


def test_several_faults_are_all_named() -> None:
    broken = data().drop_columns(["kl", "kind"]).append_column("loss", pa.array([1.0, 2.0, 3.0]))
    found = table_faults(SMALL, broken)
    assert found == ["column kl is missing", "column kind is missing", "column loss is not declared"]


@pytest.mark.parametrize(
    ("row", "faults"),
    [
        ({"rank": 0, "update": 3, "head": "op", "kl": None}, []),
        ({"rank": 0, "update": 3}, ["small.head is required"]),
        ({"rank": 0, "update": 3, "head": None}, ["small.head is required"]),
        ({"rank": 0, "update": 3, "head": "op", "k1": 0.1}, ["k1 is not a column of small"]),
    ],
    ids=["sound", "left out", "null", "misspelt"],
)
def test_a_row_is_checked_by_name(row: dict[str, object], faults: list[str]) -> None:
    assert row_faults(SMALL, row) == faults
