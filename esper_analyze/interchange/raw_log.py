"""The scalars of one run as its files hold them, before their names are understood, and the run they become."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.interchange.imported import Imported, ImportedAttempt, ImportLosses, Row
from esper_analyze.interchange.monitor_files import add_episodes
from esper_analyze.interchange.naming import take_updates
from esper_analyze.interchange.series import ScalarLog, ScalarSeries


@dataclass(slots=True)
class RawLog:
    """What the files of one run logged.

    ``attempts``: one log for each start of the training, in order; each but the first begins within the one before.
    ``monitors``: files with the episodes of the same training. ``remarks``: how the files were put together.
    """

    format: str
    attempts: list[ScalarLog]
    losses: ImportLosses = field(default_factory=ImportLosses)
    facts: Row = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    monitors: Sequence[Path] = ()

    def imported(self, where: str, framework: str | None) -> Imported:
        """Return the run. Raises ``UsageError`` when its names are not those of a PPO training."""
        imported = Imported(self.format, facts=self.facts, losses=self.losses, remarks=self.remarks)
        log, attempts = _joined_attempts(self.attempts, self.format, where, framework)
        take_updates(log, imported, where, framework)
        imported.attempts = attempts
        if self.monitors:
            add_episodes(imported, self.monitors)
        return imported


def _joined_attempts(
    logs: Sequence[ScalarLog], kind: str, where: str, framework: str | None
) -> tuple[ScalarLog, list[ImportedAttempt]]:
    """Return the log in which each attempt stands from its first step on, and what it replaced of the one before.

    Updates are those of ``take_updates``: the numbers of an attempt are those after what stands before it.
    """
    log, attempts = logs[0], list[ImportedAttempt]()
    for later in logs[1:]:
        before, common = _taken(log, kind, where, framework), until(log, first_step(later))
        shared = _taken(common, kind, where, framework)
        log = appended(common, later)
        last = max(_numbers(shared), default=-1)
        first = min((number for number in _numbers(_taken(log, kind, where, framework)) if number > last), default=None)
        if first is not None:
            replaced = {
                table: [row for row in rows if int(str(row["update"])) >= first] for table, rows in before.rows.items()
            }
            attempts.append(ImportedAttempt(first, {table: rows for table, rows in replaced.items() if rows}))
    return log, attempts


def _taken(log: ScalarLog, kind: str, where: str, framework: str | None) -> Imported:
    """Return what ``log`` alone holds of updates: none where it is too short to know whose names it has."""
    imported = Imported(kind)
    with suppress(UsageError):
        take_updates(log, imported, where, framework)
    return imported


def _numbers(imported: Imported) -> list[int]:
    return [int(str(row["update"])) for row in imported.rows.get("updates", [])]


def first_step(log: ScalarLog) -> int:
    """Return the first step at which something was logged."""
    return min(min(series.steps) for series in log.series.values())


def last_step(log: ScalarLog) -> int:
    """Return the last step at which something was logged."""
    return max(max(series.steps) for series in log.series.values())


def until(log: ScalarLog, end: int) -> ScalarLog:
    """Return the points of ``log`` before step ``end``."""
    cut = ScalarLog(timesteps=log.timesteps)
    for name, series in log.series.items():
        for step, value, wall in zip(series.steps, series.values, series.walls, strict=True):
            if step < end:
                cut.add(name, step, value, wall)
    return cut


def appended(log: ScalarLog, later: ScalarLog) -> ScalarLog:
    """Return the points of both, those of ``later`` behind."""
    both = ScalarLog(timesteps=log.timesteps)
    for part in (log, later):
        for name, series in part.series.items():
            mine = both.series.setdefault(name, ScalarSeries())
            mine.steps += series.steps
            mine.values += series.values
            mine.walls += series.walls
    return both
