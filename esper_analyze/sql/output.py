"""Write a query's result as a table, CSV, JSON, JSON lines or Parquet; null and NaN stay distinct in each.

======== ================ ===========================
format   null             NaN, ±Inf
======== ================ ===========================
table    NULL             nan, inf, -inf
csv      an empty cell    nan, inf, -inf (text without letters is ``""``)
json(l)  null             "NaN", "Infinity", "-Infinity"
parquet  null             unchanged
======== ================ ===========================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from esper_analyze.csv_text import csv_line
from esper_analyze.errors import UsageError
from esper_analyze.sql.statements import command_text
from esper_analyze.sql.temporary import remember, remove
from esper_analyze.storage.atomic import staged
from esper_analyze.storage.output_path import writing
from esper_analyze.terminal import RESULTS, Sink, escaped, path_words, put, say, show_table

if TYPE_CHECKING:
    import pyarrow as pa

    from esper_analyze.sql.session import QueryResult, Session


class ResultFormat(StrEnum):
    """How a result is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PARQUET = "parquet"


def write_result(
    session: Session, query: str, shape: ResultFormat, *, out: Path | None = None, limit: int = 100
) -> None:
    """Write the result of ``query`` to stdout; or atomically to the file ``out``, and its name to stdout.

    ``limit`` rows of a table are shown, 0: all. Raises ``UsageError`` for an invalid query or an unwritable file.
    """
    if shape is ResultFormat.PARQUET:
        if out is None:
            raise UsageError("Parquet cannot be written to a terminal or a pipe", hint="add --out FILE")
        with _atomic_output(out) as path:
            _write_parquet(session, query, path)
    else:
        with session.result(query, distinct=shape in _WRITERS) as result:
            if out is None:
                _write_text(result, shape, RESULTS, limit, safe=session.spreadsheet_safe)
                return
            with _atomic_output(out) as path, path.open("w", encoding="utf-8", newline="") as sink:
                form = ResultFormat.CSV if shape is ResultFormat.TABLE else shape
                _write_text(result, form, sink, limit, safe=session.spreadsheet_safe)
    put(f"{path_words(out)}\n")


def _write_text(result: QueryResult, shape: ResultFormat, sink: Sink, limit: int, *, safe: bool) -> None:
    if shape is ResultFormat.CSV:
        lines: Iterable[Iterable[object]] = chain([result.columns], result.rows)
        for line in lines:
            sink.write(csv_line(line, safe=safe))
    elif shape is ResultFormat.TABLE:
        _show_table(result.columns, result.rows, limit)
    else:
        _WRITERS[shape](result.columns, result.rows, sink)


def _write_json(columns: Sequence[str], rows: Iterable[tuple[object, ...]], sink: Sink) -> None:
    """Write an array of objects row by row, so that a result larger than memory can be written."""
    from esper_analyze.strict_json import strict_json

    before = "[\n "
    for row in rows:
        sink.write(before + strict_json(dict(zip(columns, row, strict=True))).rstrip("\n").replace("\n", "\n "))
        before = ",\n "
    sink.write("[]\n" if before.startswith("[") else "\n]\n")


def _write_lines(columns: Sequence[str], rows: Iterable[tuple[object, ...]], sink: Sink) -> None:
    from esper_analyze.strict_json import plain

    for row in rows:
        sink.write(json.dumps(plain(dict(zip(columns, row, strict=True))), allow_nan=False) + "\n")


_WRITERS: dict[ResultFormat, Callable[[Sequence[str], Iterable[tuple[object, ...]], Sink], None]] = {
    ResultFormat.JSON: _write_json,
    ResultFormat.JSONL: _write_lines,
}


def _show_table(columns: Sequence[str], rows: Iterator[tuple[object, ...]], limit: int) -> None:
    shown = list(islice(rows, limit or None))
    more = sum(1 for _ in rows)
    numbers = [name for k, name in enumerate(columns) if shown and isinstance(shown[0][k], (int, float))]
    show_table([escaped(name) for name in columns], [[_cell(value) for value in row] for row in shown], right=numbers)
    if more:
        say(f"{more} of {len(shown) + more} rows are not shown: use --limit 0, --json or --csv")


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    return f"{value:.6g}" if isinstance(value, float) else escaped(value)


def _write_parquet(session: Session, query: str, path: Path) -> None:
    """Write batch by batch; float columns without statistics, with which DuckDB 2.0.0 would drop NaNs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with session.arrow(query) as (fields, batches):
        try:
            schema = pa.schema([field.with_type(_plain_type(field.type)) for field in fields])
            pruned = [field.name for field in schema if not (pa.types.is_floating(field.type) or _nested(field.type))]
            with pq.ParquetWriter(path, schema, compression="zstd", write_statistics=pruned) as writer:
                for batch in batches:
                    writer.write_table(pa.Table.from_batches([batch]).cast(schema))
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            reason = " ".join(str(error).split())[:200].rstrip(".")
            raise UsageError(f"Parquet cannot hold the result: {reason}", hint="cast it to text: x::varchar") from error


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the value type of a dictionary type: other readers fail on dictionary columns."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _nested(kind: pa.DataType) -> bool:
    return bool(kind.num_fields)


@contextmanager
def _atomic_output(out: Path) -> Iterator[Path]:
    """Yield a hidden path in the folder of ``out`` that is renamed to ``out`` on success."""
    with writing(out):
        try:
            with staged(out) as path:
                remember(path)
                path.touch(mode=0o600, exist_ok=False)
                yield path
                path.chmod(0o644)
        finally:
            remove(path)


def run_one(session: Session, text: str, shape: ResultFormat, out: Path | None, limit: int) -> bool:
    """Run one statement or dot command and write its output; return whether to continue."""
    if not text.startswith("."):
        write_result(session, text, shape, out=out, limit=limit)
        return True
    text_out = command_text(text)
    put(text_out or "")
    return text_out is not None
