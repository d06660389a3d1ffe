"""A run, followed: every look costs as much as what is new, however long the run is.

Which rules could judge is a question about the whole run: it is answered again when the run has grown by
``COVERAGE_GROWTH``, or is in another state. In sum that reads each update about twenty times.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from esper_analyze.errors import EsperError, UsageError
from esper_analyze.replay.standing import Coverage, live_coverage
from esper_analyze.runs.run import open_run
from esper_analyze.storage import layout
from esper_analyze.storage.folders import attempt_folders
from esper_analyze.storage.run_info import identity
from esper_analyze.watch.alarms import Alarms
from esper_analyze.watch.attempt import AttemptFollower
from esper_analyze.watch.tails import RewrittenError
from esper_analyze.watch.window import Kept
from esper_analyze.watch.writer import DELETED, WAITING, Writer, writer_of

COVERAGE_GROWTH = 0.05
_TRIES = 5
"""How often all is read anew in one look, when files are replaced while they are read."""


@dataclass(slots=True)
class Follower:
    """Follows the run in directory ``path``; ``rank`` None: the first rank that is there.

    ``clock`` gives seconds of the epoch. Only reads; what cannot be read is told in ``trouble`` and tried again.
    """

    path: Path
    rank: int | None = None
    clock: Callable[[], float] = time.time
    info: dict[str, Any] = field(default_factory=dict)
    kept: Kept = field(default_factory=lambda: Kept(Alarms()))
    writers: dict[int, Writer] = field(default_factory=dict)
    attempts: list[AttemptFollower] = field(default_factory=list)
    shown_rank: int = 0
    state: str = WAITING
    news_at: float | None = None
    touched: float | None = None
    looks: int = 0
    replaced: bool = False
    trouble: str | None = None
    coverage: Coverage | None = None
    _covered: tuple[int, str] | None = None
    _coverage_due: float = 0.0
    _mark: tuple[int, int, int] | None = None
    _untils: dict[Path, int | None] = field(default_factory=dict)

    @property
    def file_troubles(self) -> list[str]:
        """Files that cannot be used, in words."""
        marks = [one.trouble for one in self.writers.values() if one.trouble is not None]
        return [*(one for own in self.attempts for one in own.troubles), *marks]

    def look(self) -> None:
        """Take up what is new. Raises ``EsperError`` when the run cannot be read and never could."""
        self.trouble = None
        try:
            self._look()
        except FileNotFoundError as error:
            if (self.path / layout.RUN_FILE).exists():
                self.trouble = f"{error.filename} was taken away while it was read"
            else:
                self.state = DELETED if self.looks else WAITING
        except (OSError, EsperError) as error:
            if not self.looks:
                raise
            words = error.message if isinstance(error, EsperError) else f"{error.filename}: {error.strerror}"
            self.trouble = f"cannot be read now: {words}"

    def _look(self) -> None:
        self._identify()
        folders = self._folders()
        ranks = sorted(folders)
        self.shown_rank = self._chosen(ranks)
        own = folders.get(self.shown_rank, [])
        for _ in range(_TRIES):
            try:
                self._follow(own)
                break
            except RewrittenError:
                self._forget()
        else:
            self.trouble = "its files are being replaced"
        self.writers = {rank: writer_of(found[-1], self.clock()) for rank, found in folders.items()}
        if self.shown_rank in self.writers:
            self.state = self.writers[self.shown_rank].state
            self.touched = self.attempts[-1].touched if self.attempts else None
        self.looks += 1
        self._count_rules()

    def _count_rules(self) -> None:
        """Count again which rules could judge, if the run has grown enough since or is in another state."""
        updates, covered = (self.kept.last_update or 0) + 1, (len(self.attempts), self.state)
        if covered == self._covered and updates < self._coverage_due:
            return
        run = open_run(self.path, skip_broken=True)
        self.coverage = live_coverage(run if self.rank is None else run.only(self.rank))
        self._covered, self._coverage_due = covered, max(updates + 1, (1 + COVERAGE_GROWTH) * updates)

    def _identify(self) -> None:
        """Read run.json when it is new or was replaced. Raises ``FileNotFoundError`` while there is none."""
        found = (self.path / layout.RUN_FILE).stat()
        mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        if mark == self._mark:
            return
        info = identity(self.path)
        if self._mark is not None and info.get("run_id") != self.info.get("run_id"):
            self.replaced = True
            self._forget()
        self.info, self._mark = info, mark
        if not self.attempts:
            self._forget()

    def _folders(self) -> dict[int, list[Path]]:
        """Return the attempts' folders of each rank in order."""
        folders: dict[int, list[Path]] = {}
        for attempt in attempt_folders(self.path):
            folders.setdefault(attempt.rank, []).append(attempt.path)
        return folders

    def _chosen(self, ranks: list[int]) -> int:
        if self.rank is None:
            return ranks[0] if ranks else 0
        if ranks and self.rank not in ranks and not self.looks:
            raise UsageError(f"{self.path} has no rank {self.rank}", hint=f"ranks: {', '.join(map(str, ranks))}")
        return self.rank

    def _forget(self) -> None:
        self.attempts, self.kept = [], Kept(Alarms.judged_with(self.info))
        self.coverage = self._covered = None

    def _follow(self, folders: list[Path]) -> None:
        """Take up the news of every attempt. Raises ``RewrittenError`` when all must be read anew."""
        known = [one.folder for one in self.attempts]
        if folders[: len(known)] != known:
            raise RewrittenError(str(self.path))
        for folder in folders[len(known) :]:
            number = layout.attempt_of(folder) or 0
            self.attempts.append(AttemptFollower(folder, number, self.shown_rank, self._untils.get(folder)))
        news = [one.news() for one in self.attempts]
        untils = self._superseded()
        if untils != {one.folder: one.until for one in self.attempts}:
            self._untils = untils
            raise RewrittenError(str(self.path))
        if sum(self.kept.take(rows) for rows in news):
            self.news_at = self.clock() if self.looks else None

    def _superseded(self) -> dict[Path, int | None]:
        """Return from which update on each attempt was resumed by a later one."""
        untils: dict[Path, int | None] = {}
        least: int | None = None
        for one in reversed(self.attempts):
            over = least is not None and one.last_update is not None and least <= one.last_update
            untils[one.folder] = least if over else None
            if one.first_update is not None:
                least = one.first_update if least is None else min(least, one.first_update)
        return untils
