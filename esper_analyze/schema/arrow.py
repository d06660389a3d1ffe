"""Arrow schemas of the declared tables, with every column's meaning in its field metadata."""

from __future__ import annotations

import hashlib
from functools import cache

import pyarrow as pa

from esper_analyze.schema.column import Column, Kind, Table

TYPES: dict[Kind, pa.DataType] = {
    Kind.FLOAT: pa.float64(),
    Kind.INT: pa.int64(),
    Kind.BOOL: pa.bool_(),
    Kind.TEXT: pa.string(),
    Kind.CHOICE: pa.string(),
}


def arrow_field(column: Column) -> pa.Field:
    """Return the Arrow field of ``column``; meaning, unit, reducer and the meaning of null are its metadata."""
    facts = {"meaning": column.meaning, "unit": column.unit, "reducer": column.reducer, "empty": column.empty}
    if column.choices:
        facts["choices"] = ",".join(column.choices)
    metadata = {name: value for name, value in facts.items() if value}
    return pa.field(column.name, TYPES[column.kind], nullable=not column.required, metadata=metadata)


@cache
def arrow_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of ``table``, columns in declared order."""
    return pa.schema([arrow_field(column) for column in table.columns], metadata={"meaning": table.meaning})


def schema_fingerprint(schema: pa.Schema) -> str:
    """Return 16 hex digits over the names, types and nullability of ``schema``, in order."""
    shape = "\n".join(f"{field.name}:{field.type}:{field.nullable}" for field in schema)
    return hashlib.sha256(shape.encode()).hexdigest()[:16]


@cache
def fingerprint(table: Table) -> str:
    """Return the fingerprint every sealed shard of ``table`` carries in the manifest."""
    return schema_fingerprint(arrow_schema(table))


def float_columns(table: Table) -> list[str]:
    """Return the names of the float columns: written without statistics, see ``esper_analyze.storage.shard_file``."""
    return [column.name for column in table.columns if column.kind is Kind.FLOAT]


def integer_columns(table: Table) -> list[str]:
    """Return the names of the integer columns: the only ones with statistics."""
    return [column.name for column in table.columns if column.kind is Kind.INT]


def word_columns(table: Table) -> list[str]:
    """Return the names of the text columns, which have few distinct values and are dictionary-encoded."""
    return [column.name for column in table.columns if column.kind in (Kind.CHOICE, Kind.TEXT)]
