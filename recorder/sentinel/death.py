"""How a training died that did not close its recording, judged by what it left."""

from __future__ import annotations

import signal

KILLED, OUT_OF_MEMORY, FATAL_SIGNAL, EXITED = "killed", "out_of_memory", "fatal_signal", "exited"
_CRASHES = (
    *(signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP),
)
"""Signals that a process brings upon itself; the others come from outside."""
_FAULTS = {
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Illegal instruction": signal.SIGILL,
    "Floating-point exception": signal.SIGFPE,
    "Floating point exception": signal.SIGFPE,
}
_TITLE = "Fatal Python error: "


def cause_of_death(status: int | None, *, memory_kill: bool | None, fault: int | None) -> dict[str, object]:
    """Return kind, signal and exit code of the end of a process that did not close its recording.

    ``status``: as ``os.waitpid`` says it, None if not known; ``memory_kill``: whether its cgroup lost a process to a
    lack of memory, None if not known; ``fault``: the signal that its traceback names, None without a traceback.
    What cannot be known is None: a process of which nothing is known counts as killed.
    """
    number = fault if status is None else status & 0x7F or None
    code = None if status is None or number is not None else status >> 8
    if code is not None:
        kind = EXITED
    elif number in _CRASHES:
        kind = FATAL_SIGNAL
    elif memory_kill and number in (None, signal.SIGKILL):
        kind, number = OUT_OF_MEMORY, signal.SIGKILL
    else:
        kind = KILLED
    return {
        "kind": kind,
        "signal": None if number is None else _name_of(number),
        "signal_number": number,
        "exit_code": code,
        "out_of_memory": memory_kill if kind in (KILLED, OUT_OF_MEMORY) else None,
    }


def fault_signal(text: str) -> int | None:
    """Return the signal of which a traceback of ``faulthandler`` tells; None if it is none."""
    title = text.partition("\n")[0]
    return _FAULTS.get(title.removeprefix(_TITLE).strip()) if title.startswith(_TITLE) else None


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
