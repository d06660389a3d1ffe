"""Columns as the detector sees them: float64 values beside their nulls, n updates × k subjects."""

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
    is 1.0 when it says something. ``values`` at a null cell mean nothing.
    """

    name: str
    values: Floats
    null: Bools
    _whole: bool | None = None

    @property
    def whole(self) -> bool:
        """Whether every cell was measured and is finite; looked at once."""
        if self._whole is None:
            unmeasured = np.count_nonzero(self.null)
            self._whole = not unmeasured and np.count_nonzero(np.isfinite(self.values)) == self.values.size
        return self._whole

    @property
    def finite(self) -> Bools:
        """Cells that were measured and are neither NaN nor ±Inf."""
        measured: Bools = ~self.null
        return measured if self.whole else measured & np.isfinite(self.values)

    @property
    def nonfinite(self) -> Bools:
        """Cells that were measured and are NaN or ±Inf."""
        return np.zeros(self.null.shape, bool) if self.whole else ~(self.null | np.isfinite(self.values))

    def equals(self, value: float) -> Bools:
        """Cells that were measured and equal ``value``."""
        same: Bools = self.values == value
        return same if self.whole else ~self.null & same


@dataclass(frozen=True, slots=True)
class Frame:
    """The columns of one table over consecutive updates; ``present`` [n, k] says where there was a row."""

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
        places = [self.subjects.index(name) if name in self.subjects else -1 for name in subjects]
        known = np.array([place >= 0 for place in places], dtype=bool)
        source = [place for place in places if place >= 0]
        present = np.zeros((n, len(subjects)), bool)
        present[:, known] = self.present[:, source]
        columns = {}
        for name, signal in self.columns.items():
            values = np.full((n, len(subjects)), np.nan)
            null = np.ones((n, len(subjects)), bool)
            values[:, known] = signal.values[:, source]
            null[:, known] = signal.null[:, source]
            columns[name] = Signal(signal.name, values, null)
        return Frame(subjects, present, columns)

    def beside(self, table: str, other: Frame | None, columns: Iterable[str], names: tuple[str, ...]) -> Frame:
        """Return the frame with ``columns`` of ``other`` beside its own, as ``table.column``.

        ``names`` are the subjects of ``other`` that speak for this frame's; one alone speaks for all. The columns are
        null where there is no such subject, and where this frame's own has no row: what came before must not count.
        """
        whole = np.count_nonzero(self.present) == self.present.size
        added = {}
        for name in columns:
            values, null = _spoken(None if other is None else other.columns[name], other, names, self.present.shape)
            if not whole:
                null = null | ~self.present
                values = np.where(null, np.nan, values)
            added[f"{table}.{name}"] = Signal(name, values, null)
        return Frame(self.subjects, self.present, {**self.columns, **added})


@lru_cache(maxsize=256)
def _places(names: tuple[str, ...], subjects: tuple[str, ...]) -> tuple[Ints, Bools]:
    """Return where each of ``names`` stands among ``subjects`` (0 where it does not), and whether it does."""
    found = {name: place for place, name in enumerate(subjects)}
    places = np.array([found.get(name, 0) for name in names], np.int64)
    return places, np.array([name in found for name in names], bool)


def _spoken(
    signal: Signal | None, other: Frame | None, names: tuple[str, ...], shape: tuple[int, ...]
) -> tuple[Floats, Bools]:
    """Return values and nulls of ``signal`` for the subjects ``names``, in ``shape`` [n, k]."""
    if signal is None or other is None:
        return np.full(shape, np.nan), np.ones(shape, bool)
    if len(names) == 1 and signal.values.shape[1] == 1 and names == other.subjects:
        return np.broadcast_to(signal.values, shape), np.broadcast_to(signal.null, shape)
    places, known = _places(names, other.subjects)
    null = signal.null[:, places] | ~known
    return np.where(null, np.nan, signal.values[:, places]), null


class Columns(Mapping[str, Signal]):
    """Columns of one table that lie in one array [n, k, columns]; each becomes a signal when it is asked for."""

    def __init__(self, places: Mapping[str, int], values: Floats, null: Bools, *, whole: bool) -> None:
        self._places = places
        self._values = values
        self._null = null
        self._whole = whole or None
        self._made: dict[str, Signal] = {}

    def __getitem__(self, name: str) -> Signal:
        signal = self._made.get(name)
        if signal is None:
            i = self._places[name]
            signal = Signal(name, self._values[:, :, i], self._null[:, :, i], self._whole)
            self._made[name] = signal
        return signal

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True, slots=True)
class Sheet:
    """All cells of n updates that have rows of the same subjects in the same order.

    ``tables`` holds name, subjects and columns of each; ``values`` (NaN where null) and ``null`` are [n, cells]: table
    after table, subject after subject, column after column. ``whole`` says that every cell is measured and finite.
    """

    tables: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
    values: Floats
    null: Bools
    whole: bool

    def frames(self) -> dict[str, Frame]:
        """Return one frame for each table."""
        frames, stop, n = {}, 0, len(self.values)
        for table, subjects, names in self.tables:
            start, stop = stop, stop + len(subjects) * len(names)
            shape = n, len(subjects), len(names)
            values, null = self.values[:, start:stop].reshape(shape), self.null[:, start:stop].reshape(shape)
            present = _everywhere(shape[:2])
            frames[table] = Frame(subjects, present, Columns(places_of(names), values, null, whole=self.whole))
        return frames


@lru_cache(maxsize=64)
def places_of(names: tuple[str, ...]) -> Mapping[str, int]:
    """Return where each of ``names`` stands among them."""
    return {name: i for i, name in enumerate(names)}


@lru_cache(maxsize=64)
def _everywhere(shape: tuple[int, int]) -> Bools:
    """Return True in every cell: read-only."""
    return np.broadcast_to(np.True_, shape)


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive updates (strictly increasing) of one rank, and one frame for each table that has rows.

    ``sheet`` holds the same cells where every subject has a row in every update and they came as rows.
    """

    update: Ints
    frames: Mapping[str, Frame] = field(default_factory=dict)
    sheet: Sheet | None = None

    def part(self, start: int, stop: int) -> Batch:
        """Return updates ``start`` to ``stop`` (positions, not numbers) as a batch of their own."""
        frames = {}
        for table, frame in self.frames.items():
            present = frame.present[start:stop]
            order = sorted(range(len(frame.subjects)), key=partial(_first_row, present))
            seen = [k for k in order if present[:, k].any()]
            if seen:
                columns = {
                    name: Signal(signal.name, signal.values[start:stop][:, seen], signal.null[start:stop][:, seen])
                    for name, signal in frame.columns.items()
                }
                frames[table] = Frame(tuple(frame.subjects[k] for k in seen), present[:, seen], columns)
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
    """The numbers of one CHOICE or TEXT column by cell; ``cell_number`` judges a cell that is no declared choice."""

    def __init__(self, table: str, column: str) -> None:
        choices = BY_NAME[table].column(column).choices
        super().__init__({None: None} | {choice: float(i) for i, choice in enumerate(choices)})
        self._where = table, column

    def __missing__(self, cell: object) -> float | None:
        return cell_number(*self._where, cell)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to read one table's rows: its subject's column, all columns, and (by position) those of words."""

    subject: str | None
    columns: tuple[str, ...]
    pick: Callable[[Mapping[str, object]], tuple[object, ...]]
    words: tuple[tuple[int, _Numbers], ...]

    def cells(self, rows: Sequence[Mapping[str, object]]) -> list[object]:
        """Return the cells of ``rows``, row after row, words as numbers."""
        found: list[object] = []
        for row in rows:
            try:
                found += self.pick(row)
            except KeyError:
                found += [row.get(name) for name in self.columns]
        for i, numbers in self.words:
            for place in range(i, len(found), len(self.columns)):
                found[place] = numbers[found[place]]
        return found

    def subjects(self, rows: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
        """Return whom each of ``rows`` speaks of."""
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
        found = rows.get(table)
        if found:
            plan = _plan(table, tuple(columns))
            cells += plan.cells(found)
            tables.append((table, plan.subjects(found), plan.columns))
    values = np.array(cells, np.float64)[None]  # None becomes NaN
    whole = np.count_nonzero(np.isfinite(values)) == len(cells)
    null = _nowhere(len(cells)) if whole else np.array([[cell is None for cell in cells]])
    sheet = Sheet(tuple(tables), values, null, whole)
    return Batch(np.array([update], np.int64), sheet.frames(), sheet)


@lru_cache(maxsize=64)
def _nowhere(cells: int) -> Bools:
    """Return False in each of ``cells`` of one update: read-only."""
    return np.broadcast_to(np.False_, (1, cells))
