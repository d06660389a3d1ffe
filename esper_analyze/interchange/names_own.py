"""The names of our own exports: ``updates/COLUMN``, and ``TABLE/SUBJECT/COLUMN`` for tables of heads and the like.

A step is an update there. Words out of a declared set stand in TensorBoard files as their position in it.
"""

from __future__ import annotations

from esper_analyze.interchange.framework import Framework
from esper_analyze.interchange.imported import Imported, Row
from esper_analyze.interchange.series import ScalarLog, cell, leave_out
from esper_analyze.schema.column import Table
from esper_analyze.schema.tables import GROUPS, HEADS, LAYERS, LSTM, SLOTS, UPDATES

USUAL = (UPDATES, HEADS, GROUPS, LSTM, SLOTS)
TABLES = (*USUAL, LAYERS)
"""Tables with at most one row an update and subject; the others do not fit series."""
PLACED = ("rank", "update", "seq")
_DEFAULTS = {"level": "NORMAL", "status": "performed"}


def split(name: str) -> tuple[Table, str, str] | None:
    """Return table, subject (empty: the run) and column of a name, None when it is none of ours."""
    first, _, rest = name.partition("/")
    subject, _, column = rest.rpartition("/")
    for table in TABLES:
        if table.name == first and column in table.names and bool(subject) == bool(table.subject):
            return table, subject, column
    return None


def series_columns(table: Table) -> list[str]:
    """Return the columns of ``table`` that are series: all but its key."""
    return [name for name in table.names if name not in (*PLACED, table.subject)]


def take(log: ScalarLog, imported: Imported) -> None:
    """Add the rows of ``log`` to ``imported``."""
    rows: dict[tuple[str, str], dict[int, Row]] = {}
    for name, series in log.series.items():
        parts = split(name)
        if parts is None:
            continue
        table, subject, column = parts
        mine = rows.setdefault((table.name, subject), {})
        for step, value in zip(series.steps, series.values, strict=True):
            read = cell(imported, table.name, column, value, f"{name} at {step}")
            if read is not None:
                mine.setdefault(step, _begun(table, subject, step))[column] = read
    for (table_name, _), by_update in rows.items():
        for _, row in sorted(by_update.items()):
            imported.add(table_name, row)
    imported.columns["all"] = "as exported"
    imported.facts["heads"] = dict.fromkeys(subject for table_name, subject in rows if table_name == HEADS.name)
    leave_out(imported, log.series, filter(split, log.series))
    _complete(imported)


def _begun(table: Table, subject: str, update: int) -> Row:
    row: Row = {"update": update}
    if table.subject is not None:
        row[table.subject] = subject
    if table is UPDATES:
        row |= _DEFAULTS
    if table is SLOTS:
        env, _, slot = subject.removeprefix("env ").partition(", ")
        row |= {"env": int(env) if env.isdigit() else 0, "slot": slot or subject}
    if table is LAYERS:
        row["minibatch"] = 0
    return row


def _complete(imported: Imported) -> None:
    """Give an update of which only heads or groups are there a row, and count updates between that have none."""
    updates = {row["update"] for row in imported.rows.get("updates", [])}
    others = {row["update"] for table, rows in imported.rows.items() if table != "updates" for row in rows}
    for update in sorted(others - updates, key=str):
        imported.add("updates", _begun(UPDATES, "", int(str(update))))
    imported.count_gaps((int(str(row["update"])) for row in imported.rows.get("updates", [])), "has no value")


_PATTERNS = (*(f"{UPDATES.name}/{column}" for column in UPDATES.names), *(f"{table.name}/*/*" for table in TABLES[1:]))
EXPORT = Framework("export", "our own export", _PATTERNS, _PATTERNS, (), take)
