"""Import of trackio's SQLite database: table ``metrics`` has a row of JSON for each call of ``log``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from esper_analyze.interchange.found_run import FoundRun, distinct, folder_name
from esper_analyze.interchange.imported import Imported, ImportLosses
from esper_analyze.interchange.raw_log import RawLog
from esper_analyze.interchange.row_log import flat
from esper_analyze.interchange.sqlite_file import columns_of, opened_database
from esper_analyze.interchange.steps_log import Point, log_of

FORMAT = "trackio"
_COLUMNS = {"timestamp", "run_name", "step", "metrics"}
_OLDER = "project_name"
"""The first versions kept all projects in one database."""


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a database of trackio, else None."""
    return path if set(columns_of(path, "metrics")) >= _COLUMNS else None


def runs(path: Path) -> list[FoundRun]:
    """Return the runs of the database ``path``. Raises ``DamagedError``."""
    project = _OLDER if _OLDER in columns_of(path, "metrics") else "''"
    with opened_database(path) as connection:
        keys = list(connection.execute(f"select distinct {project}, run_name from metrics order by 1, 2"))
    folders = distinct([folder_name(str(name)) for _, name in keys])
    return [FoundRun(folder, partial(_read, path, project, key)) for folder, key in zip(folders, keys, strict=True)]


def _read(path: Path, project: str, key: tuple[object, object], framework: str | None) -> Imported:
    query = f"select step, timestamp, metrics from metrics where {project} = ? and run_name = ? order by id"
    if "id" not in columns_of(path, "metrics"):
        query = query.replace("order by id", "order by rowid")
    raw = RawLog(FORMAT, [])
    with opened_database(path) as connection:
        raw.attempts = [log_of(_points(connection.execute(query, key), raw.losses))]
    return raw.imported(str(path), framework)


def _points(rows: Iterator[tuple[int, str, str]], losses: ImportLosses) -> Iterator[Point]:
    for step, moment, text in rows:
        try:
            cells = json.loads(text)
            wall = datetime.fromisoformat(moment).timestamp()
        except (ValueError, TypeError, RecursionError, OverflowError):
            losses.count("malformed_row", "row that is no JSON", f"step {step}", lost=1)
            continue
        for name, value in flat(cells).items() if isinstance(cells, dict) else ():
            if not isinstance(value, str) or value in ("NaN", "Infinity", "-Infinity"):
                yield name, step, value, wall
