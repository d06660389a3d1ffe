"""Sealed shards: rows in, one immutable Parquet file and its manifest line out.

Float columns are written without statistics: DuckDB 2.0.0 prunes by min and max, which leave NaN out, and then
answers wrongly about NaN. Integers keep theirs. zstd level 1 over BYTE_STREAM_SPLIT halves the size of floats.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.schema.arrow import arrow_schema, fingerprint, float_columns, integer_columns
from esper_analyze.schema.column import Table
from esper_analyze.schema.layout import ShardEntry, shard_name
from recorder.store.files import write_whole

Row = Mapping[str, object]


def arrow_table(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Return ``rows`` as Arrow in the declared order. Raises ``pa.ArrowException`` for a cell of a wrong type."""
    schema = arrow_schema(table)
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def parquet_bytes(table: Table, data: pa.Table) -> bytes:
    """Return ``data`` as one Parquet file in memory."""
    sink = pa.BufferOutputStream()
    writer = pq.ParquetWriter(
        sink,
        data.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=integer_columns(table),
        column_encoding=dict.fromkeys(float_columns(table), "BYTE_STREAM_SPLIT"),
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
        first_update=min(updates.to_pylist()),
        last_update=max(updates.to_pylist()),
        schema=fingerprint(table),
    )
