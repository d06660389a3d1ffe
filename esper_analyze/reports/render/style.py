"""How figures look: one colour per verdict, calm axes, sizes in screen pixels.

Colours are those of the light page. In the page's SVG the first three groups become CSS variables, so that the same
drawing reads in the dark; PNGs keep the light ones. Verdicts use the colour-blind safe palette of Okabe and Ito 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from esper_analyze.runs.series import PIXELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from esper_analyze.reports.render.section import Layout

INK = "#1f2328"
MUTED = "#5d666f"
GRID = "#e3e6ea"
PAPER = "#fdfdfc"
FIRST = "#0b6aa8"
SECOND = "#8a4f7d"
THIRD = "#6b7480"
BAND = "#c9dcea"

VERDICTS = {
    "ok": "#009e73",
    "info": "#56b4e9",
    "warning": "#e69f00",
    "critical": "#d55e00",
    "no_data": "#cc79a7",
    "not_applicable": "#9aa3ad",
}

VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    FIRST: "--first",
    SECOND: "--second",
    THIRD: "--third",
    BAND: "--band",
}
"""Colours that become CSS variables in SVG."""

_RIGHT, _TOP, _BOTTOM, _BETWEEN, _GUTTER = 14, 30, 40, 34, 58
_HEADING, _MARGIN = 36, 14
_TICKS, _STEPS = 4, (1, 2, 2.5, 5, 10)
_RC: dict[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.parse_math": False,
    "text.color": INK,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlepad": 6,
    "axes.titley": 1.0,  # a given place spares matplotlib a layout pass over all ticks
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "lines.linewidth": 1.3,
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "legend.handlelength": 1.4,
    "legend.borderaxespad": 0.2,
    "legend.labelspacing": 0.25,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "path.simplify": True,
}


def house_style() -> AbstractContextManager[None]:
    """Return a context in which every figure has this look."""
    import matplotlib as mpl

    return mpl.rc_context(_RC)  # type: ignore[arg-type]


def sheet(heights: Sequence[int], columns: int = 1, left: int = 64) -> tuple[Figure, list[Axes]]:
    """Return a figure with one row of axes per height (in pixels) and its axes, row by row.

    One point is one pixel, so that text in the page's SVG has the page's size. Axes share their x axis by column.
    Nothing is laid out by measuring (tight layouts double the drawing time): places are given, labels included.
    """
    figure = _blank(_height(heights))
    return figure, _axes(figure, heights, columns, left)


def headed_sheets(headings: Sequence[str], layouts: Sequence[Layout]) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with a sheet for each layout, one below the other under its heading, and the axes of each."""
    heights = [_height(layout.heights) for layout in layouts]
    figure = _blank(sum(heights) + _HEADING * len(layouts))
    ratios = [part for tall in heights for part in (_HEADING, tall)]
    parts = figure.subfigures(len(ratios), squeeze=False, height_ratios=ratios)[:, 0]
    sheets = []
    for index, (heading, layout) in enumerate(zip(headings, layouts, strict=True)):
        title, part = parts[2 * index : 2 * index + 2]
        title.text(_MARGIN / PIXELS, 0.35, heading, fontsize=13, fontweight="bold", va="center")
        sheets.append(_axes(part, layout.heights, layout.columns, layout.left))
    return figure, sheets


def _height(heights: Sequence[int]) -> int:
    return _TOP + sum(heights) + _BETWEEN * (len(heights) - 1) + _BOTTOM


def _blank(height: int) -> Figure:
    from esper_analyze.reports.render.notebook_figure import NotebookFigure

    return NotebookFigure(figsize=(PIXELS / 72, height / 72), dpi=72)


def _axes(figure: Figure | SubFigure, heights: Sequence[int], columns: int, left: int) -> list[Axes]:
    from matplotlib.ticker import MaxNLocator

    height = _height(heights)
    width = (PIXELS - left - _RIGHT - _GUTTER * (columns - 1)) / columns
    axes: list[Axes] = []
    top = height - _TOP
    for row, tall in enumerate(heights):
        top -= tall
        for column in range(columns):
            start = left + column * (width + _GUTTER)
            box = (start / PIXELS, top / height, width / PIXELS, tall / height)
            axis = figure.add_axes(box, sharex=axes[column] if row else None)
            # Few ticks: making and placing them is half of what a figure costs.
            axis.yaxis.set_major_locator(MaxNLocator(_TICKS, steps=_STEPS))
            if not row:
                axis.xaxis.set_major_locator(MaxNLocator(2 + _TICKS // columns, steps=_STEPS, integer=True))
            axis.xaxis.set_label_coords(0.5, -27 / tall)
            axis.yaxis.set_label_coords(-0.05, 0.5)
            axes.append(axis)
        top -= _BETWEEN
    for axis in axes[: -columns or None]:
        axis.tick_params(labelbottom=False)
    return axes
