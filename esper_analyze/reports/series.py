"""One number over updates, with missing, non-finite and zero kept apart, thinned to what a screen can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import Bools, Floats, Ints
from esper_analyze.runs.run import Run
from esper_analyze.schema import BY_NAME

if TYPE_CHECKING:
    import duckdb
    import polars

PIXELS = 900
"""Widest figure in pixels: with more than twice as many updates, the extremes and mean of each pixel are drawn."""


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
    def last(self) -> float | None:
        """The last measured value, None when there is none."""
        places = np.flatnonzero(~self.null)
        return float(self.value[places[-1]]) if len(places) else None


def rows_of(run: Run, table: str, columns: Sequence[str]) -> polars.DataFrame:
    """Return ``columns`` in order of updates, with update and subject; the last row of a key stands."""
    subject = BY_NAME[table].subject
    key = ["update", *([subject] if subject else [])]
    rows = run.frame(table, list(dict.fromkeys([*key, *columns])))
    return rows.unique(subset=key, keep="last", maintain_order=True).sort("update", maintain_order=True)


def queried(
    connection: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, object] | None = None
) -> polars.DataFrame:
    """Return what ``query`` finds over a run's ``connection()``: for tables too large to be read whole."""
    import polars

    return polars.DataFrame(connection.sql(query, params=dict(values or {})).to_arrow_table())


def series_of(rows: polars.DataFrame, column: str) -> Series:
    """Return one numeric or boolean column of ``rows`` as a series."""
    import polars

    cells = rows[column].cast(polars.Float64)
    value = cells.fill_null(float("nan")).to_numpy()
    return Series(rows["update"].to_numpy(), value, cells.is_null().to_numpy())


def all_series(run: Run, table: str, columns: Sequence[str]) -> dict[str, Series]:
    """Return several columns of a table with one row per update."""
    rows = rows_of(run, table, columns)
    return {column: series_of(rows, column) for column in columns}


def by_subject(run: Run, table: str, columns: Sequence[str]) -> dict[str, dict[str, Series]]:
    """Return columns of a table with subjects: subject (in order of appearance) → column → series."""
    subject = BY_NAME[table].subject
    if subject is None:
        raise ValueError(f"table {table} has one row per update, use all_series")
    parts = rows_of(run, table, columns).partition_by(subject, as_dict=True, maintain_order=True)
    return {str(key[0]): {column: series_of(part, column) for column in columns} for key, part in parts.items()}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A series cut into as many pieces as there are pixels: least, mean and greatest finite value of each.

    ``update`` is the first of each piece; the values are NaN where a piece has no finite value.
    """

    update: Ints
    low: Floats
    mean: Floats
    high: Floats


def envelope(series: Series, pixels: int = PIXELS) -> Envelope:
    """Return the envelope of ``series`` over equal stretches of updates, stretches without rows included."""
    first, last = (int(series.update[0]), int(series.update[-1])) if len(series.update) else (0, 0)
    width = max(1, -(-(last - first + 1) // pixels))
    count = (last - first) // width + 1
    kept = series.finite
    place = (series.update[kept] - first) // width
    value = series.value[kept]
    low, mean, high = (np.full(count, np.nan) for _ in range(3))
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    if len(starts):
        full = place[starts]
        low[full], high[full] = np.minimum.reduceat(value, starts), np.maximum.reduceat(value, starts)
        with np.errstate(over="ignore"):
            mean[full] = np.add.reduceat(value, starts) / np.diff(starts, append=len(value))
        # Rounding, or the overflow of a sum, must not carry a mean out of its band.
        mean = np.clip(mean, low, high)
    return Envelope(first + width * np.arange(count, dtype=np.int64), low, mean, high)


def with_gaps(series: Series) -> Series:
    """Return ``series`` with one null point in each run of updates that has no row."""
    holes = np.flatnonzero(np.diff(series.update) > 1) + 1
    if not len(holes):
        return series
    return Series(
        np.insert(series.update, holes, series.update[holes] - 1),
        np.insert(series.value, holes, np.nan),
        np.insert(series.null, holes, True),
    )
