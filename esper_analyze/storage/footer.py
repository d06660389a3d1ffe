"""What a shard's footer says, held against the declared table and the limits before any cell is decoded."""

from __future__ import annotations

import contextlib
import errno
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
from esper_analyze.storage.footer_crash_check import ends_its_reader
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.limits import LARGEST_COLUMN, LARGEST_FOOTER, LARGEST_SHARD_CELLS
from esper_analyze.storage.parquet_pages import pages_fault
from esper_analyze.storage.run_files import open_file
from esper_analyze.storage.shapes import shapes

_MAGIC = b"PAR1"
_END = struct.Struct("<I4s")
_NUMBERS = {"seq": "sequence numbers", "update": "updates"}


def footer_fault(path: Path, table: Table, entry: ShardEntry | None = None) -> str | None:
    """Return why the file at ``path`` is no shard of ``table``, as some version declared it; None when it is one.

    ``entry``: what the manifest says of it, where it does. Raises ``OSError`` when the file cannot be read,
    ``UsageError`` when it says to be of a newer version.
    """
    with open_file(path) as file:
        reason = _end_fault(file)
        if reason is None and entry is None and ends_its_reader(path):
            reason = "has a footer that ends the process that reads it"
        return reason or _footer_fault(file, path, table, entry)


def _footer_fault(file: BinaryIO, path: Path, table: Table, entry: ShardEntry | None) -> str | None:
    try:
        return _looked_at(file, path, table, entry)
    except (pa.ArrowException, ValueError, RecursionError, IndexError, OverflowError) as error:
        return f"has a footer that cannot be read ({type(error).__name__})"
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        return f"has a footer that cannot be read ({error})"  # Arrow's own, or a place that no file has


def _looked_at(file: BinaryIO, path: Path, table: Table, entry: ShardEntry | None) -> str | None:
    found = pq.read_metadata(file)
    schema = found.schema.to_arrow_schema()
    reason = _schema_fault(table, schema, entry.schema if entry else None)
    _refuse_newer(path, found, unknown=reason is not None)
    reason = reason or _size_fault(found) or (_entry_fault(found, entry) if entry else None)
    return reason or pages_fault(file, table, found) or _rank_fault(file, path, found)


def footer_mark(path: Path) -> str:
    """Return the fingerprint of a shard's columns; its footer must be sound."""
    return schema_fingerprint(_metadata(path).schema.to_arrow_schema())


def _metadata(path: Path) -> pq.FileMetaData:
    with open_file(path) as file:
        return pq.read_metadata(file)


def has_float_statistics(path: Path) -> bool:
    """Return whether any float column of a sound shard has statistics: the recorder never writes them.

    DuckDB 2.0 prunes by min and max, which leave NaN out, and then answers wrongly about NaN.
    """
    found = _metadata(path)
    for number in range(found.num_row_groups):
        group = found.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        if any(one.physical_type in ("DOUBLE", "FLOAT") and one.is_stats_set for one in columns):
            return True
    return False


def unknown_table(path: Path, name: str) -> str:
    """Return why a shard of a table that is not declared is unusable. Raises as ``footer_fault`` does."""
    with open_file(path) as file:
        if _end_fault(file) is None:
            with contextlib.suppress(pa.ArrowException, ValueError, RecursionError):
                _refuse_newer(path, pq.read_metadata(file), unknown=True)
    return f"holds rows of {name[:60]!r}, a table this version does not know"


def _refuse_newer(path: Path, found: pq.FileMetaData, *, unknown: bool) -> None:
    """Raise ``UsageError`` for a shard of a newer major version, or a newer minor one with ``unknown`` columns."""
    number = ((found.metadata or {}).get(VERSION_KEY.encode()) or b"").decode(errors="replace")
    if is_newer_major(number) or (unknown and is_newer(number)):
        raise newer_schema(path, number)


def newer_schema(path: Path, number: str) -> UsageError:
    """Return the refusal of a run or shard that this program is too old for."""
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


def _schema_fault(table: Table, found: pa.Schema, mark: str | None) -> str | None:
    own, known = schema_fingerprint(found), shapes(table)
    if own in known:
        if mark in (None, own):
            return None
        return f"has the columns of schema {known[own].version}, the manifest says it has others ({mark[:16]!r})"
    then = known[mark].table if mark in known else table
    faults = schema_faults(then, found)
    if not faults:
        wanted = arrow_schema(then)
        other = [field.name for field in found if field.nullable != wanted.field(field.name).nullable]
        faults = [f"column {name} differs in whether it may be empty" for name in other]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"is not a shard of {table.name}: {faults[0]}{more}"


def _size_fault(found: pq.FileMetaData) -> str | None:
    most = LARGEST_SHARD_CELLS // max(found.num_columns, 1)
    if not 0 <= found.num_rows <= most:
        return f"says to hold {found.num_rows:,} rows, {most:,} are the most"
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    if sum(group.num_rows for group in groups) != found.num_rows:
        return f"says to hold {found.num_rows:,} rows, its row groups hold another number"
    for group in groups:
        for number in range(group.num_columns):
            column = group.column(number)
            if not 0 <= column.total_uncompressed_size <= LARGEST_COLUMN:
                return (
                    f"says that column {column.path_in_schema} takes {column.total_uncompressed_size:,} bytes, "
                    f"{LARGEST_COLUMN:,} are the most"
                )
    return None


def _rank_fault(file: BinaryIO, path: Path, found: pq.FileMetaData) -> str | None:
    """Return why rows are not of the rank whose folder they lie in: by the column's statistics, or by its cells."""
    own = layout.rank_of(path.parent.parent)
    if own is None or not found.num_rows:
        return None
    strange = [rank for rank in _ranks(file, found) if rank != own]
    return f"holds rows of rank {strange[0]}, its folder is of rank {own}" if strange else None


def _ranks(file: BinaryIO, found: pq.FileMetaData) -> set[int]:
    edges = _edges(found, "rank")
    if edges is not None:
        return set(edges)
    with pq.ParquetFile(file) as shard:
        return set(shard.read(columns=["rank"], use_threads=False)["rank"].unique().to_pylist())


def _edges(found: pq.FileMetaData, name: str) -> tuple[int, int] | None:
    """Return the least and the largest cell of an integer column, None where the statistics do not say."""
    place = found.schema.names.index(name)
    groups = [found.row_group(number).column(place).statistics for number in range(found.num_row_groups)]
    if not groups or not all(one is not None and one.has_min_max for one in groups):
        return None
    return min(one.min for one in groups), max(one.max for one in groups)


def _entry_fault(found: pq.FileMetaData, entry: ShardEntry) -> str | None:
    """Return what the manifest says otherwise than the footer: readers go by both."""
    if found.num_rows != entry.rows:
        return f"holds {found.num_rows:,} rows, the manifest says {entry.rows:,}"
    said = {"seq": (entry.first_seq, entry.last_seq), "update": (entry.first_update, entry.last_update)}
    for name, (first, last) in said.items():
        edges = _edges(found, name)
        if edges is not None and edges != (first, last):
            own = f"{edges[0]:,}–{edges[1]:,}"
            return f"holds the {_NUMBERS[name]} {own}, the manifest says {first:,}–{last:,}"
    return None
