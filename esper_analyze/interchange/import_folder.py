"""A folder, and all below it: which logs lie in it, and which of them are of one run.

Logs in one folder are of one training unless they say otherwise: event files by the rule of ``import_tensorboard``,
rows beside them by the numbers that both hold (``join_logs``). Where several trainings logged event files into one
folder, rows belong to the one that they agree with, and to none when they agree with none. Each folder below is looked
at for itself, but for a trainer of transformers, which logs rows with its checkpoints and event files into ``runs``.
Recorded runs, hidden folders and links to folders are passed over: a link such as ``latest`` would give its run twice,
and one to a folder above it no end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from esper_analyze.errors import DamagedError, EsperError, UsageError
from esper_analyze.interchange import import_csv, import_json, import_tensorboard, monitor_files
from esper_analyze.interchange.found_run import FoundRun, distinct, folder_name
from esper_analyze.interchange.import_tensorboard import EventFile, EventRun, event_runs, read_events
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.join_logs import TwoLogsError, joined, joined_rows
from esper_analyze.interchange.raw_log import RawLog
from esper_analyze.interchange.row_log import RowLog
from esper_analyze.storage.layout import RUN_FILE
from esper_analyze.wording import many

_FORMATS = {
    import_csv.PROGRESS_FILE: import_csv.FORMAT,
    import_json.RESULT_FILE: import_json.FORMAT,
    import_json.TRAINER_FILE: import_json.FORMAT,
}
"""Formats of logs of rows by the name of their file."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)\Z")
_EVENTS_OF_TRAINER = "runs"
_PASSED_OVER = (".git", "__pycache__", "node_modules", "site-packages")


@dataclass(frozen=True, slots=True)
class LogFolder:
    """One folder with logs that may be of one run. ``name`` is its path from where the search began, "" for that.

    ``is_one``: its rows and event files are of one run or none can be read. Else those that disagree are of two.
    """

    path: Path
    name: str
    events: Sequence[Path] = ()
    rows: Sequence[Path] = ()
    monitors: Sequence[Path] = field(default=(), compare=False)
    is_one: bool = True

    @property
    def log_path(self) -> Path:
        """The one file with a log, or the folder of several."""
        files = [*self.events, *self.rows]
        return files[0] if len(files) == 1 else self.path

    def runs(self) -> list[FoundRun]:
        """Read the files and return their runs. Raises ``UsageError`` or ``DamagedError``."""
        logs = [log for file in self.rows for log in _read_rows(file).trainings()]
        files = [read_events(path) for path in self.events]
        groups = event_runs(files)
        if not groups and not logs:
            raise self._nothing(files)
        raws = _paired(groups, logs, is_one=self.is_one)
        empty = sum(not file.log.series for file in files)
        for _, raw in raws:
            raw.monitors = self.monitors if len(raws) == 1 else ()
            if empty:
                raw.remarks.append(f"{many(empty, 'event file')} beside it without a scalar")
        return [
            FoundRun(name, partial(_imported, raw, str(self.log_path)))
            for name, (_, raw) in zip(distinct([name for name, _ in raws]), raws, strict=True)
        ]

    def _nothing(self, files: Sequence[EventFile]) -> EsperError:
        losses = [sentence for file in files for sentence in file.losses.sentences()]
        if losses:
            return DamagedError(f"{self.path} holds no scalar that can be read", hint="; ".join(losses[:3]))
        count = many(len(files), "event file")
        return UsageError(f"{self.path} holds {count} and no scalar in it", hint="nothing was logged yet")


def _read_rows(file: Path) -> RowLog:
    return import_csv.read_rows(file) if _FORMATS[file.name] == import_csv.FORMAT else import_json.read_rows(file)


def _imported(raw: RawLog, where: str, framework: str | None) -> Imported:
    return raw.imported(where, framework)


def _paired(groups: Sequence[EventRun], logs: Sequence[RowLog], *, is_one: bool) -> list[tuple[str, RawLog]]:
    """Return the runs with a name for each: event files joined with the rows that agree with them."""
    waiting = list(logs)
    if len(waiting) > 1 and len({log.names[0] for log in waiting}) == len(waiting):
        waiting = [_all_joined(waiting)]
    if is_one and len(groups) == 1 and len(waiting) == 1:
        return [(folder_name(groups[0].name), joined(groups[0], waiting[0]))]
    raws: list[tuple[str, RawLog]] = []
    for group in groups:
        raw = group.raw()
        for log in waiting:
            try:
                raw = joined(group, log)
            except TwoLogsError:
                continue
            waiting.remove(log)
            break
        raws.append((folder_name(group.name), raw))
    return [*raws, *((Path(log.names[0]).stem, log.raw()) for log in waiting)]


