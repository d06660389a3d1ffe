"""A lock for sections that take microseconds, which nobody waits for where an interruption left it locked."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

LONGEST_SECONDS = 1.0
"""A section that takes longer was left without its lock being released: Ctrl-C may come between the two."""


class BriefLock:
    """Keeps threads out of each other's sections; the same thread may enter again, as a signal handler does.

    A lock that is not free after ``LONGEST_SECONDS`` is replaced: a training must not wait for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=LONGEST_SECONDS):
            self._lock = threading.RLock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(RuntimeError):  # it was replaced while this thread held it
            self._lock.release()
