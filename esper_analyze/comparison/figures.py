"""Overlaid metrics of several runs: two runs as two lines, many as a band plus a line for each run that leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.comparison.side_by_side import ComparedMetric, SideBySide
from esper_analyze.comparison.words import first_divergences
from esper_analyze.detector.signals import Floats
from esper_analyze.reports.render.draw import area, finish, line, scale
from esper_analyze.reports.render.section import Drawing, Layout
from esper_analyze.reports.render.style import BAND, FIRST, SECOND, THIRD, VERDICTS
from esper_analyze.runs.series import Series
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 8
"""Panels of one figure: those with a divergence come first."""
MOST_LINES = 4
"""Diverging runs of a group that get their own colour and label."""
FEW_RUNS = 5
"""Up to so many runs are drawn as lines; more as a band."""
_KEY = 24
_LONGEST = 34
_COLOURS = (VERDICTS["critical"], SECOND, VERDICTS["ok"], VERDICTS["warning"])
_TITLES = {
    "returns": ("Returns", "Does one run get better than the others?"),
    "policy": ("Policy change", "Do their policies change alike?"),
    "value": ("Value function", "Do their critics learn alike?"),
    "gradients": ("Gradients", "Are their gradients of the same size?"),
    "heads": ("Heads", "Do the heads of all runs act and learn alike?"),
    "lstm": ("LSTM state", "Are their hidden states of the same size?"),
}


@dataclass(frozen=True, slots=True)
class Overlay:
    """One figure: its panels, and the colour of each run drawn as a line (the rest make the band)."""

    topic: str
    comparison: SideBySide
    panels: tuple[ComparedMetric, ...]
    lines: dict[int, str]
    band: bool

    @property
    def title(self) -> str:
        """The figure's title."""
        return _TITLES[self.topic][0]

    @property
    def asks(self) -> str:
        """The question that the figure answers."""
        return _TITLES[self.topic][1]

    @property
    def drawing(self) -> Drawing:
        """How the figure is drawn."""
        return Drawing(self.topic, layout, draw)


def overlays(comparison: SideBySide) -> list[Overlay]:
    """Return a figure for every topic that was measured."""
    lines, band = _lines(comparison)
    overlays = []
    for topic in _TITLES:
        panels = [
            candidate
            for candidate in comparison.metrics
            if candidate.metric.topic == topic
            and (candidate.metric.drawn or _diverges(candidate) or any(candidate.ends))
        ]
        panels = sorted(sorted(panels, key=_diverges, reverse=True)[:MOST_PANELS], key=comparison.metrics.index)
        if panels:
            overlays.append(Overlay(topic, comparison, tuple(panels), lines, band))
    return overlays


def _diverges(metric: ComparedMetric) -> bool:
    return any(metric.judged.divergences)


def _lines(comparison: SideBySide) -> tuple[dict[int, str], bool]:
    """Return the colour of each run drawn as a line, and whether the others are drawn as a band."""
    left = [entry.run for entry in first_divergences(comparison)][:MOST_LINES]
    if len(comparison.labels) == 2:
        return {0: FIRST, 1: SECOND}, False
    if len(comparison.labels) > FEW_RUNS:
        return dict(zip(left, _COLOURS, strict=False)), True
    colours = iter((*_COLOURS, FIRST))
    return {run: next(colours) if run in left else THIRD for run in range(len(comparison.labels))}, False