def _all_joined(logs: Sequence[RowLog]) -> RowLog:
    first, *others = logs
    for other in others:
        first = joined_rows(first, other)
    return first


@dataclass(slots=True)
class _Listing:
    """The files of a folder by what they may hold."""

    events: list[Path] = field(default_factory=list)
    rows: list[Path] = field(default_factory=list)
    monitors: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def log_folders(
    top: Path, formats: set[str], unreadable: list[EsperError], is_source: Callable[[Path], bool]
) -> Iterator[tuple[LogFolder | None, list[Path]]]:
    """Yield of each folder at or below ``top`` its logs, and what else may be a log; those with neither are left out.

    ``formats``: those that are asked for. A folder that cannot be listed is added to ``unreadable``. One that
    ``is_source`` may be a log as a whole, and is not looked into.
    """

    def failed(error: OSError) -> None:
        unreadable.append(DamagedError(f"{error.filename} cannot be read: {error.strerror}"))

    for folder, below, names in os.walk(top, onerror=failed):
        path = Path(folder)
        if RUN_FILE in names:
            below.clear()
            continue
        listing = _listed(path, sorted(names), formats)
        if not listing.events and not listing.rows and is_source(path):
            below.clear()
            yield None, [path]
            continue
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in _PASSED_OVER)
        _drop_older_checkpoints(path, below)
        name = "" if path == top else path.relative_to(top).as_posix()
        trainer = _of_trainer(path, name, below, listing) if formats >= {*_FORMATS.values(), "tensorboard"} else None
        if trainer is not None:
            yield trainer, listing.others
            continue
        if listing.events or listing.rows:
            yield LogFolder(path, name, listing.events, listing.rows, listing.monitors), listing.others
        elif listing.others or listing.monitors:
            yield None, [*listing.others, *listing.monitors]


def _listed(folder: Path, names: Iterable[str], wanted: set[str]) -> _Listing:
    listing = _Listing()
    for path in (folder / name for name in names):
        if not path.is_file():
            continue
        kind = import_tensorboard.FORMAT if import_tensorboard.MARK in path.name else _FORMATS.get(path.name)
        if kind is not None:
            files = listing.events if kind == import_tensorboard.FORMAT else listing.rows
            files += [path] if kind in wanted else []
        elif monitor_files.is_monitor_file(path):
            listing.monitors.append(path)
        elif path.suffix != ".json" or path.name == import_json.TIMERS_FILE:  # most are settings
            listing.others.append(path)
    return listing


def _of_trainer(folder: Path, name: str, below: list[str], listing: _Listing) -> LogFolder | None:
    """Return the logs of a trainer of transformers in ``folder``, and leave out of ``below`` where they lie."""
    checkpoints = [
        one for one in below if _CHECKPOINT.match(one) and (folder / one / import_json.TRAINER_FILE).is_file()
    ]
    rows = [file for file in listing.rows if file.name == import_json.TRAINER_FILE]
    rows = rows or [folder / one / import_json.TRAINER_FILE for one in checkpoints]
    events = sorted((folder / _EVENTS_OF_TRAINER).glob(f"*/*{import_tensorboard.MARK}*"))
    if listing.events or len(rows) != 1 or not events or len({file.parent for file in events}) > 1:
        return None
    below[:] = [one for one in below if one not in (*checkpoints, _EVENTS_OF_TRAINER)]
    return LogFolder(folder, name, events, rows, listing.monitors, is_one=False)


def _drop_older_checkpoints(folder: Path, below: list[str]) -> None:
    """Leave of TRL's checkpoints the last: each holds the log from the start of the training on."""
    numbered = {name: int(match[1]) for name in below if (match := _CHECKPOINT.match(name))}
    logged = {name for name in numbered if (folder / name / import_json.TRAINER_FILE).is_file()}
    newest = max(logged, key=lambda name: numbered[name], default=None)
    at_the_end = (folder / import_json.TRAINER_FILE).is_file()
    below[:] = [name for name in below if name not in logged or (name == newest and not at_the_end)]
