"""Whether somebody still writes, and if not, how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from esper_analyze.runs.ending import REPAIRED, End, end_of
from esper_analyze.storage import layout
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.lock import holder, is_held
from esper_analyze.storage.run_files import read_file, why_unreadable
from esper_analyze.terminal import cleaned

WAITING, RUNNING, ENDED, CRASHED, DELETED = "waiting", "running", "ended", "crashed", "deleted"
_LATEST = 1e11
"""Seconds of the epoch that no clock of a training shows."""
SEALED_AT_LEAST = 600.0
"""Seconds without a new file after which a run without locks counts as crashed: a writer seals twice as often."""
_WORDS = {End.CLOSED: "closed", End.STOPPED: "stopped by Ctrl-C", End.PREEMPTED: "stopped by SIGTERM"}


@dataclass(frozen=True, slots=True)
class Writer:
    """How one writer stands: the word of its ``state``, and ``why`` in words; when it closed, where it noted that."""

    state: str
    why: str
    closed_at: float | None = None
    trouble: str | None = None
    """What is wrong with its mark, None when nothing is or there is none."""


def writer_of(folder: Path, now: float) -> Writer:
    """Return how the writer of an attempt's ``folder`` stands at ``now`` (seconds of the epoch).

    Asks for a shared lock of that writer's own file, never for one that another writer would need to begin.
    """
    try:
        marker = _marker(folder)
    except (OSError, ValueError, RecursionError) as error:
        reason = why_unreadable(error) if isinstance(error, OSError) else "is not a clean-close marker"
        return Writer(*_ending("a mark that cannot be read"), trouble=f"{layout.CLOSED_FILE} {reason}")
    if marker is not None:
        reason = str(marker.get("reason", "closed"))
        return Writer(*_ending(reason), None if reason == REPAIRED else _time(marker.get("closed_at")))
    held = is_held(folder / layout.LOCK_FILE)
    if held:
        return Writer(RUNNING, f"written by {cleaned(holder(folder), 60)}")
    if held is None:
        silent = now - folder.stat().st_mtime
        told = "no lock tells whether its writer lives"
        return (
            Writer(RUNNING, told) if silent < SEALED_AT_LEAST else Writer(CRASHED, f"{told}; nothing was sealed lately")
        )
    return Writer(CRASHED, "its writer is gone and did not close it")


def _time(noted: object) -> float | None:
    """Return a noted time (seconds of the epoch), None for what is none."""
    if isinstance(noted, bool) or not isinstance(noted, (int, float)):
        return None
    return float(noted) if 0 < noted < _LATEST else None


def _ending(reason: str) -> tuple[str, str]:
    """Return state and words for the reason that the writer noted when it closed."""
    if reason == REPAIRED:
        return CRASHED, "its writer was gone; repaired since"
    end, error = end_of(reason)
    if end is End.DIED:
        return CRASHED, f"died: {cleaned(error, 80)}"
    return ENDED, "imported" if reason == "imported" else _WORDS[end]


def _marker(folder: Path) -> dict[str, object] | None:
    path = folder / layout.CLOSED_FILE
    try:
        marker = json.loads(read_file(path, LARGEST_TEXT))
    except FileNotFoundError:
        return None
    return marker if isinstance(marker, dict) else {}
