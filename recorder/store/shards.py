"""Sealed shards: rows in, one immutable Parquet file and its manifest line out.

Float columns are written without statistics: DuckDB 2.0.0 prunes by min and max, which leave NaN out, and then
answers wrongly about NaN. Integers keep theirs. zstd over BYTE_STREAM_SPLIT halves the size of floats.
Words go through Parquet's own dictionary (the Arrow type stays plain text): the same few come in every update.
Sequence numbers grow by one: their differences take no room.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from esper_analyze.schema.arrow import arrow_schema, fingerprint, float_columns, integer_columns, word_columns
from esper_analyze.schema.column import Table
from esper_analyze.schema.layout import ShardEntry, shard_name
from recorder.store.block import Block, Rows
from recorder.store.files import write_whole

Entry = tuple[int, Rows]
"""The first sequence number, and rows that follow one another from it."""


def arrow_table(table: Table, entries: Sequence[Entry], rank: int = 0) -> pa.Table:
    """Return ``entries`` as Arrow in the declared order, with rank and sequence numbers.

    Raises ``pa.ArrowException``, ``TypeError`` or ``ValueError`` for a cell of a wrong type.
    """
    schema = arrow_schema(table)
    blocks = list(_blocks(table, [rows for _, rows in entries]))
    own = {
        "rank": np.full(sum(map(len, blocks)), rank, np.int64),
        "seq": np.concatenate([np.arange(first, first + len(rows)) for first, rows in entries] or [np.zeros(0, int)]),
    }
    columns = []
    for field in schema:
        column = pa.array(own[field.name]) if field.name in own else _column(blocks, field.name, field.type)
        if column.null_count and not field.nullable:
            raise ValueError(f"column {field.name!r} of {table.name} must not be empty")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def _blocks(table: Table, entries: Iterable[Rows]) -> Iterator[Block]:
    """Yield blocks; rows handed over one by one are gathered, so that each column is converted once for many."""
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
    made: dict[tuple[int, int], pa.Array] = {}  # the same list of names comes with every update
    for block in blocks:
        key = (id(block.cells.get(name)), block.rows)
        if key not in made:
            made[key] = block.column(name, kind)
    joined = [made[id(block.cells.get(name)), block.rows] for block in blocks]
    return pa.concat_arrays(joined) if joined else pa.nulls(0, kind)


def parquet_bytes(table: Table, data: pa.Table) -> bytes:
    """Return ``data`` as one Parquet file in memory."""
    sink = pa.BufferOutputStream()
    writer = pq.ParquetWriter(
        sink,
        data.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in (*integer_columns(table), *word_columns(table)) if name != "seq"],
        column_encoding=dict.fromkeys(float_columns(table), "BYTE_STREAM_SPLIT") | {"seq": "DELTA_BINARY_PACKED"},
        write_statistics=integer_columns(table),
        store_schema=True,
    )
    with writer:
        writer.write_table(data)
    result: bytes = sink.getvalue().to_pybytes()
    return result


def seal(folder: Path, table: Table, number: int, data: pa.Table) -> ShardEntry:
    """Write ``data`` as shard ``number`` of ``table`` and return its manifest entry. Raises ``OSError``."""
    content = parquet_bytes(table, data)
    name = shard_name(table.name, number)
    write_whole(folder / name, content)
    seqs, updates = data.column("seq"), data.column("update")
    return ShardEntry(
        shard=name,
        table=table.name,
        number=number,
        size=len(content),
        crc32=zlib.crc32(content),
        rows=data.num_rows,
        first_seq=seqs[0].as_py(),
        last_seq=seqs[-1].as_py(),
        first_update=pc.min(updates).as_py(),
        last_update=pc.max(updates).as_py(),
        schema=fingerprint(table),
    )
