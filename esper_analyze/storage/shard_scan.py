"""Look at every cell of a shard: what its checksum cannot say, and which rows and updates it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from esper_analyze.schema.arrow import word_columns
from esper_analyze.schema.column import Column, Kind, Table
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.run_files import open_file

Ints = np.ndarray[Any, np.dtype[np.int64]]
LOST_IN = {"losses_of_data": "rows"}
"""Columns in which the recorder counts what it lost."""


@dataclass(slots=True)
class Contents:
    """What rows of one table say of themselves: which they are, of which updates, and what is wrong with them.

    ``runs``: first sequence number and the one after the last, of rows numbered without a gap, [n, 2].
    ``updates``: the updates with a row, ascending. ``lost``: rows counted as lost.
    """

    table: str
    rows: int = 0
    runs: Ints = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    updates: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    lost: int = 0
    faults: list[str] = field(default_factory=list)


def shard_contents(path: Path, table: Table, rank: int) -> Contents:
    """Decode every column of a shard whose footer is sound, one row group and one column at a time.

    ``table``: as the shard's version declared it.
    """
    found = _Gathered(table, rank)
    try:
        with open_file(path) as opened, pq.ParquetFile(opened, read_dictionary=word_columns(table)) as file:
            for group in range(file.num_row_groups):
                for column in table.columns:
                    cells = file.read_row_group(group, columns=[column.name], use_threads=False).column(0)
                    cells.validate(full=True)  # a code beyond its dictionary is read without complaint
                    found.take(column, cells)
    except (pa.ArrowException, OSError, ValueError) as error:
        found.faults.append(f"has a cell that cannot be decoded ({type(error).__name__})")
    return found.contents()


def table_contents(table: Table, data: pa.Table, rank: int) -> Contents:
    """Return the same of rows in memory."""
    found = _Gathered(table, rank)
    for column in table.columns:
        found.take(column, data[column.name])
    return found.contents()


def entry_faults(entry: ShardEntry, found: Contents) -> list[str]:
    """Return what the manifest says of a shard otherwise than its cells do."""
    if not len(found.runs) or not len(found.updates):
        return [] if entry.rows == 0 else ["holds no row"]
    own = {
        "rows": found.rows,
        "first_seq": int(found.runs[0, 0]),
        "last_seq": int(found.runs[-1, 1]) - 1,
        "first_update": int(found.updates[0]),
        "last_update": int(found.updates[-1]),
    }
    return [
        f"has {name.replace('_', ' ')} {number:,}, the manifest says {getattr(entry, name):,}"
        for name, number in own.items()
        if number != getattr(entry, name)
    ]


class _Gathered:
    """What is seen of a table, column after column."""

    def __init__(self, table: Table, rank: int) -> None:
        self.table, self.rank = table, rank
        self.faults: list[str] = []
        self._lost = 0
        self._seqs: list[Ints] = []
        self._updates: list[Ints] = []

    def take(self, column: Column, cells: pa.ChunkedArray) -> None:
        """Look at the next cells of ``column``."""
        if column.required and cells.null_count:
            self._tell(f"column {column.name} is empty in {cells.null_count:,} rows and must not be")
        if column.kind is Kind.CHOICE:
            self._choices(column, cells)
        if column.name == "rank":
            self._ranks(integers(cells))
        if column.name == "seq":
            self._seqs.append(integers(cells))
        if column.name == "update":
            self._updates.append(np.unique(integers(cells)))
        if LOST_IN.get(self.table.name) == column.name:
            self._lost += sum(one for one in cells.to_pylist() if one and one > 0)  # Arrow's sum wraps beyond 2^63

    def _tell(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)

    def _choices(self, column: Column, cells: pa.ChunkedArray) -> None:
        for chunk in cells.chunks:
            words = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk.unique()
            strange = [word for word in words.to_pylist() if word is not None and word not in column.choices]
            if strange:
                self._tell(f"column {column.name} has the value {strange[0][:60]!r}, not one of its choices")

    def _ranks(self, ranks: Ints) -> None:
        strange = ranks[ranks != self.rank]
        if len(strange):
            self._tell(f"holds rows of rank {strange[0]}, its folder is of rank {self.rank}")

    def contents(self) -> Contents:
        """Return what was seen."""
        seqs = joined(self._seqs)
        if np.any(np.diff(seqs) <= 0):
            self._tell("has sequence numbers that do not grow")
            seqs = np.unique(seqs)
        if len(seqs) and seqs[0] < 0:
            self._tell(f"has the sequence number {seqs[0]}")
        return Contents(
            self.table.name, sum(map(len, self._seqs)), as_runs(seqs), np.unique(joined(self._updates)),
            self._lost, self.faults,
        )  # fmt: skip


def joined(parts: Sequence[Ints]) -> Ints:
    """Return arrays one after the other."""
    return np.concatenate([np.zeros(0, np.int64), *parts])


def as_runs(seqs: Ints) -> Ints:
    """Return ascending numbers as stretches without a gap: first, and one after the last, [n, 2]."""
    if not len(seqs):
        return np.zeros((0, 2), np.int64)
    ends = np.flatnonzero(np.diff(seqs) != 1)
    return np.stack([seqs[np.concatenate([[0], ends + 1])], seqs[np.concatenate([ends, [-1]])] + 1], axis=1)


def integers(cells: pa.ChunkedArray) -> Ints:
    """Return an integer column as an array, −1 where it is empty (``to_numpy`` would import pandas)."""
    whole = pc.fill_null(cells, -1).combine_chunks()
    if not len(whole):
        return np.zeros(0, np.int64)
    return np.frombuffer(whole.buffers()[1], np.int64, len(whole), whole.offset * 8)
