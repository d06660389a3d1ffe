"""The file in an attempt's folder that the Python traceback of a fatal signal goes to, by ``faulthandler``."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from esper_analyze.storage.run_files import open_regular
from recorder.brief_lock import BriefLock

_SIGNALS = (signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL)
"""Signals that ``faulthandler`` handles."""


class _FaultHandler:
    """Which of the open files ``faulthandler`` writes to: the newest, and none once somebody else has enabled it."""

    def __init__(self) -> None:
        self.lock = BriefLock()
        self.files: list[int] = []
        self._enable: Callable[..., None] = faulthandler.enable
        self._noted: Callable[..., None] | None = None
        self._before: list[object] = []

    @property
    def is_ours(self) -> bool:
        return self._noted is not None

    def add(self, descriptor: int) -> bool:
        """Have tracebacks written to ``descriptor``; return whether they are: what others have enabled stays."""
        if not self.is_ours and faulthandler.is_enabled():
            return False
        if not self.is_ours:
            self._before = [signal.getsignal(number) for number in _SIGNALS]
            self._watch_others()
        self._enable(descriptor)
        self.files.append(descriptor)
        return True

    def remove(self, descriptor: int) -> None:
        """Have no more tracebacks written to ``descriptor``, which may then be closed."""
        if descriptor not in self.files:
            return
        self.files.remove(descriptor)
        if not self.is_ours:
            return
        if not faulthandler.is_enabled():  # the training has disabled it
            self.let_go()
        elif self.files:
            self._enable(self.files[-1])
        else:
            self.let_go()
            self._disable()

    def let_go(self) -> None:
        """Leave ``faulthandler`` to others."""
        if faulthandler.enable is self._noted:
            faulthandler.enable = self._enable
        self._noted = None

    def _disable(self) -> None:
        """Disable it, unless the training has set handlers of its own since, which that would take away."""
        if [signal.getsignal(number) for number in _SIGNALS] == self._before:
            faulthandler.disable()
        else:
            self._enable(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))

    def _watch_others(self) -> None:
        """Note when the training enables it: it then writes where the training wants."""
        enable = self._enable = faulthandler.enable

        @functools.wraps(enable)
        def noted(*args: Any, **kwargs: Any) -> None:
            enable(*args, **kwargs)
            self.let_go()

        self._noted = noted
        faulthandler.enable = noted


_handler = _FaultHandler()


def _disable_in_child() -> None:
    """In a process that the training forked: its traceback is not that of the training."""
    if _handler.is_ours:
        _handler.let_go()
        _handler.files.clear()
        faulthandler.disable()


os.register_at_fork(after_in_child=_disable_in_child)


class TracebackFile:
    """The file at ``path``, to which ``faulthandler`` writes until ``close`` unless the training has enabled it itself.

    Without a file (a full disk, no descriptor left) or with a ``faulthandler`` of the training, nothing is changed.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor, self._pid = path, -1, os.getpid()
        with contextlib.suppress(OSError, RuntimeError, ValueError), _handler.lock:
            if _handler.is_ours or not faulthandler.is_enabled():
                self._descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
                _handler.add(self._descriptor)

    def close(self) -> None:
        """Stop writing to the file, and remove it if it is empty. Idempotent; does nothing in a forked process."""
        if self._descriptor < 0 or self._pid != os.getpid():
            return
        with _handler.lock:
            descriptor, self._descriptor = self._descriptor, -1
            _handler.remove(descriptor)
        with contextlib.suppress(OSError):
            size = os.fstat(descriptor).st_size
            os.close(descriptor)
            if size == 0:
                self._path.unlink()
