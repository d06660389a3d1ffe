"""One number over updates, with missing, non-finite and zero distinct, and reduced to a screen's resolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from esper_analyze.detector.signals import Bools, Floats, Ints
from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema import BY_NAME

if TYPE_CHECKING:
    import duckdb
    import polars

PIXELS = 900
"""Widest figure in pixels: of more updates, only the corners and the mean per pixel are drawn."""
EXTREMES = np.dtype([("low", ">f4"), ("high", ">f4"), ("low_at", ">u2"), ("high_at", ">u2")])
"""Least and greatest value of an interval, and how many updates after its first they were (65,535: as many or more)."""
_FARTHEST = 65_535
_SINGLE = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))
_CHUNK = 400_000
"""Rows that are partitioned by subject at once."""


@dataclass(frozen=True, slots=True)
class Series:
    """A column over increasing updates: ``value`` is NaN where ``null``, and NaN or ±Inf where that was measured."""

    update: Ints
    value: Floats
    null: Bools

    @property
    def finite(self) -> Bools:
        """Where a finite number was measured."""
        return ~self.null & np.isfinite(self.value)

    @property
    def nonfinite(self) -> Bools:
        """Where NaN or ±Inf was measured."""
        return ~self.null & ~np.isfinite(self.value)

    @property
    def empty(self) -> bool:
        """Whether nothing was ever measured."""
        return bool(self.null.all())

    @property
    def largest(self) -> int:
        """Position of the largest finite value."""
        return int(np.where(self.finite, self.value, -np.inf).argmax())

    @property
    def smallest(self) -> int:
        """Position of the smallest finite value."""
        return int(np.where(self.finite, self.value, np.inf).argmin())

    @property
    def first(self) -> float | None:
        """The first measured value; None without one."""
        measured = np.flatnonzero(~self.null)
        return float(self.value[measured[0]]) if len(measured) else None

    @property
    def last(self) -> float | None:
        """The last measured value; None without one."""
        measured = np.flatnonzero(~self.null)
        return float(self.value[measured[-1]]) if len(measured) else None

    def between(self, first: int | None, last: int | None) -> Series:
        """Return the updates from ``first`` to ``last`` alone; None: from the beginning, to the end."""
        begin = 0 if first is None else int(np.searchsorted(self.update, first))
        end = len(self.update) if last is None else int(np.searchsorted(self.update, last, "right"))
        return Series(self.update[begin:end], self.value[begin:end], self.null[begin:end])


def rows_of(run: RecordedRun, table: str, columns: Sequence[str]) -> polars.DataFrame:
    """Return ``columns`` in order of updates, with update and subject; of rows with one key, the last counts."""
    import polars

    subject = BY_NAME[table].subject
    key = ["update", *([subject] if subject else [])]
    wanted = list(dict.fromkeys([*key, *columns]))
    rows = [part.select(wanted) for part in _chunks(run, table, wanted)]
    return _last_of_key(polars.concat(rows), key) if rows else run.frame(table, wanted)


def rows_by_subject(run: RecordedRun, table: str, columns: Sequence[str]) -> dict[str, polars.DataFrame]:
    """Return subject (in order of appearance) → its rows as ``rows_of`` returns them, without the subject's column.

    Reads a few shards at a time, so that a table of many million rows is never in memory at once. Columns with
    choices are enums.
    """
    import polars

    subject = _subject(table)
    wanted = list(dict.fromkeys(["update", *columns]))
    words = [polars.col(name).cast(polars.Enum(choices), strict=False) for name, choices in _choices(table, wanted)]
    pieces: dict[str, list[polars.DataFrame]] = {}
    for rows in _chunks(run, table, [*wanted, subject]):
        parts = rows.with_columns(words).partition_by(subject, as_dict=True, maintain_order=True)
        for key, part in parts.items():
            pieces.setdefault(str(key[0]), []).append(part.select(wanted))
    return {name: _last_of_key(polars.concat(frames), ["update"]) for name, frames in pieces.items()}


def _subject(table: str) -> str:
    subject = BY_NAME[table].subject
    if subject is None:
        raise ValueError(f"table {table} has one row per update, use all_series")
    return subject


def _choices(table: str, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for name in names:
        column = BY_NAME[table].column(name)
        if column.choices:
            yield name, list(column.choices)


def _chunks(run: RecordedRun, table: str, columns: Sequence[str]) -> Iterator[polars.DataFrame]:
    """Yield the table's rows in the order they were written, in pieces of at least ``_CHUNK`` rows."""
    import polars

    waiting: list[polars.DataFrame] = []
    for part in run.row_sources(table):
        rows = part.frame(list(dict.fromkeys([*columns, "seq"])))
        waiting.append(rows if rows["seq"].is_sorted() else rows.sort("seq"))
        if sum(rows.height for rows in waiting) >= _CHUNK:
            yield polars.concat(waiting)
            waiting = []
    if waiting:
        yield polars.concat(waiting)


