"""DuckDB statements over the shards of a run, derived from the declared tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from esper_analyze.schema.column import Kind, Table

_SQL_TYPES = {
    Kind.FLOAT: "DOUBLE",
    Kind.INT: "BIGINT",
    Kind.BOOL: "BOOLEAN",
    Kind.TEXT: "VARCHAR",
    Kind.CHOICE: "VARCHAR",
}


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
    table: Table, shards: Sequence[tuple[Sequence[str], int | None]], tails: Sequence[tuple[str, int | None]]
) -> str:
    """Return a SELECT over explicit shard files and registered Arrow tables, each only before its ``until`` update."""
    parts = [_before(select_shards(table, files), until) for files, until in shards if files]
    names = ", ".join(quote_identifier(column.name) for column in table.columns)
    parts += [_before(f"select {names} from {quote_identifier(name)}", until) for name, until in tails]
    return " union all ".join(parts) if parts else select_shards(table, [])


def _before(query: str, until: int | None) -> str:
    return query if until is None else f"{query} where update < {until}"


def select_shards(table: Table, files: Sequence[str]) -> str:
    """Return a SELECT over an explicit list of shard files; typed and empty when there are none."""
    if not files:
        cells = ", ".join(
            f"cast(null as {_SQL_TYPES[column.kind]}) as {quote_identifier(column.name)}" for column in table.columns
        )
        return f"select {cells} where false"
    names = ", ".join(quote_identifier(column.name) for column in table.columns)
    listed = ", ".join(quote_text(literal_path(file)) for file in files)
    return f"select {names} from read_parquet([{listed}])"
