"""How a training ended, in words: what its writers recorded when they closed, or what they died of."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.storage.attempt_end import AttemptEnd, Death, End, attempt_end
from esper_analyze.storage.layout import CLOSED_FILE, ShardEntry
from esper_analyze.terminal import cleaned
from esper_analyze.wording import lasting

if TYPE_CHECKING:
    from esper_analyze.runs.run import RecordedRun
    from esper_analyze.storage.attempts import Attempt


@dataclass(frozen=True, slots=True)
class TrainingEnd:
    """How the training ended, the error it died of ("ValueError: …", else empty), the last update recorded.

    ``interrupted``: it ended in the middle of that update. ``lost``: rows of table ``updates`` were left out as
    damaged, so that the last update may have been a later one. ``death``: what is known of one that did not close.
    ``stalled_s``: seconds since the last row of a living training that has stalled; ``suspended``: by SIGSTOP.
    """

    end: End
    error: str = ""
    update: int | None = None
    interrupted: bool = False
    lost: bool = False
    death: Death | None = None
    stalled_s: float | None = None
    suspended: bool = False

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
        if self.end in (End.OUT_OF_MEMORY, End.FATAL_SIGNAL):
            return f"{self.state} {self.when}"
        if self.end is End.CLOSED:
            return "closed"
        if self.death is not None and self.death.signal is not None:
            return f"killed by {self.death.signal} {self.when}"
        extent = "no complete update" if self.update is None else f"last complete update {self.update}"
        if self.lost:
            extent = "its updates are lost" if self.update is None else f"{extent} of those left"
        return f"{'not closed' if self.end is End.UNCLOSED else self.state}, {extent}"

    @property
    def state(self) -> str:
        """How it stands, in a word or two: running, stalled for 12 min, ended, stopped, killed, SIGSEGV and so on."""
        if self.stalled_s is not None:
            return f"{'suspended' if self.suspended else 'stalled'} for {lasting(self.stalled_s)}"
        if self.end is End.FATAL_SIGNAL:
            return (self.death and self.death.signal) or "fatal signal"
        return _STATES[self.end]

    @property
    def headline(self) -> str:
        """How it ended, as a title; empty if the training ended normally or is still running."""
        if self.end is End.DIED:
            return f"The training died of {self.kind} {self.when}"
        if self.end is End.OUT_OF_MEMORY:
            return f"The training ran out of memory and was killed {self.when}"
        if self.end is End.FATAL_SIGNAL:
            return f"The training died of {self._fatal_signal} {self.when}"
        if self.end is End.UNCLOSED:
            return f"The training {self._how_unclosed} {self.when}"
        return f"The training was {self.status}" if self.end in (End.STOPPED, End.PREEMPTED) else ""

    @property
    def account(self) -> str:
        """How and when it died, and in which state, in sentences; empty unless it died without closing."""
        death = self.death
        if death is None:
            return ""
        began = "" if death.uptime_s is None else f", {lasting(death.uptime_s)} after the recording began"
        sentences = [f"{self.headline}{began}."]
        if death.signal == "SIGKILL" and self.end is End.UNCLOSED:
            sentences.append(_MEMORY[death.out_of_memory])
        if death.stalled_since is not None and death.at is not None:
            sentences.append(f"It had stalled for {lasting(max(death.at - death.stalled_since, 0.0))}.")
        if death.peak_rss_bytes is not None:
            sentences.append(f"Its memory had reached {death.peak_rss_bytes / 1e9:.3g} GB.")
        if death.traceback_elsewhere and not death.traceback:
            sentences.append("Its traceback went where its own faulthandler writes, by default to stderr.")
        return " ".join(sentences)

    @property
    def cause(self) -> str:
        """What ended a training that did not close: "killed by SIGKILL", "out of memory", "SIGSEGV" and so on."""
        if self.end in (End.STOPPED, End.PREEMPTED):
            return _STOPPED[self.end]
        if self.end is End.DIED:
            return f"died: {self.kind}"
        return self._how_unclosed.removeprefix("was ") if self.end is End.UNCLOSED else self.state

    @property
    def traceback(self) -> str:
        """The Python traceback of a fatal signal; empty without one."""
        return "" if self.death is None else self.death.traceback

    @property
    def _fatal_signal(self) -> str:
        signal = None if self.death is None else self.death.signal
        meaning = _MEANINGS.get(signal or "")
        return "a fatal signal" if signal is None else signal if meaning is None else f"{signal} ({meaning})"

    @property
    def _how_unclosed(self) -> str:
        death = self.death
        if death is None or death.exit_code is not None:
            return "ended without closing"
        if death.signal is not None:
            meaning = _MEANINGS.get(death.signal)
            return f"was killed by {death.signal}" + ("" if meaning is None else f" ({meaning})")
        if death.out_of_memory is None:
            return "was killed (SIGKILL or out of memory is not known)"
        return "was killed (by which signal is not known; not for lack of memory)"

    @property
    def when(self) -> str:
        """In or after which update it ended."""
        if self.update is None:
            return "at a lost update" if self.lost else _BEFORE_FIRST
        left = ", the last of those left" if self.lost and not self.interrupted else ""
        return f"{'in' if self.interrupted else 'after'} update {self.update:,}{left}"


_BEFORE_FIRST = "before its first update was complete"
_STATES = {
    End.CLOSED: "ended",
    End.STOPPED: "stopped",
    End.PREEMPTED: "stopped",
    End.RUNNING: "running",
    End.UNCLOSED: "killed",
    End.DIED: "crashed",
    End.OUT_OF_MEMORY: "out of memory",
}
_MEANINGS = {
    "SIGSEGV": "segmentation fault",
    "SIGABRT": "abort",
    "SIGBUS": "bus error",
    "SIGILL": "illegal instruction",
    "SIGFPE": "arithmetic error",
    "SIGHUP": "its terminal was closed",
}
_MEMORY = {
    None: "Whether for lack of memory is not known.",
    False: "The kernel did not do it for lack of memory.",
    True: "Its memory had run out.",
}
_STOPPED = {End.STOPPED: "stopped by Ctrl-C", End.PREEMPTED: "stopped by SIGTERM"}


def end_of_run(run: RecordedRun) -> TrainingEnd:
    """Return how ``run`` ended, by the last writer of each rank; the worst one counts."""
    last = {attempt.rank: attempt for attempt in sorted(run.attempts, key=lambda attempt: attempt.number)}
    ends = [_end_of_attempt(attempt) for attempt in last.values()]
    worst = max(ends, key=lambda end: (end.end, end.stalled_since is not None), default=AttemptEnd(End.UNCLOSED))
    return training_end(worst, run.last_update, interrupted=_interrupted(run), lost=_updates_left_out(run))


def training_end(
    end: AttemptEnd, update: int | None, *, interrupted: bool = False, lost: bool = False, now: float | None = None
) -> TrainingEnd:
    """Return the end of a training whose deciding writer ended like ``end``; ``now``: seconds of the epoch."""
    now = time.time() if now is None else now
    stalled_s = None if end.stalled_since is None else max(now - end.stalled_since, 0.0)
    return TrainingEnd(end.end, end.error, update, interrupted, lost, end.death, stalled_s, end.suspended)


def _end_of_attempt(attempt: Attempt) -> AttemptEnd:
    return attempt_end(attempt.folder, attempt.closed, alive=attempt.closed is None and attempt.alive())


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
