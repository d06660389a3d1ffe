"""Drawing shared by the reports: lines with honest gaps and edges, bounds, incidents behind, readable ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from esper_analyze.detector.signals import Bools, Floats, Ints
from esper_analyze.reports.render.style import FIRST, INK, VERDICTS
from esper_analyze.runs.series import PIXELS, Extremes, Series, corners, envelope, extremes, with_gaps
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.ticker import Locator

    from esper_analyze.detector.incidents import Incident

UPDATES = "update"
"""Label of an axis of updates, to which a report adds how far the training was."""
_SPREAD = 1e3
"""A largest value this many times the median asks for a logarithmic axis."""
_DENSE = 2.5
"""Updates a pixel above which they are not drawn one by one."""
_FINEST = 4096
"""Intervals of a line that are kept for a closer look."""
EXTREMES_OF: WeakKeyDictionary[Line2D, Extremes] = WeakKeyDictionary()
"""Of each line drawn by its extremes: all of them, for a closer look."""
_EDGES = (("x", 1.0), (6, 0.965), (7, 0.035))
"""Marker and height of NaN, +Inf and −Inf: a cross, a triangle up, a triangle down."""


Places = Callable[[Ints], Floats | Ints]
"""Returns where on the x axis updates are."""


def itself(update: Ints) -> Ints:
    """Return updates as their own places on the x axis."""
    return update


def line(
    axes: Axes, series: Series, colour: str = FIRST, label: str = "", *, width: float = 1.3, at: Places = itself
) -> None:
    """Draw ``series``: gaps where nothing was measured, marks on the edge where NaN or ±Inf was.

    With many more updates than pixels: the corners of every two pixels (no spike is lost), and their mean over them.
    """
    pixels, named = _pixels(axes), _counted(series, cleaned(label, 40)) or None
    if len(series.update) > _DENSE * pixels:
        coarse = max(100, pixels // 2)
        every, mean = corners(series, coarse), envelope(series, coarse)
        (thin,) = axes.plot(at(every.update), _finite_or_nan(every), color=colour, linewidth=0.7, alpha=0.5)
        EXTREMES_OF[thin] = extremes(series, _FINEST)
        axes.plot(at(mean.update), mean.mean, color=colour, linewidth=width, label=named)
    else:
        shown = with_gaps(series)
        axes.plot(at(shown.update), _finite_or_nan(shown), color=colour, linewidth=width, label=named)
        alone = _alone(shown.finite)
        if alone.any():
            axes.plot(at(shown.update[alone]), shown.value[alone], ".", color=colour, markersize=4)
    _mark_edges(axes, series, colour, pixels, at)


def _finite_or_nan(series: Series) -> Floats:
    """Return the values to draw, NaN where there is nothing finite."""
    values: Floats = np.where(series.finite, series.value, np.nan)
    return values


def _pixels(axes: Axes) -> int:
    return max(100, round(axes.get_position().width * PIXELS))


def _alone(finite: Bools) -> Bools:
    before = np.concatenate([[False], finite[:-1]])
    after = np.concatenate([finite[1:], [False]])
    alone: Bools = finite & ~before & ~after
    return alone


def _mark_edges(axes: Axes, series: Series, colour: str, pixels: int, at: Places) -> None:
    """Mark NaN and ±Inf, at most one mark of a kind per pixel."""
    kinds = (np.isnan(series.value), series.value == np.inf, series.value == -np.inf)
    for (marker, height), kind in zip(_EDGES, kinds, strict=True):
        where = series.update[kind & ~series.null]
        if not len(where):
            continue
        pixel = (where - where[0]) // max(1, (series.update[-1] - series.update[0]) // pixels)
        where = where[np.unique(pixel, return_index=True)[1]]
        axes.plot(
            at(where),
            np.full(len(where), height),
            linestyle="none",
            marker=marker,
            markersize=6,
            color=colour,
            markeredgecolor=VERDICTS["critical"],
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            zorder=5,
        )


def _counted(series: Series, label: str) -> str:
    """Add to ``label`` how many updates were NaN or infinite."""
    nans = int((np.isnan(series.value) & ~series.null).sum())
    infinite = int(np.isinf(series.value).sum())
    counts = [f"{count} {what}" for count, what in ((nans, "NaN"), (infinite, "infinite")) if count]
    return f"{label} ({', '.join(counts)})" if counts else label


def area(axes: Axes, low: Series, high: Series, colour: str, label: str = "", *, strength: float = 0.6) -> None:
    """Fill between two series over the same updates; gaps stay gaps."""
    pixels = _pixels(axes)
    if len(low.update) > 2 * pixels:
        below, above = envelope(low, pixels), envelope(high, pixels)
        update, bottom, top = below.update, below.low, above.high
    else:
        lower, upper = with_gaps(low), with_gaps(high)
        update = lower.update
        bottom, top = (np.where(series.finite, series.value, np.nan) for series in (lower, upper))
    axes.fill_between(update, bottom, top, color=colour, linewidth=0, label=label or None, alpha=strength)


def scale(axes: Axes, *many: Series, log: bool = False, floor: float = 0.0) -> None:
    """Choose the y scale: logarithmic when asked for or when values spread widely; zero keeps a place of its own.

    Below ``floor`` differences mean nothing: that part of a logarithmic axis is linear.
    """
    finite = np.concatenate([series.value[series.finite] for series in many] or [np.zeros(0)])
    size = np.abs(finite[finite != 0])
    if not len(size) or not (log or size.max() > _SPREAD * np.median(size)):
        axes.yaxis.set_major_formatter(magnitude)
        return
    if len(size) == len(finite) and (finite > floor).all():
        axes.set_yscale("log")
        if size.max() < 2 * size.min():
            axes.set_ylim(size.min() / 3, 3 * size.max())
    else:
        least = max(float(np.quantile(size, 0.01)), float(size.max()) * 1e-12, floor)
        axes.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(least)), linscale=0.5)
    axes.yaxis.set_major_formatter(magnitude)
    axes.yaxis.set_minor_formatter(magnitude if _narrow(size) else nothing)
    if _narrow(size):
        axes.yaxis.set_minor_locator(_between_decades())


def from_zero(axes: Axes, *many: Series, least: float = 0.0) -> None:
    """Let a linear y axis begin just below zero and reach at least ``least``, for numbers that are never negative."""
    if axes.get_yscale() != "linear":
        return
    tops = [float(series.value[series.finite].max()) for series in many if series.finite.any()]
    top = max(1.08 * max(tops, default=0.0), least) or 1.0
    axes.set_ylim(-0.03 * top, top)


def _narrow(size: Floats) -> bool:
    """Whether values span so little that the decades alone would label nothing."""
    return bool(size.max() < 30 * size.min())


def _between_decades() -> Locator:
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(2.0, 5.0))


def magnitude(value: float, _position: object = None) -> str:
    """Return a short tick label."""
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1e5 or size < 1e-3:
        mantissa, exponent = f"{value:.3g}e0".split("e")[0], math.floor(math.log10(size))
        mantissa = f"{value / 10.0**exponent:.3g}" if -300 < exponent < 300 else mantissa
        return f"{mantissa}e{exponent}"
    return f"{value:,.6g}" if size >= 1000 else f"{value:.3g}"


def nothing(_value: float, _position: object = None) -> str:
    """Return no tick label."""
    return ""


def update_label(value: float, _position: object = None) -> str:
    """Return an update number, short from 100,000 on."""
    if value != int(value):
        return ""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if abs(value) >= 1e5 else f"{value:,.0f}"


def bounds(axes: Axes, warning: float | None, critical: float | None) -> None:
    """Draw the detector's bounds where they fall inside or near the axes, and can be told from zero."""
    low, high = axes.get_ylim()
    linear = axes.get_yscale() == "linear"
    room = (high - low) * (1.0 if linear else 100.0)
    least = 0.005 * (high - low) if linear else 0.0
    for bound, verdict in ((warning, "warning"), (critical, "critical")):
        if bound is not None and low - room <= bound <= high + room and abs(bound) >= least:
            axes.axhline(bound, color=VERDICTS[verdict], linewidth=1.0, linestyle=(0, (4, 3)), zorder=1.5)
    low, high = axes.get_ylim()
    if not linear and not 0 < high < 50 * low:
        axes.yaxis.set_minor_formatter(nothing)


