"""DuckDB statements over the shards of a run, derived from the declared tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from esper_analyze.schema.column import Column, Kind, Table

_SQL_TYPES = {
    Kind.FLOAT: "DOUBLE",
    Kind.INT: "BIGINT",
    Kind.BOOL: "BOOLEAN",
    Kind.TEXT: "VARCHAR",
    Kind.CHOICE: "VARCHAR",
}


FILES_AT_ONCE = 100
"""Shards in one SELECT: while it runs, DuckDB keeps about a quarter of a megabyte of each of them."""


def quote_identifier(name: str) -> str:
    """Return ``name`` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(value: str) -> str:
    """Return ``value`` as a SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def literal_path(path: str) -> str:
    """Return ``path`` so that DuckDB, which globs every file name, finds exactly this file."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def select_rows(
    table: Table,
    shards: Sequence[tuple[Sequence[str], int | None, Mapping[str, str | None] | None]],
    tails: Sequence[tuple[str, int | None]],
) -> list[str]:
    """Return SELECTs over explicit shard files and registered Arrow tables, each limited to updates before ``until``.

    Together they are all rows; there is at least one. ``shards``: files, ``until``, and the files' names for today's
    columns, see ``select_shards``. Each reads at most ``FILES_AT_ONCE`` files.
    """
    parts = [
        _before(select_shards(table, files[first : first + FILES_AT_ONCE], sources), until)
        for files, until, sources in shards
        for first in range(0, len(files), FILES_AT_ONCE)
    ]
    names = ", ".join(quote_identifier(column.name) for column in table.columns)
    parts += [_before(f"select {names} from {quote_identifier(name)}", until) for name, until in tails]
    return parts or [select_shards(table, [])]


def _before(query: str, until: int | None) -> str:
    return query if until is None else f"{query} where update < {until}"


def select_shards(table: Table, files: Sequence[str], sources: Mapping[str, str | None] | None = None) -> str:
    """Return a SELECT over an explicit list of shard files; typed and empty without files.

    ``sources``: the files' name for each of today's columns, None if they lack it. Default: today's names.
    """
    if not files:
        return f"select {', '.join(_null(column) for column in table.columns)} where false"
    by_name = {column.name: column.name for column in table.columns} if sources is None else sources
    names = ", ".join(_cell(column, by_name[column.name]) for column in table.columns)
    listed = ", ".join(quote_text(literal_path(file)) for file in files)
    return f"select {names} from read_parquet([{listed}])"


def _cell(column: Column, source: str | None) -> str:
    if source is None:
        return _null(column)
    name = quote_identifier(column.name)
    return name if source == column.name else f"{quote_identifier(source)} as {name}"


def _null(column: Column) -> str:
    return f"cast(null as {_SQL_TYPES[column.kind]}) as {quote_identifier(column.name)}"
