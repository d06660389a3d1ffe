"""Convert rows as the writer buffers them to Arrow tables; used when sealing and when reading the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.column import Table
from esper_analyze.storage.block import Block, Rows

Entry = tuple[int, Rows]
"""The first sequence number, and rows that follow one another from it."""


def arrow_table(table: Table, entries: Sequence[Entry], rank: int = 0) -> pa.Table:
    """Return ``entries`` as Arrow in the declared order, with rank and sequence numbers.

    Raises ``pa.ArrowException``, ``TypeError`` or ``ValueError`` for a cell of a wrong type.
    """
    schema = arrow_schema(table)
    blocks = list(_blocks(table, [rows for _, rows in entries]))
    writer_columns = {
        "rank": np.full(sum(map(len, blocks)), rank, np.int64),
        "seq": np.concatenate([np.arange(first, first + len(rows)) for first, rows in entries] or [np.zeros(0, int)]),
    }
    columns = []
    for field in schema:
        if field.name in writer_columns:
            column = pa.array(writer_columns[field.name])
        else:
            column = _column(blocks, field.name, field.type)
        if column.null_count and not field.nullable:
            raise ValueError(f"column {field.name!r} of {table.name} must not be empty")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def fitting(table: Table, entries: Sequence[Entry], rank: int = 0) -> tuple[pa.Table, int]:
    """Return the rows of ``entries`` whose cells fit ``table`` as Arrow, and the number of rows that do not fit."""
    complete = _fit(table, entries, rank)
    if complete is not None:
        return complete, 0
    single_rows = [row_entry for entry in entries for row_entry in _row_entries(entry)]
    sound = [entry for entry in single_rows if _fit(table, [entry], rank) is not None]
    fitting_rows = arrow_table(table, sound, rank)
    return fitting_rows, sum(len(rows) for _, rows in entries) - len(fitting_rows)


def _fit(table: Table, entries: Sequence[Entry], rank: int) -> pa.Table | None:
    try:
        return arrow_table(table, entries, rank)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def _row_entries(entry: Entry) -> list[Entry]:
    """Return one entry for each row of ``entry``."""
    first, rows = entry
    try:
        listed: Sequence[Mapping[str, object]] = rows.as_rows() if isinstance(rows, Block) else rows
    except (TypeError, ValueError):
        return [entry]
    return [(first + offset, [row]) for offset, row in enumerate(listed)]


def _blocks(table: Table, entries: Iterable[Rows]) -> Iterator[Block]:
    """Yield blocks; single rows are gathered first, so that each column is converted once for many rows."""
    gathered: list[Mapping[str, object]] = []
    for rows in entries:
        if not isinstance(rows, Block):
            gathered += rows
            continue
        if gathered:
            yield _block(table, gathered)
            gathered = []
        yield rows
    if gathered:
        yield _block(table, gathered)


def _block(table: Table, rows: Sequence[Mapping[str, object]]) -> Block:
    """Return rows as columns; a column that no row names is left out."""
    named = {name for row in rows for name in row}
    return Block(len(rows), {name: [row.get(name) for row in rows] for name in table.names if name in named})


def _column(blocks: Sequence[Block], name: str, kind: pa.DataType) -> pa.Array:
    """Return one column over all blocks; numbers are joined by numpy, so that many small blocks cost little."""
    arrays = [block.numbers(name) for block in blocks]
    numbers = [array for array in arrays if array is not None]
    if numbers and len(numbers) == len(arrays):
        return pa.array(np.concatenate(numbers), kind)
    converted: dict[tuple[int, int], pa.Array] = {}  # the same list of names comes with every update
    for block in blocks:
        key = (id(block.cells.get(name)), block.rows)
        if key not in converted:
            converted[key] = block.column(name, kind)
    joined = [converted[id(block.cells.get(name)), block.rows] for block in blocks]
    return pa.concat_arrays(joined) if joined else pa.nulls(0, kind)
