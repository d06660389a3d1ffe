"""Inspect one writer's folder completely: its sound contents, and each fault with file and reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import layout
from esper_analyze.storage.attempts import Attempt, Broken, read_attempt
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.maintenance.coverage import coverage_faults
from esper_analyze.storage.run_files import refusal
from esper_analyze.storage.shapes import shapes
from esper_analyze.storage.shard_scan import Contents, entry_faults, shard_contents, table_contents

DAMAGE, NOTE = "damage", "note"
Step = Callable[[], None]
_LEFT = re.compile(r"\..+\.\d+\.tmp\Z")


@dataclass(frozen=True, slots=True)
class FileFault:
    """One defect (``damage``) or remark (``note``) about a file; ``file`` is relative to the run."""

    kind: str
    file: str
    reason: str
    table: str | None = None
    rows: int | None = None
    rank: int | None = None
    attempt: int | None = None


@dataclass(slots=True)
class Inspection:
    """One attempt with the contents of its sound shards and of its log, and its faults."""

    attempt: Attempt
    shards: dict[str, Contents] = field(default_factory=dict)
    logged: dict[str, Contents] = field(default_factory=dict)
    faults: list[FileFault] = field(default_factory=list)

    @property
    def damaged(self) -> bool:
        """Whether any fault is more than a note."""
        return any(fault.kind == DAMAGE for fault in self.faults)

    @property
    def contents(self) -> list[Contents]:
        """The contents of sound shards and of the log."""
        return [*self.shards.values(), *self.logged.values()]


def inspect_attempt(folder: Path, rank: int, number: int, step: Step = lambda: None, *, level: str = "") -> Inspection:
    """Check every cell in one writer's folder. ``step`` is called once for each shard.

    ``level``: the run's; at level OFF updates have no row, so gaps are not faults.
    """
    scans: dict[str, Contents] = {}

    def check(path: Path, entry: ShardEntry) -> str | None:
        step()
        scans[entry.shard] = shard_contents(path, shapes(BY_NAME[entry.table])[entry.schema].table, rank)
        return next(iter([*scans[entry.shard].faults, *entry_faults(entry, scans[entry.shard])]), None)

    attempt = read_attempt(folder, rank, number, check)
    inspection = Inspection(attempt, {entry.shard: scans[entry.shard] for _, entry in attempt.shards})
    inspection.logged = {name: table_contents(BY_NAME[name], data, rank) for name, data in attempt.tail.tables.items()}
    inspection.faults += [_broken_fault(attempt, broken) for broken in attempt.broken]
    inspection.faults += _logged_faults(inspection)
    inspection.faults += [
        _fault(attempt, DAMAGE if bad else NOTE, text, table=table, rows=rows)
        for bad, text, table, rows in coverage_faults(attempt, inspection.contents, level)
    ]
    inspection.faults += _special_files(attempt)
    inspection.faults += _notes(attempt)
    return inspection


def _fault(
    attempt: Attempt,
    kind: str,
    reason: str,
    file: Path | None = None,
    table: str | None = None,
    rows: int | None = None,
) -> FileFault:
    where = (file or attempt.folder).relative_to(attempt.folder.parent.parent)
    return FileFault(kind, str(where), reason, table, rows, attempt.rank, attempt.number)


def _broken_fault(attempt: Attempt, broken: Broken) -> FileFault:
    entry = broken.entry
    named = layout.shard_of(broken.file.name)
    table = entry.table if entry else (named[0] if named else None)
    return _fault(attempt, DAMAGE, broken.reason, broken.file, table, entry.rows if entry else broken.rows)


def _logged_faults(inspection: Inspection) -> Iterator[FileFault]:
    """Yield faults of rows in the log; their frames have right checksums, so the recorder wrote these rows."""
    for table, contents in inspection.logged.items():
        for reason in contents.faults:
            yield _fault(inspection.attempt, DAMAGE, f"in the log: {reason}", None, table, contents.rows)


def _special_files(attempt: Attempt) -> Iterator[FileFault]:
    """Yield a lock or a journal that is not a regular file; readers do not open them, so they are checked here."""
    for path in (attempt.folder / layout.LOCK_FILE, attempt.folder / layout.JOURNAL_FILE):
        reason = refusal(path)
        if reason is not None:
            yield _fault(attempt, DAMAGE, reason, path)


def _notes(attempt: Attempt) -> Iterator[FileFault]:
    """Yield remarks that are not damage: a torn log, leftovers of a writer or a repair, foreign files."""
    for torn in attempt.tail.faults:
        if torn.fault.torn:
            yield _fault(attempt, NOTE, f"{torn.text}: the writer was stopped there", torn.file)
    for _, entry in attempt.shards:
        if entry.rebuilt:
            reason = "is unverified: its manifest line was derived from the shard itself"
            yield _fault(attempt, NOTE, reason, attempt.folder / entry.shard, entry.table, entry.rows)
    alive = attempt.alive()
    for path in sorted(attempt.folder.iterdir()):
        stray = _stray(path, attempt, alive=alive)
        if stray is not None:
            yield _fault(attempt, NOTE, stray, path)


_OF_RECORDER = (
    layout.MANIFEST_FILE,
    layout.CLOSED_FILE,
    layout.CHECKPOINTS_FILE,
    *layout.ENDING_FILES,
    layout.LOCK_FILE,
    layout.RESERVE_FILE,
    *layout.BOX_FILES,
)


def _stray(path: Path, attempt: Attempt, *, alive: bool) -> str | None:
    """Return why a file in an attempt's folder is not part of the run, None when it is."""
    name = path.name
    if name in _OF_RECORDER or layout.log_of(name) is not None:
        return None
    if name == layout.JOURNAL_FILE:
        return None if refusal(path) else "a repair or compaction was interrupted: `repair` finishes it"
    if name.startswith(layout.STAGED) or _LEFT.match(name):
        return None if alive else "left by an interrupted process; readers ignore it"
    if name == layout.ASIDE and path.is_dir():
        return f"{sum(1 for _ in path.iterdir())} files that `repair` set aside"
    if path in attempt.leftover:
        return "is listed by no manifest; the run is complete without it"
    return None if layout.shard_of(name) else "is not a file of a recorded run; readers ignore it"
