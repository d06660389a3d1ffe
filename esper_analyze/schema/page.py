"""The schema page: every table and column in Markdown, printed by ``esper-analyze schema``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from esper_analyze.schema.column import Column, Table


def schema_page(tables: Iterable[Table], version: str) -> str:
    """Return the page for ``tables`` as Markdown."""
    return "\n".join(_lines(tables, version)) + "\n"


def _lines(tables: Iterable[Table], version: str) -> Iterator[str]:
    yield f"# What is recorded (schema {version})"
    yield ""
    yield "null: not measured, or nothing there to measure. NaN, Inf: measured, and that is what came out. "
    yield "0.0: measured, and zero. No default stands for a measurement."
    for table in tables:
        yield ""
        yield f"## {table.name}"
        yield f"{table.meaning} Key: {', '.join(table.key)}."
        yield ""
        yield "| column | type | unit | meaning | reducer | empty means |"
        yield "|---|---|---|---|---|---|"
        yield from (_line(column) for column in table.columns)


def _line(column: Column) -> str:
    meaning = column.meaning
    if column.choices:
        meaning += f" ({', '.join(column.choices)})"
    cells = (column.name, column.kind.value, column.unit, meaning, column.reducer, column.empty)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table_facts(table: Table) -> dict[str, object]:
    """Return ``table`` as plain data for ``--json``."""
    return {
        "table": table.name,
        "meaning": table.meaning,
        "key": list(table.key),
        "columns": [
            {
                "name": column.name,
                "type": column.kind.value,
                "unit": column.unit,
                "meaning": column.meaning,
                "reducer": column.reducer,
                "empty": column.empty,
                "required": column.required,
                "choices": list(column.choices),
            }
            for column in table.columns
        ],
    }
