"""Runs that no recorder wrote: shards exchanged and vouched for by the manifest, and runs of any size."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.schema import BY_NAME
from esper_analyze.schema.arrow import TYPES, arrow_schema, fingerprint
from esper_analyze.schema.column import Column, Kind, Table
from esper_analyze.storage.layout import MANIFEST_FILE, ShardEntry, attempt_folder, rank_folder, shard_name
from esper_analyze.storage.shard_file import seal
from tests.faults.children import ROOT

NUMBER, FIRST = 99, 10**9
"""Number of a shard that is added, and of its first row."""
SAMPLE = ROOT / "sample_runs" / "runs" / "nan_reward"


def copied(to: Path) -> Path:
    """Return a fresh copy of a sample run."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(SAMPLE, to))


def shards(run_dir: Path) -> list[Path]:
    """Return the shards of a run."""
    return sorted(run_dir.glob("rank*/attempt-*/*.parquet"))


def vouched(path: Path, content: bytes) -> None:
    """Put ``content`` in a shard's place and let the manifest say that it belongs there."""
    path.write_bytes(content)
    manifest = path.with_name(MANIFEST_FILE)
    entries = [ShardEntry.from_line(line) for line in manifest.read_bytes().splitlines()]
    size, crc = len(content), zlib.crc32(content)
    entries = [dataclasses.replace(one, size=size, crc32=crc) if one.shard == path.name else one for one in entries]
    manifest.write_bytes(b"".join(entry.as_line() for entry in entries))


def listed(run_dir: Path, table: Table, content: bytes) -> Path:
    """Add a shard to a run, with a line of the manifest; the run counts as not closed."""
    folder = next(run_dir.glob("rank*/attempt-*"))
    (folder / "closed.json").unlink(missing_ok=True)
    path = folder / shard_name(table.name, NUMBER)
    path.write_bytes(content)
    rows = pq.read_metadata(pa.BufferReader(content)).num_rows
    facts = {"rows": rows, "first_seq": FIRST, "last_seq": FIRST + rows - 1, "first_update": 0, "last_update": 0}
    entry = ShardEntry(
        path.name, table.name, NUMBER, len(content), zlib.crc32(content), schema=fingerprint(table), **facts
    )
    with (folder / MANIFEST_FILE).open("ab") as manifest:
        manifest.write(entry.as_line())
    return path


def filled(table: Table, rows: int, **cells: pa.Array) -> pa.Table:
    """Return ``rows`` rows of ``table`` with sequence numbers and the given columns; what need not be there is null."""
    own = {"seq": pa.array(np.arange(FIRST, FIRST + rows)), "update": pa.array(np.zeros(rows, np.int64)), **cells}
    columns = [own.get(column.name, _plain(column, rows)) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=arrow_schema(table))


def _plain(column: Column, rows: int) -> pa.Array:
    kind = TYPES[column.kind]
    if not column.required:
        return pa.nulls(rows, kind)
    word = column.choices[0] if column.choices else "x"
    return pa.repeat(pa.scalar(word if column.kind in (Kind.TEXT, Kind.CHOICE) else 0, kind), rows)


def parquet(data: pa.Table, **options: object) -> bytes:
    """Return ``data`` as a Parquet file written with other options than the recorder's."""
    sink = pa.BufferOutputStream()
    pq.write_table(data, sink, **{"compression": "zstd", "store_schema": True, **options})
    return bytes(sink.getvalue().to_pybytes())


def large_run(to: Path, rows: int, fill: Callable[[int, int], dict[str, pa.Table]]) -> Path:
    """Write a closed run of sealed shards; ``fill`` gives the tables of the rows from one number up to another."""
    shutil.rmtree(to, ignore_errors=True)
    folder = to / rank_folder(0) / attempt_folder(0, "0123abcd")
    folder.mkdir(parents=True)
    info = json.loads((SAMPLE / "run.json").read_text())
    (to / "run.json").write_text(json.dumps(info | {"name": to.name, "level": "DEBUG"}))
    lines, counts = [], dict.fromkeys(BY_NAME, 0)
    piece = 500_000
    for number, start in enumerate(range(0, rows, piece), start=1):
        for name, data in fill(start, min(start + piece, rows)).items():
            lines.append(seal(folder, BY_NAME[name], number, data).as_line())
            counts[name] += len(data)
    (folder / MANIFEST_FILE).write_bytes(b"".join(lines))
    marker = {"reason": "closed", "lost_rows": 0, "tables": {name: {"rows": n} for name, n in counts.items() if n}}
    (folder / "closed.json").write_text(json.dumps(marker))
    return to
