"""A heatmap of logarithms, layers down and updates across, in which no cell hides what is worse than it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import Bools, Floats
from esper_analyze.reports.render.draw import finish, magnitude
from esper_analyze.reports.render.style import INK, PAPER, VERDICTS
from esper_analyze.runs.series import PIXELS
from esper_analyze.wording import tail

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAP = "viridis"
_ZERO = VERDICTS["not_applicable"]
_BROKEN = VERDICTS["critical"]
_MOST_CROSSES = 300
_KEY = (0.50, 0.22)
"""Where the colour key begins and how wide it is, as shares of the axes."""


@dataclass(frozen=True, slots=True)
class Heat:
    """Cells [rows, columns]: ``log`` is log10 of a finite value above 0, NaN elsewhere; the flags say what is there.

    Columns are ``width`` updates wide and begin with update ``first``. A cell with neither value nor flag is empty.
    """

    names: tuple[str, ...]
    first: int
    width: int
    log: Floats
    zero: Bools
    broken: Bools

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the cells, in updates and rows."""
        rows, columns = self.log.shape
        return self.first - 0.5, self.first + self.width * columns - 0.5, rows - 0.5, -0.5


def draw_heat(axes: Axes, heat: Heat, title: str) -> None:
    """Draw the cells, a cross where something was NaN or infinite, the rows' names, and a key of the colours."""
    import matplotlib as mpl
    from matplotlib.colors import to_rgba

    low, high = _range(heat.log)
    cells = mpl.colormaps[_MAP](np.clip((heat.log - low) / (high - low), 0.0, 1.0))
    cells[np.isnan(heat.log)] = (0.0, 0.0, 0.0, 0.0)
    cells[heat.zero] = to_rgba(_ZERO)
    cells[heat.broken] = to_rgba(_BROKEN)
    axes.imshow(cells, extent=heat.extent, aspect="auto", interpolation="nearest")
    _crosses(axes, heat)
    axes.set_yticks(range(len(heat.names)), [tail(name) for name in heat.names])
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.grid(visible=False)
    finish(axes, title, last=True)
    axes.margins(0)
    _key(axes, low, high)


def _range(log: Floats) -> tuple[float, float]:
    """Return the ends of the colours: the greatest value, and the least but for the lowest hundredth."""
    numbers = log[~np.isnan(log)]
    if not len(numbers):
        return -1.0, 0.0
    low, high = float(np.quantile(numbers, 0.01)), float(numbers.max())
    return (low, high) if high - low > 0.1 else (low - 0.5, high + 0.5)


def _crosses(axes: Axes, heat: Heat) -> None:
    """Put a cross on broken cells, so that one a pixel wide is seen; at most one each 12 pixels of a row."""
    rows, columns = np.nonzero(heat.broken)
    apart = max(1, round(12 * heat.log.shape[1] / (PIXELS * axes.get_position().width)))
    _, chosen = np.unique(np.stack([rows, columns // apart]), axis=1, return_index=True)
    chosen = np.sort(chosen)[:_MOST_CROSSES]
    across = heat.first + heat.width * (columns[chosen] + 0.5) - 0.5
    axes.plot(
        across,
        rows[chosen],
        "X",
        color=_BROKEN,
        markersize=7,
        markeredgecolor=PAPER,
        markeredgewidth=0.7,
        linestyle="none",
    )


def _key(axes: Axes, low: float, high: float) -> None:
    """Draw the colours over the axes, with what is not a colour of them in words."""
    tall = axes.bbox.height  # in pixels: figures are made with one to a point
    key = axes.inset_axes((_KEY[0], 1 + 8 / tall, _KEY[1], 8 / tall))
    key.imshow(np.linspace(0, 1, 128)[None], aspect="auto", cmap=_MAP, extent=(low, high, 0, 1))
    key.set_axis_off()
    for end, text in ((low, "left"), (high, "right")):
        at = _KEY[0] - 0.008 if text == "left" else _KEY[0] + _KEY[1] + 0.008
        _say(axes, at, tall, magnitude(10.0**end), "right" if text == "left" else "left", INK)
    _say(axes, 0.885, tall, "■ zero", "right", _ZERO)
    _say(axes, 1.0, tall, "■ NaN or Inf", "right", _BROKEN)


def _say(axes: Axes, x: float, tall: float, text: str, side: str, colour: str) -> None:
    axes.text(x, 1 + 12 / tall, text, transform=axes.transAxes, ha=side, va="center", color=colour, fontsize=10)
