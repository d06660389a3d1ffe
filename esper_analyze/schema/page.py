"""The schema page: every table and column in Markdown, printed by ``esper-analyze schema``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from esper_analyze.schema.column import Column, Table
from esper_analyze.schema.history import Version


def schema_page(tables: Iterable[Table], versions: Sequence[Version]) -> str:
    """Return the page for ``tables`` as Markdown, with the changes of each of ``versions``."""
    return "\n".join([*_lines(tables, versions[-1].number), *_history(versions)]) + "\n"


def _history(versions: Sequence[Version]) -> Iterator[str]:
    yield ""
    yield "## Versions"
    yield "Runs of every version below can be read without conversion; columns not recorded yet are null. The minor"
    yield "number grows with new columns and tables, the major number when an older reader would misread a column."
    yield "A run newer than its reader is refused with an error (exit code 2)."
    yield ""
    yield "| version | meaning | new tables | new columns | other names |"
    yield "|---|---|---|---|---|"
    for version in reversed(versions):
        columns = [f"{table}: {', '.join(names)}" for table, names in version.columns.items()]
        names = [f"{table}: {then} → {now}" for table, pairs in version.renamed.items() for now, then in pairs.items()]
        cells = (version.number, version.meaning, ", ".join(version.tables), "; ".join(columns), "; ".join(names))
        yield "| " + " | ".join(cells) + " |"


def _lines(tables: Iterable[Table], version: str) -> Iterator[str]:
    yield f"# What is recorded (schema {version})"
    yield ""
    yield "null: not measured, or nothing to measure. NaN, Inf: measured, with this result. "
    yield "0.0: measured as zero. No default value ever replaces a missing measurement."
    for table in tables:
        yield ""
        yield from _table_lines(table)


def tables_page(tables: Iterable[Table]) -> str:
    """Return ``tables`` alone as Markdown."""
    return "\n\n".join("\n".join(_table_lines(table)) for table in tables) + "\n"


def columns_page(tables: Iterable[Table]) -> str:
    """Return the columns of ``tables`` one below the other, a fact a line."""
    return "\n".join("\n".join(_column_lines(table, column)) for table in tables for column in table.columns)


def _column_lines(table: Table, column: Column) -> Iterator[str]:
    yield f"{table.name}.{column.name}: {column.meaning}"
    facts = {
        "type": column.kind.value,
        "unit": "" if column.unit == "1" else column.unit,
        "one of": ", ".join(column.choices),
        "reducer": column.reducer,
        "empty means": column.empty,
        "row": f"one for each {', '.join(name for name in table.key if name != 'rank')}",
    }
    yield from (f"  {name:<12} {fact}" for name, fact in facts.items() if fact)
    yield ""


def _table_lines(table: Table) -> Iterator[str]:
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


def version_facts(version: Version) -> dict[str, object]:
    """Return the changes of ``version`` as plain data for ``--json``."""
    return {
        "version": version.number,
        "meaning": version.meaning,
        "tables": list(version.tables),
        "columns": {table: list(names) for table, names in version.columns.items()},
        "renamed": {table: dict(names) for table, names in version.renamed.items()},
    }


def table_facts(table: Table) -> dict[str, object]:
    """Return ``table`` as plain data for ``--json``."""
    return {
        "table": table.name,
        "meaning": table.meaning,
        "key": list(table.key),
        "columns": [_column_facts(column) for column in table.columns],
    }


def column_records(table: Table) -> Iterator[dict[str, object]]:
    """Yield each column of ``table`` as a flat record."""
    for column in table.columns:
        yield {"table": table.name, **_column_facts(column), "choices": ", ".join(column.choices)}


def _column_facts(column: Column) -> dict[str, object]:
    return {
        "name": column.name,
        "type": column.kind.value,
        "unit": column.unit,
        "meaning": column.meaning,
        "reducer": column.reducer,
        "empty": column.empty,
        "required": column.required,
        "choices": list(column.choices),
    }
