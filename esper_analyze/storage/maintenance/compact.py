"""Join many small shards into few: the same rows in the same order, switched by one rename of the manifest.

Shards are joined in groups with the same bounds in every table, so that a streaming reader still holds one group of
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
from esper_analyze.storage.folders import AttemptFolder, attempt_folders
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.maintenance.inspection import DAMAGE, Inspection, Step, inspect_attempt
from esper_analyze.storage.maintenance.journal import FolderChange, forget_staged, pending
from esper_analyze.storage.maintenance.verify import duplicate_attempts
from esper_analyze.storage.shapes import read_shard
from esper_analyze.storage.shard_file import parquet_bytes, shard_entry

GROUP_CELLS = 1 << 24
"""Cells of all tables in one group: 128 MiB of numbers, which a replay holds in memory at a time."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """Shards, bytes and rows of a run, each before and after."""

    shards: tuple[int, int]
    bytes: tuple[int, int]
    rows: tuple[int, int]


def compact(run_dir: Path, step: Step = lambda: None, *, cells: int = GROUP_CELLS) -> Compacted:
    """Compact every attempt of a run without a writer (see ``exclusive``).

    Raises ``DamagedError`` when the run is damaged or a log holds rows, before any attempt is changed; ``OSError``
    when the disk fails, and then the run is as before.
    """
    inspected = []
    for attempt_folder in attempt_folders(run_dir):
        change = pending(attempt_folder.path)
        if change is not None:
            change.apply()
        forget_staged(attempt_folder.path)
        inspected.append((attempt_folder, _sound(attempt_folder, step)))
    for fault in duplicate_attempts([inspection for _, inspection in inspected]):
        raise DamagedError(f"{run_dir / fault.file} {fault.reason}")
    before = [entry for _, inspection in inspected for _, entry in inspection.attempt.shards]
    after = [entry for folder, inspection in inspected for entry in _compact(folder, inspection, cells)]
    return Compacted(
        (len(before), len(after)),
        (sum(entry.size for entry in before), sum(entry.size for entry in after)),
        (sum(entry.rows for entry in before), sum(entry.rows for entry in after)),
    )


def _sound(attempt_folder: AttemptFolder, step: Step) -> Inspection:
    inspection = inspect_attempt(attempt_folder.path, attempt_folder.rank, attempt_folder.number, step)
    for fault in inspection.faults:
        if fault.kind == DAMAGE:
            raise DamagedError(
                f"{attempt_folder.path.parent.parent / fault.file}: {fault.reason}",
                hint="only an undamaged run is compacted: `verify` lists the damage, `repair` repairs it",
            )
    if any(len(data) for data in inspection.attempt.tail.tables.values()):
        raise DamagedError(
            f"{attempt_folder.path} was not closed: rows are in its log only", hint="`repair` seals them, then compact"
        )
    return inspection


def _compact(attempt_folder: AttemptFolder, inspection: Inspection, cells: int) -> list[ShardEntry]:
    """Compact one attempt and return the entries of its new manifest."""
    entries = [entry for _, entry in inspection.attempt.shards]
    number = 1 + max(
        (named[1] for path in attempt_folder.path.iterdir() if (named := layout.shard_of(path.name))), default=0
    )
    change, new_entries = FolderChange(attempt_folder.path, "compact"), []
    with change.prepared():
        for group in _groups(entries, cells):
            for table in dict.fromkeys(entry.table for entry in group):
                joining = sorted((entry for entry in group if entry.table == table), key=lambda entry: entry.first_seq)
                if len(joining) == 1:
                    new_entries += joining
                    continue
                new_entries.append(_join(change, attempt_folder.path, joining, number))
                change.removes += [entry.shard for entry in joining]
            number += 1
        if change.puts:
            change.stage(layout.MANIFEST_FILE, b"".join(entry.as_line() for entry in new_entries))
            change.commit()
            change.apply()
    return new_entries


def _groups(entries: Sequence[ShardEntry], cells: int) -> Iterator[list[ShardEntry]]:
    """Yield entries in groups of consecutive numbers; shards sealed together stay together."""
    numbered: dict[int, list[ShardEntry]] = {}
    for entry in entries:
        numbered.setdefault(entry.number, []).append(entry)
    group: list[ShardEntry] = []
    for sealed in sorted(numbered.values(), key=lambda sealed: min(entry.first_seq for entry in sealed)):
        if group and _cells(group) + _cells(sealed) > cells:
            yield group
            group = []
        group = group + sealed
    if group:
        yield group


def _cells(entries: Sequence[ShardEntry]) -> int:
    return sum(entry.rows * len(BY_NAME[entry.table].columns) for entry in entries)


def _join(change: FolderChange, folder: Path, entries: Sequence[ShardEntry], number: int) -> ShardEntry:
    """Stage one shard with the rows of several."""
    table = BY_NAME[entries[0].table]
    shards = [read_shard(table, folder / entry.shard, entry.schema) for entry in entries]
    columns = [pa.chunked_array([chunk for part in shards for chunk in part[name].chunks]) for name in table.names]
    data = pa.Table.from_arrays(columns, schema=arrow_schema(table))
    content = parquet_bytes(table, data)
    entry_of_all = shard_entry(table, number, data, content, rebuilt=any(entry.rebuilt for entry in entries))
    change.stage(entry_of_all.shard, content)
    return entry_of_all
