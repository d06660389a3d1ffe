"""Follow the runs that directories name: every run that is being written, and those that ended lately.

A poll reads what is new in running runs. Of a run that ended it asks only whether a folder of a writer was added: its
rows are read once, when it is among the few that are shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from esper_analyze.errors import EsperError
from esper_analyze.replay.standing import standing
from esper_analyze.runs.ending import TrainingEnd
from esper_analyze.runs.fleet import PATTERN_SIGNS, runs_of
from esper_analyze.storage.folders import attempt_folders
from esper_analyze.watch.alarms import OpenIncident
from esper_analyze.watch.follow import Follower
from esper_analyze.watch.snapshot import snapshot
from esper_analyze.watch.tails import CLOCK_GRAIN
from esper_analyze.watch.writer import CRASHED, RUNNING, WAITING, last_written, writer_of
from esper_analyze.wording import SIGNS

LATELY = 3600.0
"""Seconds for which a run that ended is shown; one that ended while it was watched stays."""
MOST_ENDED = 8
"""Ended runs that are shown, those that died first."""
DAMAGED = "damaged"


def present_runs(paths: Iterable[Path]) -> dict[Path, None]:
    """Return the runs that ``paths`` name now, in order; a path that names none, or none yet, is left out."""
    runs: dict[Path, None] = {}
    for path in paths:
        with suppress(EsperError, OSError):
            runs |= dict.fromkeys(runs_of(path))
    return runs


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run in a list. ``state``: running, ended, crashed or damaged; ``why`` and ``fault`` in words.

    ``silent_s``: seconds since the last write, or since it ended; ``late``: too many for a running training;
    ``stalled_s``: the same of one whose process lives, as the process beside it noted, else None. ``worst``
    is the worst of ``open_incidents``, the first of several, and of a run that is over that of all its incidents.
    ``verdict`` is the overall one as in ``esper-analyze ls``, of a running one by open incidents only; a late run is a
    warning. What a run does not tell, or cannot be read of it, is None.
    """

    path: str
    name: str
    state: str
    verdict: str
    why: str = ""
    fault: str | None = None
    silent_s: float | None = None
    late: bool = False
    stalled_s: float | None = None
    update: int | None = None
    planned: int | None = None
    progress: float | None = None
    left_s: float | None = None
    episode_return: float | None = None
    open_incidents: int | None = None
    worst: OpenIncident | None = None


@dataclass(frozen=True, slots=True)
class RunLines:
    """The runs at one moment: running ones, the worst first; ended ones that are shown, and how many there are.

    ``directory`` is what is watched, or what holds all of it.
    """

    running: tuple[RunLine, ...] = ()
    ended: tuple[RunLine, ...] = ()
    ended_lately: int = 0
    died_lately: int = 0
    ended_earlier: int = 0
    directory: str = "."

    @property
    def is_empty(self) -> bool:
        """Whether there is no run at all."""
        return not (self.running or self.ended_lately or self.ended_earlier)

    @property
    def shown(self) -> tuple[RunLine, ...]:
        """Every line, running runs first."""
        return (*self.running, *self.ended)


@dataclass(slots=True)
class _EndedRun:
    """A run without a living writer.

    ``folders``: those that a new writer, or a note on how the last one died, would change, and when they were changed.
    """

    state: str
    ended_at: float
    folders: dict[Path, int]
    checked_at: float
    line: RunLine | None = None

    def changed(self) -> bool:
        """Whether a writer may have been added since; always true within the grain of a modification time."""
        newest = max(self.folders.values(), default=0) / 1e9
        if self.checked_at - newest < CLOCK_GRAIN:
            return True
        try:
            return any(folder.stat().st_mtime_ns != changed for folder, changed in self.folders.items())
        except OSError:
            return True


