"""Errors that are answers: one sentence on what and where, a hint on what next, and the exit code that fits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OK = 0
FINDINGS = 1
USAGE = 2
DAMAGED = 3
INTERNAL = 70


class EsperError(Exception):
    """Something a user can act on; ``message`` says what and where, ``hint`` what next (empty: nothing to add)."""

    exit_code = INTERNAL

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class UsageError(EsperError):
    """Asked for something that is not there or makes no sense."""

    exit_code = USAGE


class DamagedError(EsperError):
    """The data asked for is damaged or incomplete."""

    exit_code = DAMAGED


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence that refuses ``name``: the nearest of ``names``, or all when none is near."""
    listed = list(names)
    close = difflib.get_close_matches(name, listed, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(listed)}"
