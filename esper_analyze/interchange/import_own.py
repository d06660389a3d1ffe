"""Import of what ``export`` wrote: a table or several, row by row, or one file with everything of an update in a row.

Findings and levels are made anew: our detector judges the rows as it judges any import.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from esper_analyze.errors import EsperError, UsageError
from esper_analyze.interchange import names_own
from esper_analyze.interchange.imported import Imported, Losses, Row
from esper_analyze.interchange.rows_file import SUFFIXES, rows_of
from esper_analyze.interchange.series import Log, cell
from esper_analyze.schema.column import Table
from esper_analyze.schema.tables import BY_NAME, TABLES

FORMAT = "own"
_MADE_ANEW = ("findings", "levels", "ranks")
_OURS = ("rank", "seq")


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a file or a directory that ``export`` wrote, else None."""
    if path.is_dir():
        return path if any((path / f"updates{suffix}").is_file() for suffix in SUFFIXES) else None
    if not path.is_file() or path.suffix not in SUFFIXES:
        return None
    try:
        names = [name for row in islice(rows_of(path, Losses()), 1) for name in row]
    except EsperError:
        return None
    return path if _table_of(names) is not None or any(names_own.split(name) for name in names) else None


def _table_of(names: Iterable[str]) -> Table | None:
    """Return the table all of whose columns are there, in order."""
    return next((table for table in TABLES if tuple(names) == table.names), None)


def read(path: Path) -> Imported:
    """Read the file or directory ``path``. Raises ``UsageError`` or ``DamagedError``."""
    found, log = Imported(FORMAT), Log(timesteps=False)
    for file in _files(path):
        _read_file(file, found, log)
    if log.series:
        names_own.take(log, found)
    found.columns["all"] = "as exported"
    if "updates" not in found.rows:
        raise UsageError(f"{path} holds no row of updates", hint="export table updates too")
    updates = {int(str(row["update"])) for row in found.rows["updates"]}
    found.count_gaps(updates, "has no row")
    found.facts["heads"] = {str(row["head"]): None for row in found.rows.get("heads", [])}
    return found


def _files(path: Path) -> Sequence[Path]:
    return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]


def _read_file(file: Path, found: Imported, log: Log) -> None:
    rows = iter(rows_of(file, found.losses))
    first = next(rows, None)
    table = BY_NAME.get(file.stem) if first is None else _table_of(first)
    if table is not None:
        if table.name not in _MADE_ANEW:
            _take_rows(table, file, found, _with(first, rows))
        return
    for place, row in enumerate(_with(first, rows)):
        update = cell(found, "updates", "update", row.get("update"), f"update, row {place} of {file.name}")
        if not isinstance(update, int):
            found.losses.count("malformed_row", "row without an update", f"row {place} of {file.name}", lost=1)
            continue
        for name, value in row.items():
            if value is not None and name != "update":
                log.add(name, update, value)


def _with(first: Row | None, rows: Iterator[Row]) -> Iterator[Row]:
    if first is not None:
        yield first
    yield from rows


def _take_rows(table: Table, file: Path, found: Imported, rows: Iterable[Row]) -> None:
    required = [column.name for column in table.columns if column.required and column.name not in _OURS]
    for place, row in enumerate(rows):
        if row["rank"] not in (0, "0"):
            raise UsageError(f"{file} holds rows of several ranks", hint="export those of one: --rank N")
        where = f"row {place} of {file.name}"
        own = {name: cell(found, table.name, name, row[name], f"{name}, {where}") for name in table.names}
        for name in _OURS:
            del own[name]
        if any(own[name] is None for name in required):
            found.losses.count("malformed_row", f"row of {table.name} without what it must have", where, lost=1)
            continue
        found.add(table.name, own)
