"""Columns as the detector reads them: float64 values and a null mask, n updates × k subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from esper_analyze.schema.column import Kind
from esper_analyze.schema.tables import BY_NAME

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

RUN = "run"
"""Subject of a table that has one row per update."""


@dataclass(slots=True)
class Signal:
    """One column: ``values`` [n, k] (NaN where null) and ``null`` [n, k]; its cells never change.

    A CHOICE cell is the index of its value among the declared choices; a BOOL cell is 0.0 or 1.0; a TEXT cell
    is 1.0 when it is not null. ``values`` at a null cell are undefined.
    """

    name: str
    values: Floats
    null: Bools
    _all_finite: bool | None = None

    @property
    def all_finite(self) -> bool:
        """Whether every cell was measured and is finite; computed once."""
        if self._all_finite is None:
            unmeasured = np.count_nonzero(self.null)
            self._all_finite = not unmeasured and np.count_nonzero(np.isfinite(self.values)) == self.values.size
        return self._all_finite

    @property
    def finite(self) -> Bools:
        """Cells that were measured and are neither NaN nor ±Inf."""
        measured: Bools = ~self.null
        return measured if self.all_finite else measured & np.isfinite(self.values)

    @property
    def nonfinite(self) -> Bools:
        """Cells that were measured and are NaN or ±Inf."""
        return np.zeros(self.null.shape, bool) if self.all_finite else ~(self.null | np.isfinite(self.values))

    def equals(self, value: float) -> Bools:
        """Cells that were measured and equal ``value``."""
        same: Bools = self.values == value
        return same if self.all_finite else ~self.null & same


@dataclass(frozen=True, slots=True)
class Frame:
    """The columns of one table over consecutive updates; ``present`` [n, k] says where a row exists."""

    subjects: tuple[str, ...]
    present: Bools
    columns: Mapping[str, Signal]

    def __getitem__(self, name: str) -> Signal:
        return self.columns[name]

    def last(self, names: Iterable[str]) -> Frame:
        """Return the columns ``names`` of the last update alone."""
        columns = {name: Signal(self[name].name, self[name].values[-1:], self[name].null[-1:]) for name in names}
        return Frame(self.subjects, self.present[-1:], columns)

    def rows(self, start: int, stop: int) -> Frame:
        """Return updates ``start`` to ``stop`` (positions) alone, with the same subjects."""
        columns = {
            name: Signal(signal.name, signal.values[start:stop], signal.null[start:stop])
            for name, signal in self.columns.items()
        }
        return Frame(self.subjects, self.present[start:stop], columns)

    def aligned(self, subjects: tuple[str, ...]) -> Frame:
        """Return the frame with exactly ``subjects`` in that order; new ones have no rows and are all null."""
        if subjects == self.subjects:
            return self
        n = len(self.present)
        columns_of = [self.subjects.index(name) if name in self.subjects else -1 for name in subjects]
        in_frame = np.array([column >= 0 for column in columns_of], dtype=bool)
        source = [column for column in columns_of if column >= 0]
        present = np.zeros((n, len(subjects)), bool)
        present[:, in_frame] = self.present[:, source]
        columns = {}
        for name, signal in self.columns.items():
            values = np.full((n, len(subjects)), np.nan)
            null = np.ones((n, len(subjects)), bool)
            values[:, in_frame] = signal.values[:, source]
            null[:, in_frame] = signal.null[:, source]
            columns[name] = Signal(signal.name, values, null)
        return Frame(subjects, present, columns)

    def beside(self, table: str, other: Frame | None, columns: Iterable[str], names: tuple[str, ...]) -> Frame:
        """Return the frame with ``columns`` of ``other`` joined to its own, as ``table.column``.

        ``names`` are the subjects of ``other`` joined to this frame's; a single one is joined to all. The columns are
        null where there is no such subject, and where this frame has no row, so that earlier values do not count.
        """
        all_present = np.count_nonzero(self.present) == self.present.size
        added = {}
        for name in columns:
            values, null = _for_subjects(
                None if other is None else other.columns[name], other, names, self.present.shape
            )
            if not all_present:
                null = null | ~self.present
                values = np.where(null, np.nan, values)
            added[f"{table}.{name}"] = Signal(name, values, null)
        return Frame(self.subjects, self.present, _Joined(self.columns, added))


class _Joined(Mapping[str, Signal]):
    """Columns with others added: none of the first is created for it."""

    def __init__(self, columns: Mapping[str, Signal], added: Mapping[str, Signal]) -> None:
        self._columns = columns
        self._added = added

    def __getitem__(self, name: str) -> Signal:
        signal = self._added.get(name)
        return self._columns[name] if signal is None else signal

    def __iter__(self) -> Iterator[str]:
        yield from self._columns
        yield from self._added

    def __len__(self) -> int:
        return len(self._columns) + len(self._added)


@lru_cache(maxsize=256)
def _indices(names: tuple[str, ...], subjects: tuple[str, ...]) -> tuple[Ints, Bools]:
    """Return the index of each of ``names`` in ``subjects`` (0 if missing), and whether it is there."""
    index_of = {name: index for index, name in enumerate(subjects)}
    indices = np.array([index_of.get(name, 0) for name in names], np.int64)
    return indices, np.array([name in index_of for name in names], bool)


def _for_subjects(
    signal: Signal | None, other: Frame | None, names: tuple[str, ...], shape: tuple[int, ...]
) -> tuple[Floats, Bools]:
    """Return values and nulls of ``signal`` for the subjects ``names``, in ``shape`` [n, k]."""
    if signal is None or other is None:
        return np.full(shape, np.nan), np.ones(shape, bool)
    if len(names) == 1 and signal.values.shape[1] == 1 and names == other.subjects:
        return np.broadcast_to(signal.values, shape), np.broadcast_to(signal.null, shape)
    indices, exists = _indices(names, other.subjects)
    null = signal.null[:, indices] | ~exists
    return np.where(null, np.nan, signal.values[:, indices]), null


class Columns(Mapping[str, Signal]):
    """Columns of one table in one array [n, k, columns]; a signal is created when a column is accessed."""

    def __init__(self, places: Mapping[str, int], values: Floats, null: Bools, *, all_finite: bool) -> None:
        self._places = places
        self._values = values
        self._null = null
        self._all_finite = all_finite or None
        self._made: dict[str, Signal] = {}

    def __getitem__(self, name: str) -> Signal:
        signal = self._made.get(name)
        if signal is None:
            i = self._places[name]
            signal = Signal(name, self._values[:, :, i], self._null[:, :, i], self._all_finite)
            self._made[name] = signal
        return signal

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True, slots=True)
class Sheet:
    """All cells of n updates that have rows of the same subjects in the same order.

    ``tables`` has name, subjects and columns of each; ``values`` (NaN where null) and ``null`` are [n, cells]: table
    after table, subject after subject, column after column. ``all_finite``: every cell is measured and finite.
    """

    tables: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
    values: Floats
    null: Bools
    all_finite: bool

    def extended(self, table: str, names: tuple[str, ...], values: Floats) -> Sheet:
        """Return the sheet with one more table: one subject, finite ``values`` [n, columns]."""
        null = np.broadcast_to(np.False_, values.shape)
        return Sheet(
            (*self.tables, (table, (RUN,), names)),
            np.concatenate([self.values, values], axis=1),
            np.concatenate([self.null, null], axis=1),
            self.all_finite,
        )

    def frames(self) -> dict[str, Frame]:
        """Return one frame for each table."""
        frames, stop, n = {}, 0, len(self.values)
        for table, subjects, names in self.tables:
            start, stop = stop, stop + len(subjects) * len(names)
            shape = n, len(subjects), len(names)
            values, null = self.values[:, start:stop].reshape(shape), self.null[:, start:stop].reshape(shape)
            present = _everywhere(shape[:2])
            frames[table] = Frame(
                subjects, present, Columns(indices_of(names), values, null, all_finite=self.all_finite)
            )
        return frames


@lru_cache(maxsize=64)
def indices_of(names: tuple[str, ...]) -> Mapping[str, int]:
    """Return the index of each of ``names``."""
    return {name: i for i, name in enumerate(names)}


@lru_cache(maxsize=64)
def _everywhere(shape: tuple[int, int]) -> Bools:
    """Return True in every cell: read-only."""
    return np.broadcast_to(np.True_, shape)


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive updates (strictly increasing) of one rank, and one frame for each table that has rows.

    ``sheet`` has the same cells if every subject has a row in every update and the batch was built from rows.
    """

    update: Ints
    frames: Mapping[str, Frame] = field(default_factory=dict)
    sheet: Sheet | None = None

    def part(self, start: int, stop: int) -> Batch:
        """Return updates ``start`` to ``stop`` (indices, not numbers) as a batch."""
        frames = {}
        for table, frame in self.frames.items():
            present = frame.present[start:stop]
            order = sorted(range(len(frame.subjects)), key=partial(_first_row, present))
            with_rows = [k for k in order if present[:, k].any()]
            if with_rows:
                columns = {
                    name: Signal(
                        signal.name, signal.values[start:stop][:, with_rows], signal.null[start:stop][:, with_rows]
                    )
                    for name, signal in frame.columns.items()
                }
                frames[table] = Frame(tuple(frame.subjects[k] for k in with_rows), present[:, with_rows], columns)
        return Batch(self.update[start:stop], frames)