def incidents_behind(
    axes: Axes, incidents: Iterable[Incident], rules: tuple[str, ...], subject: str = "", *, at: Places = itself
) -> None:
    """Shade where incidents of ``rules`` (on ``subject`` if given) were open, at most one span a pixel."""
    chosen = [i for i in incidents if i.rule in rules and subject in ("", i.subject)]
    low, high = axes.get_xlim()
    for verdict in ("warning", "critical"):
        updates = [(i.start, i.end) for i in chosen if i.peak_verdict == verdict]
        half, spans = 0.5, [(float(start), float(end)) for start, end in updates]
        if at is not itself:
            half = 0.0
            spans = [(float(at(np.array([start]))[0]), float(at(np.array([end]))[0])) for start, end in updates]
        finite = [span for span in spans if np.isfinite(span).all()]
        for start, end in merged(finite, (high - low) / PIXELS):
            axes.axvspan(start - half, end + half, color=VERDICTS[verdict], alpha=0.16, linewidth=0, zorder=0.5)


def merged(spans: Iterable[tuple[float, float]], pixel: float) -> list[tuple[float, float]]:
    """Return ``spans`` at least a pixel wide, those less than a pixel apart made one."""
    spans_drawn: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        end_shown = max(float(end), start + pixel)
        if spans_drawn and start <= spans_drawn[-1][1] + pixel:
            spans_drawn[-1] = (spans_drawn[-1][0], max(spans_drawn[-1][1], end_shown))
        else:
            spans_drawn.append((float(start), end_shown))
    return spans_drawn


def finish(axes: Axes, title: str, *, last: bool = False, legend: bool = False, x: str = UPDATES) -> None:
    """Give axes their title, and the last of a column its x label."""
    axes.set_title(title, color=INK)
    axes.xaxis.set_major_formatter(update_label)
    axes.margins(x=0.01)
    if last:
        axes.set_xlabel(x)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=6, borderpad=0.1, columnspacing=1.2)
