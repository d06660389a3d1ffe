"""Follow a run: every poll costs as much as the new data, however long the run is.

Which rules could judge depends on the whole run: it is computed again when the run has grown by ``COVERAGE_GROWTH`` or
its state has changed. In total that reads each update about twenty times.
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
from esper_analyze.storage.attempts import supersede
from esper_analyze.storage.folders import attempt_folders
from esper_analyze.storage.run_info import identity
from esper_analyze.watch.alarms import Alarms
from esper_analyze.watch.attempt import AttemptFollower
from esper_analyze.watch.tails import RewrittenError
from esper_analyze.watch.window import RecentRows
from esper_analyze.watch.writer import DELETED, WAITING, Writer, writer_of

COVERAGE_GROWTH = 0.05
_TRIES = 5
"""How often everything is read again in one poll, when files are replaced while they are read."""


@dataclass(slots=True)
class Follower:
    """Follows the run in directory ``path``; ``rank`` None: the first existing rank.

    ``clock`` returns seconds of the epoch. Only reads; ``trouble`` says what cannot be read, and it is tried again.
    """

    path: Path
    rank: int | None = None
    clock: Callable[[], float] = time.time
    info: dict[str, Any] = field(default_factory=dict)
    recent: RecentRows = field(default_factory=lambda: RecentRows(Alarms()))
    writers: dict[int, Writer] = field(default_factory=dict)
    attempts: list[AttemptFollower] = field(default_factory=list)
    shown_rank: int = 0
    state: str = WAITING
    news_at: float | None = None
    touched: float | None = None
    polls: int = 0
    replaced: bool = False
    trouble: str | None = None
    coverage: Coverage | None = None
    _covered: tuple[int, str] | None = None
    _coverage_due: float = 0.0
    _mark: tuple[int, int, int] | None = None
    _untils: dict[Path, int | None] = field(default_factory=dict)

    @property
    def file_troubles(self) -> list[str]:
        """Files that cannot be used, and why."""
        marks = [writer.trouble for writer in self.writers.values() if writer.trouble is not None]
        return [*(writer for attempt in self.attempts for writer in attempt.troubles), *marks]

    def poll(self) -> None:
        """Read what is new. Raises ``EsperError`` when the run cannot be read and never could."""
        self.trouble = None
        try:
            self._poll()
        except FileNotFoundError as error:
            if (self.path / layout.RUN_FILE).exists():
                self.trouble = f"{error.filename} was removed while it was read"
            else:
                self.state = DELETED if self.polls else WAITING
        except (OSError, EsperError) as error:
            if not self.polls:
                raise
            words = error.message if isinstance(error, EsperError) else f"{error.filename}: {error.strerror}"
            self.trouble = f"cannot be read now: {words}"

    def _poll(self) -> None:
        self._identify()
        folders = self._folders()
        ranks = sorted(folders)
        self.shown_rank = self._chosen(ranks)
        of_shown_rank = folders.get(self.shown_rank, [])
        for _ in range(_TRIES):
            try:
                self._follow(of_shown_rank)
                break
            except RewrittenError:
                self._forget()
        else:
            self.trouble = "its files are being replaced"
        self.writers = {rank: writer_of(of_rank[-1], self.clock()) for rank, of_rank in folders.items()}
        if self.shown_rank in self.writers:
            self.state = self.writers[self.shown_rank].state
            self.touched = self.attempts[-1].touched if self.attempts else None
        self.polls += 1
        self._count_rules()

    def _count_rules(self) -> None:
        """Compute again which rules could judge, if the run has grown enough or its state has changed."""
        updates, covered = (self.recent.last_update or 0) + 1, (len(self.attempts), self.state)
        if covered == self._covered and updates < self._coverage_due:
            return
        run = open_run(self.path, skip_broken=True)
        self.coverage = live_coverage(run if self.rank is None else run.only(self.rank))
        self._covered, self._coverage_due = covered, max(updates + 1, (1 + COVERAGE_GROWTH) * updates)

    def _identify(self) -> None:
        """Read run.json when it is new or was replaced. Raises ``FileNotFoundError`` while there is none."""
        status = (self.path / layout.RUN_FILE).stat()
        mark = (status.st_ino, status.st_mtime_ns, status.st_size)
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
        if ranks and self.rank not in ranks and not self.polls:
            raise UsageError(f"{self.path} has no rank {self.rank}", hint=f"ranks: {', '.join(map(str, ranks))}")
        return self.rank

    def _forget(self) -> None:
        self.attempts, self.recent = [], RecentRows(Alarms.judged_with(self.info))
        self.coverage = self._covered = None

    def _follow(self, folders: list[Path]) -> None:
        """Read the new rows of every attempt. Raises ``RewrittenError`` when everything must be read again."""
        followed = [attempt.folder for attempt in self.attempts]
        if folders[: len(followed)] != followed:
            raise RewrittenError(str(self.path))
        for folder in folders[len(followed) :]:
            number = layout.attempt_of(folder) or 0
            self.attempts.append(AttemptFollower(folder, number, self.shown_rank, self._untils.get(folder)))
        news = [attempt.news() for attempt in self.attempts]
        read = [attempt.superseded_rows for attempt in self.attempts]
        supersede(self.attempts)
        self._untils = {attempt.folder: attempt.until for attempt in self.attempts}
        if read != [attempt.superseded_rows for attempt in self.attempts]:
            raise RewrittenError(str(self.path))
        if sum(self.recent.take(rows) for rows in news):
            self.news_at = self.clock() if self.polls else None
