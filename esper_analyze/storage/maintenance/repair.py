"""Repair a run whose writer is dead, as far as its files allow. Nothing that was recorded is deleted."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from esper_analyze.errors import DamagedError
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import layout
from esper_analyze.storage.attempts import Broken
from esper_analyze.storage.folders import AttemptFolder, attempt_folders
from esper_analyze.storage.footer import footer_fault, footer_fingerprint
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.limits import LARGEST_SHARD
from esper_analyze.storage.maintenance.coverage import all_runs, expected_end, gaps
from esper_analyze.storage.maintenance.inspection import Inspection, Step, inspect_attempt
from esper_analyze.storage.maintenance.journal import FolderChange, forget_staged, pending
from esper_analyze.storage.run_files import is_regular, read_file
from esper_analyze.storage.shapes import shapes
from esper_analyze.storage.shard_file import parquet_bytes, shard_entry
from esper_analyze.storage.shard_scan import Contents, as_runs, integers, shard_contents


@dataclass(frozen=True, slots=True)
class Act:
    """One action of a repair, done or planned: ``what`` to which file, why, and the number of rows concerned."""

    what: str
    file: str
    reason: str
    table: str | None = None
    rows: int | None = None
    rank: int = 0
    attempt: int = 0


@dataclass(slots=True)
class RepairPlan:
    """The planned repair of one attempt. ``sealed``: rows of the log that become shards."""

    attempt_folder: AttemptFolder
    entries: list[ShardEntry] = field(default_factory=list)
    sealed: list[tuple[int, str, pa.Table]] = field(default_factory=list)
    aside: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    marker: dict[str, Any] | None = None
    new_manifest: bool = False
    old_manifest: bool = False
    """Whether the current manifest is set aside: it lists missing shards, or is damaged."""
    acts: list[Act] = field(default_factory=list)

    def note(self, what: str, file: str, reason: str, table: str | None = None, rows: int | None = None) -> None:
        """Add an action to the plan's record."""
        self.acts.append(Act(what, file, reason, table, rows, self.attempt_folder.rank, self.attempt_folder.number))


def repair(run_dir: Path, *, dry: bool = False, step: Step = lambda: None) -> list[Act]:
    """Repair every attempt of a run without a writer (see ``exclusive``); return the actions done or planned.

    Raises ``OSError`` when the disk fails; the next call then continues.
    """
    acts: list[Act] = []
    for attempt_folder in attempt_folders(run_dir):
        finished = _finished(attempt_folder, dry=dry)
        acts += finished
        if dry and any(act.what == "finish" for act in finished):
            continue
        plan = plan_repair(attempt_folder, step)
        acts += plan.acts
        if plan.acts and not dry:
            carry_out(plan)
    return acts


def _finished(attempt_folder: AttemptFolder, *, dry: bool) -> list[Act]:
    """Finish a change that an interrupted repair or compaction had committed; return the actions."""
    try:
        change = pending(attempt_folder.path)
    except DamagedError as error:
        spoilt = attempt_folder.path / layout.JOURNAL_FILE
        act = Act(
            "set aside",
            spoilt.name,
            error.message.removeprefix(f"{spoilt} "),
            None,
            None,
            attempt_folder.rank,
            attempt_folder.number,
        )
        if not dry:
            (attempt_folder.path / layout.ASIDE).mkdir(exist_ok=True)
            spoilt.replace(attempt_folder.path / _free_name(attempt_folder.path, "journal.json", set()))
        return [act]
    if change is None:
        if not dry:
            forget_staged(attempt_folder.path)
        return []
    if not dry:
        change.apply()
    reason = f"an interrupted {change.what} had been committed"
    return [Act("finish", layout.JOURNAL_FILE, reason, None, None, attempt_folder.rank, attempt_folder.number)]


def plan_repair(attempt_folder: AttemptFolder, step: Step = lambda: None) -> RepairPlan:
    """Plan the repair of one attempt; nothing is changed yet."""
    inspection = inspect_attempt(attempt_folder.path, attempt_folder.rank, attempt_folder.number, step)
    attempt, plan = inspection.attempt, RepairPlan(attempt_folder)
    plan.entries = [entry for _, entry in attempt.shards]
    for broken in attempt.broken:
        _set_aside(plan, broken)
    _relist_unlisted(plan, inspection)
    for path in attempt.leftover:
        if path.name not in plan.aside and path.name not in {entry.shard for entry in plan.entries}:
            plan.aside[path.name] = "is listed by no manifest, and its rows are elsewhere"
    _seal_log(plan, inspection)
    _end_logs(plan, inspection)
    for name, reason in plan.aside.items():
        plan.note("set aside", name, reason, (layout.shard_of(name) or (None,))[0])
    plan.old_manifest = plan.new_manifest
    plan.new_manifest = bool(plan.sealed) or plan.new_manifest
    spoilt = any(broken.file.name == layout.CLOSED_FILE for broken in attempt.broken)
    if plan.new_manifest or spoilt or attempt.closed is None:
        _plan_marker(plan, inspection)
    return plan


