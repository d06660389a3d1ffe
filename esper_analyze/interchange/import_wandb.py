"""Import of a W&B history as exported to CSV, JSON lines or Parquet, and of any other log of rows.

W&B gives each logged dictionary a row of its own: rows of one ``global_step`` are of one step of the training. A file
without W&B's names of a step is read as ``row_log`` reads it; verl writes JSON lines of a step and its data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.interchange.cells import CellError, whole_number
from esper_analyze.interchange.found_run import FoundRun
from esper_analyze.interchange.imported import Imported, ImportLosses, Row
from esper_analyze.interchange.naming import take_updates
from esper_analyze.interchange.row_log import RowLog, flat, number_of, runs_of_rows
from esper_analyze.interchange.rows_file import SUFFIXES, refuse_empty, rows_of
from esper_analyze.interchange.series import ScalarLog

FORMAT = "wandb"
_STEPS = ("global_step", "train/global_step", "_step", "Step")
"""Names of the step, the first that the file has; only the first two are environment steps."""
_ENV_STEPS = _STEPS[:2]
_CHART = " - "
"""In the CSV of a chart, a column is called "run - name", with the least and most of each point beside it."""
_EXTREMES = ("__MIN", "__MAX")
_PLACED = ("_runtime", "_timestamp", "_step")


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a file of rows, else None."""
    return path if path.is_file() and path.suffix in SUFFIXES else None


def runs(path: Path) -> list[FoundRun]:
    """Return the trainings that the file ``path`` holds. Raises ``UsageError`` or ``DamagedError``."""
    refuse_empty(path)
    rows = RowLog(FORMAT, [], [path.name])
    rows.rows = list(_plain(rows_of(path, rows.losses), path))
    step = next((name for name in _STEPS if name in rows.columns()), None)
    if step is None:
        rows.rows = [flat(row) for row in rows.rows]
        return runs_of_rows(rows, path)
    return [FoundRun(path.stem, partial(_read_history, path, rows, step))]


def _read_history(path: Path, history: RowLog, step: str, framework: str | None) -> Imported:
    """Return the run of a history with W&B's steps."""
    imported = Imported(FORMAT, losses=history.losses)
    log = ScalarLog(timesteps=step in _ENV_STEPS)
    for index, row in _numbered(history.rows, step, imported.losses):
        wall = number_of(row.get("_timestamp"))
        for name, value in row.items():
            if value is not None and name != step and name not in _PLACED and not isinstance(value, (dict, list)):
                log.add(name, index, value, wall)
    take_updates(log, imported, str(path), framework)
    return imported


def _plain(rows: Iterable[Row], path: Path) -> Iterator[Row]:
    """Yield ``rows`` with the names of a chart's export as they were logged. Raises ``UsageError`` for several runs."""
    runs: set[str] = set()
    for row in rows:
        for name in row:
            if _CHART in name:
                runs.add(name.split(_CHART)[0])
        if len(runs) > 1:
            named = ", ".join(sorted(runs)[:3])
            raise UsageError(f"{path} holds several W&B runs: {named}", hint="export one run")
        cells = {name.split(_CHART, 1)[-1]: cell for name, cell in row.items() if not name.endswith(_EXTREMES)}
        yield _unwrapped(cells)


def _unwrapped(row: Row) -> Row:
    """Return a row of verl's JSON lines, {"step": 1, "data": {…}}, with its names as they were logged."""
    data = row.get("data")
    return {"step": row.get("step"), **data} if isinstance(data, dict) and row.keys() <= {"step", "data"} else row


def _numbered(rows: Iterable[Row], step: str, losses: ImportLosses) -> Iterator[tuple[int, Row]]:
    """Yield each row with its step; one without is of the step before it."""
    last = 0
    for index, row in enumerate(rows):
        try:
            number = whole_number(row.get(step))
        except CellError:
            losses.count("unreadable_value", "step that cannot be read; the row is left out", f"row {index}", lost=1)
            continue
        last = last if number is None else number
        yield last, row
