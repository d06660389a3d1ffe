"""Make a run whose writer is dead whole again, as far as its files go: nothing is deleted that was ever recorded."""

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
from esper_analyze.storage.footer import footer_fault, footer_mark
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.limits import LARGEST_SHARD
from esper_analyze.storage.maintenance.coverage import all_runs, expected_end, gaps
from esper_analyze.storage.maintenance.inspection import Inspection, Step, inspect_attempt
from esper_analyze.storage.maintenance.journal import Change, forget_staged, pending
from esper_analyze.storage.maintenance.verify import Place, places
from esper_analyze.storage.run_files import is_regular, read_file
from esper_analyze.storage.shapes import shapes
from esper_analyze.storage.shard_file import parquet_bytes, shard_entry
from esper_analyze.storage.shard_scan import Contents, as_runs, integers, shard_contents

REPAIRED = "repaired"


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that repair does, or would do: ``what`` to which file, why, and how many rows it is about."""

    what: str
    file: str
    reason: str
    table: str | None = None
    rows: int | None = None
    rank: int = 0
    attempt: int = 0


@dataclass(slots=True)
class Plan:
    """What repair will do with one attempt. ``sealed``: rows of the log that become shards."""

    place: Place
    kept: list[ShardEntry] = field(default_factory=list)
    sealed: list[tuple[int, str, pa.Table]] = field(default_factory=list)
    aside: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    marker: dict[str, Any] | None = None
    new_manifest: bool = False
    old_manifest: bool = False
    """Whether the manifest so far is to be kept aside: it listed what is not there, or was damaged."""
    acts: list[Act] = field(default_factory=list)

    def tell(self, what: str, file: str, reason: str, table: str | None = None, rows: int | None = None) -> None:
        """Note what will be done."""
        self.acts.append(Act(what, file, reason, table, rows, self.place.rank, self.place.number))


def repair(run_dir: Path, *, dry: bool = False, step: Step = lambda: None) -> list[Act]:
    """Repair every attempt of a run that nobody writes to (see ``held``); return what was done, or would be.

    Raises ``OSError`` when the disk fails; then the next call goes on.
    """
    acts: list[Act] = []
    for place in places(run_dir):
        finished = _finished(place, dry=dry)
        acts += finished
        if dry and any(act.what == "finish" for act in finished):
            continue
        plan = plan_repair(place, step)
        acts += plan.acts
        if plan.acts and not dry:
            carry_out(plan)
    return acts


def _finished(place: Place, *, dry: bool) -> list[Act]:
    """Finish what an earlier repair or compaction had decided; return that it was so."""
    try:
        change = pending(place.folder)
    except DamagedError as error:
        spoilt = place.folder / layout.JOURNAL_FILE
        act = Act(
            "set aside", spoilt.name, error.message.removeprefix(f"{spoilt} "), None, None, place.rank, place.number
        )
        if not dry:
            (place.folder / layout.ASIDE).mkdir(exist_ok=True)
            spoilt.replace(place.folder / _free(place.folder, "journal.json", set()))
        return [act]
    if change is None:
        if not dry:
            forget_staged(place.folder)
        return []
    if not dry:
        change.carry_out()
    reason = f"an interrupted {change.what} had decided what to do"
    return [Act("finish", layout.JOURNAL_FILE, reason, None, None, place.rank, place.number)]


def plan_repair(place: Place, step: Step = lambda: None) -> Plan:
    """Return what there is to repair in one attempt; nothing is changed."""
    found = inspect_attempt(place.folder, place.rank, place.number, step)
    attempt, plan = found.attempt, Plan(place)
    plan.kept = [entry for _, entry in attempt.shards]
    for broken in attempt.broken:
        _set_aside(plan, broken)
    _adopt(plan, found)
    for path in attempt.leftover:
        if path.name not in plan.aside and path.name not in {entry.shard for entry in plan.kept}:
            plan.aside[path.name] = "is listed by no manifest, and its rows are elsewhere"
    _seal_log(plan, found)
    _end_logs(plan, found)
    for name, reason in plan.aside.items():
        plan.tell("set aside", name, reason, (layout.shard_of(name) or (None,))[0])
    plan.old_manifest = plan.new_manifest
    plan.new_manifest = bool(plan.sealed) or plan.new_manifest
    spoilt = any(broken.file.name == layout.CLOSED_FILE for broken in attempt.broken)
    if plan.new_manifest or spoilt or attempt.closed is None:
        _mark(plan, found)
    return plan


def _set_aside(plan: Plan, broken: Broken) -> None:
    """Take a broken file out of the run; a manifest or marker is written anew, what is missing leaves the manifest."""
    name = broken.file.name
    if broken.entry is not None or name == layout.MANIFEST_FILE:
        plan.new_manifest = True
    if name in (layout.MANIFEST_FILE, layout.CLOSED_FILE):
        plan.tell("write anew", name, broken.reason)
    elif os.path.lexists(broken.file):
        plan.aside[name] = broken.reason
    else:
        entry = broken.entry
        plan.tell("give up", name, broken.reason, entry.table if entry else None, entry.rows if entry else None)


def _adopt(plan: Plan, found: Inspection) -> None:
    """Take up shards that no manifest lists and whose rows are nowhere else, the newest first; they are unverified."""
    folder, kept = plan.place.folder, {entry.shard for entry in plan.kept}
    unlisted = [
        broken.file for broken in found.attempt.broken if broken.entry is None and layout.shard_of(broken.file.name)
    ]
    there: dict[str, list[Contents]] = {}
    for one in found.contents:
        there.setdefault(one.table, []).append(one)
    for path in sorted(unlisted, key=lambda path: layout.shard_of(path.name) or ("", 0), reverse=True):
        name, number = layout.shard_of(path.name) or ("", 0)
        table = BY_NAME.get(name)
        if path.name in kept or table is None or not is_regular(path) or footer_fault(path, table) is not None:
            continue
        mark = footer_mark(path)
        own = shard_contents(path, shapes(table)[mark].table, plan.place.rank)
        if own.faults or not own.rows or _shares(own, there.get(name, [])):
            continue
        content = read_file(path, LARGEST_SHARD)
        entry = ShardEntry(
            path.name, name, number, len(content), zlib.crc32(content), own.rows, int(own.runs[0, 0]),
            int(own.runs[-1, 1]) - 1, int(own.updates[0]), int(own.updates[-1]), mark, rebuilt=True,
        )  # fmt: skip
        del plan.aside[path.name], content
        plan.kept.append(entry)
        there.setdefault(name, []).append(own)
        found.shards[path.name] = own
        plan.new_manifest = True
        plan.tell("list again", path.name, f"unverified: no manifest lists it in {folder.name}", name, own.rows)


def _shares(own: Contents, others: Sequence[Contents]) -> bool:
    """Whether any row is in one of ``others`` too."""
    runs = all_runs([own, *others])
    return any(runs[k, 0] < runs[k - 1, 1] for k in range(1, len(runs)))


def _seal_log(plan: Plan, found: Inspection) -> None:
    """Plan a shard for each stretch of logged rows with no sealed row of the table between them."""
    used = [named[1] for path in plan.place.folder.iterdir() if (named := layout.shard_of(path.name))]
    used += [entry.number for entry in plan.kept]
    first = max(used, default=0) + 1
    found.logged = {}
    for table, data in found.attempt.tail.tables.items():
        spans = [(entry.first_seq, entry.last_seq) for entry in plan.kept if entry.table == table]
        for offset, part in enumerate(_stretches(data, spans)):
            plan.sealed.append((first + offset, table, part))
            plan.tell("seal", layout.shard_name(table, first + offset), "complete rows of the log", table, len(part))
            found.logged[f"{table} {offset}"] = Contents(table, len(part), as_runs(integers(part["seq"])))


def _stretches(data: pa.Table, spans: Sequence[tuple[int, int]]) -> Iterator[pa.Table]:
    """Yield ``data``, cut wherever sealed rows lie in between, without rows that a span holds."""
    edges = sorted({edge for first, last in spans for edge in (first, last + 1)})
    inside = [start for start, _ in spans]
    low = -(2**62)
    for edge in [*edges, 2**62]:
        if low not in inside:
            part = data.filter(pc.and_(pc.greater_equal(data["seq"], low), pc.less(data["seq"], edge)))
            if len(part):
                yield part
        low = edge


def _end_logs(plan: Plan, found: Inspection) -> None:
    """Plan the end of every log: removed when all its rows are sealed, kept aside where some of it is unreadable."""
    odd = {fault.file.name: fault.text for fault in found.attempt.tail.faults}
    for path in sorted(plan.place.folder.iterdir()):
        if layout.log_of(path.name) is None or path.name in plan.aside:
            continue
        if path.name in odd:
            plan.aside[path.name] = odd[path.name]
        else:
            plan.removed.append(path.name)
            plan.tell("remove", path.name, "all its rows are in shards")


def _mark(plan: Plan, found: Inspection) -> None:
    """Plan the marker: rows per table, and how many are gone."""
    tables: dict[str, dict[str, int]] = {}
    for entry in plan.kept:
        _count(tables, entry.table, entry.rows, entry.last_update)
    for _, table, data in plan.sealed:
        _count(tables, table, len(data), pc.max(data["update"]).as_py())
    lost, before = _lost(found, tables), found.attempt.closed or {}
    plan.marker = {
        "reason": REPAIRED, "closed_at": time.time(), "lost_rows": lost, "tables": tables,
        "before": None if not before else before.get("before", before.get("reason")),
    }  # fmt: skip
    words = f"{plan.marker['lost_rows']:,} rows are gone" if plan.marker["lost_rows"] else "no row is gone"
    if is_regular(plan.place.folder / layout.RESERVE_FILE):
        plan.removed.append(layout.RESERVE_FILE)  # room on a full disk for the marker that is written now
    plan.tell("close", layout.CLOSED_FILE, words, None, sum(facts["rows"] for facts in tables.values()))


def _count(tables: dict[str, dict[str, int]], table: str, rows: int, last_update: int) -> None:
    total = tables.setdefault(table, {"rows": 0, "last_update": -1})
    total["rows"] += rows
    total["last_update"] = max(total["last_update"], last_update)


def _lost(found: Inspection, tables: dict[str, dict[str, int]]) -> int:
    """Return how many rows are gone: against the marker where there is one, else by the sequence numbers known of."""
    marker: Any = found.attempt.closed
    if marker is not None:
        were = sum(int(facts["rows"]) for facts in marker["tables"].values())
        now = sum(facts["rows"] for facts in tables.values())
        return int(marker["lost_rows"]) + max(were - now, 0)
    runs = all_runs(found.contents)
    missing = gaps(runs, expected_end(found.attempt, runs))
    return int((missing[:, 1] - missing[:, 0]).sum())


def carry_out(plan: Plan) -> None:
    """Do what is planned: stage all of it, decide, put it in place. Raises ``OSError``."""
    change = Change(plan.place.folder, "repair")
    with change.prepared():
        _stage(plan, change)
        change.decide()
    change.carry_out()


def _stage(plan: Plan, change: Change) -> None:
    folder, taken = plan.place.folder, set[str]()
    entries = list(plan.kept)
    for number, table, data in plan.sealed:
        content = parquet_bytes(BY_NAME[table], data)
        entries.append(shard_entry(BY_NAME[table], number, data, content))
        change.stage(entries[-1].shard, content)
    anew = {layout.MANIFEST_FILE: plan.old_manifest, layout.CLOSED_FILE: plan.marker is not None}
    replaced = [name for name, is_replaced in anew.items() if is_replaced and os.path.lexists(folder / name)]
    old = [name for name in replaced if is_regular(folder / name)]
    for name in replaced:
        if name in old:
            change.stage(_free(folder, name, taken), read_file(folder / name, LARGEST_SHARD))
        else:  # nothing can be read from it, and a directory would be in the way: to be without it is the same
            (folder / layout.ASIDE).mkdir(exist_ok=True)
            (folder / name).rename(folder / _free(folder, name, taken))
    for name in plan.aside:
        change.moves.append((name, _free(folder, name.removeprefix("."), taken)))
    note = {"at": time.time(), "acts": [asdict(act) for act in plan.acts]}
    if plan.aside or replaced:
        change.stage(_free(folder, "repair-1.json", taken), json.dumps(note, indent=1).encode())
    if plan.new_manifest:
        change.stage(layout.MANIFEST_FILE, b"".join(entry.as_line() for entry in entries))
    if plan.marker is not None:
        change.stage(layout.CLOSED_FILE, json.dumps(plan.marker, indent=1).encode())
    change.removes = plan.removed


def _free(folder: Path, name: str, taken: set[str]) -> str:
    """Return where ``name`` goes in the folder for files set aside; a name that is taken is numbered."""
    stem, dot, suffix = name.rpartition(".")
    base, number, chosen = stem.removesuffix("-1"), 1, name
    while (folder / layout.ASIDE / chosen).exists() or chosen in taken:
        number += 1
        chosen = f"{base}-{number}{dot}{suffix}"
    taken.add(chosen)
    return f"{layout.ASIDE}/{chosen}"