def layout(data: Overlay) -> Layout:
    """Give every metric a panel, two in a row when there are many, below a row for the key."""
    columns = _columns(data)
    return Layout((_KEY, *((120 if columns == 2 else 150,) * -(-len(data.panels) // columns))), columns=columns)


def _columns(data: Overlay) -> int:
    return 2 if len(data.panels) > 3 else 1


def draw(data: Overlay, axes: Sequence[Axes]) -> None:
    """Draw each metric, with the legend above them all."""
    columns = _columns(data)
    panels = axes[columns:]
    for index, (metric, panel) in enumerate(zip(data.panels, panels, strict=False)):
        _panel(data, metric, panel)
        finish(panel, metric.title, last=index >= len(data.panels) - columns)
    for panel in panels[len(data.panels) :]:
        panel.axis("off")
        panels[len(data.panels) - 2].tick_params(labelbottom=True)
    for panel in axes[:columns]:
        panel.axis("off")
    handles, names = panels[0].get_legend_handles_labels()
    axes[0].legend(handles, names, loc="upper left", bbox_to_anchor=(0.0, 1.7), ncols=4, borderpad=0.0)


def _panel(data: Overlay, one: ComparedMetric, axes: Axes) -> None:
    every = [series(data.comparison, one, run) for run in range(len(data.comparison.labels))]
    if data.band:
        _band(data, one, axes)
    for run, colour in data.lines.items():
        line(axes, every[run], colour, _label(data, run), width=1.1)
    scale(axes, *every, log=one.metric.log)
    for update, colour in _marks(data, one):
        axes.axvline(update, color=colour, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1.5)


def _label(data: Overlay, run: int) -> str:
    """Return the label of a run; runs that do not diverge share one label."""
    rest = [member for member, colour in data.lines.items() if colour == THIRD]
    if run not in rest:
        return cleaned(data.comparison.labels[run], _LONGEST)
    return many(len(rest), "run") + ("" if len(rest) == len(data.lines) else " more") if run == rest[0] else ""


def _marks(data: Overlay, metric: ComparedMetric) -> list[tuple[int, str]]:
    """Return update and colour of each divergence to mark; for two runs only the first."""
    marks = [
        (int(data.comparison.updates[divergence.index]), data.lines[run])
        for run, divergence in enumerate(metric.judged.divergences)
        if divergence is not None and run in data.lines
    ]
    return [(update, VERDICTS["critical"]) for update, _ in sorted(marks)[:1]] if metric.cells.runs == 2 else marks


def _band(data: Overlay, metric: ComparedMetric, axes: Axes) -> None:
    """Draw range, quartiles and median of all runs without their own line."""
    rest = [run for run in range(metric.cells.runs) if run not in data.lines]
    least, low, middle, high, most = (_series_over(data.comparison, cut) for cut in quartiles(_numbers(metric)[rest]))
    area(axes, least, most, BAND, "least to most")
    area(axes, low, high, FIRST, "middle half")
    axes.collections[-1].set_alpha(0.3)
    line(axes, middle, FIRST, f"median of {len(rest)}")


def _numbers(metric: ComparedMetric) -> Floats:
    return np.where(metric.cells.finite, metric.cells.value, np.nan)


def quartiles(values: Floats) -> Floats:
    """Return least, quartiles and most over runs [5, updates], NaN where none of ``values`` is a number."""
    quantiles = np.full((5, values.shape[1]), np.nan)
    some = np.isfinite(values).any(axis=0)
    if some.any():
        quantiles[:, some] = np.nanquantile(values[:, some], (0, 0.25, 0.5, 0.75, 1), axis=0)
    return quantiles


def _series_over(comparison: SideBySide, values: Floats) -> Series:
    return Series(comparison.updates, values, np.isnan(values))


def series(comparison: SideBySide, metric: ComparedMetric, run: int) -> Series:
    """Return the values of one run over the updates it recorded."""
    recorded = comparison.rows[run]
    cells = metric.cells
    return Series(comparison.updates[recorded], cells.value[run][recorded], ~cells.measured[run][recorded])


def words(data: Overlay) -> list[str]:
    """Name the panels that diverge, and those that differ at the end."""
    diverging = [panel.title for panel in data.panels if _diverges(panel)]
    apart = [panel.title for panel in data.panels if any(panel.ends)]
    ends = [f"Different at the end: {', '.join(apart)}."] if apart else []
    if not diverging:
        return ends or ["None of these diverges."]
    return [f"Diverging: {', '.join(diverging)}. Dashed line: the first update outside the band.", *ends]
