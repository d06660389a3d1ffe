"""Check Arrow data and rows against the declared tables; each fault is one sentence."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.column import Column, Kind, Table


def schema_faults(table: Table, actual: pa.Schema) -> list[str]:
    """Return the faults of the columns of ``actual``: missing, extra, retyped, reordered or repeated."""
    wanted = arrow_schema(table)
    faults = [f"column {name} is missing" for name in wanted.names if name not in actual.names]
    faults += [f"column {name} is not declared" for name in actual.names if name not in wanted.names]
    faults += [f"column {name} occurs twice" for name in sorted(set(actual.names)) if actual.names.count(name) > 1]
    for field in actual:
        index = wanted.get_field_index(field.name)
        if index >= 0 and wanted.field(index).type != field.type:
            faults.append(f"column {field.name} has type {field.type}, declared is {wanted.field(index).type}")
    if not faults and list(actual.names) != list(wanted.names):
        faults.append("columns are not in the declared order")
    return faults


def table_faults(table: Table, data: pa.Table) -> list[str]:
    """Return the faults of ``data``: its columns, nulls in required columns, values outside the choices."""
    faults = schema_faults(table, data.schema)
    if faults:
        return faults
    for column in table.columns:
        faults += _cell_faults(column, data.column(column.name))
    return faults


def _cell_faults(column: Column, cells: pa.ChunkedArray) -> list[str]:
    faults = []
    if column.required and cells.null_count:
        faults.append(f"column {column.name} has {cells.null_count} nulls, none are allowed")
    if column.kind is Kind.CHOICE:
        declared = pc.is_in(cells, value_set=pa.array([*column.choices, None], pa.string()))
        strange = pc.filter(cells, pc.invert(declared))
        if len(strange):
            faults.append(f"column {column.name} has the value {strange[0].as_py()!r}, not one of its choices")
    return faults


def row_faults(table: Table, row: Mapping[str, object]) -> list[str]:
    """Return the faults of one row: undeclared names, missing required cells."""
    names = set(table.names)
    faults = [f"{name} is not a column of {table.name}" for name in row if name not in names]
    faults += [
        f"{table.name}.{column.name} is required"
        for column in table.columns
        if column.required and row.get(column.name) is None
    ]
    return faults
