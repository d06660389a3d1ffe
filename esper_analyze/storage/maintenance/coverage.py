"""Check that every row and every update is recorded exactly once, by their numbers over a writer's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from esper_analyze.detector.signals import Ints
from esper_analyze.storage.attempts import Attempt
from esper_analyze.storage.shard_scan import Contents, as_runs, concatenated

CoverageFault = tuple[bool, str, str | None, int | None]
"""Whether it is damage, the description, the table, the number of rows."""
_NAMED = 3
_MAY_STAND_ALONE = ("updates", "events", "losses_of_data")


def coverage_faults(attempt: Attempt, contents: Sequence[Contents], level: str) -> Iterator[CoverageFault]:
    """Yield missing and repeated rows, missing updates, and rows of updates that table ``updates`` lacks.

    Rows that the recorder counted as lost, and consequences of a broken file already reported, are notes.
    """
    counted = attempt.lost_rows
    noted = sum(scan.lost for scan in contents if scan.table == "losses_of_data")
    excused = bool(attempt.broken) or attempt.alive()
    runs = all_runs(contents)
    twice = overlapping(runs)
    if twice:
        yield True, f"{twice:,} sequence numbers occur more than once", None, twice
    yield from _missing(attempt, runs, counted, excused=excused)
    if level != "OFF":
        yield from _updates(contents, excused=excused or counted > 0 or noted > 0)
    if counted:
        yield False, f"{counted:,} rows were lost, and counted", None, counted
    if noted:
        yield False, f"{noted:,} errors or rows that cost data are noted", "losses_of_data", None


def all_runs(contents: Sequence[Contents]) -> Ints:
    """Return the ranges of sequence numbers of all tables, sorted by start, [n, 2]."""
    runs = np.concatenate([np.zeros((0, 2), np.int64), *(scan.runs for scan in contents)])
    return runs[np.argsort(runs[:, 0], kind="stable")]


def overlapping(runs: Ints) -> int:
    """Return how many sequence numbers occur more than once."""
    if len(runs) < 2:
        return 0
    before = np.maximum.accumulate(runs[:-1, 1])
    return int(np.maximum(np.minimum(before, runs[1:, 1]) - runs[1:, 0], 0).sum())


def gaps(runs: Ints, end: int) -> Ints:
    """Return the ranges within 0 … ``end`` − 1 that none of ``runs`` covers, [n, 2]."""
    stops = np.maximum.accumulate(np.concatenate([[0], runs[:, 1]]))
    starts = np.concatenate([runs[:, 0], [end]])
    there = starts > stops
    return np.stack([stops[there], starts[there]], axis=1)


def expected_end(attempt: Attempt, runs: Ints) -> int:
    """Return one more than the highest sequence number known, broken shards included."""
    named = [broken.entry.last_seq + 1 for broken in attempt.broken if broken.entry is not None]
    return max([0, *named, int(runs[:, 1].max(initial=0))])


def _missing(attempt: Attempt, runs: Ints, counted: int, *, excused: bool) -> Iterator[CoverageFault]:
    missing = gaps(runs, expected_end(attempt, runs))
    rows = int((missing[:, 1] - missing[:, 0]).sum())
    if rows == 0 or rows <= counted:
        return
    where = ", ".join(f"{start:,}–{stop - 1:,}" for start, stop in missing[:_NAMED].tolist())
    more = " …" if len(missing) > _NAMED else ""
    yield not excused, f"rows are in no sound shard and no log: numbers {where}{more}", None, rows


def _updates(contents: Sequence[Contents], *, excused: bool) -> Iterator[CoverageFault]:
    recorded = np.unique(concatenated([scan.updates for scan in contents if scan.table == "updates"]))
    if len(recorded):
        missing = gaps(as_runs(recorded - recorded[0]), int(recorded[-1] - recorded[0]) + 1) + recorded[0]
        for start, stop in missing[:_NAMED].tolist():
            words = f"update {start:,} has" if stop - start == 1 else f"updates {start:,}–{stop - 1:,} have"
            yield not excused, f"{words} no row", "updates", stop - start
    for table in sorted({scan.table for scan in contents} - set(_MAY_STAND_ALONE)):
        numbers = np.unique(concatenated([scan.updates for scan in contents if scan.table == table]))
        alone = numbers[~np.isin(numbers, recorded)]
        if len(alone):
            words = f"has rows of updates that table updates does not have: {len(alone):,}, the first is {alone[0]:,}"
            yield not excused, words, table, None
