"""Import of ``progress.csv``: many libraries write a file of this name, and its columns say which one it was."""

from __future__ import annotations

from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.interchange.found_run import FoundRun
from esper_analyze.interchange.row_log import RowLog, runs_of_rows
from esper_analyze.interchange.rows_file import refuse_empty, rows_of

FORMAT = "csv"
PROGRESS_FILE = "progress.csv"


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a progress.csv, else None."""
    return path if path.is_file() and path.name == PROGRESS_FILE else None


def runs(path: Path) -> list[FoundRun]:
    """Return the trainings that the file ``path`` holds. Raises ``UsageError`` or ``DamagedError``."""
    return runs_of_rows(read_rows(path), path)


def read_rows(path: Path) -> RowLog:
    """Return the rows of the file ``path``. Raises ``UsageError`` or ``DamagedError``."""
    refuse_empty(path)
    log = RowLog(FORMAT, [], [path.name])
    log.rows = list(rows_of(path, log.losses))
    if not log.rows:
        raise UsageError(f"{path} holds a header and no row", hint="; ".join(log.losses.sentences()))
    return log
