"""Check a whole run: run.json, every attempt of every rank down to the last cell, and what joins them."""

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
from esper_analyze.storage.attempts import Attempt, closed, supersede, twin_fault
from esper_analyze.storage.folders import listed
from esper_analyze.storage.lock import holder
from esper_analyze.storage.maintenance.inspection import DAMAGE, NOTE, Fault, Inspection, Step, inspect_attempt
from esper_analyze.storage.row_source import last_update, parts_of
from esper_analyze.storage.run_files import is_regular
from esper_analyze.storage.run_info import find_runs, identity


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check of one run gave. ``status`` says in words how the run ended."""

    path: Path
    status: str
    files: int
    bytes: int
    rows: int
    updates: int | None
    lost_rows: int
    faults: list[Fault] = field(default_factory=list)

    @property
    def damage(self) -> list[Fault]:
        """What is wrong, without the notes."""
        return [fault for fault in self.faults if fault.kind == DAMAGE]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"run": str(self.path), "fine": not self.damage, **asdict(self), "path": str(self.path)}


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one writer."""

    folder: Path
    rank: int
    number: int


def places(run_dir: Path) -> list[Place]:
    """Return the folder of every writer of a run, by rank and attempt."""
    found = []
    for rank_dir in listed(run_dir):
        rank = layout.rank_of(rank_dir)
        if rank is None or not rank_dir.is_dir():
            continue
        for folder in listed(rank_dir):
            number = layout.attempt_of(folder)
            if number is not None and folder.is_dir():
                found.append(Place(folder, rank, number))
    return found


def orphans(path: Path, found: Sequence[Path]) -> list[Path]:
    """Return the folders below ``path`` that hold ranks and have no run.json, besides the runs ``found`` there."""
    holding = {child.parent for child in path.rglob("rank?????") if layout.rank_of(child) is not None}
    return sorted(one for one in holding if one not in found and not _inside(one, found))


