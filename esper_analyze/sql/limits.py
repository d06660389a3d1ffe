"""Stop a query that takes too long or too much memory, also where DuckDB itself does not stop.

DuckDB checks for an interrupt only between two pieces of work, and one function call over one text is a single piece;
its memory is not counted against DuckDB's memory limit either. In that case this module ends the process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from esper_analyze.errors import UsageError
from esper_analyze.sql.temporary import remove_all
from esper_analyze.terminal import tell

GRACE = 1.0
"""Seconds that an interrupted query has to stop by itself."""
PROGRAM = 160 << 20
"""Bytes that Python and its libraries use in addition to the query."""
_TICK = 0.005
_MORE = "ask for less, or allow more with --{0} (in Python {0}=)"
_STATM = Path("/proc/self/statm")


class Watch:
    """Watches the process from ``__enter__`` on: its memory always, its time within ``timed``.

    ``baseline``: bytes that the process used before the first query. Temporary files are removed before the process
    is ended. A process that is not this program's own (``ends_process`` False) is never ended: a query is interrupted
    at its time limit, and only DuckDB limits its memory.
    """

    def __init__(self, seconds: float, memory: int, *, baseline: int, ends_process: bool = True) -> None:
        self.seconds, self.memory, self.ends_process = seconds, memory, ends_process
        self.late = False
        self._used = 0.0
        self._most = memory + max(PROGRAM, baseline)
        self._interrupt: Callable[[], None] | None = None
        self._done = threading.Event()

    def __enter__(self) -> Watch:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()

    @contextmanager
    def timed(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Count the time of the body; ``interrupt`` is called once the limit is reached."""
        self._interrupt = interrupt
        try:
            yield
        finally:
            self._interrupt = None

    def use(self, seconds: float) -> None:
        """Count time spent on the result elsewhere. Raises ``UsageError`` once the limit is reached."""
        self._used += seconds
        if self._used > self.seconds:
            raise self.too_long()

    def too_long(self) -> UsageError:
        """Return the error for a query that reached the time limit."""
        return UsageError(f"the query was stopped after {self.seconds:g} s", hint=_MORE.format("timeout"))

    def too_large(self) -> UsageError:
        """Return the error for a query that reached the memory limit."""
        return UsageError(
            f"the query was stopped: it needs more than {self.memory / 1e9:g} GB of memory",
            hint=_MORE.format("memory"),
        )

    def _run(self) -> None:
        before, memory = time.monotonic(), resident()
        while not self._done.wait(_TICK):
            now = time.monotonic()
            interrupt = self._interrupt
            self._used += now - before if interrupt is not None else 0.0
            before = now
            before_memory, memory = memory, resident()
            if memory + max(memory - before_memory, 0) > self._most:  # at the next tick it would exceed the limit
                self._end(self.too_large())
            if interrupt is None or self._used < self.seconds:
                continue
            if self._used > self.seconds + GRACE:
                self._end(self.too_long())
            self.late = True
            interrupt()

    def _end(self, error: UsageError) -> None:
        if not self.ends_process:
            return
        tell(error)
        self.end(error.exit_code)

    def end(self, code: int) -> None:
        """End the process from any thread, whatever the main thread does."""
        if not self.ends_process:
            return
        remove_all()
        os._exit(code)


def resident() -> int:
    """Return the process's resident memory in bytes; 0 where the system does not report it."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
