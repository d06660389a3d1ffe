"""Import of ``progress.csv`` as Stable-Baselines3's logger writes it."""

from __future__ import annotations

from pathlib import Path

from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.naming import take_updates
from esper_analyze.interchange.rows_file import rows_of
from esper_analyze.interchange.series import ScalarLog

FORMAT = "sb3"
PROGRESS_FILE = "progress.csv"


def recognises(path: Path) -> Path | None:
    """Return the progress.csv that ``path`` is or holds, None when there is none."""
    file = path / PROGRESS_FILE if path.is_dir() else path
    return file if file.is_file() and file.name == PROGRESS_FILE else None


def read(path: Path) -> Imported:
    """Read the file ``path``. Raises ``UsageError`` or ``DamagedError``."""
    imported, log = Imported(FORMAT), ScalarLog(timesteps=False)
    for index, row in enumerate(rows_of(path, imported.losses)):
        for name, value in row.items():
            if value is not None:
                log.add(name, index, value)
    take_updates(log, imported, str(path))
    return imported
