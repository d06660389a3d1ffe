"""Import of what TorchRL's ``CSVLogger`` writes: ``scalars/NAME.csv`` in a folder, with a line "step,value" a point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from esper_analyze.interchange.imported import Imported, ImportLosses
from esper_analyze.interchange.raw_log import RawLog
from esper_analyze.interchange.rows_file import text_lines
from esper_analyze.interchange.steps_log import Point, log_of

FORMAT = "torchrl-csv"
_SCALARS = "scalars"


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a folder that the logger wrote, else None."""
    scalars = path / _SCALARS
    return path if scalars.is_dir() and next(scalars.rglob("*.csv"), None) is not None else None


def read(path: Path, framework: str | None = None) -> Imported:
    """Read the folder ``path``. Raises ``UsageError`` or ``DamagedError``."""
    raw = RawLog(FORMAT, [])
    raw.attempts = [log_of(_points(path / _SCALARS, raw.losses))]
    return raw.imported(str(path), framework)


def _points(folder: Path, losses: ImportLosses) -> Iterator[Point]:
    for file in sorted(folder.rglob("*.csv")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        for number, line in enumerate(text_lines(file), start=1):
            step, separator, value = line.partition(",")
            if not separator or not step.strip().isdecimal():
                losses.count("malformed_line", "line that is not step,value", f"line {number} of {name}", lost=1)
                continue
            yield name, int(step), value, None
