"""Import of TensorBoard event files: which of the files in one folder are of one run, and what they logged.

A writer makes a file of its own each time it is opened, so a folder can hold a training and its restarts as well as
many trainings. Rows of different trainings must never be put together, rows of one training have to be. In order of
their first wall time:

* A file is another writer of a run when the same process (host and process number in its name) wrote it and no tag is
  in both: no number can meet another one.
* A file continues a run when it begins after the last wall time of the run, logs at least half of the tags (of the one
  with fewer) and does not start over: for most shared tags its first step lies after the second step of the run. If it
  also begins at or before the last step of the run, the training was restarted from a checkpoint: the file is a new
  attempt, and stands from its first step on.
* All else is a run of its own. Files whose wall times overlap come from trainings side by side. One that starts over at
  the first step takes nothing from what is there: as an attempt it would hide a whole training. A file that could
  continue two runs continues neither.

Files without a scalar (texts and settings only) belong to no run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.interchange.event_file import EventError, records, scalars
from esper_analyze.interchange.imported import Imported, ImportLosses
from esper_analyze.interchange.raw_log import RawLog, appended, first_step, last_step
from esper_analyze.interchange.rows_file import refuse_empty
from esper_analyze.interchange.series import ScalarLog
from esper_analyze.wording import many

FORMAT = "tensorboard"
MARK = "tfevents"
_WRITER = re.compile(r"tfevents\.\d+\.(?P<host>.+)\.(?P<process>\d+)\.\d+\b")
_SHARED = 0.5
"""Share of tags that a continued training logs again: it may drop those of its start and end."""


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is an event file, else None."""
    return path if path.is_file() and MARK in path.name else None


@dataclass(slots=True)
class EventFile:
    """One event file, read. ``writer``: host and process that wrote it, None where the name does not say."""

    path: Path
    log: ScalarLog = field(default_factory=ScalarLog)
    losses: ImportLosses = field(default_factory=ImportLosses)
    writer: tuple[str, str] | None = None

    @property
    def walls(self) -> tuple[float, float]:
        """The first and last wall time."""
        walls = [wall for series in self.log.series.values() for wall in series.walls if wall is not None]
        return min(walls, default=0.0), max(walls, default=0.0)


@dataclass(slots=True)
class EventRun:
    """Event files of one training; ``attempts``: one log for each start of it."""

    files: list[EventFile]
    attempts: list[ScalarLog]

    def raw(self) -> RawLog:
        """Return what the files logged."""
        losses = ImportLosses()
        for file in self.files:
            losses.add(file.losses)
        firsts = [wall for log in self.attempts for series in log.series.values() if (wall := series.walls[0])]
        raw = RawLog(FORMAT, self.attempts, losses, {"created": min(firsts, default=None)})
        if len(self.files) > 1:
            restarts = len(self.attempts) - 1
            words = f", {many(restarts, 'restart')}: each attempt stands from its first step on" if restarts else ""
            raw.remarks.append(f"{len(self.files):,} event files of one run{words}")
        return raw

    @property
    def name(self) -> str:
        """What tells the run from others in its folder: the end of its first file's name."""
        return self.files[0].path.name.split(f"{MARK}.", 1)[-1]


def read(path: Path, framework: str | None = None) -> Imported:
    """Read the event file ``path``. Raises ``UsageError`` or ``DamagedError``."""
    refuse_empty(path)
    file = read_events(path)
    return EventRun([file], [file.log]).raw().imported(str(path), framework)


def read_events(path: Path) -> EventFile:
    """Read one event file; what is damaged is counted. Raises ``UsageError``."""
    try:
        read_records = records(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    named = _WRITER.search(path.name)
    file = EventFile(path, writer=None if named is None else (named["host"], named["process"]))
    losses = file.losses
    if read_records.fault is not None:
        kind = "cut_file" if read_records.torn else "damaged_file"
        losses.count(kind, "incomplete event file", f"{path.name} {read_records.fault}", lost=1)
    for offset in read_records.bad:
        what = "record that does not match its checksum"
        losses.count("damaged_record", what, f"{path.name} at byte {offset:,}", lost=1)
    for payload in read_records.payloads:
        try:
            for scalar in scalars(payload):
                file.log.add(scalar.tag, scalar.step, scalar.value, scalar.wall_time)
        except EventError as error:
            losses.count("damaged_record", "record that is not an event", f"{path.name}: {error}", lost=1)
    return file


def event_runs(files: Sequence[EventFile]) -> list[EventRun]:
    """Return the runs that ``files`` of one folder are of, by the rule in the module's docstring."""
    runs: list[EventRun] = []
    for file in sorted((file for file in files if file.log.series), key=lambda file: (file.walls, file.path.name)):
        beside = [run for run in runs if _is_another_writer(file, run)]
        before = [run for run in runs if _continues(file, run)]
        if len(beside) == 1:
            (run,) = beside
            run.attempts[-1] = appended(run.attempts[-1], file.log)
        elif len(before) == 1:
            (run,) = before
            if first_step(file.log) > max(map(last_step, run.attempts)):
                run.attempts[-1] = appended(run.attempts[-1], file.log)
            else:
                run.attempts.append(file.log)
        else:
            runs.append(EventRun([file], [file.log]))
            continue
        run.files.append(file)
    return runs


def _is_another_writer(file: EventFile, run: EventRun) -> bool:
    return file.writer is not None and all(
        file.writer == other.writer and not file.log.series.keys() & other.log.series.keys() for other in run.files
    )


def _continues(file: EventFile, run: EventRun) -> bool:
    if file.walls[0] < max(other.walls[1] for other in run.files):
        return False
    log = run.attempts[0]
    shared = file.log.series.keys() & log.series.keys()
    if not shared or len(shared) < _SHARED * min(len(file.log.series), len(log.series)):
        return False
    later = [_starts_later(file.log, log, tag) for tag in shared]
    return sum(later) * 2 > len(later)


def _starts_later(log: ScalarLog, before: ScalarLog, tag: str) -> bool:
    """Whether ``log`` begins behind the first two steps of ``before``."""
    return min(log.series[tag].steps) > sorted(set(before.series[tag].steps))[:2][-1]
