"""Checks that several causes share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from esper_analyze.reports.causes.cause import Checked, likely, not_recorded, ruled_out
from esper_analyze.reports.causes.numbers import Numbers
from esper_analyze.wording import number


def by_rule(rule: str, what: str) -> Callable[[Numbers], Checked]:
    """Return a check that goes by whether another rule alarmed around the incident."""

    def check(numbers: Numbers) -> Checked:
        if rule in numbers.lead.seen_by:
            return likely(f"{rule} is in alarm")
        other = numbers.incident(rule)
        if other is not None:
            return likely(f"{rule} alarmed at update {other.start:,}")
        return (
            ruled_out(f"{rule} did not alarm ({what})") if numbers.judged(rule) else not_recorded(f"{rule} had no data")
        )

    return check


def zero_at_start(name: str) -> Callable[[Numbers], Checked]:
    """Return a check whether a column is 0 in the update of the incident."""

    def check(numbers: Numbers) -> Checked:
        cell = at_start_of_incident(numbers, name)
        words = f"{name} is {number(cell)} in update {numbers.lead.start:,}"
        return not_recorded(name) if cell is None else (likely if cell == 0 else ruled_out)(words)

    return check


def at_start_of_incident(numbers: Numbers, name: str) -> float | None:
    """Return a column's cell in the update in which the incident began, None if it is null."""
    return numbers.measured(name, numbers.lead.start)


def jump(numbers: Numbers, name: str) -> tuple[float, float]:
    """Return a column's last value before the incident and that of its start."""
    earlier = numbers.cells(name)[numbers.update < numbers.lead.start]
    finite = earlier[np.isfinite(earlier)]
    start = at_start_of_incident(numbers, name)
    return (float(finite[-1]) if len(finite) else np.nan), np.nan if start is None else start
