"""Rows of a CSV, JSON or Parquet file as Python cells: empty is null, words for NaN are left to the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from esper_analyze.errors import DamagedError, EsperError, UsageError
from esper_analyze.interchange.imported import ImportLosses, Row
from esper_analyze.interchange.json_lines import json_lines

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")
_BATCH = 10_000
_COMMENT = "#"
"""Stable-Baselines3's Monitor begins its files with a line of JSON behind this sign."""


def rows_of(path: Path, losses: ImportLosses) -> Iterator[Row]:
    """Yield the rows of ``path`` by its ending; broken ones are counted in ``losses``.

    Raises ``UsageError`` or ``DamagedError``.
    """
    if path.suffix == ".csv":
        yield from csv_rows(path, losses)
    elif path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix in (".jsonl", ".ndjson"):
        yield from (row for _, row in json_lines(path, losses))
    else:
        raise UsageError(f"{path} ends in none of {', '.join(SUFFIXES)}", hint="give a file of one of these kinds")


def refuse_empty(path: Path) -> None:
    """Raise ``UsageError`` for a file without a byte."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if size == 0:
        raise UsageError(f"{path} is empty", hint="nothing was logged yet, or the disk was full")


def csv_rows(path: Path, losses: ImportLosses) -> Iterator[Row]:
    """Yield the rows of a CSV file. A line that repeats or extends the header is the header of the lines after it.

    Raises ``UsageError`` or ``DamagedError``.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from _by_header(csv.reader(file, strict=True), path, losses)
    except csv.Error as error:
        losses.count("malformed_line", f"line from which on {path.name} is no CSV", str(error), lost=1)
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _by_header(lines: CsvReader, path: Path, losses: ImportLosses) -> Iterator[Row]:
    header = next(lines, [])
    if header and header[0].startswith(_COMMENT):
        header = next(lines, [])
    _refuse_doubled(path, header)
    for line in lines:
        if _is_header(line, header):
            _refuse_doubled(path, line)
            what = f"header again in the middle of {path.name}, the lines after it are read by it"
            losses.count("repeated_header", what, f"line {lines.line_num}")
            header = line
        elif len(line) == len(header):
            yield {name: None if cell == "" else cell for name, cell in zip(header, line, strict=True)}
        elif line:
            what = f"line with another number of cells than the header of {path.name}"
            losses.count("malformed_line", what, f"line {lines.line_num}", lost=1)


def _refuse_doubled(path: Path, header: Sequence[str]) -> None:
    doubled = next((name for name in header if header.count(name) > 1), None)
    if doubled is not None:
        raise DamagedError(f"{path} has two columns called {doubled!r}")


def _is_header(line: Sequence[str], header: Sequence[str]) -> bool:
    """Whether a line names columns: at least half of the names so far are among its cells."""
    return bool(line) and len(set(line).intersection(header) - {""}) * 2 >= max(len(header), 1)


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


def column_names(path: Path) -> list[str] | None:
    """Return the names of the first row of a file of rows, None when ``path`` is none or cannot be read."""
    if not path.is_file() or path.suffix not in SUFFIXES:
        return None
    try:
        return [name for row in islice(rows_of(path, ImportLosses()), 1) for name in row]
    except EsperError:
        return None


def text_lines(path: Path) -> list[str]:
    """Return the lines of a text file. Raises ``UsageError`` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