def _last_of_key(rows: polars.DataFrame, key: Sequence[str]) -> polars.DataFrame:
    """Return ``rows`` sorted by update with the last row of each key; rows already so (the usual case) unchanged."""
    update = rows["update"].to_numpy()
    if len(key) == 1 and bool((np.diff(update) > 0).all()):
        return rows
    return rows.unique(subset=list(key), keep="last", maintain_order=True).sort("update", maintain_order=True)


def queried(
    connection: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, object] | None = None
) -> polars.DataFrame:
    """Return the result of ``query`` over a run's ``connection()``: for tables too large for memory."""
    import polars

    return polars.DataFrame(connection.sql(query, params=dict(values or {})).to_arrow_table())


def series_of(rows: polars.DataFrame, column: str) -> Series:
    """Return one numeric or boolean column of ``rows`` as a series."""
    import polars

    cells = rows[column].cast(polars.Float64)
    value = cells.fill_null(float("nan")).to_numpy()
    return Series(rows["update"].to_numpy(), value, cells.is_null().to_numpy())


def all_series(run: RecordedRun, table: str, columns: Sequence[str]) -> dict[str, Series]:
    """Return several columns of a table with one row per update."""
    rows = rows_of(run, table, columns)
    return {column: series_of(rows, column) for column in columns}


def by_subject(run: RecordedRun, table: str, columns: Sequence[str]) -> dict[str, dict[str, Series]]:
    """Return columns of a table with subjects: subject (in order of appearance) → column → series."""
    parts = rows_by_subject(run, table, columns)
    return {name: {column: series_of(part, column) for column in columns} for name, part in parts.items()}