@dataclass(slots=True)
class RunList:
    """Follows the runs that ``paths`` name (runs, directories of runs, patterns); ``clock``: seconds of the epoch."""

    paths: Sequence[Path]
    clock: Callable[[], float] = time.time
    began: float = field(init=False)
    directory: str = field(init=False)
    _base: Path = field(init=False)
    _followers: dict[Path, Follower] = field(default_factory=dict)
    _ended: dict[Path, _EndedRun] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began = self.clock()
        literal = not any(sign in str(path) for path in self.paths for sign in PATTERN_SIGNS)
        self._base = Path(os.path.commonpath([path.absolute() for path in self.paths])) if literal else Path.cwd()
        self.directory = str(self.paths[0] if len(self.paths) == 1 and literal else self._base)

    def poll(self) -> RunLines:
        """Read what is new and return the lines. A run that cannot be read has a line that says so."""
        present = present_runs(self.paths)
        self._followers = {path: follower for path, follower in self._followers.items() if path in present}
        self._ended = {path: ended for path, ended in self._ended.items() if path in present}
        current = [line for path in present if (line := self._current(path)) is not None]
        return self._with_ended(sorted(current, key=lambda line: ([*SIGNS].index(line.verdict), line.name)))

    def _current(self, path: Path) -> RunLine | None:
        """Return the line of a run that is being written or cannot be read, None for any other."""
        if path in self._followers:
            line = self._line(path, self._followers[path])
            if any(writer.state == RUNNING for writer in self._followers[path].writers.values()):
                return line
            del self._followers[path]  # read again as an ended run: its last rows may have come after this poll
        before = self._ended.get(path)
        if before is not None and not before.changed():
            return None
        try:
            checked = self._checked(path)
        except FileNotFoundError:  # deleted since it was found
            return None
        except (OSError, EsperError) as error:
            return self._damaged(path, error)
        if checked.state == RUNNING:
            self._ended.pop(path, None)
            self._followers[path] = Follower(path, clock=self.clock)
            return self._line(path, self._followers[path])
        known_line = before.line if before is not None and before.ended_at == checked.ended_at else None
        self._ended[path] = replace(checked, line=known_line)
        return None

    def _checked(self, path: Path) -> _EndedRun:
        """Return whether and when a run ended, by the newest writer of each rank."""
        now, newest = self.clock(), {folder.rank: folder.path for folder in attempt_folders(path)}
        folders = (path, *(folder for of in newest.values() for folder in (of.parent, of)))
        changed = {folder: folder.stat().st_mtime_ns for folder in folders}
        writers = {rank: writer_of(folder, now) for rank, folder in newest.items()}
        states = [writer.state for writer in writers.values()]
        state = next((state for state in (RUNNING, CRASHED) if state in states), states[0] if states else WAITING)
        ended = [writers[rank].closed_at or last_written(folder) for rank, folder in newest.items()]
        return _EndedRun(state, max(ended, default=0.0), changed, now)

    def _with_ended(self, running: Sequence[RunLine]) -> RunLines:
        now = self.clock()
        since = min(self.began, now - LATELY)
        over = {path: past for path, past in self._ended.items() if past.state != WAITING}
        lately = [path for path, past in over.items() if past.ended_at >= since]
        lately.sort(key=lambda path: (over[path].state != CRASHED, -over[path].ended_at))
        lines = []
        for path in lately[:MOST_ENDED]:
            past = over[path]
            past.line = past.line or self._line(path, Follower(path, clock=self.clock))
            lines.append(replace(past.line, silent_s=max(0.0, now - past.ended_at), late=False, stalled_s=None))
        died = sum(over[path].state == CRASHED for path in lately)
        counts = (len(lately), died, len(over) - len(lately))
        return RunLines(tuple(running), tuple(lines), *counts, self.directory)

    def _line(self, path: Path, follower: Follower) -> RunLine:
        try:
            follower.poll()
        except (OSError, EsperError) as error:
            return self._damaged(path, error)
        shot = snapshot(follower)
        writer = follower.writers.get(follower.shown_rank)
        worst = min(shot.incidents, key=lambda incident: (incident.verdict != "critical", incident.start), default=None)
        if shot.status.state not in (RUNNING, WAITING):
            worst = follower.recent.alarms.worst_incident(shot.update or 0)
        verdict = "no_data"
        if writer is not None and follower.coverage is not None:
            end = TrainingEnd(writer.end, "", shot.update, stalled_s=shot.status.stalled_s)
            verdict = standing(end, None if worst is None else worst.verdict, follower.coverage).verdict
        if shot.status.late and verdict != "critical":
            verdict = "warning"
        return RunLine(
            path=str(path),
            name=self._name(path),
            state=shot.status.state,
            verdict=verdict,
            why=shot.status.why,
            fault=next(iter([*filter(None, [shot.trouble]), *shot.losses.files]), None),
            silent_s=shot.status.silent_s,
            late=shot.status.late,
            stalled_s=shot.status.stalled_s,
            update=shot.update,
            planned=shot.planned,
            progress=shot.progress,
            left_s=shot.left_s if shot.status.state == RUNNING else None,
            episode_return=shot.episode_return,
            open_incidents=len(shot.incidents),
            worst=worst,
        )

    def _damaged(self, path: Path, error: OSError | EsperError) -> RunLine:
        words = error.message if isinstance(error, EsperError) else f"{error.filename}: {error.strerror}"
        return RunLine(str(path), self._name(path), DAMAGED, "critical", fault=words)

    def _name(self, path: Path) -> str:
        """Return the path of a run relative to what is watched."""
        full = path.absolute()
        relative = full.relative_to(self._base) if full.is_relative_to(self._base) else path
        return path.name if relative == Path() else str(relative)
