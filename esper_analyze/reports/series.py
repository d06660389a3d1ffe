"""One number over updates, with missing, non-finite and zero kept apart, thinned to what a screen can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import Bools, Floats, Ints
from esper_analyze.runs.run import Run
from esper_analyze.schema import BY_NAME

if TYPE_CHECKING:
    import polars

PIXELS = 900
"""Widest figure in pixels: beyond twice as many updates a line shows the extremes of each pixel."""


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
    """Return ``columns`` of rank 0 in order of updates, with update and subject; the last row of a key stands."""
    import polars

    subject = BY_NAME[table].subject
    key = ["update", *([subject] if subject else [])]
    rows = run.frame(table, list(dict.fromkeys([*key, *columns, "rank"])))
    rows = rows.filter(polars.col("rank") == 0).drop("rank")
    return rows.unique(subset=key, keep="last", maintain_order=True).sort("update", maintain_order=True)


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


def thinned(series: Series, pixels: int = PIXELS) -> Series:
    """Return ``series`` with gaps as null points, and of each pixel only its extremes (and whatever is non-finite).

    A run of updates without a row becomes one null point. Up to 2 × ``pixels`` points nothing is left out.
    """
    series = _with_gaps(series)
    count = len(series.update)
    if count <= 2 * pixels:
        return series
    width = -(-count // pixels)
    place = np.arange(pixels * width).reshape(pixels, width)
    inside = np.asarray(place < count)
    place = np.minimum(place, count - 1)
    usable = inside & series.finite[place]
    low = np.where(usable, series.value[place], np.inf).argmin(axis=1)
    high = np.where(usable, series.value[place], -np.inf).argmax(axis=1)
    row = np.arange(pixels)
    some: Bools = np.asarray(usable.any(axis=1))
    start = place[inside.any(axis=1), 0]
    picked = [place[row, low][some], place[row, high][some], start[~some[: len(start)]]]
    picked.append(_first_of_pixel(series, width))
    kept = np.unique(np.concatenate(picked))
    return Series(series.update[kept], series.value[kept], series.null[kept])


def _first_of_pixel(series: Series, width: int) -> Ints:
    """Positions of the first NaN, first +Inf and first −Inf of each pixel."""
    found = []
    for kind in (np.isnan(series.value), series.value == np.inf, series.value == -np.inf):
        places = np.flatnonzero(kind & ~series.null)
        found.append(places[np.unique(places // width, return_index=True)[1]])
    return np.concatenate(found)


def _with_gaps(series: Series) -> Series:
    holes = np.flatnonzero(np.diff(series.update) > 1) + 1
    if not len(holes):
        return series
    return Series(
        np.insert(series.update, holes, series.update[holes] - 1),
        np.insert(series.value, holes, np.nan),
        np.insert(series.null, holes, True),
    )
