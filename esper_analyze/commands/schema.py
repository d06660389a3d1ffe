"""``esper-analyze schema``: what is recorded, table by table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import takes_options
from esper_analyze.commands.output import Form, PageOutput
from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.terminal import put, show_table

if TYPE_CHECKING:
    from esper_analyze.schema.column import Column, Table


@takes_options("names", "form", "as_json", "out", "safe")
def schema(
    output: PageOutput,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TABLE|TABLE.COLUMN|COLUMN]…", help="Print only these tables or columns.", show_default=False
        ),
    ] = None,
) -> None:
    """Print every table and column: meaning, unit, how it was reduced, what an empty cell means; and all versions.

    Example: esper-analyze schema updates

    Example: esper-analyze schema updates.kl_k3

    Example: esper-analyze schema --out columns.csv
    """
    from esper_analyze.csv_text import records_csv
    from esper_analyze.schema import TABLES, VERSION, VERSIONS
    from esper_analyze.schema.page import (
        column_records,
        columns_page,
        schema_page,
        table_facts,
        tables_page,
        version_facts,
    )
    from esper_analyze.strict_json import strict_json

    form = output.resolved
    shown = [_named(name, TABLES) for name in names or ()]
    tables = [replace(table, columns=columns) for part in shown for table, columns in part] if names else TABLES
    facts: dict[str, object] = {"schema_version": VERSION, "tables": [table_facts(table) for table in tables]}
    if form is Form.JSON:
        output.write(strict_json(facts if names else facts | {"versions": [version_facts(v) for v in VERSIONS]}))
    elif form is Form.CSV:
        records = [record for table in tables for record in column_records(table)]
        output.write(records_csv(list(records[0]), records, safe=output.safe))
    elif names and all(table.name not in names for table in tables):
        output.write(columns_page(tables))
    elif sys.stdout.isatty() and output.out is None:
        _print(tables)
    else:
        output.write(tables_page(tables) if names else schema_page(tables, VERSIONS))


def _print(tables: Sequence[Table]) -> None:
    from rich.markup import escape

    for table in tables:
        put(f"\n{table.name}: {table.meaning} Key: {', '.join(table.key)}.\n\n")
        show_table(_TITLES, [[escape(cell) for cell in _cells(column)] for column in table.columns])


_TITLES = ("column", "unit", "meaning", "empty means")


def _cells(column: Column) -> tuple[str, ...]:
    return column.name, "" if column.unit == "1" else column.unit, column.meaning, column.empty


def _named(name: str, tables: Sequence[Table]) -> list[tuple[Table, tuple[Column, ...]]]:
    """Return a table with its columns, or each table that has the column. Raises ``UsageError`` for an unknown name."""
    by_name = {table.name: table for table in tables}
    if name in by_name:
        return [(by_name[name], by_name[name].columns)]
    owner, dot, column = name.rpartition(".")
    having = [table for table in tables if column in table.names and owner in ("", table.name)]
    if having:
        return [(table, (table.column(column),)) for table in having]
    if dot and owner in by_name:
        raise UsageError(f"table {owner} has no column {column!r}{did_you_mean(column, by_name[owner].names)}")
    columns = dict.fromkeys(column for table in tables for column in table.names)
    raise UsageError(f"there is no table or column {name!r}{did_you_mean(name, [*by_name, *columns])}")
