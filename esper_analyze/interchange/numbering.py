"""Which update each row of a log is of, where the log says so by a count, by its steps, or by its order alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from esper_analyze.interchange.cells import CellError, whole_number
from esper_analyze.interchange.series import LogRow


def by_count(rows: Sequence[LogRow], names: Sequence[str]) -> list[int] | None:
    """Return the update of each row by the first of ``names`` that counts updates from 1, None when none does."""
    for name in names:
        counts = [_whole(row.cells.get(name)) for row in rows]
        numbers = [count - 1 for count in counts if count is not None]
        if len(numbers) == len(rows) and min(numbers, default=-1) >= 0 and _rises(numbers):
            return numbers
    return None


def by_step(rows: Sequence[LogRow], first: int) -> list[int]:
    """Return the update of each row where steps are updates, which the source counts from ``first``."""
    start = min([first, *(row.step for row in rows)])
    return [row.step - start for row in rows]


def by_batches(rows: Sequence[LogRow], *, counted: bool) -> list[int]:
    """Return the update of each row: by the steps of a batch when all rows are whole batches apart, else in order."""
    steps = [row.step for row in rows]
    batch = math.gcd(*steps) if counted and steps else 0
    if batch < 1 or steps[0] < 1 or len(steps) < 2:
        return list(range(len(steps)))
    between = [after - before for before, after in pairwise(steps)]
    if min(between) != batch:  # the steps of a batch are never seen
        return list(range(len(steps)))
    return [step // batch - 1 for step in steps]


def _rises(numbers: Sequence[int]) -> bool:
    return all(after > before for before, after in pairwise(numbers))


def _whole(cell: object) -> int | None:
    try:
        return whole_number(cell)
    except CellError:
        return None
