"""Close what is open when the process ends: at exit, after an exception, on SIGTERM."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import weakref
from types import FrameType
from typing import Protocol


class Closable(Protocol):
    """Something to close; ``close`` is idempotent and does not raise."""

    def close(self, reason: str = "closed") -> None:
        """Close, noting why."""


_lock = threading.RLock()  # a signal's handler runs in the main thread, maybe within one of these calls
_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_owner: list[int] = []
_before: list[object] = []
_hooked: list[int] = []


def close_at_exit(thing: Closable) -> None:
    """Close ``thing`` at exit and on SIGTERM unless it is closed before."""
    with _lock:
        if _owner != [os.getpid()]:
            _owner[:] = [os.getpid()]
            atexit.register(_close_all, "exit")
        if _hooked != [os.getpid()]:
            _hook_sigterm()
        _open.add(thing)


def forget(thing: Closable) -> None:
    """Undo ``close_at_exit``."""
    with _lock:
        _open.discard(thing)


def _close_all(reason: str) -> None:
    if _owner == [os.getpid()]:
        with _lock:
            things = list(_open)
        for thing in things:
            thing.close(reason)


def _hook_sigterm() -> None:
    """Put ourselves before the handler that is there; only the main thread may do that."""
    if threading.current_thread() is threading.main_thread():
        _hooked[:] = [os.getpid()]
        before = signal.getsignal(signal.SIGTERM)
        if before is not None:  # None: not installed from Python, and not ours to call
            _before[:] = [before]
            signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    _close_all("SIGTERM")
    before = _before[0] if _before else signal.SIG_DFL
    if callable(before):
        before(number, frame)
    elif before is not signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
