"""What a shard's pages say of themselves: a footer may call small what unpacks to gigabytes.

Readers allocate what the header of a page declares, so the headers are added up before anything is unpacked. They are
Thrift's compact protocol: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from esper_analyze.schema.arrow import word_columns
from esper_analyze.schema.column import Table
from esper_analyze.storage.limits import LARGEST_COLUMN, LARGEST_SHARD
from esper_analyze.storage.varint import VarintError, varint

_HEADER = 512
_LARGEST_HEADER = 1 << 16
_DEEPEST = 8
_TRUE, _FALSE, _BYTE, _SHORT, _INT, _LONG, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_SIZE, _STORED, _DATA, _DICTIONARY, _DATA_V2 = 2, 3, 5, 7, 8
"""Fields of a page's header: bytes unpacked, bytes in the file, and what is particular to a kind of page."""
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}
_ENCODINGS = {0: "PLAIN", 2: "PLAIN_DICTIONARY", 3: "RLE", 5: "DELTA_BINARY_PACKED", 8: "RLE_DICTIONARY",
              9: "BYTE_STREAM_SPLIT"}  # fmt: skip
"""What the recorder writes. Others may make much out of little: each text as the one before and a few letters more."""


class PageError(ValueError):
    """A page's header that cannot be what the recorder wrote; the message says why."""


class Page(NamedTuple):
    """One page: bytes in the file with its header, bytes unpacked, whether it is a dictionary."""

    stored: int
    size: int
    dictionary: bool


def pages_fault(file: BinaryIO, table: Table, found: pq.FileMetaData) -> str | None:
    """Return why the pages of the shard ``file`` with the footer ``found`` must not be unpacked, None when they may."""
    total, words = 0, set(word_columns(table))
    suspected = []
    for group in range(found.num_row_groups):
        for column in map(found.row_group(group).column, range(found.num_columns)):
            try:
                pages = list(_pages(file.fileno(), column))
            except (PageError, VarintError, IndexError) as error:
                return f"has a page of column {column.path_in_schema} that cannot be read ({error})"
            total += sum(page.size for page in pages)
            spelled = sum(page.size for page in pages if page.dictionary)
            if column.path_in_schema in words and spelled * column.num_values > LARGEST_COLUMN:
                suspected.append((group, column.path_in_schema))
    if total > LARGEST_SHARD:
        return f"unpacks to {total:,} bytes, {LARGEST_SHARD:,} are the most"
    return next(filter(None, (_text_fault(file, *one) for one in suspected)), None)


def _text_fault(file: BinaryIO, group: int, column: str) -> str | None:
    """Return whether few words, repeated, make up more text than fits: they are counted, not spelled out."""
    size = 0
    try:
        with pq.ParquetFile(file, read_dictionary=[column]) as shard:
            cells = shard.read_row_group(group, columns=[column], use_threads=False).column(0)
        for chunk in cells.chunks:
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            size += pc.sum(pc.take(lengths, chunk.indices)).as_py() or 0
    except (pa.ArrowException, OSError, IndexError) as error:
        return f"cannot be decoded in column {column} ({type(error).__name__})"
    if size <= LARGEST_COLUMN:
        return None
    return f"holds {size:,} bytes of text in column {column}, {LARGEST_COLUMN:,} are the most"


def _pages(file: int, column: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """Yield the pages of one column of one row group. Raises ``PageError`` or ``IndexError`` for what is none."""
    place = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < place:
        place = column.dictionary_page_offset
    end = place + column.total_compressed_size
    while place < end:
        page = _page(file, place)
        yield page
        place += page.stored


def _page(file: int, place: int) -> Page:
    data = os.pread(file, _HEADER, place)
    try:
        fields, length = _fields(data, 0, 0)
    except IndexError:
        fields, length = _fields(os.pread(file, _LARGEST_HEADER, place), 0, 0)
    size, stored = fields.get(_SIZE), fields.get(_STORED)
    if not isinstance(size, int) or not isinstance(stored, int) or size < 0 or stored < 0:
        raise PageError("its header has no length")
    for kind, at in _ENCODING.items():
        if kind in fields and _encoding(fields[kind], at) not in _ENCODINGS:
            raise PageError("its encoding is none of the recorder's")
    return Page(length + stored, size, _DICTIONARY in fields)


def _encoding(fields: object, at: int) -> object:
    return fields.get(at) if isinstance(fields, dict) else None


def _fields(data: bytes, place: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct by their numbers, and where it ends. Raises ``IndexError`` beyond the data."""
    if depth > _DEEPEST:
        raise PageError("its header is nested too deep")
    found: dict[int, Any] = {}
    number = 0
    while head := data[place]:
        kind, step = head & 15, head >> 4
        place += 1
        if step:
            number += step
        else:
            number, place = _integer(data, place)
        if kind == _INT and (low := data[place]) < 128:  # what most fields are, without two calls
            found[number] = (low >> 1) ^ -(low & 1)
            place += 1
        elif kind == _INT and (high := data[place + 1]) < 128:
            coded = low & 127 | high << 7
            found[number] = (coded >> 1) ^ -(coded & 1)
            place += 2
        else:
            found[number], place = _value(data, place, kind, depth)
    return found, place + 1


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_SHORT, _INT, _LONG):
        return _integer(data, place)
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, place
    if kind == _STRUCT:
        return _fields(data, place, depth + 1)
    if kind in (_BYTE, _DOUBLE):
        return None, place + (1 if kind == _BYTE else 8)
    if kind == _BINARY:
        length, place = varint(data, place)
        return None, place + length
    raise PageError("its header has a list")  # no field of it is one


def _integer(data: bytes, place: int) -> tuple[int, int]:
    coded, place = varint(data, place)
    return (coded >> 1) ^ -(coded & 1), place
