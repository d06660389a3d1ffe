"""Check a shard's footer against the declared table and the size limits before any cell is decoded."""

from __future__ import annotations

import contextlib
import errno
import itertools
import struct
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.errors import UsageError
from esper_analyze.schema.arrow import arrow_schema, schema_fingerprint
from esper_analyze.schema.column import Table
from esper_analyze.schema.history import VERSION, VERSION_KEY, is_newer, is_newer_major
from esper_analyze.schema.validate import schema_faults
from esper_analyze.storage import layout
from esper_analyze.storage.footer_crash_check import crashes_reader
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.limits import LARGEST_COLUMN, LARGEST_FOOTER, LARGEST_SHARD_CELLS
from esper_analyze.storage.parquet_pages import pages_fault
from esper_analyze.storage.run_files import open_file
from esper_analyze.storage.shapes import shapes

_MAGIC = b"PAR1"
_END = struct.Struct("<I4s")
_NUMBERS = {"seq": "sequence numbers", "update": "updates"}


def footer_fault(path: Path, table: Table, entry: ShardEntry | None = None) -> str | None:
    """Return why the file at ``path`` is not a shard of ``table`` under any schema version; None when it is one.

    ``entry``: its manifest entry, if it has one. Raises ``OSError`` when the file cannot be read, ``UsageError`` when
    it was recorded with a newer schema.
    """
    with open_file(path) as file:
        reason = _end_fault(file)
        if reason is None and entry is None and crashes_reader(path):
            reason = "has a footer that ends the process that reads it"
        return reason or _footer_fault(file, path, table, entry)


def _footer_fault(file: BinaryIO, path: Path, table: Table, entry: ShardEntry | None) -> str | None:
    try:
        return _content_fault(file, path, table, entry)
    except (pa.ArrowException, ValueError, RecursionError, IndexError, OverflowError) as error:
        return f"has a footer that cannot be read ({type(error).__name__})"
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        return f"has a footer that cannot be read ({error})"  # raised by Arrow, or an offset that no file has


def _content_fault(file: BinaryIO, path: Path, table: Table, entry: ShardEntry | None) -> str | None:
    metadata = pq.read_metadata(file)
    schema = metadata.schema.to_arrow_schema()
    reason = _columns_fault(table, schema, entry.schema if entry else None)
    _refuse_newer(path, metadata, unknown=reason is not None)
    reason = reason or _size_fault(metadata)
    # the texts of a shard with an entry are under its checksum
    reason = reason or (_entry_fault(metadata, entry) if entry else _text_fault(metadata, schema))
    return reason or pages_fault(file, table, metadata) or _rank_fault(file, path, metadata)


def footer_fingerprint(path: Path) -> str:
    """Return the fingerprint of a shard's columns. The footer must have been checked."""
    return schema_fingerprint(_metadata(path).schema.to_arrow_schema())


def _metadata(path: Path) -> pq.FileMetaData:
    with open_file(path) as file:
        return pq.read_metadata(file)


def has_float_statistics(path: Path) -> bool:
    """Return whether any float column of a sound shard has statistics: the recorder never writes them.

    DuckDB 2.0 prunes by min and max, which leave NaN out, and then answers wrongly about NaN.
    """
    metadata = _metadata(path)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(index) for index in range(group.num_columns)]
        if any(chunk.physical_type in ("DOUBLE", "FLOAT") and chunk.is_stats_set for chunk in columns):
            return True
    return False


def unknown_table(path: Path, name: str) -> str:
    """Return why a shard of an undeclared table is unusable. Raises as ``footer_fault`` does."""
    with open_file(path) as file:
        if _end_fault(file) is None:
            with contextlib.suppress(pa.ArrowException, ValueError, RecursionError):
                _refuse_newer(path, pq.read_metadata(file), unknown=True)
    return f"holds rows of {name[:60]!r}, a table this version does not know"


def _refuse_newer(path: Path, footer: pq.FileMetaData, *, unknown: bool) -> None:
    """Raise ``UsageError`` for a shard of a newer major version, or a newer minor one with ``unknown`` columns."""
    number = ((footer.metadata or {}).get(VERSION_KEY.encode()) or b"").decode(errors="replace")
    if is_newer_major(number) or (unknown and is_newer(number)):
        raise newer_schema(path, number)


def newer_schema(path: Path, number: str) -> UsageError:
    """Return the error for a run or shard recorded with a schema newer than this program's."""
    words = f"{path} was recorded with schema {number}, this version reads up to {VERSION}"
    return UsageError(words, hint="install a newer esper-analyze")