@dataclass(frozen=True, slots=True)
class Extremes:
    """The least and the greatest finite value of each of equal intervals of ``width`` updates, from ``first`` on.

    ``values``: a row of ``EXTREMES`` for each; NaN in an interval without a finite value.
    """

    first: int
    width: int
    values: NDArray[np.void]

    def joined(self, number: int) -> Extremes:
        """Return the extremes of every ``number`` intervals together."""
        if number == 1:
            return self
        rows = np.resize(self.values, (-(-len(self.values) // number), number))
        rows.reshape(-1)[len(self.values) :] = (np.nan, np.nan, 0, 0)
        found = np.zeros(len(rows), EXTREMES)
        for name, worst, pick in (("low", np.inf, np.argmin), ("high", -np.inf, np.argmax)):
            place = pick(np.where(np.isnan(rows[name]), worst, rows[name]), axis=1)
            chosen = rows[np.arange(len(rows)), place]
            found[name] = chosen[name]
            found[f"{name}_at"] = np.minimum(chosen[f"{name}_at"] + self.width * place, _FARTHEST)
        return Extremes(self.first, self.width * number, found)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A series divided into one interval per pixel: least, mean and greatest finite value of each.

    ``update`` is the first of each interval; the values are NaN in intervals without a finite value.
    """

    update: Ints
    low: Floats
    mean: Floats
    high: Floats


def extremes(series: Series, intervals: int) -> Extremes:
    """Return the extremes of ``series`` over equal intervals of updates, at most ``intervals``."""
    first, last = (int(series.update[0]), int(series.update[-1])) if len(series.update) else (0, -1)
    width = max(1, -(-(last - first + 1) // intervals))
    found = np.zeros(-(-(last - first + 1) // width), EXTREMES)
    found["low"] = found["high"] = np.nan
    update, value = series.update[series.finite] - first, series.value[series.finite]
    starts = np.flatnonzero(np.diff(update // width, prepend=-1))
    if len(starts):
        full, piece = update[starts] // width, np.repeat(np.arange(len(starts)), np.diff(starts, append=len(value)))
        for name, pick in (("low", np.minimum), ("high", np.maximum)):
            at = _first_extremes(value, starts, piece, pick)
            found[name][full] = np.clip(value[at], *_SINGLE)
            found[f"{name}_at"][full] = np.minimum(update[at] - width * full, _FARTHEST)
    return Extremes(first, width, found)


def envelope(series: Series, pixels: int = PIXELS) -> Envelope:
    """Return the envelope of ``series`` over equal intervals of updates, including intervals without rows."""
    first, last = (int(series.update[0]), int(series.update[-1])) if len(series.update) else (0, 0)
    width = max(1, -(-(last - first + 1) // pixels))
    count = (last - first) // width + 1
    measured = series.finite
    bucket = (series.update[measured] - first) // width
    value = series.value[measured]
    low, mean, high = (np.full(count, np.nan) for _ in range(3))
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    if len(starts):
        full = bucket[starts]
        low[full], high[full] = np.minimum.reduceat(value, starts), np.maximum.reduceat(value, starts)
        with np.errstate(over="ignore"):
            mean[full] = np.add.reduceat(value, starts) / np.diff(starts, append=len(value))
        # Rounding, or overflow of the sum, must not move a mean outside its band.
        mean = np.clip(mean, low, high)
    return Envelope(first + width * np.arange(count, dtype=np.int64), low, mean, high)


def corners(series: Series, pixels: int = PIXELS) -> Series:
    """Return the first, least, greatest and last finite value of each of ``pixels`` intervals, gaps as null points.

    A line through them covers the same pixels as a line through all values (M4, Jugel et al. 2014), so that a spike of
    a single update is drawn at its full height.
    """
    first, last = (int(series.update[0]), int(series.update[-1])) if len(series.update) else (0, 0)
    width = max(1, -(-(last - first + 1) // pixels))
    measured = np.flatnonzero(series.finite)
    bucket = (series.update[measured] - first) // width
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    if not len(starts):
        return Series(series.update[:0], series.value[:0], series.null[:0])
    value, ends = series.value[measured], np.append(starts[1:], len(measured))
    piece = np.repeat(np.arange(len(starts)), ends - starts)
    chosen = [starts, ends - 1, *(_first_extremes(value, starts, piece, pick) for pick in (np.minimum, np.maximum))]
    places = measured[np.unique(np.concatenate(chosen))]
    return _with_breaks(Series(series.update[places], series.value[places], series.null[places]), width)


def _first_extremes(value: Floats, starts: Ints, piece: Ints, pick: np.ufunc) -> Ints:
    """Return where each piece of ``value``, which begin at ``starts``, has its least or greatest value first."""
    at = np.flatnonzero(value == pick.reduceat(value, starts)[piece])
    return at[np.flatnonzero(np.diff(piece[at], prepend=-1))]


def _with_breaks(series: Series, width: int) -> Series:
    """Return ``series`` with a null point where an interval of ``width`` updates has no value."""
    holes = np.flatnonzero(np.diff(series.update) > 2 * width) + 1
    return _with_nulls(series, holes)


def with_gaps(series: Series) -> Series:
    """Return ``series`` with one null point in each run of updates that has no row."""
    return _with_nulls(series, np.flatnonzero(np.diff(series.update) > 1) + 1)


def _with_nulls(series: Series, holes: Ints) -> Series:
    if not len(holes):
        return series
    return Series(
        np.insert(series.update, holes, series.update[holes] - 1),
        np.insert(series.value, holes, np.nan),
        np.insert(series.null, holes, True),
    )
