"""Check the page headers of a shard: a footer may declare as small what decompresses to gigabytes.

Readers allocate what a page header declares, so the headers are added up before anything is decompressed. They are
in Thrift's compact protocol: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
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
"""Field numbers of a page header: bytes decompressed, bytes in the file, and the struct of each kind of page."""
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}
_ENCODINGS = {0: "PLAIN", 2: "PLAIN_DICTIONARY", 3: "RLE", 5: "DELTA_BINARY_PACKED", 8: "RLE_DICTIONARY",
              9: "BYTE_STREAM_SPLIT"}  # fmt: skip
"""Encodings that the recorder uses. Others can expand without bound: DELTA_BYTE_ARRAY repeats the previous text."""


class PageError(ValueError):
    """A page header that the recorder cannot have written; the message says why."""


class Page(NamedTuple):
    """One page: bytes in the file with its header, bytes decompressed, whether it is a dictionary."""

    stored: int
    size: int
    dictionary: bool


def pages_fault(file: BinaryIO, table: Table, metadata: pq.FileMetaData) -> str | None:
    """Return why the pages of the shard ``file`` with the footer ``metadata`` must not be decompressed, or None."""
    total, words = 0, set(word_columns(table))
    suspected = []
    for group in range(metadata.num_row_groups):
        for column in map(metadata.row_group(group).column, range(metadata.num_columns)):
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
    return next(filter(None, (_text_fault(file, group, column) for group, column in suspected)), None)


def _text_fault(file: BinaryIO, group: int, column: str) -> str | None:
    """Return why a column's text is too large: a few long words, repeated. Lengths are added without decoding it."""
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
    """Yield the pages of one column of one row group. Raises ``PageError`` or ``IndexError`` for an invalid page."""
    offset = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < offset:
        offset = column.dictionary_page_offset
    end = offset + column.total_compressed_size
    while offset < end:
        page = _page(file, offset)
        yield page
        offset += page.stored


def _page(file: int, offset: int) -> Page:
    data = os.pread(file, _HEADER, offset)
    try:
        fields, length = _fields(data, 0, 0)
    except IndexError:
        fields, length = _fields(os.pread(file, _LARGEST_HEADER, offset), 0, 0)
    size, stored = fields.get(_SIZE), fields.get(_STORED)
    if not isinstance(size, int) or not isinstance(stored, int) or size < 0 or stored < 0:
        raise PageError("its header has no length")
    for kind, at in _ENCODING.items():
        if kind in fields and _encoding(fields[kind], at) not in _ENCODINGS:
            raise PageError("the recorder does not use its encoding")
    return Page(length + stored, size, _DICTIONARY in fields)


def _encoding(fields: object, at: int) -> object:
    return fields.get(at) if isinstance(fields, dict) else None


def _fields(data: bytes, offset: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct by number, and the offset after it. Raises ``IndexError`` beyond the data."""
    if depth > _DEEPEST:
        raise PageError("its header is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while head := data[offset]:
        kind, step = head & 15, head >> 4
        offset += 1
        if step:
            number += step
        else:
            number, offset = _integer(data, offset)
        if (
            kind == _INT and (low := data[offset]) < 128
        ):  # most fields are small integers: decoded here without two calls
            fields[number] = (low >> 1) ^ -(low & 1)
            offset += 1
        elif kind == _INT and (high := data[offset + 1]) < 128:
            coded = low & 127 | high << 7
            fields[number] = (coded >> 1) ^ -(coded & 1)
            offset += 2
        else:
            fields[number], offset = _value(data, offset, kind, depth)
    return fields, offset + 1


def _value(data: bytes, offset: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_SHORT, _INT, _LONG):
        return _integer(data, offset)
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, offset
    if kind == _STRUCT:
        return _fields(data, offset, depth + 1)
    if kind in (_BYTE, _DOUBLE):
        return None, offset + (1 if kind == _BYTE else 8)
    if kind == _BINARY:
        length, offset = varint(data, offset)
        return None, offset + length
    raise PageError("its header has a list")  # no field of a page header is a list


def _integer(data: bytes, offset: int) -> tuple[int, int]:
    coded, offset = varint(data, offset)
    return (coded >> 1) ^ -(coded & 1), offset
