"""SIGTERM and SIGHUP end a command as Ctrl-C does: temporary files are removed, the exit code is 128 + the signal."""

from __future__ import annotations

import signal
import time
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)
PATIENCE = 5.0
"""Seconds in which a second signal does not disturb the clean-up that the first one began."""
_received: list[tuple[int, float]] = []


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end."""


def end_cleanly() -> None:
    """From here on, SIGTERM and SIGHUP raise ``Stopped`` in the main thread; one that is ignored stays ignored."""
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def received() -> int | None:
    """Return the signal that asked the process to end, None when none did."""
    return _received[0][0] if _received else None


def exit_code() -> int:
    """Return the exit code after ``Stopped``, or after Ctrl-C when no signal was received."""
    return 128 + (received() or signal.SIGINT)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    now = time.monotonic()
    if _received and now - _received[-1][1] < PATIENCE:
        return
    _received.append((number, now))
    raise Stopped
