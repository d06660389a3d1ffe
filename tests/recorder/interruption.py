"""Ctrl-C at any line of the recorder."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

ENTRY = 3
"""Events of a call before its ``try`` is entered. An interruption there is one before the call: nothing is recorded."""


class Interruption:
    """Raises KeyboardInterrupt at the ``nth`` event of calls of ``method``; ``events`` counts them.

    At one of the first ``ENTRY`` events of a later call it comes right after these.
    """

    def __init__(self, nth: int) -> None:
        self.nth, self.events, self.start, self.came = nth, 0, 0, False

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """Count an event of the recorder's own lines, and raise at the ``nth``.

        Of a generator only lines count: what is raised while an unfinished one is discarded is ignored by Python.
        """
        if "/recorder/" not in frame.f_code.co_filename or "/tests/" in frame.f_code.co_filename:
            return None
        if frame.f_code.co_flags & inspect.CO_GENERATOR and event != "line":
            return self.trace
        self.events += 1
        entered = self.start == 0 or self.events > self.start + ENTRY
        if 0 < self.nth <= self.events and entered and not self.came:
            self.came = True
            raise KeyboardInterrupt
        return self.trace

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def traced(*args: Any, **kwargs: Any) -> Any:
            before, self.start = sys.gettrace(), self.events
            sys.settrace(self.trace)
            try:
                return method(*args, **kwargs)
            finally:
                sys.settrace(before)

        return traced
