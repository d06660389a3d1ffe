"""Shards as a later version would write them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.schema.arrow import schema_fingerprint
from esper_analyze.schema.history import VERSION_KEY
from esper_analyze.storage.layout import ShardEntry


def rewrite(run_dir: Path, table: str, version: str, added: Sequence[str] = ()) -> Path:
    """Write the first shard of ``table`` anew as ``version`` would, with columns ``added``; the manifest lists it."""
    shard = next(run_dir.glob(f"rank00000/*/{table}-*.parquet"))
    data = pq.ParquetFile(shard).read()
    for name in added:
        data = data.append_column(name, pa.nulls(len(data), pa.float64()))
    facts = {**(data.schema.metadata or {}), VERSION_KEY.encode(): version.encode()}
    pq.write_table(data.replace_schema_metadata(facts), shard)
    relist(shard, schema=schema_fingerprint(data.schema))
    return shard


def relist(shard: Path, **changed: object) -> None:
    """Write the manifest anew so that it vouches for ``shard`` as it is now, with other facts ``changed``."""
    manifest = shard.with_name("manifest.jsonl")
    lines = []
    for line in manifest.read_bytes().splitlines():
        facts = json.loads(line)
        facts.pop("crc")
        if facts["shard"] == shard.name:
            content = shard.read_bytes()
            facts |= {"size": len(content), "crc32": zlib.crc32(content), **changed}
        lines.append(ShardEntry(**facts).as_line())
    manifest.write_bytes(b"".join(lines))
