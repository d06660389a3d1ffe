"""Close open recordings when the process ends: at exit, after an exception, on SIGTERM."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
import threading
import weakref
from types import FrameType
from typing import Any, Protocol

from recorder.brief_lock import BriefLock


class Closable(Protocol):
    """A recording to close; ``close`` is idempotent and does not raise."""

    def close(self, reason: str = "closed") -> None:
        """Close, noting why."""


_lock = BriefLock()  # a signal handler runs in the main thread, possibly within one of these calls
_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_owner: list[int] = []
_before: list[object] = []
_hooked: list[int] = []
_threads: weakref.WeakKeyDictionary[Closable, threading.Thread] = weakref.WeakKeyDictionary()
"""The thread that last recorded, by recording."""
_died: weakref.WeakKeyDictionary[Closable, str] = weakref.WeakKeyDictionary()
"""The reason for which that thread ended, by recording."""
_exit_reason: list[str] = []
"""Reason of the main thread's last ``sys.exit``, unless something was recorded after it."""


class Failure(str):
    """The close reason of a training that an exception ended, other than by Ctrl-C or an exit."""

    __slots__ = ()


def reason_of(error: BaseException) -> str:
    """Return the close reason for an exception that ends a training: "ValueError: …"; "closed" for a clean exit."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "closed"
    try:
        message = str(error)
    except Exception:
        message = "its message cannot be read"
    reason = f"{type(error).__name__}: {message}"[:500]
    return Failure(reason) if isinstance(error, Exception) else reason


def close_at_exit(thing: Closable) -> None:
    """Close ``thing`` at exit and on SIGTERM, unless ``forget`` is called before."""
    with _lock:
        if _owner != [os.getpid()]:
            _owner[:] = [os.getpid()]
            atexit.register(_close_at_exit)
            _hook_exit()
            _hook_threads()
        if _hooked != [os.getpid()]:
            _hook_sigterm()
        _open.add(thing)
        recording(thing)


def recording(thing: Closable) -> None:
    """Record that this thread uses ``thing``: an exception or exit seen before has not ended its training."""
    with _lock:
        _threads[thing] = threading.current_thread()
        _died.pop(thing, None)
        _exit_reason.clear()


def forget(thing: Closable) -> None:
    """Undo ``close_at_exit``."""
    with _lock:
        _open.discard(thing)
        _threads.pop(thing, None)
        _died.pop(thing, None)


def _close_all(reason: str) -> None:
    if _owner == [os.getpid()]:
        with _lock:
            things = list(_open)
        for thing in things:
            thing.close(reason)


def _close_at_exit() -> None:
    """Close everything; an exception in an interactive session (``sys.ps1``) does not end a training."""
    if _owner == [os.getpid()]:
        reason = "exit" if hasattr(sys, "ps1") else _uncaught() or (_exit_reason[0] if _exit_reason else "exit")
        for thing in list(_open):
            thing.close(_died.get(thing, reason))


def _uncaught() -> str | None:
    """Return the reason of the uncaught exception that ended the process, kept by the interpreter; None without one.

    Test runners and notebooks store caught exceptions in the same variable: such an exception has outer frames.
    """
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if not isinstance(error, BaseException):
        return None
    trace = error.__traceback__
    return reason_of(error) if trace is not None and trace.tb_frame.f_back is None else None


def _hook_exit() -> None:
    """Wrap ``sys.exit``: the interpreter does not keep the ``SystemExit`` that ends it."""
    before = sys.exit

    @functools.wraps(before)
    def noted(*args: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            _exit_reason[:] = [reason_of(SystemExit(*args))]
        return before(*args)

    sys.exit = noted


def _hook_threads() -> None:
    """Wrap ``threading.excepthook`` for exceptions that end a thread; the previous hook is still called."""
    before = threading.excepthook

    @functools.wraps(before)
    def noted(args: threading.ExceptHookArgs) -> Any:
        if args.exc_value is not None:
            with _lock:
                for thing in [closable for closable, thread in _threads.items() if thread is args.thread]:
                    _died[thing] = reason_of(args.exc_value)
        return before(args)

    threading.excepthook = noted


def _hook_sigterm() -> None:
    """Install our handler before the present one; only the main thread may do that."""
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
