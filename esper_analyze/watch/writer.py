"""Whether a writer is still running, and if not, how it ended."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from esper_analyze.runs.ending import training_end
from esper_analyze.storage import layout
from esper_analyze.storage.attempt_end import AttemptEnd, End, attempt_end, end_of
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.lock import holder, is_held
from esper_analyze.storage.log_tail import log_numbers
from esper_analyze.storage.run_files import read_file, why_unreadable
from esper_analyze.terminal import cleaned

WAITING, RUNNING, ENDED, CRASHED, DELETED = "waiting", "running", "ended", "crashed", "deleted"
_LATEST = 1e11
"""Latest plausible time, seconds of the epoch."""
SEALED_AT_LEAST = 600.0
"""Seconds without a new file after which a run without locks counts as crashed: a writer seals twice as often."""
_WORDS = {End.CLOSED: "closed", End.STOPPED: "stopped by Ctrl-C", End.PREEMPTED: "stopped by SIGTERM"}
_GONE = "its writer is gone and did not close the run"


@dataclass(frozen=True, slots=True)
class Writer:
    """The ``state`` of one writer, ``why`` in words, its ``end``, and when it closed or died, where that was recorded.

    ``stalled_since``: seconds of the epoch, of a living training that stores nothing; ``suspended``: by SIGSTOP.
    """

    state: str
    why: str
    end: End
    closed_at: float | None = None
    trouble: str | None = None
    """What is wrong with its clean-close marker, None when it is valid or absent."""
    stalled_since: float | None = None
    suspended: bool = False


def writer_of(folder: Path, now: float) -> Writer:
    """Return the state of the writer of an attempt's ``folder`` at ``now`` (seconds of the epoch).

    Takes a shared lock of that writer's own file only, never one that another writer would need to begin.
    """
    try:
        marker = _marker(folder)
    except (OSError, ValueError, RecursionError) as error:
        reason = why_unreadable(error) if isinstance(error, OSError) else "is not a clean-close marker"
        return Writer(*_ending("its marker cannot be read"), trouble=f"{layout.CLOSED_FILE} {reason}")
    if marker is not None:
        reason = str(marker.get("reason", "closed"))
        return Writer(*_ending(reason), None if reason == layout.REPAIRED else _time(marker.get("closed_at")))
    locked = is_held(folder / layout.LOCK_FILE)
    if locked:
        end = attempt_end(folder, None, alive=True)
        why = f"written by {cleaned(holder(folder), 60)}"
        return Writer(RUNNING, why, End.RUNNING, stalled_since=end.stalled_since, suspended=end.suspended)
    if locked is None:
        silent = now - folder.stat().st_mtime
        unknown = "without locks it is unknown whether its writer is alive"
        return (
            Writer(RUNNING, unknown, End.RUNNING)
            if silent < SEALED_AT_LEAST
            else Writer(CRASHED, f"{unknown}; nothing was sealed recently", End.UNCLOSED)
        )
    return _dead(attempt_end(folder, None, alive=False))


def _dead(end: AttemptEnd) -> Writer:
    """Return the state of a writer that did not close the run, by what it died of where that was noted."""
    if end.death is None:
        return Writer(CRASHED, _GONE, End.UNCLOSED)
    why = training_end(end, None).cause
    state = ENDED if end.end in (End.STOPPED, End.PREEMPTED) else CRASHED
    return Writer(state, why, end.end, end.death.at)


def last_written(folder: Path) -> float:
    """Return when an attempt's folder or one of its logs was last written (seconds of the epoch)."""
    times = [folder.stat().st_mtime]
    for number in log_numbers(folder):
        with suppress(FileNotFoundError):  # sealed meanwhile
            times.append((folder / layout.log_name(number)).stat().st_mtime)
    return max(times)


def _time(noted: object) -> float | None:
    """Return a recorded time (seconds of the epoch), None when it is invalid."""
    if isinstance(noted, bool) or not isinstance(noted, (int, float)):
        return None
    return float(noted) if 0 < noted < _LATEST else None


def _ending(reason: str) -> tuple[str, str, End]:
    """Return state, words and end for the reason that the writer recorded when it closed."""
    end, error = end_of(reason)
    if reason == layout.REPAIRED:
        return CRASHED, "its writer was gone; the run was repaired since", end
    if end is End.DIED:
        return CRASHED, f"died: {cleaned(error, 80)}", end
    return ENDED, "imported" if reason == "imported" else _WORDS[end], end


def _marker(folder: Path) -> dict[str, object] | None:
    path = folder / layout.CLOSED_FILE
    try:
        marker = json.loads(read_file(path, LARGEST_TEXT))
    except FileNotFoundError:
        return None
    return marker if isinstance(marker, dict) else {}
