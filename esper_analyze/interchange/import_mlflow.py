"""Import of MLflow: its SQLite database (tables ``metrics`` and ``runs``), or a run's folder in ``mlruns``.

A metric is a file there, in folders where its name has a "/", with a line "milliseconds value step" for each point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from esper_analyze.interchange.found_run import FoundRun, distinct, folder_name
from esper_analyze.interchange.imported import Imported, ImportLosses
from esper_analyze.interchange.raw_log import RawLog
from esper_analyze.interchange.row_log import number_of
from esper_analyze.interchange.rows_file import text_lines
from esper_analyze.interchange.sqlite_file import columns_of, opened_database
from esper_analyze.interchange.steps_log import Point, log_of

FORMAT = "mlflow"
_METRICS, _META, _NAME = "metrics", "meta.yaml", Path("tags", "mlflow.runName")
_COLUMNS = {"key", "value", "timestamp", "run_uuid", "step"}


def is_run_folder(path: Path) -> bool:
    """Whether ``path`` is the folder of one run in ``mlruns``."""
    return (path / _METRICS).is_dir() and (path / _META).is_file()


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a database of MLflow or the folder of a run, else None."""
    if path.is_dir():
        return path if is_run_folder(path) else None
    return path if columns_of(path, _METRICS) and set(columns_of(path, _METRICS)) >= _COLUMNS else None


def runs(path: Path) -> list[FoundRun]:
    """Return the runs of the database or folder ``path``. Raises ``DamagedError``."""
    if path.is_dir():
        return [FoundRun(folder_name(path.name), partial(_read_folder, path))]
    has_titles = {"run_uuid", "name"} <= set(columns_of(path, "runs"))
    with opened_database(path) as connection:
        identifiers = [row[0] for row in connection.execute("select distinct run_uuid from metrics order by run_uuid")]
        titles = dict(connection.execute("select run_uuid, name from runs")) if has_titles else {}
    folders = distinct([folder_name(str(titles.get(run) or run)) for run in identifiers])
    return [FoundRun(name, partial(_read_database, path, run)) for name, run in zip(folders, identifiers, strict=True)]


def _read_database(path: Path, run: object, framework: str | None) -> Imported:
    not_a_number = "is_nan" if "is_nan" in columns_of(path, _METRICS) else "0"
    query = f"select key, step, value, timestamp, {not_a_number} from metrics where run_uuid = ? order by rowid"
    with opened_database(path) as connection:
        points: list[Point] = [
            (str(name), step, math.nan if is_nan else value, milliseconds / 1e3)
            for name, step, value, milliseconds, is_nan in connection.execute(query, (run,))
        ]
    return RawLog(FORMAT, [log_of(points)]).imported(str(path), framework)


def _read_folder(path: Path, framework: str | None) -> Imported:
    raw = RawLog(FORMAT, [])
    raw.attempts = [log_of(_points(path / _METRICS, raw.losses))]
    title = path / _NAME
    if title.is_file():
        raw.facts["notes"] = f"MLflow's name of the run: {title.read_text(errors='replace').strip()[:200]}"
    return raw.imported(str(path), framework)


def _points(folder: Path, losses: ImportLosses) -> Iterator[Point]:
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = file.relative_to(folder).as_posix()
        for number, line in enumerate(text_lines(file), start=1):
            cells = line.split()
            moment = number_of(cells[0]) if cells else None
            if len(cells) not in (2, 3) or moment is None or (len(cells) == 3 and not cells[2].lstrip("-").isdecimal()):
                losses.count("malformed_line", "line that is no point of MLflow", f"line {number} of {name}", lost=1)
                continue
            yield name, int(cells[2]) if len(cells) == 3 else None, cells[1], moment / 1e3