def _set_aside(plan: RepairPlan, broken: Broken) -> None:
    """Set a broken file aside; rewrite a broken manifest or marker; drop a missing file from the manifest."""
    name = broken.file.name
    if broken.entry is not None or name == layout.MANIFEST_FILE:
        plan.new_manifest = True
    if name in (layout.MANIFEST_FILE, layout.CLOSED_FILE):
        plan.note("rebuild", name, broken.reason)
    elif os.path.lexists(broken.file):
        plan.aside[name] = broken.reason
    else:
        entry = broken.entry
        plan.note("give up", name, broken.reason, entry.table if entry else None, entry.rows if entry else None)


def _relist_unlisted(plan: RepairPlan, inspection: Inspection) -> None:
    """List unlisted shards whose rows are nowhere else, the newest first; they are marked unverified."""
    folder, listed = plan.attempt_folder.path, {entry.shard for entry in plan.entries}
    unlisted = [
        broken.file
        for broken in inspection.attempt.broken
        if broken.entry is None and layout.shard_of(broken.file.name)
    ]
    by_table: dict[str, list[Contents]] = {}
    for contents in inspection.contents:
        by_table.setdefault(contents.table, []).append(contents)
    for path in sorted(unlisted, key=lambda path: layout.shard_of(path.name) or ("", 0), reverse=True):
        name, number = layout.shard_of(path.name) or ("", 0)
        table = BY_NAME.get(name)
        if path.name in listed or table is None or not is_regular(path) or footer_fault(path, table) is not None:
            continue
        fingerprint = footer_fingerprint(path)
        contents = shard_contents(path, shapes(table)[fingerprint].table, plan.attempt_folder.rank)
        if contents.faults or not contents.rows or _shares(contents, by_table.get(name, [])):
            continue
        data = read_file(path, LARGEST_SHARD)
        entry = ShardEntry(
            path.name, name, number, len(data), zlib.crc32(data), contents.rows, int(contents.runs[0, 0]),
            int(contents.runs[-1, 1]) - 1, int(contents.updates[0]), int(contents.updates[-1]), fingerprint,
            rebuilt=True,
        )  # fmt: skip
        del plan.aside[path.name], data
        plan.entries.append(entry)
        by_table.setdefault(name, []).append(contents)
        inspection.shards[path.name] = contents
        plan.new_manifest = True
        plan.note("list again", path.name, f"unverified: no manifest lists it in {folder.name}", name, contents.rows)


def _shares(contents: Contents, others: Sequence[Contents]) -> bool:
    """Whether any row is also in one of ``others``."""
    runs = all_runs([contents, *others])
    return any(runs[k, 0] < runs[k - 1, 1] for k in range(1, len(runs)))


def _seal_log(plan: RepairPlan, inspection: Inspection) -> None:
    """Plan a shard for each range of logged rows with no sealed row of the table in between."""
    used = [named[1] for path in plan.attempt_folder.path.iterdir() if (named := layout.shard_of(path.name))]
    used += [entry.number for entry in plan.entries]
    first = max(used, default=0) + 1
    inspection.logged = {}
    for table, data in inspection.attempt.tail.tables.items():
        spans = [(entry.first_seq, entry.last_seq) for entry in plan.entries if entry.table == table]
        for offset, rows in enumerate(_without_spans(data, spans)):
            plan.sealed.append((first + offset, table, rows))
            plan.note("seal", layout.shard_name(table, first + offset), "complete rows of the log", table, len(rows))
            inspection.logged[f"{table} {offset}"] = Contents(table, len(rows), as_runs(integers(rows["seq"])))


def _without_spans(data: pa.Table, spans: Sequence[tuple[int, int]]) -> Iterator[pa.Table]:
    """Yield the rows of ``data`` outside every span of sealed rows, split at each span."""
    edges = sorted({edge for first, last in spans for edge in (first, last + 1)})
    inside = [start for start, _ in spans]
    low = -(2**62)
    for edge in [*edges, 2**62]:
        if low not in inside:
            rows = data.filter(pc.and_(pc.greater_equal(data["seq"], low), pc.less(data["seq"], edge)))
            if len(rows):
                yield rows
        low = edge


def _end_logs(plan: RepairPlan, inspection: Inspection) -> None:
    """Plan to remove each log whose rows are all sealed, and to set aside each that is unreadable in part."""
    unreadable = {fault.file.name: fault.text for fault in inspection.attempt.tail.faults}
    for path in sorted(plan.attempt_folder.path.iterdir()):
        if layout.log_of(path.name) is None or path.name in plan.aside:
            continue
        if path.name in unreadable:
            plan.aside[path.name] = unreadable[path.name]
        else:
            plan.removed.append(path.name)
            plan.note("remove", path.name, "all its rows are in shards")