def _end_fault(file: BinaryIO) -> str | None:
    size = file.seek(0, 2)
    if size < len(_MAGIC) + _END.size:
        return "is empty" if size == 0 else f"is no Parquet file: {size} bytes are too few"
    file.seek(size - _END.size)
    length, magic = _END.unpack(file.read(_END.size))
    if magic != _MAGIC:
        return "is no Parquet file: it does not end as one"
    if length > LARGEST_FOOTER:
        return f"has a footer of {length:,} bytes, {LARGEST_FOOTER:,} are the most"
    return None


def _columns_fault(table: Table, columns: pa.Schema, expected: str | None) -> str | None:
    actual, by_fingerprint = schema_fingerprint(columns), shapes(table)
    if actual in by_fingerprint:
        if expected in (None, actual):
            return None
        version = by_fingerprint[actual].version
        return f"has the columns of schema {version}, the manifest says it has others ({expected[:16]!r})"
    then = by_fingerprint[expected].table if expected in by_fingerprint else table
    faults = schema_faults(then, columns)
    if not faults:
        wanted = arrow_schema(then)
        other = [field.name for field in columns if field.nullable != wanted.field(field.name).nullable]
        faults = [f"column {name} differs in whether it may be null" for name in other]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"is not a shard of {table.name}: {faults[0]}{more}"


def _text_fault(metadata: pq.FileMetaData, schema: pa.Schema) -> str | None:
    """Return a fault where texts in the footer are not UTF-8: pyarrow reads such a file, polars does not."""
    try:
        for texts in (metadata.metadata, schema.metadata, *(field.metadata for field in schema)):
            for text in itertools.chain.from_iterable((texts or {}).items()):
                text.decode()
    except UnicodeDecodeError:
        return "has a text in its footer that is not UTF-8"
    return None


def _size_fault(metadata: pq.FileMetaData) -> str | None:
    most = LARGEST_SHARD_CELLS // max(metadata.num_columns, 1)
    if not 0 <= metadata.num_rows <= most:
        return f"says to hold {metadata.num_rows:,} rows, {most:,} are the most"
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        return f"says to hold {metadata.num_rows:,} rows, its row groups hold another number"
    for group in groups:
        for number in range(group.num_columns):
            column = group.column(number)
            if not 0 <= column.total_uncompressed_size <= LARGEST_COLUMN:
                return (
                    f"says that column {column.path_in_schema} takes {column.total_uncompressed_size:,} bytes, "
                    f"{LARGEST_COLUMN:,} are the most"
                )
    return None


def _rank_fault(file: BinaryIO, path: Path, metadata: pq.FileMetaData) -> str | None:
    """Return why rows are not of the rank whose folder they are in: by the column's statistics, else by its cells."""
    folder_rank = layout.rank_of(path.parent.parent)
    if folder_rank is None or not metadata.num_rows:
        return None
    strange = [rank for rank in _ranks(file, metadata) if rank != folder_rank]
    return f"holds rows of rank {strange[0]}, its folder is of rank {folder_rank}" if strange else None


def _ranks(file: BinaryIO, metadata: pq.FileMetaData) -> set[int]:
    edges = _value_range(metadata, "rank")
    if edges is not None:
        return set(edges)
    with pq.ParquetFile(file) as shard:
        return set(shard.read(columns=["rank"], use_threads=False)["rank"].unique().to_pylist())


def _value_range(metadata: pq.FileMetaData, name: str) -> tuple[int, int] | None:
    """Return the least and the largest cell of an integer column; None without statistics."""
    column = metadata.schema.names.index(name)
    groups = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
    if not groups or not all(group is not None and group.has_min_max for group in groups):
        return None
    return min(group.min for group in groups), max(group.max for group in groups)


def _entry_fault(metadata: pq.FileMetaData, entry: ShardEntry) -> str | None:
    """Return where manifest and footer disagree: readers rely on both."""
    if metadata.num_rows != entry.rows:
        return f"holds {metadata.num_rows:,} rows, the manifest says {entry.rows:,}"
    declared = {"seq": (entry.first_seq, entry.last_seq), "update": (entry.first_update, entry.last_update)}
    for name, (first, last) in declared.items():
        edges = _value_range(metadata, name)
        if edges is not None and edges != (first, last):
            actual = f"{edges[0]:,}–{edges[1]:,}"
            return f"holds the {_NUMBERS[name]} {actual}, the manifest says {first:,}–{last:,}"
    return None
