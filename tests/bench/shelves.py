"""Runs made up column by column to be read: many updates, many shards, many rows of layers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from esper_analyze.schema import VERSION
from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.column import Table
from esper_analyze.schema.tables import LAYERS, UPDATES
from esper_analyze.storage.shard_file import parquet_bytes, shard_entry

MODEL_LAYERS = 200
_WHOLE = 500_000
"""Rows of a shard where nothing else is said: what ``compact`` joins them to."""


def updates_run(path: Path, updates: int, numbers: Mapping[str, NDArray[np.float64]], rows: int = _WHOLE) -> Path:
    """Write ``numbers`` of ``updates`` updates as a closed run with ``rows`` updates a shard, and return it."""

    def parts() -> Iterator[pa.Table]:
        for start in range(0, updates, rows):
            stop = min(start + rows, updates)
            own = {name: column[start:stop] for name, column in numbers.items()}
            yield _filled(UPDATES, np.arange(start, stop), start, own)

    return _write(path, UPDATES, parts())


def layers_run(path: Path, rows: int) -> Path:
    """Write ``rows`` rows of 200 layers, update after update, as a closed run, and return it."""
    random = np.random.default_rng(0)
    names = pa.array([f"blocks.{layer // 4}.{layer % 4}.weight" for layer in range(MODEL_LAYERS)])

    def parts() -> Iterator[pa.Table]:
        for start in range(0, rows, _WHOLE):
            place = np.arange(start, min(start + _WHOLE, rows))
            norms = np.exp(random.normal(-4.0, 2.0, len(place)).astype(np.float32)).astype(np.float64)
            own = {"layer": names.take(pa.array(place % MODEL_LAYERS)), "grad_norm": norms}
            yield _filled(LAYERS, place // MODEL_LAYERS, start, own)

    return _write(path, LAYERS, parts())


def _filled(table: Table, update: NDArray[np.int64], first: int, cells: Mapping[str, Any]) -> pa.Table:
    own: dict[str, Any] = {**cells, "update": update, "seq": np.arange(first, first + len(update))}
    columns = []
    for field in arrow_schema(table):
        cell = own.get(field.name)
        if cell is None:
            column = pa.nulls(len(update), field.type) if field.nullable else _usual(field, len(update))
        else:
            column = cell if isinstance(cell, pa.Array) else pa.array(cell.astype(field.type.to_pandas_dtype()))
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=arrow_schema(table))


def _usual(field: pa.Field, rows: int) -> pa.Array:
    word = {"status": "performed", "level": "NORMAL"}.get(field.name, "")
    return pa.repeat(pa.scalar(word if pa.types.is_string(field.type) else 0, field.type), rows)


def _write(path: Path, table: Table, parts: Iterator[pa.Table]) -> Path:
    folder = path / "rank00000" / "attempt-0000-00000000"
    folder.mkdir(parents=True)
    facts = {"schema_version": VERSION, "run_id": "0", "name": path.name, "level": "NORMAL", "ranks": 1}
    (path / "run.json").write_text(json.dumps(facts | {"framework": "made up", "thresholds": {}}))
    lines, rows, last = [], 0, 0
    for number, data in enumerate(parts, start=1):
        content = parquet_bytes(table, data)
        entry = shard_entry(table, number, data, content)
        (folder / entry.shard).write_bytes(content)
        lines.append(entry.as_line())
        rows, last = rows + entry.rows, entry.last_update
    (folder / "manifest.jsonl").write_bytes(b"".join(lines))
    tables = {table.name: {"rows": rows, "last_update": last}}
    (folder / "closed.json").write_text(json.dumps({"reason": "closed", "lost_rows": 0, "tables": tables}))
    return path