def _plan_marker(plan: RepairPlan, inspection: Inspection) -> None:
    """Plan the clean-close marker: rows per table, and how many are lost."""
    tables: dict[str, dict[str, int]] = {}
    for entry in plan.entries:
        _count(tables, entry.table, entry.rows, entry.last_update)
    for _, table, data in plan.sealed:
        _count(tables, table, len(data), pc.max(data["update"]).as_py())
    lost, before = _lost(inspection, tables), inspection.attempt.closed or {}
    plan.marker = {
        "reason": layout.REPAIRED, "closed_at": time.time(), "lost_rows": lost, "tables": tables,
        "before": None if not before else before.get("before", before.get("reason")),
    }  # fmt: skip
    words = f"{plan.marker['lost_rows']:,} rows are gone" if plan.marker["lost_rows"] else "no row is gone"
    if is_regular(plan.attempt_folder.path / layout.RESERVE_FILE):
        plan.removed.append(layout.RESERVE_FILE)  # frees space on a full disk for the marker
    plan.note("close", layout.CLOSED_FILE, words, None, sum(facts["rows"] for facts in tables.values()))


def _count(tables: dict[str, dict[str, int]], table: str, rows: int, last_update: int) -> None:
    total = tables.setdefault(table, {"rows": 0, "last_update": -1})
    total["rows"] += rows
    total["last_update"] = max(total["last_update"], last_update)


def _lost(inspection: Inspection, tables: dict[str, dict[str, int]]) -> int:
    """Return how many rows are lost: compared with the marker if there is one, else by gaps in sequence numbers."""
    marker: Any = inspection.attempt.closed
    if marker is not None:
        were = sum(int(facts["rows"]) for facts in marker["tables"].values())
        now = sum(facts["rows"] for facts in tables.values())
        return int(marker["lost_rows"]) + max(were - now, 0)
    runs = all_runs(inspection.contents)
    missing = gaps(runs, expected_end(inspection.attempt, runs))
    return int((missing[:, 1] - missing[:, 0]).sum())


def carry_out(plan: RepairPlan) -> None:
    """Carry out a plan: stage its files, commit, apply. Raises ``OSError``."""
    change = FolderChange(plan.attempt_folder.path, "repair")
    with change.prepared():
        _stage(plan, change)
        change.commit()
    change.apply()


def _stage(plan: RepairPlan, change: FolderChange) -> None:
    folder, used_names = plan.attempt_folder.path, set[str]()
    entries = list(plan.entries)
    for number, table, data in plan.sealed:
        content = parquet_bytes(BY_NAME[table], data)
        entries.append(shard_entry(BY_NAME[table], number, data, content))
        change.stage(entries[-1].shard, content)
    rewritten = {layout.MANIFEST_FILE: plan.old_manifest, layout.CLOSED_FILE: plan.marker is not None}
    replaced = [name for name, is_replaced in rewritten.items() if is_replaced and os.path.lexists(folder / name)]
    old = [name for name in replaced if is_regular(folder / name)]
    for name in replaced:
        if name in old:
            change.stage(_free_name(folder, name, used_names), read_file(folder / name, LARGEST_SHARD))
        else:  # it cannot be read, and a directory would block the rename: moving it first loses nothing
            (folder / layout.ASIDE).mkdir(exist_ok=True)
            (folder / name).rename(folder / _free_name(folder, name, used_names))
    for name in plan.aside:
        change.moves.append((name, _free_name(folder, name.removeprefix("."), used_names)))
    note = {"at": time.time(), "acts": [asdict(act) for act in plan.acts]}
    if plan.aside or replaced:
        change.stage(_free_name(folder, "repair-1.json", used_names), json.dumps(note, indent=1).encode())
    if plan.new_manifest:
        change.stage(layout.MANIFEST_FILE, b"".join(entry.as_line() for entry in entries))
    if plan.marker is not None:
        change.stage(layout.CLOSED_FILE, json.dumps(plan.marker, indent=1).encode())
    change.removes = plan.removed


def _free_name(folder: Path, name: str, used_names: set[str]) -> str:
    """Return the path for ``name`` in the folder of files set aside; a name in use gets a number."""
    stem, dot, suffix = name.rpartition(".")
    base, number, chosen = stem.removesuffix("-1"), 1, name
    while (folder / layout.ASIDE / chosen).exists() or chosen in used_names:
        number += 1
        chosen = f"{base}-{number}{dot}{suffix}"
    used_names.add(chosen)
    return f"{layout.ASIDE}/{chosen}"
