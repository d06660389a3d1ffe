"""How one writer ended: by its clean-close marker, else by what the process beside it and ``faulthandler`` left."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from esper_analyze.errors import DamagedError
from esper_analyze.storage import layout
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.log_tail import log_numbers
from esper_analyze.storage.run_files import read_file

_EXCEPTION = re.compile(r"([^\W\d][\w.]*):(?: (.*))?\Z", re.DOTALL)
"""The recorder's note of an exception: its class, a colon, its message."""
_SIGNAL = re.compile(r"SIG[A-Z0-9]{1,12}|signal \d{1,3}")
_FAULTS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating-point exception": "SIGFPE",
    "Floating point exception": "SIGFPE",
}
_FATAL = "Fatal Python error: "
_LATEST = 1e11
"""Latest plausible time, seconds of the epoch."""
SURVIVED = 60.0
"""A traceback that is so many seconds older than the last row is that of something the training survived."""
MOST_LINES = 200
"""Lines of a traceback that are read: a training has some dozen threads."""


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
    OUT_OF_MEMORY = 6
    """Killed by the kernel because its cgroup had no memory left."""
    FATAL_SIGNAL = 7
    """A signal that a process brings upon itself: SIGSEGV, SIGABRT, SIGBUS …"""


@dataclass(frozen=True, slots=True)
class Death:
    """How a training died that did not close its recording. What is not known is None.

    ``signal``: its name; ``exit_code``: of a process that left by ``os._exit``; ``out_of_memory``: whether the kernel
    killed a process of its cgroup for lack of memory; ``at``: seconds of the epoch; ``uptime_s``: since the recording
    began; ``peak_rss_bytes``: read every half minute; ``stalled_since``: seconds of the epoch, of a training that had
    stalled; ``traceback``: of a fatal signal, empty without one; ``traceback_elsewhere``: the training had enabled
    ``faulthandler`` itself, which writes to stderr unless told otherwise.
    """

    signal: str | None = None
    exit_code: int | None = None
    out_of_memory: bool | None = None
    at: float | None = None
    uptime_s: float | None = None
    peak_rss_bytes: int | None = None
    stalled_since: float | None = None
    host: str | None = None
    traceback: str = ""
    traceback_elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How a writer ended, the error that it named ("ValueError: …", else empty), and how it died if it did not close.

    ``stalled_since``: seconds of the epoch, of a living training that stores nothing; ``suspended``: by SIGSTOP.
    """

    end: End
    error: str = ""
    death: Death | None = None
    stalled_since: float | None = None
    suspended: bool = False


def attempt_end(folder: Path, marker: Mapping[str, object] | None, *, alive: bool) -> AttemptEnd:
    """Return how the writer of an attempt's ``folder`` ended.

    ``marker``: its clean-close marker, None without one; ``alive``: whether its lock is held. Without a marker, a file
    of the process beside the training and a traceback, the writer counts as killed.
    """
    if marker is not None:
        reason = marker.get("reason", "closed")
        before = marker.get("before")
        if reason != layout.REPAIRED or before:
            return AttemptEnd(*end_of(str(before if reason == layout.REPAIRED else reason)))
    elif alive:
        since, suspended = _stall(folder)
        return AttemptEnd(End.RUNNING, stalled_since=since, suspended=suspended)
    return _of_death(_death(folder))


def end_of(reason: str) -> tuple[End, str]:
    """Return the end that the ``reason`` in a clean-close marker means, and the error that it names."""
    if reason == "SIGTERM":
        return End.PREEMPTED, ""
    if reason == layout.REPAIRED:
        return End.UNCLOSED, ""
    exception = _EXCEPTION.match(reason)
    if exception is None:
        return End.CLOSED, ""
    if exception[1] == "KeyboardInterrupt":
        return End.STOPPED, ""
    if exception[1] == "SystemExit" and exception[2] in (None, "", "0", "None"):
        return End.CLOSED, ""
    return End.DIED, reason


def _of_death(noted: tuple[str, Death] | None) -> AttemptEnd:
    if noted is None:
        return AttemptEnd(End.UNCLOSED)
    kind, death = noted
    if kind == "exited" and death.exit_code:
        return AttemptEnd(End.DIED, f"SystemExit: {death.exit_code}", death)
    by_signal = {"SIGTERM": End.PREEMPTED, "SIGINT": End.STOPPED}
    by_kind = {"out_of_memory": End.OUT_OF_MEMORY, "fatal_signal": End.FATAL_SIGNAL}
    return AttemptEnd(by_kind.get(kind) or by_signal.get(death.signal or "", End.UNCLOSED), death=death)


def _death(folder: Path) -> tuple[str, Death] | None:
    """Return the kind of death and what is known of it; None where nothing was noted, or what was cannot be read."""
    facts = _facts(folder / layout.ENDED_FILE)
    if facts.get("kind") not in ("killed", "out_of_memory", "fatal_signal", "exited"):
        traceback = _traceback(folder)
        title = traceback.partition("\n")[0].removeprefix(_FATAL).strip()
        return ("fatal_signal", Death(signal=_FAULTS.get(title), traceback=traceback)) if traceback else None
    kind = str(facts["kind"])
    return kind, Death(
        signal=name if isinstance(name := facts.get("signal"), str) and _SIGNAL.fullmatch(name) else None,
        exit_code=_count(facts.get("exit_code")),
        out_of_memory=flag if isinstance(flag := facts.get("out_of_memory"), bool) else None,
        at=_seconds(facts.get("at")),
        uptime_s=_seconds(facts.get("uptime_s")),
        peak_rss_bytes=_count(facts.get("peak_rss_bytes")),
        stalled_since=_seconds(facts.get("stalled_since")),
        host=host[:200] if isinstance(host := facts.get("host"), str) else None,
        traceback=_traceback(folder, old=True) if kind == "fatal_signal" else "",
        traceback_elsewhere=kind == "fatal_signal" and facts.get("traceback") == "elsewhere",
    )


def _traceback(folder: Path, *, old: bool = False) -> str:
    """Return the traceback of a fatal signal, the thread that met it first, ``MOST_LINES`` lines; empty without one.

    Unless ``old`` ones count, one that rows came after does not: a process that the training started may have died.
    """
    path = folder / layout.FAULT_FILE
    try:
        text = read_file(path, LARGEST_TEXT).decode(errors="replace")
        changed = path.stat().st_mtime
        logs = [(folder / layout.log_name(number)).stat().st_mtime for number in log_numbers(folder)]
    except (OSError, DamagedError):
        return ""
    if not text.startswith(_FATAL) or (not old and any(written - changed > SURVIVED for written in logs)):
        return ""
    lines = _crashed_first(text).splitlines()
    more = len(lines) - MOST_LINES
    return "\n".join([*lines[:MOST_LINES], *([f"… {more:,} more lines in {layout.FAULT_FILE}"] if more > 0 else [])])


def _crashed_first(text: str) -> str:
    """Return a traceback of several threads with the one that met the signal before the others."""
    title, *threads = text.rstrip().split("\n\n")
    return "\n\n".join([title, *sorted(threads, key=lambda thread: not thread.startswith("Current thread"))])


def _stall(folder: Path) -> tuple[float | None, bool]:
    """Return since when a living training has stored nothing, None if it goes on; and whether it is suspended.

    A stall that was noted is over once the log has grown, whether the process that noted it lives or not.
    """
    facts = _facts(folder / layout.STALLED_FILE)
    number, size = _count(facts.get("log_number")), _count(facts.get("log_bytes"))
    if number is None or size is None:
        return None, False
    try:
        newest = max(log_numbers(folder), default=0)
        grown = newest > number or (newest == number and (folder / layout.log_name(newest)).stat().st_size > size)
    except FileNotFoundError:  # sealed meanwhile
        grown = False
    except (OSError, DamagedError):
        return None, False
    return (None, False) if grown else (_seconds(facts.get("since")), facts.get("suspended") is True)


def _facts(path: Path) -> dict[str, Any]:
    """Return the JSON object at ``path``; empty where there is none, or something else."""
    try:
        facts = json.loads(read_file(path, LARGEST_TEXT))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _seconds(number: object) -> float | None:
    valid = isinstance(number, (int, float)) and not isinstance(number, bool) and 0 <= number < _LATEST
    return float(number) if valid else None  # type: ignore[arg-type]  # it is a number


def _count(number: object) -> int | None:
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 62 else None
