"""Check every cell of a shard, which a checksum alone cannot, and collect its rows' numbers and updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from esper_analyze.detector.signals import Ints
from esper_analyze.schema.arrow import word_columns
from esper_analyze.schema.column import Column, Kind, Table
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.run_files import open_file

LOST_IN = {"losses_of_data": "rows"}
"""Columns in which the recorder counts lost rows."""


@dataclass(slots=True)
class Contents:
    """Rows of one table: their sequence numbers, their updates, and what is wrong with them.

    ``runs``: ranges of sequence numbers without a gap, [n, 2]: the first, and the one after the last.
    ``updates``: the updates with a row, ascending. ``lost``: rows counted as lost.
    """

    table: str
    rows: int = 0
    runs: Ints = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    updates: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    lost: int = 0
    faults: list[str] = field(default_factory=list)


def shard_contents(path: Path, table: Table, rank: int) -> Contents:
    """Decode every column of a shard with a valid footer, one row group and one column at a time.

    ``table``: as the shard's version declared it.
    """
    gathered = _Gathered(table, rank)
    try:
        with open_file(path) as opened, pq.ParquetFile(opened, read_dictionary=word_columns(table)) as file:
            for group in range(file.num_row_groups):
                for column in table.columns:
                    cells = file.read_row_group(group, columns=[column.name], use_threads=False).column(0)
                    cells.validate(full=True)  # Arrow reads a code beyond its dictionary without an error
                    gathered.take(column, cells)
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:  # IndexError: a column is not found
        gathered.faults.append(f"has a cell that cannot be decoded ({type(error).__name__})")
    return gathered.contents()


def table_contents(table: Table, data: pa.Table, rank: int) -> Contents:
    """Return the contents of rows in memory."""
    gathered = _Gathered(table, rank)
    for column in table.columns:
        gathered.take(column, data[column.name])
    return gathered.contents()


def entry_faults(entry: ShardEntry, contents: Contents) -> list[str]:
    """Return where a shard's manifest entry and its cells disagree."""
    if not len(contents.runs) or not len(contents.updates):
        return [] if entry.rows == 0 else ["holds no row"]
    actual = {
        "rows": contents.rows,
        "first_seq": int(contents.runs[0, 0]),
        "last_seq": int(contents.runs[-1, 1]) - 1,
        "first_update": int(contents.updates[0]),
        "last_update": int(contents.updates[-1]),
    }
    return [
        f"has {name.replace('_', ' ')} {number:,}, the manifest says {getattr(entry, name):,}"
        for name, number in actual.items()
        if number != getattr(entry, name)
    ]


class _Gathered:
    """Collects the contents of one table, column by column."""

    def __init__(self, table: Table, rank: int) -> None:
        self.table, self.rank = table, rank
        self.faults: list[str] = []
        self._lost = 0
        self._seqs: list[Ints] = []
        self._updates: list[Ints] = []

    def take(self, column: Column, cells: pa.ChunkedArray) -> None:
        """Check the next cells of ``column``."""
        if column.required and cells.null_count:
            self._add_fault(f"column {column.name} is empty in {cells.null_count:,} rows and must not be")
        if column.kind is Kind.CHOICE:
            self._choices(column, cells)
        if column.name == "rank":
            self._ranks(integers(cells))
        if column.name == "seq":
            self._seqs.append(integers(cells))
        if column.name == "update":
            self._updates.append(np.unique(integers(cells)))
        if LOST_IN.get(self.table.name) == column.name:
            self._lost += sum(
                count for count in cells.to_pylist() if count and count > 0
            )  # Arrow's sum wraps beyond 2^63

    def _add_fault(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)

    def _choices(self, column: Column, cells: pa.ChunkedArray) -> None:
        for chunk in cells.chunks:
            words = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk.unique()
            strange = [word for word in words.to_pylist() if word is not None and word not in column.choices]
            if strange:
                self._add_fault(f"column {column.name} has the value {strange[0][:60]!r}, not one of its choices")

    def _ranks(self, ranks: Ints) -> None:
        strange = ranks[ranks != self.rank]
        if len(strange):
            self._add_fault(f"holds rows of rank {strange[0]}, its folder is of rank {self.rank}")

    def contents(self) -> Contents:
        """Return everything collected."""
        seqs = concatenated(self._seqs)
        if np.any(np.diff(seqs) <= 0):
            self._add_fault("has sequence numbers that do not increase")
            seqs = np.unique(seqs)
        if len(seqs) and seqs[0] < 0:
            self._add_fault(f"has the sequence number {seqs[0]}")
        return Contents(
            self.table.name, sum(map(len, self._seqs)), as_runs(seqs), np.unique(concatenated(self._updates)),
            self._lost, self.faults,
        )  # fmt: skip


def concatenated(parts: Sequence[Ints]) -> Ints:
    """Return the arrays as one."""
    return np.concatenate([np.zeros(0, np.int64), *parts])


def as_runs(seqs: Ints) -> Ints:
    """Return ascending numbers as ranges without a gap, [n, 2]: the first, and the one after the last."""
    if not len(seqs):
        return np.zeros((0, 2), np.int64)
    ends = np.flatnonzero(np.diff(seqs) != 1)
    return np.stack([seqs[np.concatenate([[0], ends + 1])], seqs[np.concatenate([ends, [-1]])] + 1], axis=1)


def integers(cells: pa.ChunkedArray) -> Ints:
    """Return an integer column as an array, −1 where it is null (``to_numpy`` would import pandas)."""
    array = pc.fill_null(cells, -1).combine_chunks()
    if not len(array):
        return np.zeros(0, np.int64)
    return np.frombuffer(array.buffers()[1], np.int64, len(array), array.offset * 8)
