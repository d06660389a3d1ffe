"""What a shard's footer says, held against the declared table and the limits before any cell is decoded."""

from __future__ import annotations

import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.runs.pages import pages_fault
from esper_analyze.schema.arrow import arrow_schema, fingerprint, schema_fingerprint
from esper_analyze.schema.column import Table
from esper_analyze.schema.limits import LARGEST_COLUMN, LARGEST_FOOTER, LARGEST_SHARD_CELLS
from esper_analyze.schema.validate import schema_faults

_MAGIC = b"PAR1"
_END = struct.Struct("<I4s")


def footer_fault(path: Path, table: Table, rows: int | None = None) -> str | None:
    """Return why the file at ``path`` is no shard of ``table`` (with ``rows`` rows, if given), None when it is one.

    Raises ``OSError`` when the file cannot be read.
    """
    reason = _end_fault(path)
    if reason is not None:
        return reason
    try:
        found = pq.read_metadata(path)
        schema = found.schema.to_arrow_schema()
    except (pa.ArrowException, ValueError, RecursionError) as error:
        return f"has a footer that cannot be read ({type(error).__name__})"
    reason = _schema_fault(table, schema) or _size_fault(found) or _rows_fault(found.num_rows, rows)
    return reason or pages_fault(path, table, found)


def _end_fault(path: Path) -> str | None:
    with path.open("rb") as file:
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


def _schema_fault(table: Table, found: pa.Schema) -> str | None:
    if schema_fingerprint(found) == fingerprint(table):
        return None
    faults = schema_faults(table, found)
    if not faults:
        wanted = arrow_schema(table)
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


def _rows_fault(found: int, wanted: int | None) -> str | None:
    if wanted is None or found == wanted:
        return None
    return f"holds {found:,} rows, the manifest says {wanted:,}"
