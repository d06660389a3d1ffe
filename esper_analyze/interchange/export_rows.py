"""Export of tables row by row, to CSV or JSON lines.

CSV: null is an empty cell, a text without letters is ``""``, NaN is ``NaN``, infinities ``inf`` and ``-inf``.
JSON lines: null is null; JSON has no token for the others, so they are the texts "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from esper_analyze.csv_text import safe_frame
from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema.column import Table
from esper_analyze.storage.row_source import RowSource
from esper_analyze.strict_json import number_word

if TYPE_CHECKING:
    import polars

_SLICE = 50_000


def frames(run: RecordedRun, table: Table) -> Iterator[polars.DataFrame]:
    """Yield the rows of ``table`` in the order they were written, a part after the other."""
    parts: list[RowSource] = run.row_sources(table.name)
    for part in parts:
        rows = part.frame(list(table.names)).select(table.names)
        yield from rows.iter_slices(_SLICE)


def write_csv(run: RecordedRun, table: Table, path: Path, *, safe: bool = False) -> int:
    """Write ``table`` to ``path`` and return its rows; ``safe``: no text is one that a spreadsheet runs."""
    rows = 0
    with path.open("wb") as file:
        file.write((",".join(table.names) + "\n").encode())
        for frame in frames(run, table):
            exported = safe_frame(frame) if safe else frame
            exported.write_csv(file, include_header=False, null_value="", quote_style="necessary")
            rows += frame.height
    return rows


def write_jsonl(run: RecordedRun, table: Table, path: Path) -> int:
    """Write ``table`` to ``path`` and return its rows."""
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        for frame in frames(run, table):
            _write_lines(frame, file)
            rows += frame.height
    return rows


def _write_lines(frame: polars.DataFrame, file: IO[str]) -> None:
    import polars

    floats = [name for name, kind in frame.schema.items() if kind == polars.Float64]
    odd = [name for name in floats if not frame[name].is_finite().all()]
    for row in frame.iter_rows(named=True):
        for name in odd:
            value = row[name]
            if value is not None and value - value != 0:  # NaN or infinite
                row[name] = number_word(value)
        file.write(json.dumps(row, allow_nan=False) + "\n")