def _first_row(present: Bools, k: int) -> tuple[int, int]:
    rows = np.flatnonzero(present[:, k])
    return (int(rows[0]) if len(rows) else len(present), k)


def choice_code(table: str, column: str, value: str) -> float:
    """Return the number that stands for ``value`` of a CHOICE column in a ``Signal``."""
    return float(BY_NAME[table].column(column).choices.index(value))


def cell_number(table: str, column: str, cell: object) -> float | None:
    """Return one Python cell as the number the detector sees, None when it is null.

    Raises ``ValueError`` for a CHOICE value that is not declared.
    """
    if cell is None:
        return None
    declared = BY_NAME[table].column(column)
    if declared.kind is Kind.CHOICE:
        return float(declared.choices.index(str(cell)))
    if declared.kind is Kind.TEXT:
        return 1.0
    return float(cell)  # type: ignore[arg-type]


class _Numbers(dict[object, float | None]):
    """The numbers of one CHOICE or TEXT column by cell; ``cell_number`` handles cells that are not in the mapping."""

    def __init__(self, table: str, column: str) -> None:
        choices = BY_NAME[table].column(column).choices
        super().__init__({None: None} | {choice: float(i) for i, choice in enumerate(choices)})
        self._where = table, column

    def __missing__(self, cell: object) -> float | None:
        return cell_number(*self._where, cell)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to read one table's rows: its subject column, all columns, and (by index) those with text."""

    subject: str | None
    columns: tuple[str, ...]
    pick: Callable[[Mapping[str, object]], tuple[object, ...]]
    words: tuple[tuple[int, _Numbers], ...]

    def cells(self, rows: Sequence[Mapping[str, object]]) -> list[object]:
        """Return the cells of ``rows``, row after row, texts as numbers."""
        cells_: list[object] = []
        for row in rows:
            try:
                cells_ += self.pick(row)
            except KeyError:
                cells_ += [row.get(name) for name in self.columns]
        for i, numbers in self.words:
            for index in range(i, len(cells_), len(self.columns)):
                cells_[index] = numbers[cells_[index]]
        return cells_

    def subjects(self, rows: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
        """Return the subject of each of ``rows``."""
        return (RUN,) * len(rows) if self.subject is None else tuple([str(row[self.subject]) for row in rows])


@lru_cache
def _plan(table: str, columns: tuple[str, ...]) -> _Plan:
    declared = BY_NAME[table]
    worded = [i for i, name in enumerate(columns) if declared.column(name).kind in (Kind.CHOICE, Kind.TEXT)]
    pick = itemgetter(*columns) if len(columns) > 1 else lambda row: (row[columns[0]],)
    return _Plan(declared.subject, columns, pick, tuple((i, _Numbers(table, columns[i])) for i in worded))


def batch_from_rows(
    update: int, rows: Mapping[str, Sequence[Mapping[str, object]]], wanted: Mapping[str, Iterable[str]]
) -> Batch:
    """Return a batch of one update from its rows as the recorder wrote them.

    ``wanted`` maps a table to the columns the rules read; a cell that a row lacks is null.
    """
    tables, cells = [], []
    for table, columns in wanted.items():
        table_rows = rows.get(table)
        if table_rows:
            plan = _plan(table, tuple(columns))
            cells += plan.cells(table_rows)
            tables.append((table, plan.subjects(table_rows), plan.columns))
    values = np.array(cells, np.float64)[None]  # None becomes NaN
    all_finite = np.count_nonzero(np.isfinite(values)) == len(cells)
    null = _nowhere(len(cells)) if all_finite else np.array([[cell is None for cell in cells]])
    sheet = Sheet(tuple(tables), values, null, all_finite)
    return Batch(np.array([update], np.int64), sheet.frames(), sheet)


@lru_cache(maxsize=64)
def _nowhere(cells: int) -> Bools:
    """Return False in each of ``cells`` of one update: read-only."""
    return np.broadcast_to(np.False_, (1, cells))
