"""Sealed shards: rows in, one immutable Parquet file and its manifest line out.

Float columns are written without statistics: DuckDB 2.0.0 prunes by min and max, which ignore NaN, and then
returns wrong rows for NaN. Integers keep theirs. zstd over BYTE_STREAM_SPLIT halves the size of floats.
Text columns use Parquet's dictionary (the Arrow type stays plain text): every update has the same few words.
Sequence numbers grow by one, so delta encoding stores them in almost no space.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from esper_analyze.schema.arrow import fingerprint, float_columns, integer_columns, word_columns
from esper_analyze.schema.column import Table
from esper_analyze.schema.history import VERSION, VERSION_KEY
from esper_analyze.storage.atomic import write_whole
from esper_analyze.storage.layout import ShardEntry, shard_name

GROUP_ROWS = 100_000
"""Rows in a row group: as many as a streaming reader holds in memory at once."""


def parquet_bytes(table: Table, data: pa.Table) -> bytes:
    """Return ``data`` as one Parquet file in memory."""
    sink, facts = pa.BufferOutputStream(), {"meaning": table.meaning, VERSION_KEY: VERSION}
    data = data.replace_schema_metadata(facts)
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
        writer.write_table(data, row_group_size=GROUP_ROWS)
    result: bytes = sink.getvalue().to_pybytes()
    return result


def seal(folder: Path, table: Table, number: int, data: pa.Table) -> ShardEntry:
    """Write ``data`` as shard ``number`` of ``table`` and return its manifest entry. Raises ``OSError``."""
    content = parquet_bytes(table, data)
    entry = shard_entry(table, number, data, content)
    write_whole(folder / entry.shard, content)
    return entry


def shard_entry(table: Table, number: int, data: pa.Table, content: bytes, *, rebuilt: bool = False) -> ShardEntry:
    """Return the manifest entry of ``data`` written as ``content``."""
    seqs, updates = data.column("seq"), data.column("update")
    return ShardEntry(
        shard=shard_name(table.name, number),
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
        rebuilt=rebuilt,
    )
