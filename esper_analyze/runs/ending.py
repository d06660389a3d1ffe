"""How a training ended: the reason that its writers recorded when they closed, or that they did not close."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from esper_analyze.storage.layout import CLOSED_FILE, REPAIRED, ShardEntry
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from esper_analyze.runs.run import RecordedRun
    from esper_analyze.storage.attempts import Attempt

_EXCEPTION = re.compile(r"([^\W\d][\w.]*):(?: (.*))?\Z", re.DOTALL)
"""The recorder's note of an exception: its class, a colon, its message."""


class End(IntEnum):
    """How a writer ended; of several ranks, the largest value counts."""

    CLOSED = 0
    """Closed normally, or imported."""
    STOPPED = 1
    """Ctrl-C by the user."""
    PREEMPTED = 2
    """SIGTERM, as a scheduler sends it."""
    RUNNING = 3
    UNCLOSED = 4
    """Killed: ended without closing, whether repaired since or not."""
    DIED = 5
    """An exception, or an exit code other than 0."""


@dataclass(frozen=True, slots=True)
class TrainingEnd:
    """How the training ended, the error it died of ("ValueError: …", else empty), the last update recorded.

    ``interrupted``: it ended in the middle of that update. ``lost``: rows of table ``updates`` were left out as
    damaged, so that the last update may have been a later one.
    """

    end: End
    error: str = ""
    update: int | None = None
    interrupted: bool = False
    lost: bool = False

    @property
    def kind(self) -> str:
        """The exception class or exit code, without the message."""
        kind, _, message = self.error.partition(":")
        return f"exit code {cleaned(message.strip(), 40)}" if kind == "SystemExit" else cleaned(kind, 40)

    @property
    def message(self) -> str:
        """The message of the exception, or of what was passed to ``sys.exit``; empty without one."""
        return self.error.partition(":")[2].strip()

    @property
    def status(self) -> str:
        """How it ended, as a table cell."""
        if self.end is End.DIED:
            return f"died: {self.kind} {self.when}"
        if self.end in (End.STOPPED, End.PREEMPTED):
            return f"{_STOPPED[self.end]} {self.when}"
        if self.end is End.CLOSED:
            return "closed"
        extent = "no complete update" if self.update is None else f"last complete update {self.update}"
        if self.lost:
            extent = "its updates are lost" if self.update is None else f"{extent} of those left"
        return f"{'running' if self.end is End.RUNNING else 'not closed'}, {extent}"

    @property
    def headline(self) -> str:
        """How it ended, as a title; empty if the training ended normally or is still running."""
        if self.end is End.DIED:
            return f"The training died of {self.kind} {self.when}"
        if self.end is End.UNCLOSED:
            return f"The training ended without closing {self.when}"
        return f"The training was {self.status}" if self.end in (End.STOPPED, End.PREEMPTED) else ""

    @property
    def when(self) -> str:
        """In or after which update it ended."""
        if self.update is None:
            return "at a lost update" if self.lost else _BEFORE_FIRST
        left = ", the last of those left" if self.lost and not self.interrupted else ""
        return f"{'in' if self.interrupted else 'after'} update {self.update:,}{left}"


_BEFORE_FIRST = "before its first update was complete"
_STOPPED = {End.STOPPED: "stopped by Ctrl-C", End.PREEMPTED: "stopped by SIGTERM"}


def end_of(reason: str) -> tuple[End, str]:
    """Return the end that the ``reason`` in a clean-close marker means, and the error that it names."""
    if reason == "SIGTERM":
        return End.PREEMPTED, ""
    if reason == REPAIRED:
        return End.UNCLOSED, ""
    exception = _EXCEPTION.match(reason)
    if exception is None:
        return End.CLOSED, ""
    if exception[1] == "KeyboardInterrupt":
        return End.STOPPED, ""
    if exception[1] == "SystemExit" and exception[2] in (None, "", "0", "None"):
        return End.CLOSED, ""
    return End.DIED, reason


def end_of_run(run: RecordedRun) -> TrainingEnd:
    """Return how ``run`` ended, by the last writer of each rank; the worst one counts."""
    last = {attempt.rank: attempt for attempt in sorted(run.attempts, key=lambda attempt: attempt.number)}
    ends = [_end_of_attempt(attempt) for attempt in last.values()]
    end, error = max(ends, key=lambda ending: ending[0], default=(End.UNCLOSED, ""))
    return TrainingEnd(end, error, run.last_update, interrupted=_interrupted(run), lost=_updates_left_out(run))


def _end_of_attempt(attempt: Attempt) -> tuple[End, str]:
    if attempt.closed is None:
        return (End.RUNNING if attempt.alive() else End.UNCLOSED), ""
    reason = attempt.closed.get("reason", "closed")
    before = attempt.closed.get("before") if reason == REPAIRED else None
    return end_of(str(before or reason))


def _updates_left_out(run: RecordedRun) -> bool:
    """Whether a damaged file with rows of ``updates``, or a log, which has rows of every table, was left out."""
    return any(
        broken.entry.table == "updates" if isinstance(broken.entry, ShardEntry) else broken.file.name != CLOSED_FILE
        for broken in run.broken
    )


def _interrupted(run: RecordedRun) -> bool:
    if run.last_update is None:
        return False
    rows = run.frame("updates", ["update", "status"])
    return bool(((rows["update"] == run.last_update) & (rows["status"] == "interrupted")).any())
