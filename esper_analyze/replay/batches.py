"""Stream a run's shards into the detector's batches, with one group of overlapping shards in memory at a time.

Nulls and NaN are separated in Arrow, before any conversion could confuse them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from esper_analyze.detector.signals import RUN, Batch, Bools, Floats, Frame, Ints, Signal
from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema.arrow import word_columns
from esper_analyze.schema.column import Kind, Table
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage.row_source import RowSource


def batch_sources(run: RecordedRun, tables: Iterable[str]) -> list[list[tuple[str, RowSource]]]:
    """Return the row sources of ``tables`` in order of updates, grouped so that no update is in two groups."""
    sources = [(table, source) for table in tables for source in run.row_sources(table)]
    sources.sort(key=lambda named: (named[1].first_update, named[1].last_update))
    groups: list[list[tuple[str, RowSource]]] = []
    end = -1
    for table, source in sources:
        if not groups or source.first_update > end:
            groups.append([])
        groups[-1].append((table, source))
        end = max(end, source.last_update if source.until is None else source.until - 1)
    return groups


def read_batches(run: RecordedRun, wanted: Mapping[str, Sequence[str]]) -> Iterator[Batch]:
    """Yield the updates of a run of one rank in order, with the ``wanted`` columns of each table."""
    for group in batch_sources(run, wanted):
        tables = {
            name: _read([source for table, source in group if table == name], BY_NAME[name], columns)
            for name, columns in wanted.items()
        }
        updates = _updates([_integers(table["update"]) for table in tables.values() if len(table)])
        frames = {
            name: pivot(BY_NAME[name], table, updates, wanted[name]) for name, table in tables.items() if len(table)
        }
        yield Batch(updates, frames)


def _read(sources: Sequence[RowSource], table: Table, columns: Sequence[str]) -> pa.Table:
    needed = [*dict.fromkeys(["update", *([table.subject] if table.subject else []), *columns])]
    words = [
        name for name in needed if name in word_columns(table)
    ]  # read as dictionary codes, not decoded into strings
    pieces = [source.read(needed, words) for source in sources]
    if not pieces:
        return pa.table({})
    if len({piece.schema for piece in pieces}) > 1:  # rows of the log have plain strings
        pieces = [_as_codes(piece, words) for piece in pieces]
    return pa.concat_tables(pieces).unify_dictionaries().combine_chunks()


def _as_codes(data: pa.Table, words: Sequence[str]) -> pa.Table:
    for name in words:
        index = data.schema.get_field_index(name)
        if not pa.types.is_dictionary(data.schema.field(index).type):
            data = data.set_column(index, name, data[name].dictionary_encode())
    return data.replace_schema_metadata(None).cast(
        pa.schema([pa.field(field.name, field.type) for field in data.schema])
    )


def pivot(table: Table, data: pa.Table, updates: Ints, columns: Sequence[str]) -> Frame:
    """Return rows of ``data`` as a frame over ``updates`` × subjects in order of first appearance.

    When an update has two rows for one subject, the later one counts.
    """
    row_updates = _integers(data["update"])
    if table.subject is None:
        subjects: tuple[str, ...] = (RUN,)
        subject_index = np.zeros(len(row_updates), np.int64)
    else:
        subjects, subject_index = _by_appearance(_as_dictionary(data[table.subject]))
    shape = (len(updates), len(subjects))
    cells = {name: numbers(table, name, data[name]) for name in columns}
    if _regular(row_updates, subject_index, updates, len(subjects)):
        signals = {
            name: Signal(name, number.reshape(shape), null.reshape(shape)) for name, (number, null) in cells.items()
        }
        return Frame(subjects, np.ones(shape, bool), signals)
    row = np.searchsorted(updates, row_updates)
    present = np.zeros(shape, bool)
    present[row, subject_index] = True
    signals = {}
    for name, (column, missing) in cells.items():
        values, null = np.full(shape, np.nan), np.ones(shape, bool)
        values[row, subject_index] = column
        null[row, subject_index] = missing
        signals[name] = Signal(name, values, null)
    return Frame(subjects, present, signals)


def _updates(tables: Sequence[Ints]) -> Ints:
    """Return all updates that have a row in any table, in order."""
    merged = np.zeros(0, np.int64)
    for updates in tables:
        step = np.diff(updates)
        ordered = not np.count_nonzero(step < 0)
        distinct = updates[np.concatenate([[True], step > 0])] if ordered else np.unique(updates)
        if not len(merged):
            merged = distinct
        elif not np.array_equal(merged, distinct):
            merged = np.union1d(merged, distinct)
    return merged


def _regular(row_updates: Ints, subject_index: Ints, updates: Ints, k: int) -> bool:
    """Whether every update has one row per subject, always in the same order: then cells need no sorting."""
    if len(row_updates) != len(updates) * k:
        return False
    same_order = not np.count_nonzero(subject_index.reshape(-1, k) != np.arange(k))
    return same_order and not np.count_nonzero(row_updates.reshape(-1, k) != updates[:, None])


def numbers(table: Table, name: str, cells: pa.ChunkedArray) -> tuple[Floats, Bools]:
    """Return a column as float64 with NaN at nulls, and where it is null.

    Raises ``ValueError`` for a CHOICE value that is not declared.
    """
    column = table.column(name)
    null = _flags(cells.is_null()) if cells.null_count else np.zeros(len(cells), bool)
    if column.kind is Kind.CHOICE:
        coded = _as_dictionary(cells)
        words = coded.dictionary.to_pylist()
        unknown = next((word for word in words if word not in column.choices), None)
        if unknown is not None:
            raise ValueError(f"{table.name}.{name} has the value {unknown!r}, not one of its choices")
        codes = np.array([column.choices.index(word) for word in words] or [0], np.float64)
        if not coded.null_count:
            return codes[_integers(coded.indices)], null
        values: Floats = np.where(null, np.nan, codes[_integers(pc.fill_null(coded.indices, 0))])
        return values, null
    if column.kind is Kind.TEXT:
        return np.where(null, np.nan, 1.0), null
    floats = cells.cast(pa.float64(), safe=False)  # integers beyond 2^53 are rounded
    return _floats(pc.fill_null(floats, np.nan) if cells.null_count else floats), null


def _as_dictionary(cells: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a text column as one dictionary array."""
    array = cells.combine_chunks()
    return array if isinstance(array, pa.DictionaryArray) else array.dictionary_encode()


def _by_appearance(coded: pa.DictionaryArray) -> tuple[tuple[str, ...], Ints]:
    """Return the words that occur, in order of first appearance, and the position of each cell's word among them."""
    codes, words = _integers(coded.indices), coded.dictionary.to_pylist()
    first = np.full(len(words), len(codes))
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # for repeated indices the last assignment wins: the first cell
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
    rank = np.zeros(len(words), np.int64)
    rank[order] = np.arange(len(order))
    return tuple(words[index] for index in order.tolist()), rank[codes]


def _floats(cells: Any) -> Floats:
    return _buffer(cells, pa.float64(), np.dtype(np.float64))


def _integers(cells: Any) -> Ints:
    return _buffer(cells, pa.int64(), np.dtype(np.int64))


def _flags(cells: Any) -> Bools:
    flags: Bools = _buffer(cells, pa.uint8(), np.dtype(np.uint8)).view(bool)
    return flags


def _buffer(cells: Any, kind: pa.DataType, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Read an Arrow column without nulls straight from its buffer (``to_numpy`` would import pandas)."""
    array = cells.cast(kind)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if len(array) == 0:
        return np.zeros(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, count=len(array), offset=array.offset * dtype.itemsize)
