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
    """Raises KeyboardInterrupt at the ``nth`` event of calls of ``method``; ``events`` counts them."""

    def __init__(self, nth: int) -> None:
        self.nth, self.events = nth, 0

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """Count an event of the recorder's own lines, and raise at the ``nth``.

        Of a generator only lines count: what is raised while an unfinished one is discarded is ignored by Python.
        """
        if "/recorder/" not in frame.f_code.co_filename or "/tests/" in frame.f_code.co_filename:
            return None
        if frame.f_code.co_flags & inspect.CO_GENERATOR and event != "line":
            return self.trace
        self.events += 1
        if self.events == self.nth:
            raise KeyboardInterrupt
        return self.trace

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def traced(*args: Any, **kwargs: Any) -> Any:
            before = sys.gettrace()
            sys.settrace(self.trace)
            try:
                return method(*args, **kwargs)
            finally:
                sys.settrace(before)

        return traced
