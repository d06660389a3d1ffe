"""Errors that are answers: one sentence on what and where, a hint on what next, and the exit code that fits."""

from __future__ import annotations

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


class UsageError(EsperError):
    """Asked for something that is not there or makes no sense."""

    exit_code = USAGE


class DamagedError(EsperError):
    """The data asked for is damaged or incomplete."""

    exit_code = DAMAGED
