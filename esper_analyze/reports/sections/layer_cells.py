"""Table ``layers`` made small by DuckDB: what each layer ever was, and its least and most in each stretch of updates.

What comes out is as large as layers times stretches, however many rows were recorded. Sums are of whole numbers only,
so that two readings agree to the bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import Bools, Floats
from esper_analyze.runs.run import RecordedRun
from esper_analyze.runs.series import queried

if TYPE_CHECKING:
    import duckdb

COLUMNS = 600
"""Most stretches of updates: the heatmap's width in pixels, nearly."""
_BROKEN = "(not isfinite(grad_norm) or nan_count > 0 or inf_count > 0)"
_FINITE = "(isfinite(grad_norm) and coalesce(nan_count, 0) = 0 and coalesce(inf_count, 0) = 0)"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer ever was: counts are of sampled updates, ``first_…`` the update it was so first, None if never.

    ``least``, ``most`` and ``typical`` are of finite norms, None without one; ``typical`` is the median over stretches
    of updates, zeros left out unless there is nothing else.
    """

    name: str
    elements: int | None
    sampled: int
    measured: int
    zeros: int
    least: float | None
    most: float | None
    broken: int
    first_broken: int | None
    vanished: int
    first_vanished: int | None
    exploded: int
    first_exploded: int | None
    update_ratio: float | None
    typical: float | None

    @property
    def always_zero(self) -> bool:
        """Whether every gradient measured was exactly zero."""
        return self.measured > 0 and self.zeros == self.measured


@dataclass(frozen=True, slots=True)
class LayerGrid:
    """Layers × stretches of ``width`` updates from ``first`` on, of ``sampled`` updates in all.

    ``least`` and ``most`` are log10 of the finite norms above zero, NaN without one; the flags say what else was there.
    """

    first: int
    width: int
    sampled: int
    least: Floats
    most: Floats
    zeros: Bools
    broken: Bools

    @property
    def usual(self) -> Floats:
        """The median over stretches of each layer's log10, NaN where it has none."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice")
            usual: Floats = np.nanmedian((self.least + self.most) / 2, axis=1)
        return usual


def read_layers(run: RecordedRun, vanishing: float, exploding: float) -> tuple[tuple[Layer, ...], LayerGrid]:
    """Return every layer in the order in which the recorder met them, which is the network's, and their cells."""
    connection = run.connection()
    summary = queried(connection, _LAYERS, {"vanishing": vanishing, "exploding": exploding})
    cells = _read_cells(connection, summary["name"].to_list())
    usual = np.where(summary["zeros"].to_numpy() == summary["measured"].to_numpy(), 0.0, 10.0**cells.usual)
    usual = np.where(summary["measured"].to_numpy() == 0, np.nan, usual)
    rows = zip(summary.iter_rows(named=True), usual.tolist(), strict=True)
    layers = tuple(Layer(**row, typical=None if np.isnan(typical) else typical) for row, typical in rows)
    return layers, cells


_LAYERS = f"""
    select layer as name, max(elements) as elements, count(*) as sampled, count(grad_norm) as measured,
        count(*) filter (grad_norm = 0) as zeros,
        min(grad_norm) filter ({_FINITE}) as least, max(grad_norm) filter ({_FINITE}) as most,
        count(*) filter ({_BROKEN}) as broken, min(update) filter ({_BROKEN}) as first_broken,
        count(*) filter (grad_norm < $vanishing) as vanished,
        min(update) filter (grad_norm < $vanishing) as first_vanished,
        count(*) filter ({_FINITE} and grad_norm > $exploding) as exploded,
        min(update) filter ({_FINITE} and grad_norm > $exploding) as first_exploded,
        max(update_ratio) filter (isfinite(update_ratio)) as update_ratio
    from layers group by layer order by min(update), min(seq)
"""
_CELLS = f"""
    select layer, (update - $first) // $width as stretch,
        min(grad_norm) filter ({_FINITE} and grad_norm > 0) as least,
        max(grad_norm) filter ({_FINITE} and grad_norm > 0) as most,
        bool_or(coalesce(grad_norm = 0, false)) as zeros, bool_or(coalesce({_BROKEN}, false)) as broken
    from layers group by layer, stretch
"""


def _read_cells(connection: duckdb.DuckDBPyConnection, layers: Sequence[str]) -> LayerGrid:
    span = queried(connection, "select min(update), max(update), count(distinct update) from layers")
    first, last, sampled = span.row(0)
    width = max(1, -(-(last - first + 1) // COLUMNS))
    rows = queried(connection, _CELLS, {"first": first, "width": width})
    order = {layer: index for index, layer in enumerate(layers)}
    at = np.array([order[name] for name in rows["layer"]], np.int64), rows["stretch"].to_numpy()
    shape = len(layers), (last - first) // width + 1
    least, most = np.full(shape, np.nan), np.full(shape, np.nan)
    zeros, broken = np.zeros(shape, bool), np.zeros(shape, bool)
    least[at], most[at] = (np.log10(rows[name].fill_null(float("nan")).to_numpy()) for name in ("least", "most"))
    zeros[at], broken[at] = rows["zeros"].to_numpy(), rows["broken"].to_numpy()
    return LayerGrid(first, width, sampled, least, most, zeros, broken)
