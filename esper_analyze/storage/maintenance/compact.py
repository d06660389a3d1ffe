"""Many small shards become few: the same rows in the same order, switched by one rename of the manifest.

Shards are joined in stretches, the same for every table, so that a reader that streams still has one stretch of
updates in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from esper_analyze.errors import DamagedError
from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import layout
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.maintenance.inspection import DAMAGE, Inspection, Step, inspect_attempt
from esper_analyze.storage.maintenance.journal import Change, forget_staged, pending
from esper_analyze.storage.maintenance.verify import Place, places, twins
from esper_analyze.storage.shapes import read_shard
from esper_analyze.storage.shard_file import parquet_bytes, shard_entry

STRETCH_CELLS = 1 << 24
"""Cells of all tables in one stretch: 128 MiB of numbers, which is what a replay then holds at a time."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """Shards, bytes and rows of a run before and after."""

    shards: tuple[int, int]
    bytes: tuple[int, int]
    rows: tuple[int, int]


def compact(run_dir: Path, step: Step = lambda: None, *, cells: int = STRETCH_CELLS) -> Compacted:
    """Compact every attempt of a run that nobody writes to (see ``held``).

    Raises ``DamagedError`` when anything is wrong with it or a log holds rows, before any attempt is touched;
    ``OSError`` when the disk fails, and then the run is as before.
    """
    found = []
    for place in places(run_dir):
        change = pending(place.folder)
        if change is not None:
            change.carry_out()
        forget_staged(place.folder)
        found.append((place, _sound(place, step)))
    for fault in twins([one for _, one in found]):
        raise DamagedError(f"{run_dir / fault.file} {fault.reason}")
    before = [entry for _, one in found for _, entry in one.attempt.shards]
    after = [entry for place, one in found for entry in _compact(place, one, cells)]
    return Compacted(
        (len(before), len(after)),
        (sum(one.size for one in before), sum(one.size for one in after)),
        (sum(one.rows for one in before), sum(one.rows for one in after)),
    )


def _sound(place: Place, step: Step) -> Inspection:
    found = inspect_attempt(place.folder, place.rank, place.number, step)
    for fault in found.faults:
        if fault.kind == DAMAGE:
            raise DamagedError(
                f"{place.folder.parent.parent / fault.file}: {fault.reason}",
                hint="only a sound run is compacted: `verify` says more, `repair` sets it right",
            )
    if any(len(data) for data in found.attempt.tail.tables.values()):
        raise DamagedError(
            f"{place.folder} was not closed: rows are in its log only", hint="`repair` seals them, then compact"
        )
    return found


def _compact(place: Place, found: Inspection, cells: int) -> list[ShardEntry]:
    """Compact one attempt and return its manifest's entries."""
    entries = [entry for _, entry in found.attempt.shards]
    number = 1 + max((named[1] for path in place.folder.iterdir() if (named := layout.shard_of(path.name))), default=0)
    change, kept = Change(place.folder, "compact"), []
    with change.prepared():
        for group in _stretches(entries, cells):
            for table in dict.fromkeys(entry.table for entry in group):
                own = sorted((entry for entry in group if entry.table == table), key=lambda one: one.first_seq)
                if len(own) == 1:
                    kept += own
                    continue
                kept.append(_joined(change, place.folder, own, number))
                change.removes += [entry.shard for entry in own]
            number += 1
        if change.puts:
            change.stage(layout.MANIFEST_FILE, b"".join(entry.as_line() for entry in kept))
            change.decide()
            change.carry_out()
    return kept


def _stretches(entries: Sequence[ShardEntry], cells: int) -> Iterator[list[ShardEntry]]:
    """Yield entries in groups of consecutive numbers: what was sealed together stays together."""
    numbered: dict[int, list[ShardEntry]] = {}
    for entry in entries:
        numbered.setdefault(entry.number, []).append(entry)
    group: list[ShardEntry] = []
    for sealed in sorted(numbered.values(), key=lambda some: min(entry.first_seq for entry in some)):
        if group and _cells(group) + _cells(sealed) > cells:
            yield group
            group = []
        group = group + sealed
    if group:
        yield group


def _cells(entries: Sequence[ShardEntry]) -> int:
    return sum(entry.rows * len(BY_NAME[entry.table].columns) for entry in entries)


def _joined(change: Change, folder: Path, entries: Sequence[ShardEntry], number: int) -> ShardEntry:
    """Stage one shard with the rows of several."""
    table = BY_NAME[entries[0].table]
    parts = [read_shard(table, folder / entry.shard, entry.schema) for entry in entries]
    columns = [pa.chunked_array([chunk for part in parts for chunk in part[name].chunks]) for name in table.names]
    data = pa.Table.from_arrays(columns, schema=arrow_schema(table))
    content = parquet_bytes(table, data)
    made = shard_entry(table, number, data, content, rebuilt=any(entry.rebuilt for entry in entries))
    change.stage(made.shard, content)
    return made
