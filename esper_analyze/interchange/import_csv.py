"""Import of ``progress.csv``: many libraries write a file of this name, and its columns say which one it was."""

from __future__ import annotations

from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.interchange.cells import CellError, whole_number
from esper_analyze.interchange.found_run import FoundRun
from esper_analyze.interchange.imported import ImportLosses, Row
from esper_analyze.interchange.row_log import RowLog, runs_of_rows
from esper_analyze.interchange.rows_file import refuse_empty, rows_of
from esper_analyze.interchange.sb3_order import EPOCHS, ITERATION, STEPS

FORMAT = "csv"
PROGRESS_FILE = "progress.csv"
_WHOLE = (ITERATION, STEPS, EPOCHS)
"""Columns of Stable-Baselines3 that hold whole numbers."""


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
    log.rows = [row for row in rows_of(path, log.losses) if _fits(row, path, log.losses)]
    if not log.rows:
        raise UsageError(f"{path} holds a header and no row", hint="; ".join(log.losses.sentences()))
    return log


def _fits(row: Row, path: Path, losses: ImportLosses) -> bool:
    """Whether the cells of ``row`` are those of its header: who goes on in a file may order them otherwise."""
    try:
        for name in _WHOLE:
            whole_number(row.get(name))
    except CellError:
        what = f"row of {path.name} whose cells are in another order than its header: {name} is no whole number"
        losses.count("misplaced_row", what, lost=1)
        return False
    return True
