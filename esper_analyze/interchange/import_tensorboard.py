"""Import of TensorBoard event files: scalars by the names of Stable-Baselines3, of CleanRL, or of our own export."""

from __future__ import annotations

from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.interchange.event_file import EventError, records, scalars
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.naming import take_updates
from esper_analyze.interchange.series import ScalarLog

FORMAT = "tensorboard"
_MARK = "tfevents"
_NAMED = 8


def recognises(path: Path) -> Path | None:
    """Return the event file, or the directory with event files, that ``path`` is or holds; None when there is none."""
    if path.is_file():
        return path if _MARK in path.name else None
    if not path.is_dir():
        return None
    if _files(path):
        return path
    below = sorted({file.parent for file in path.rglob(f"*{_MARK}*") if file.is_file()})
    if len(below) > 1:
        named = ", ".join(str(event_path.relative_to(path)) for event_path in below[:_NAMED])
        more = " …" if len(below) > _NAMED else ""
        raise UsageError(f"{path} holds {len(below)} TensorBoard runs: {named}{more}", hint="give one of them")
    return below[0] if below else None


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if _MARK in file.name and file.is_file())


def read(path: Path) -> Imported:
    """Read the event file ``path``, or all in the directory ``path``. Raises ``UsageError`` or ``DamagedError``."""
    imported, log = Imported(FORMAT), ScalarLog()
    for file in _files(path) if path.is_dir() else [path]:
        _read_file(file, log, imported)
    walls = [wall for series in log.series.values() for wall in series.walls[:1] if wall is not None]
    imported.facts["created"] = min(walls, default=None)
    take_updates(log, imported, str(path))
    return imported


def _read_file(file: Path, log: ScalarLog, imported: Imported) -> None:
    try:
        read_records = records(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    if read_records.fault is not None:
        kind = "cut_file" if read_records.torn else "damaged_file"
        imported.losses.count(kind, "incomplete event file", f"{file.name} {read_records.fault}", lost=1)
    for offset in read_records.bad:
        what = "record that does not match its checksum"
        imported.losses.count("damaged_record", what, f"{file.name} at byte {offset:,}", lost=1)
    for payload in read_records.payloads:
        try:
            for scalar in scalars(payload):
                log.add(scalar.tag, scalar.step, scalar.value, scalar.wall_time)
        except EventError as error:
            imported.losses.count("damaged_record", "record that is not an event", f"{file.name}: {error}", lost=1)