def runs_at(path: Path) -> list[Path]:
    """Return the runs at or below ``path``; a folder with ranks is a run though its run.json be missing.

    Raises ``UsageError`` when there is none.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", hint="give the directory a recorder wrote: it holds run.json")
    if any(layout.rank_of(child) is not None for child in listed(path)):
        return [path]
    found = find_runs(path)
    found += orphans(path, found)
    if not found:
        raise UsageError(
            f"{path} is not a recorded run, and there is none below it", hint="a run is a directory with run.json"
        )
    return found


def _inside(path: Path, runs: Sequence[Path]) -> bool:
    return any(path.is_relative_to(run) for run in runs)


def shard_count(run_dir: Path) -> int:
    """Return how many shards ``verify`` will look at, for a progress bar."""
    return sum(1 for place in places(run_dir) for file in listed(place.folder) if layout.shard_of(file.name))


def verify(path: Path, step: Step = lambda: None) -> Verified:
    """Check the run at ``path``. Raises ``UsageError`` when it is of a newer schema."""
    faults: list[Fault] = []
    info: dict[str, Any] = {}
    try:
        info = identity(path)
    except DamagedError as error:
        faults.append(Fault(DAMAGE, layout.RUN_FILE, error.message.removeprefix(f"{path / layout.RUN_FILE} ")))
    except UsageError:
        if os.path.lexists(path / layout.RUN_FILE):
            raise
        faults.append(Fault(DAMAGE, layout.RUN_FILE, "is missing: nothing says what was recorded"))
    level = str(info.get("level", ""))
    inspected = [inspect_attempt(one.folder, one.rank, one.number, step, level=level) for one in places(path)]
    supersede([one.attempt for one in inspected])
    faults += [fault for one in inspected for fault in one.faults]
    faults += [*twins(inspected), *_between_attempts(inspected), *_run_notes(path, info)]
    return _verified(path, inspected, faults)


def _verified(path: Path, inspected: Sequence[Inspection], faults: list[Fault]) -> Verified:
    attempts = [one.attempt for one in inspected]
    updates = [one.updates for attempt in inspected for one in attempt.contents if one.table == "updates"]
    files = [child for place in places(path) for child in place.folder.iterdir() if is_regular(child)]
    return Verified(
        path=path,
        status=_status(attempts),
        files=len(files),
        bytes=sum(file.stat().st_size for file in files),
        rows=sum(one.rows for attempt in inspected for one in attempt.contents),
        updates=len(np.unique(np.concatenate(updates))) if updates else 0,
        lost_rows=sum(attempt.lost_rows for attempt in attempts),
        faults=faults,
    )


def _status(attempts: Sequence[Attempt]) -> str:
    writers = sorted({holder(attempt.folder) for attempt in attempts if attempt.alive()})
    if writers:
        return "is being written by " + ", ".join(writers)
    last = last_update(parts_of(attempts, UPDATES))
    whole = "no complete update" if last is None else f"last complete update {last}"
    if not closed(attempts):
        return f"not closed, {whole}"
    reasons = {str((attempt.closed or {}).get("reason")) for attempt in attempts}
    return ("repaired, " if "repaired" in reasons else "closed, ") + whole


def twins(inspected: Sequence[Inspection]) -> Iterator[Fault]:
    """Yield attempts with a number that another of the rank has."""
    first: dict[tuple[int, int], Inspection] = {}
    for one in inspected:
        own = one.attempt
        other = first.setdefault((own.rank, own.number), one).attempt
        if other is not own:
            where = f"{own.folder.parent.name}/{own.folder.name}"
            yield Fault(DAMAGE, where, twin_fault(own, other), None, None, own.rank, own.number)


def _between_attempts(inspected: Sequence[Inspection]) -> Iterator[Fault]:
    """Yield updates that lie between two attempts of a rank: the later one must begin where the earlier one ended."""
    by_rank: dict[int, list[Inspection]] = {}
    for one in sorted(inspected, key=lambda one: one.attempt.number):
        by_rank.setdefault(one.attempt.rank, []).append(one)
    for rank, ones in by_rank.items():
        last: int | None = None
        for one in ones:
            own = [contents.updates for contents in one.contents if contents.table == "updates" and contents.rows]
            if not own:
                continue
            first = min(int(updates[0]) for updates in own)
            if last is not None and first > last + 1:
                words = f"updates {last + 1:,}–{first - 1:,} lie between two attempts and are in neither"
                kind = NOTE if any(other.damaged for other in ones) else DAMAGE
                folder = one.attempt.folder
                where = f"{folder.parent.name}/{folder.name}"
                yield Fault(kind, where, words, "updates", first - last - 1, rank, one.attempt.number)
            last = max([last if last is not None else -1, *(int(updates[-1]) for updates in own)])


def _run_notes(path: Path, info: dict[str, Any]) -> Iterator[Fault]:
    """Yield ranks that recorded nothing, and folders that are no part of a run."""
    ranks = info.get("ranks")
    there = {one.rank for one in places(path)}
    if isinstance(ranks, int) and there:
        for rank in [rank for rank in range(min(ranks, 100_000)) if rank not in there]:
            yield Fault(
                NOTE,
                layout.rank_folder(rank),
                "is missing: this rank recorded nothing, or its folder was taken away",
                rank=rank,
            )
    for child in sorted(path.iterdir()):
        if child.name in (layout.RUN_FILE, layout.LABELS_FILE):
            continue
        if layout.rank_of(child) is None:
            yield Fault(NOTE, child.name, "is no file of a recorded run; readers pass over it")
            continue
        for inner in sorted(child.iterdir()) if child.is_dir() else ():
            if layout.attempt_of(inner) is None and inner.name != layout.LOCK_FILE:
                yield Fault(NOTE, f"{child.name}/{inner.name}", "is no file of a recorded run; readers pass over it")
