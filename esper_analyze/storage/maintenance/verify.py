"""Verify a complete run: run.json, every cell of every attempt and rank, and how the attempts join."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.schema.tables.updates import UPDATES
from esper_analyze.storage import layout
from esper_analyze.storage.attempts import Attempt, closed, supersede, twin_fault, twins
from esper_analyze.storage.folders import attempt_folders, listed
from esper_analyze.storage.lock import holder
from esper_analyze.storage.maintenance.inspection import DAMAGE, NOTE, FileFault, Inspection, Step, inspect_attempt
from esper_analyze.storage.row_source import last_update, row_sources
from esper_analyze.storage.run_files import is_regular
from esper_analyze.storage.run_info import find_runs, identity


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of verifying one run. ``status`` describes how the run ended."""

    path: Path
    status: str
    files: int
    bytes: int
    rows: int
    updates: int | None
    lost_rows: int
    faults: list[FileFault] = field(default_factory=list)

    @property
    def damage(self) -> list[FileFault]:
        """The faults that are more than notes."""
        return [fault for fault in self.faults if fault.kind == DAMAGE]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain data for JSON."""
        return {"run": str(self.path), "fine": not self.damage, **asdict(self), "path": str(self.path)}


def orphans(path: Path, runs: Sequence[Path]) -> list[Path]:
    """Return the folders below ``path`` that hold rank folders but no run.json and are not inside one of ``runs``."""
    holding = {child.parent for child in path.rglob("rank?????") if layout.rank_of(child) is not None}
    return sorted(folder for folder in holding if folder not in runs and not _inside(folder, runs))


def runs_at(path: Path) -> list[Path]:
    """Return the runs at or below ``path``; a folder with rank folders counts even without run.json.

    Raises ``UsageError`` if there are none.
    """
    if not path.is_dir():
        raise UsageError(
            f"{path} is not a directory", hint="give a directory written by the recorder: it contains run.json"
        )
    if any(layout.rank_of(child) is not None for child in listed(path)):
        return [path]
    runs = find_runs(path)
    runs += orphans(path, runs)
    if not runs:
        raise UsageError(f"{path} is not a recorded run and contains none", hint="a run is a directory with run.json")
    return runs


def _inside(path: Path, runs: Sequence[Path]) -> bool:
    return any(path.is_relative_to(run) for run in runs)


def shard_count(run_dir: Path) -> int:
    """Return how many shards ``verify`` will check, for a progress bar."""
    return sum(
        1
        for attempt_folder in attempt_folders(run_dir)
        for file in listed(attempt_folder.path)
        if layout.shard_of(file.name)
    )


def verify(path: Path, step: Step = lambda: None) -> Verified:
    """Verify the run at ``path``. Raises ``UsageError`` when it was recorded with a newer schema."""
    faults: list[FileFault] = []
    info: dict[str, Any] = {}
    try:
        info = identity(path)
    except DamagedError as error:
        faults.append(FileFault(DAMAGE, layout.RUN_FILE, error.message.removeprefix(f"{path / layout.RUN_FILE} ")))
    except UsageError:
        if os.path.lexists(path / layout.RUN_FILE):
            raise
        faults.append(FileFault(DAMAGE, layout.RUN_FILE, "is missing: nothing says what was recorded"))
    level = str(info.get("level", ""))
    inspected = [
        inspect_attempt(folder.path, folder.rank, folder.number, step, level=level) for folder in attempt_folders(path)
    ]
    supersede([inspection.attempt for inspection in inspected])
    faults += [fault for inspection in inspected for fault in inspection.faults]
    faults += [*duplicate_attempts(inspected), *_between_attempts(inspected), *_run_notes(path, info)]
    return _verified(path, inspected, faults)


def _verified(path: Path, inspected: Sequence[Inspection], faults: list[FileFault]) -> Verified:
    attempts = [inspection.attempt for inspection in inspected]
    contents = [contents for inspection in inspected for contents in inspection.contents]
    updates = [table.updates for table in contents if table.table == "updates"]
    files = [child for folder in attempt_folders(path) for child in folder.path.iterdir() if is_regular(child)]
    return Verified(
        path=path,
        status=_status(attempts),
        files=len(files),
        bytes=sum(file.stat().st_size for file in files),
        rows=sum(table.rows for table in contents),
        updates=len(np.unique(np.concatenate(updates))) if updates else 0,
        lost_rows=sum(attempt.lost_rows for attempt in attempts),
        faults=faults,
    )


def _status(attempts: Sequence[Attempt]) -> str:
    writers = sorted({holder(attempt.folder) for attempt in attempts if attempt.alive()})
    if writers:
        return "is being written by " + ", ".join(writers)
    last = last_update(row_sources(attempts, UPDATES))
    extent = "no complete update" if last is None else f"last complete update {last}"
    if not closed(attempts):
        return f"not closed, {extent}"
    reasons = {str((attempt.closed or {}).get("reason")) for attempt in attempts}
    return ("repaired, " if layout.REPAIRED in reasons else "closed, ") + extent


def duplicate_attempts(inspected: Sequence[Inspection]) -> Iterator[FileFault]:
    """Yield attempts whose number another attempt of the rank has."""
    for attempt, other in twins(inspection.attempt for inspection in inspected):
        where = f"{attempt.folder.parent.name}/{attempt.folder.name}"
        yield FileFault(DAMAGE, where, twin_fault(attempt, other), None, None, attempt.rank, attempt.number)


def _between_attempts(inspected: Sequence[Inspection]) -> Iterator[FileFault]:
    """Yield updates missing between two attempts of a rank: the later must begin where the earlier ended."""
    by_rank: dict[int, list[Inspection]] = {}
    for inspection in sorted(inspected, key=lambda inspection: inspection.attempt.number):
        by_rank.setdefault(inspection.attempt.rank, []).append(inspection)
    for rank, inspections in by_rank.items():
        last: int | None = None
        for inspection in inspections:
            recorded = [
                contents.updates for contents in inspection.contents if contents.table == "updates" and contents.rows
            ]
            if not recorded:
                continue
            first = min(int(updates[0]) for updates in recorded)
            if last is not None and first > last + 1:
                words = f"updates {last + 1:,}–{first - 1:,} lie between two attempts and are in neither"
                kind = NOTE if any(other.damaged for other in inspections) else DAMAGE
                folder = inspection.attempt.folder
                where = f"{folder.parent.name}/{folder.name}"
                yield FileFault(kind, where, words, "updates", first - last - 1, rank, inspection.attempt.number)
            last = max([last if last is not None else -1, *(int(updates[-1]) for updates in recorded)])


def _run_notes(path: Path, info: dict[str, Any]) -> Iterator[FileFault]:
    """Yield ranks that recorded nothing, and files that do not belong to a run."""
    ranks = info.get("ranks")
    there = {attempt_folder.rank for attempt_folder in attempt_folders(path)}
    if isinstance(ranks, int) and there:
        for rank in [rank for rank in range(min(ranks, 100_000)) if rank not in there]:
            yield FileFault(
                NOTE,
                layout.rank_folder(rank),
                "is missing: this rank recorded nothing, or its folder was removed",
                rank=rank,
            )
    for child in sorted(path.iterdir()):
        if child.name in (layout.RUN_FILE, layout.LABELS_FILE):
            continue
        if layout.rank_of(child) is None:
            yield FileFault(NOTE, child.name, "is not a file of a recorded run; readers ignore it")
            continue
        for inner in sorted(child.iterdir()) if child.is_dir() else ():
            if layout.attempt_of(inner) is None and inner.name != layout.LOCK_FILE:
                yield FileFault(
                    NOTE, f"{child.name}/{inner.name}", "is not a file of a recorded run; readers ignore it"
                )
