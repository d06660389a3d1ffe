"""Stream a run's shards into the detector's batches: memory stays at one stretch of shards.

Nulls and NaN are taken apart in Arrow, before any conversion could mix them.
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


def stretches(run: RecordedRun, tables: Iterable[str]) -> list[list[tuple[str, RowSource]]]:
    """Return the parts of ``tables`` grouped so that no update is in two groups, in order of updates."""
    parts = [(table, part) for table in tables for part in run.parts(table)]
    parts.sort(key=lambda one: (one[1].first_update, one[1].last_update))
    groups: list[list[tuple[str, RowSource]]] = []
    end = -1
    for table, part in parts:
        if not groups or part.first_update > end:
            groups.append([])
        groups[-1].append((table, part))
        end = max(end, part.last_update if part.until is None else part.until - 1)
    return groups


def read_batches(run: RecordedRun, wanted: Mapping[str, Sequence[str]]) -> Iterator[Batch]:
    """Yield the updates of a run of one rank in order, with the ``wanted`` columns of each table."""
    for group in stretches(run, wanted):
        tables = {
            name: _read([part for table, part in group if table == name], BY_NAME[name], columns)
            for name, columns in wanted.items()
        }
        updates = _updates([_integers(table["update"]) for table in tables.values() if len(table)])
        frames = {
            name: pivot(BY_NAME[name], table, updates, wanted[name]) for name, table in tables.items() if len(table)
        }
        yield Batch(updates, frames)


def _read(parts: Sequence[RowSource], table: Table, columns: Sequence[str]) -> pa.Table:
    needed = [*dict.fromkeys(["update", *([table.subject] if table.subject else []), *columns])]
    words = [name for name in needed if name in word_columns(table)]  # taken as codes, never made into strings
    found = [part.read(needed, words) for part in parts]
    if not found:
        return pa.table({})
    if len({one.schema for one in found}) > 1:  # what is only logged has its words as they are
        found = [_as_codes(one, words) for one in found]
    return pa.concat_tables(found).unify_dictionaries().combine_chunks()


def _as_codes(data: pa.Table, words: Sequence[str]) -> pa.Table:
    for name in words:
        place = data.schema.get_field_index(name)
        if not pa.types.is_dictionary(data.schema.field(place).type):
            data = data.set_column(place, name, data[name].dictionary_encode())
    return data.replace_schema_metadata(None).cast(
        pa.schema([pa.field(field.name, field.type) for field in data.schema])
    )


def pivot(table: Table, data: pa.Table, updates: Ints, columns: Sequence[str]) -> Frame:
    """Return rows of ``data`` as a frame over ``updates`` × subjects in order of first appearance.

    When an update has two rows for one subject the later one stands.
    """
    own = _integers(data["update"])
    if table.subject is None:
        subjects: tuple[str, ...] = (RUN,)
        place = np.zeros(len(own), np.int64)
    else:
        subjects, place = _in_order(_coded(data[table.subject]))
    shape = (len(updates), len(subjects))
    cells = {name: numbers(table, name, data[name]) for name in columns}
    if _regular(own, place, updates, len(subjects)):
        signals = {name: Signal(name, one.reshape(shape), null.reshape(shape)) for name, (one, null) in cells.items()}
        return Frame(subjects, np.ones(shape, bool), signals)
    row = np.searchsorted(updates, own)
    present = np.zeros(shape, bool)
    present[row, place] = True
    signals = {}
    for name, (found, missing) in cells.items():
        values, null = np.full(shape, np.nan), np.ones(shape, bool)
        values[row, place] = found
        null[row, place] = missing
        signals[name] = Signal(name, values, null)
    return Frame(subjects, present, signals)


def _updates(tables: Sequence[Ints]) -> Ints:
    """Return all updates that have a row in any table, in order."""
    found = np.zeros(0, np.int64)
    for updates in tables:
        step = np.diff(updates)
        ordered = not np.count_nonzero(step < 0)
        distinct = updates[np.concatenate([[True], step > 0])] if ordered else np.unique(updates)
        if not len(found):
            found = distinct
        elif not np.array_equal(found, distinct):
            found = np.union1d(found, distinct)
    return found


def _regular(own: Ints, place: Ints, updates: Ints, k: int) -> bool:
    """Whether every update has one row of every subject, always in the same order: then cells need no sorting."""
    if len(own) != len(updates) * k:
        return False
    same_order = not np.count_nonzero(place.reshape(-1, k) != np.arange(k))
    return same_order and not np.count_nonzero(own.reshape(-1, k) != updates[:, None])


def numbers(table: Table, name: str, cells: pa.ChunkedArray) -> tuple[Floats, Bools]:
    """Return a column as float64 with NaN at nulls, and where it is null.

    Raises ``ValueError`` for a CHOICE value that is not declared.
    """
    column = table.column(name)
    null = _flags(cells.is_null()) if cells.null_count else np.zeros(len(cells), bool)
    if column.kind is Kind.CHOICE:
        coded = _coded(cells)
        codes = np.array([column.choices.index(word) for word in coded.dictionary.to_pylist()] or [0], np.float64)
        if not coded.null_count:
            return codes[_integers(coded.indices)], null
        values: Floats = np.where(null, np.nan, codes[_integers(pc.fill_null(coded.indices, 0))])
        return values, null
    if column.kind is Kind.TEXT:
        return np.where(null, np.nan, 1.0), null
    floats = cells.cast(pa.float64(), safe=False)  # integers beyond 2^53 are rounded
    return _floats(pc.fill_null(floats, np.nan) if cells.null_count else floats), null


def _coded(cells: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a column of words as one dictionary array."""
    whole = cells.combine_chunks()
    return whole if isinstance(whole, pa.DictionaryArray) else whole.dictionary_encode()


def _in_order(coded: pa.DictionaryArray) -> tuple[tuple[str, ...], Ints]:
    """Return the words that occur, in order of first appearance, and the position of each cell's word among them."""
    places, words = _integers(coded.indices), coded.dictionary.to_pylist()
    first = np.full(len(words), len(places))
    first[places[::-1]] = np.arange(len(places))[::-1]  # of equal places the last one written stands: the first cell
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(places))]
    rank = np.zeros(len(words), np.int64)
    rank[order] = np.arange(len(order))
    return tuple(words[place] for place in order.tolist()), rank[places]


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
