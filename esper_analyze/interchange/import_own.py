"""Import of what ``export`` wrote: a table or several, row by row, or one file with everything of an update in a row.

Findings and levels are computed again: our detector judges the rows as in any import.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.interchange import names_own
from esper_analyze.interchange.imported import Imported, Row
from esper_analyze.interchange.rows_file import SUFFIXES, column_names, rows_of
from esper_analyze.interchange.series import ScalarLog, cell
from esper_analyze.schema.column import Table
from esper_analyze.schema.tables import BY_NAME, TABLES

FORMAT = "own"
_COMPUTED_AGAIN = ("findings", "levels", "ranks")
_OURS = ("rank", "seq")


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a file or a directory that ``export`` wrote, else None."""
    if path.is_dir():
        return path if any((path / f"updates{suffix}").is_file() for suffix in SUFFIXES) else None
    names = column_names(path)
    if names is None:
        return None
    return path if _table_of(names) is not None or any(names_own.split(name) for name in names) else None


def _table_of(names: Iterable[str]) -> Table | None:
    """Return the table all of whose columns are there, in order."""
    return next((table for table in TABLES if tuple(names) == table.names), None)


def read(path: Path) -> Imported:
    """Read the file or directory ``path``. Raises ``UsageError`` or ``DamagedError``."""
    imported, log = Imported(FORMAT), ScalarLog(timesteps=False)
    for file in _files(path):
        _read_file(file, imported, log)
    if log.series:
        names_own.take(log, imported)
    imported.columns["all"] = "as exported"
    if "updates" not in imported.rows:
        raise UsageError(f"{path} holds no row of updates", hint="export table updates too")
    updates = {int(str(row["update"])) for row in imported.rows["updates"]}
    imported.count_gaps(updates, "has no row")
    imported.facts["heads"] = {str(row["head"]): None for row in imported.rows.get("heads", [])}
    return imported


def _files(path: Path) -> Sequence[Path]:
    return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]


def _read_file(file: Path, imported: Imported, log: ScalarLog) -> None:
    rows = iter(rows_of(file, imported.losses))
    first = next(rows, None)
    table = BY_NAME.get(file.stem) if first is None else _table_of(first)
    if table is not None:
        if table.name not in _COMPUTED_AGAIN:
            _take_rows(table, file, imported, _with(first, rows))
        return
    for index, row in enumerate(_with(first, rows)):
        update = cell(imported, "updates", "update", row.get("update"), f"update, row {index} of {file.name}")
        if not isinstance(update, int):
            imported.losses.count("malformed_row", "row without an update", f"row {index} of {file.name}", lost=1)
            continue
        for name, value in row.items():
            if value is not None and name != "update":
                log.add(name, update, value)


def _with(first: Row | None, rows: Iterator[Row]) -> Iterator[Row]:
    if first is not None:
        yield first
    yield from rows


def _take_rows(table: Table, file: Path, imported: Imported, rows: Iterable[Row]) -> None:
    required = [column.name for column in table.columns if column.required and column.name not in _OURS]
    for index, row in enumerate(rows):
        if row["rank"] not in (0, "0"):
            raise UsageError(f"{file} holds rows of several ranks", hint="export those of one: --rank N")
        where = f"row {index} of {file.name}"
        cells = {name: cell(imported, table.name, name, row[name], f"{name}, {where}") for name in table.names}
        for name in _OURS:
            del cells[name]
        if any(cells[name] is None for name in required):
            imported.losses.count("malformed_row", f"row of {table.name} without a required cell", where, lost=1)
            continue
        imported.add(table.name, cells)
