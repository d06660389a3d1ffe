"""Rows of a CSV, JSON lines or Parquet file as Python cells: empty is null, words for NaN are left to the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange.imported import ImportLosses, Row
from esper_analyze.interchange.json_lines import json_lines

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")
_BATCH = 10_000


def rows_of(path: Path, losses: ImportLosses) -> Iterator[Row]:
    """Yield the rows of ``path`` by its ending; broken ones are counted in ``losses``.

    Raises ``UsageError`` or ``DamagedError``.
    """
    if path.suffix == ".csv":
        yield from _csv_rows(path, losses)
    elif path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix in (".jsonl", ".ndjson"):
        yield from (row for _, row in json_lines(path, losses))
    else:
        raise UsageError(f"{path} ends in none of {', '.join(SUFFIXES)}", hint="give a file of one of these kinds")


def _csv_rows(path: Path, losses: ImportLosses) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            doubled = next((name for name in header if header.count(name) > 1), None)
            if doubled is not None:
                raise DamagedError(f"{path} has two columns called {doubled!r}")
            for line in lines:
                if len(line) == len(header):
                    yield {name: None if cell == "" else cell for name, cell in zip(header, line, strict=True)}
                elif line:
                    what = f"line with another number of cells than the header of {path.name}"
                    losses.count("malformed_line", what, f"line {lines.line_num}", lost=1)
    except csv.Error as error:
        losses.count("malformed_line", f"line from which on {path.name} is no CSV", str(error), lost=1)
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
                yield from batch.to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise DamagedError(f"{path} is no Parquet file that can be read ({type(error).__name__})") from error
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
