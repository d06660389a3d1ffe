"""What a query found, as a table, CSV, JSON, JSON lines or Parquet; null and NaN apart in each of them.

======== ================ ===========================
format   null             NaN, ±Inf
======== ================ ===========================
table    NULL             nan, inf, -inf
csv      an empty cell    nan, inf, -inf (text without letters is ``""``)
json(l)  null             "NaN", "Infinity", "-Infinity"
parquet  null             as they are
======== ================ ===========================
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from esper_analyze.csv_text import csv_line
from esper_analyze.errors import UsageError
from esper_analyze.sql.statements import told
from esper_analyze.sql.temporary import remember, remove
from esper_analyze.terminal import RESULTS, Sink, escaped, path_words, put, say, show_table

if TYPE_CHECKING:
    import pyarrow as pa

    from esper_analyze.sql.session import Answer, Session


class Format(StrEnum):
    """How a result is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PARQUET = "parquet"


def write_answer(session: Session, query: str, shape: Format, *, out: Path | None = None, limit: int = 100) -> None:
    """Write what ``query`` finds to stdout; or to the file ``out``, whole or not at all, and its name to stdout.

    ``limit`` rows of a table are shown, 0: all. Raises ``UsageError`` for a query or a file that cannot be.
    """
    if shape is Format.PARQUET:
        if out is None:
            raise UsageError("Parquet is no text for a terminal or a pipe", hint="add --out FILE")
        with _whole(out) as path:
            _write_parquet(session, query, path)
    else:
        with session.answer(query, distinct=shape in _WRITERS) as found:
            if out is None:
                _write_text(found, shape, RESULTS, limit, safe=session.spreadsheet_safe)
                return
            with _whole(out) as path, path.open("w", encoding="utf-8", newline="") as sink:
                form = Format.CSV if shape is Format.TABLE else shape
                _write_text(found, form, sink, limit, safe=session.spreadsheet_safe)
    put(f"{path_words(out)}\n")


def _write_text(found: Answer, shape: Format, sink: Sink, limit: int, *, safe: bool) -> None:
    if shape is Format.CSV:
        lines: Iterable[Iterable[object]] = chain([found.columns], found.rows)
        for line in lines:
            sink.write(csv_line(line, safe=safe))
    elif shape is Format.TABLE:
        _show(found.columns, found.rows, limit)
    else:
        _WRITERS[shape](found.columns, found.rows, sink)


def _write_json(columns: Sequence[str], rows: Iterable[tuple[object, ...]], sink: Sink) -> None:
    """Write an array of objects, one row after the other: what does not fit in memory may yet fit down a pipe."""
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


_WRITERS: dict[Format, Callable[[Sequence[str], Iterable[tuple[object, ...]], Sink], None]] = {
    Format.JSON: _write_json,
    Format.JSONL: _write_lines,
}


def _show(columns: Sequence[str], rows: Iterator[tuple[object, ...]], limit: int) -> None:
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
    """Write batch by batch; float columns without statistics, by which DuckDB 2.0.0 would lose their NaNs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with session.arrow(query) as (found, batches):
        try:
            schema = pa.schema([field.with_type(_plain_type(field.type)) for field in found])
            pruned = [field.name for field in schema if not (pa.types.is_floating(field.type) or _nested(field.type))]
            with pq.ParquetWriter(path, schema, compression="zstd", write_statistics=pruned) as writer:
                for batch in batches:
                    writer.write_table(pa.Table.from_batches([batch]).cast(schema))
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            told = " ".join(str(error).split())[:200].rstrip(".")
            raise UsageError(f"Parquet cannot hold the result: {told}", hint="cast it to text: x::varchar") from error


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return text for a dictionary: columns of dictionaries break other readers."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _nested(kind: pa.DataType) -> bool:
    return bool(kind.num_fields)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Give a hidden path beside ``out`` that takes its name at the end, if all goes well."""
    try:
        path = out.parent / f".{out.name[:80]}.{uuid.uuid4().hex[:8]}"
        remember(path)
        path.touch(mode=0o600, exist_ok=False)
        yield path
        path.chmod(0o644)
        path.replace(out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}", hint="choose another --out") from error
    finally:
        remove(path)


def run_one(session: Session, text: str, shape: Format, out: Path | None, limit: int) -> bool:
    """Run one statement or dot command and write what comes of it; return whether to go on."""
    if not text.startswith("."):
        write_answer(session, text, shape, out=out, limit=limit)
        return True
    text_out = told(text)
    put(text_out or "")
    return text_out is not None
