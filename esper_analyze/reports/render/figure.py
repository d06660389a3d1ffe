"""From data to their figure, drawn once: an element of the page, and files for themselves (SVG and PNG)."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from esper_analyze.errors import UsageError
from esper_analyze.reports.render.curves import CurvePanel, columns_of, fitting, panels_of
from esper_analyze.reports.render.draw import UPDATES
from esper_analyze.reports.render.section import Drawing
from esper_analyze.reports.render.style import VARIABLES, headed_sheets, house_style, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 60_000
"""Drawn points above which a figure's lines become one picture inside the SVG; axes and text stay text."""
_PNG_SCALE = 1.6
_PIXELS_A_POINT = 72
_TALLEST_PNG = 2**16
"""Pixels, of matplotlib's renderer."""
_PATH = re.compile(r' d="[^"]*"')
_FINE = re.compile(r"(?<=\.\d\d)\d+")
"""What of a coordinate is finer than a hundredth of a pixel."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure as the page holds it (``svg``, colours as CSS variables), and as files in the light style.

    ``panels``: its numbers, from which the page's script draws it again; empty where it is not lines over updates.
    ``columns``: how many stand side by side; ``updates``: the label of their axis.
    """

    svg: str
    file: str
    png: bytes
    points: int
    panels: tuple[CurvePanel, ...] = ()
    columns: int = 1
    updates: str = UPDATES


@dataclass(frozen=True, slots=True)
class DrawnData:
    """Data to draw: the label of axes of updates, the first and last update that these show (None: all), a heading."""

    data: Any
    updates: str = UPDATES
    shown: tuple[int, int] | None = None
    heading: str = ""


def drawn(drawing: Drawing, data: Any, updates: str = UPDATES) -> Drawn:
    """Draw ``data`` and return both pictures; ``updates`` labels axes of updates."""
    with _figure(drawing, DrawnData(data, updates)) as figure:
        points, panels, columns = _thinned(figure), panels_of(figure), columns_of(figure)
        file = _svg(figure, drawing.name)
        return Drawn(inline(file), file, _png(figure), points, panels, columns, updates)


def fitted(figures: Iterable[Drawn]) -> list[Drawn]:
    """Return the figures of one page, their lines as fine as the page has room for."""
    figures = list(figures)
    panels = fitting([figure.panels for figure in figures])
    return [replace(figure, panels=one) for figure, one in zip(figures, panels, strict=True)]


def picture(drawing: Drawing, data: Any, form: str, updates: str = UPDATES) -> bytes:
    """Draw ``data`` and return it as a file of its own, "png" or "svg", in the light style."""
    return joint_picture(drawing, (DrawnData(data, updates),), form)


def joint_picture(drawing: Drawing, parts: Sequence[DrawnData], form: str) -> bytes:
    """Draw ``parts``, one below the other, as ``picture`` does. Raises ``UsageError`` for more than a PNG can hold."""
    with _figure(drawing, *parts) as figure:
        if form == "png":
            if figure.get_figheight() * _PIXELS_A_POINT * _PNG_SCALE >= _TALLEST_PNG:
                raise UsageError(f"a PNG of {len(parts)} runs would be too tall", hint="give fewer runs, or write SVG")
            return _png(figure)
        _thinned(figure)
        return _svg(figure, drawing.name).encode()


def figure_of(drawing: Drawing, data: Any, updates: str = UPDATES) -> Figure:
    """Draw ``data`` and return the figure, complete: what is made at a first drawing (ticks) has our style, too."""
    with _figure(drawing, DrawnData(data, updates)) as figure:
        figure.draw_without_rendering()
        return figure


@contextmanager
def _figure(drawing: Drawing, *parts: DrawnData) -> Iterator[Figure]:
    with house_style(), warnings.catch_warnings():
        # A name in a script without glyphs here: the browser has them, the PNG shows boxes.
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        warnings.filterwarnings("ignore", r"Matplotlib currently does not support")
        layouts = [drawing.layout(part.data) for part in parts]
        if len(parts) == 1 and not parts[0].heading:
            figure, axes = sheet(layouts[0].heights, layouts[0].columns, layouts[0].left)
            sheets = [axes]
        else:
            figure, sheets = headed_sheets([part.heading for part in parts], layouts)
        for part, axes in zip(parts, sheets, strict=True):
            drawing.draw(part.data, axes)
            _over_updates(axes, part)
        yield figure


def _over_updates(axes: Sequence[Axes], part: DrawnData) -> None:
    for one in axes:
        if one.get_xlabel() == UPDATES:
            one.set_xlabel(part.updates)
            if part.shown is not None:
                one.set_xlim(part.shown[0] - 0.5, part.shown[1] + 0.5)


def _thinned(figure: Figure) -> int:
    """Return how many points are drawn; too many become a picture inside the SVG."""
    points = _points(figure)
    if points > MOST_POINTS:
        _rasterize_lines(figure)
    return points


def _points(figure: Figure) -> int:
    lines = sum(np.size(line.get_xdata()) for axes in figure.axes for line in axes.lines)
    areas = sum(len(path) for axes in figure.axes for drawn in axes.collections for path in drawn.get_paths())
    return lines + areas


def _rasterize_lines(figure: Figure) -> None:
    for axes in figure.axes:
        for artist in (*axes.lines, *axes.collections):
            artist.set_rasterized(True)


def _svg(figure: Figure, name: str) -> str:
    import matplotlib as mpl

    sink = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(sink, format="svg", dpi=2 * _PIXELS_A_POINT, metadata={"Date": None})
    return _PATH.sub(lambda match: _FINE.sub("", match[0]), sink.getvalue())


def _png(figure: Figure) -> bytes:
    """Return the figure as PNG of 256 colours: a third of the size, and written in half the time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(_PNG_SCALE * _PIXELS_A_POINT)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    sink = io.BytesIO()
    reduced = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    reduced.save(sink, "PNG", compress_level=4, dpi=(144, 144))
    return sink.getvalue()


def inline(svg: str) -> str:
    """Return matplotlib's SVG file as an element for a page: no prologue, no own style, colours as variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1var(--sans)", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
