"""Stop a query that takes too long or too much memory, also where DuckDB itself does not stop.

An interrupt is heard between two pieces of work only, and one call of a function over one text is a single piece;
nor does DuckDB count what such a call takes against its memory limit. The process is then ended from here.
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
"""Seconds an interrupted query has to give up by itself."""
PROGRAM = 160 << 20
"""Bytes that Python and its libraries take beside the query."""
_TICK = 0.005
_MORE = "ask for less, or allow more with --{0} (in Python {0}=)"
_STATM = Path("/proc/self/statm")


class Watch:
    """Watches the whole process from ``__enter__`` on: its memory always, its time within ``timed``.

    ``held`` are the bytes that the process had before all queries. Before the process is ended from here, what is
    temporary is removed. A process that is not this program's own (``ends_process`` False) is never ended: a query is
    interrupted once its time is used up, and DuckDB alone bounds its memory.
    """

    def __init__(self, seconds: float, memory: int, *, held: int, ends_process: bool = True) -> None:
        self.seconds, self.memory, self.ends_process = seconds, memory, ends_process
        self.late = False
        self._used = 0.0
        self._most = memory + max(PROGRAM, held)
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
        """Count the time of the body; ``interrupt`` is called once all time is used up."""
        self._interrupt = interrupt
        try:
            yield
        finally:
            self._interrupt = None

    def use(self, seconds: float) -> None:
        """Count time spent on the result elsewhere. Raises ``UsageError`` once all is used up."""
        self._used += seconds
        if self._used > self.seconds:
            raise self.too_long()

    def too_long(self) -> UsageError:
        """Return what to say of a query that used up its time."""
        return UsageError(f"the query was stopped after {self.seconds:g} s", hint=_MORE.format("timeout"))

    def too_large(self) -> UsageError:
        """Return what to say of a query that does not fit."""
        return UsageError(
            f"the query was stopped: it needs more than {self.memory / 1e9:g} GB of memory",
            hint=_MORE.format("memory"),
        )

    def _run(self) -> None:
        before, held = time.monotonic(), resident()
        while not self._done.wait(_TICK):
            now = time.monotonic()
            interrupt = self._interrupt
            self._used += now - before if interrupt is not None else 0.0
            before = now
            last, held = held, resident()
            if held + max(held - last, 0) > self._most:  # by the next look it would be there
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
        """End the process from any thread, whatever the main one does."""
        if not self.ends_process:
            return
        remove_all()
        os._exit(code)


def resident() -> int:
    """Return the bytes of memory that the process has, 0 where the system does not tell."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
