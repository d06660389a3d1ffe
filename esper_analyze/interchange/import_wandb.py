"""Import of a W&B history as exported to CSV, JSON lines or Parquet.

W&B gives each logged dictionary a row of its own: rows of one ``global_step`` are of one step of the training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.interchange.cells import CellError, real, whole_number
from esper_analyze.interchange.imported import Imported, ImportLosses, Row
from esper_analyze.interchange.naming import take_updates
from esper_analyze.interchange.rows_file import SUFFIXES, rows_of
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


def read(path: Path) -> Imported:
    """Read the file ``path``. Raises ``UsageError`` or ``DamagedError``."""
    imported = Imported(FORMAT)
    rows = list(_plain(rows_of(path, imported.losses), path))
    names = dict.fromkeys(name for row in rows for name in row)
    step = next((name for name in _STEPS if name in names), None)
    log = ScalarLog(timesteps=step in _ENV_STEPS)
    for index, row in _numbered(rows, step, imported.losses):
        wall = _number(row.get("_timestamp"))
        for name, value in row.items():
            if value is not None and name != step and name not in _PLACED and not isinstance(value, (dict, list)):
                log.add(name, index, value, wall)
    take_updates(log, imported, str(path))
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
        yield {name.split(_CHART, 1)[-1]: cell for name, cell in row.items() if not name.endswith(_EXTREMES)}


def _numbered(rows: Iterable[Row], step: str | None, losses: ImportLosses) -> Iterator[tuple[int, Row]]:
    """Yield each row with its step; one without is of the step before it."""
    last = 0
    for index, row in enumerate(rows):
        try:
            number = whole_number(row.get(step)) if step is not None else index
        except CellError:
            losses.count("unreadable_value", "step that cannot be read; the row is left out", f"row {index}", lost=1)
            continue
        last = last if number is None else number
        yield last, row


def _number(cell: object) -> float | None:
    try:
        return real(cell)
    except CellError:
        return None
