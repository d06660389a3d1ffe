"""Metrics of several runs over each other: two runs as two lines, many as a band with those drawn that leave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.comparison.side_by_side import Compared, SideBySide
from esper_analyze.comparison.words import runs_that_left
from esper_analyze.detector.signals import Floats
from esper_analyze.reports.render.draw import area, finish, line, scale
from esper_analyze.reports.render.section import Layout, Question
from esper_analyze.reports.render.style import BAND, FIRST, SECOND, THIRD, VERDICTS
from esper_analyze.runs.series import Series
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.replay.evidence import Evidence

MOST_PANELS = 8
"""Panels of one figure: those in which a run parts come first."""
MOST_LINES = 4
"""Runs of a group drawn with a colour and a name of their own."""
FEW_RUNS = 5
"""Up to so many runs each is drawn as a line; more are a band."""
_KEY = 24
_LONGEST = 34
_COLOURS = (VERDICTS["critical"], SECOND, VERDICTS["ok"], VERDICTS["warning"])
_TITLES = {
    "returns": ("Returns", "Does one run get better than the others?"),
    "policy": ("Policy change", "Do they move their policies alike?"),
    "value": ("Value function", "Do their critics learn alike?"),
    "gradients": ("Gradients", "Are their gradients of the same size?"),
    "heads": ("Heads", "Do the heads of all runs decide, and learn, alike?"),
    "lstm": ("LSTM state", "Are their hidden states of the same size?"),
}


@dataclass(frozen=True, slots=True)
class Overlay:
    """One figure: its panels, and the runs that have a line and a colour each (the rest make the band)."""

    found: SideBySide
    panels: tuple[Compared, ...]
    lines: dict[int, str]
    band: bool


def overlays(found: SideBySide) -> list[tuple[Question, Overlay]]:
    """Return a figure for every topic that was measured."""
    lines, band = _lines(found)
    made = []
    for topic, (title, asks) in _TITLES.items():
        own = [
            one
            for one in found.metrics
            if one.metric.topic == topic and (one.metric.drawn or _parts(one) or any(one.ends))
        ]
        own = sorted(sorted(own, key=_parts, reverse=True)[:MOST_PANELS], key=found.metrics.index)
        if own:
            question = Question(topic, title, asks, "", _elsewhere, layout, draw, words)
            made.append((question, Overlay(found, tuple(own), lines, band)))
    return made


def _parts(one: Compared) -> bool:
    return any(one.judged.partings)


def _lines(found: SideBySide) -> tuple[dict[int, str], bool]:
    """Return the runs with a line of their own and its colour, and whether the others are a band."""
    left = [one.run for one in runs_that_left(found)][:MOST_LINES]
    if len(found.labels) == 2:
        return {0: FIRST, 1: SECOND}, False
    if len(found.labels) > FEW_RUNS:
        return dict(zip(left, _COLOURS, strict=False)), True
    colours = iter((*_COLOURS, FIRST))
    return {run: next(colours) if run in left else THIRD for run in range(len(found.labels))}, False


def _elsewhere(_evidence: Evidence) -> None:
    """Return nothing: what is drawn here comes from several runs."""


def layout(data: Overlay) -> Layout:
    """Give every metric a panel, two in a row when there are many, below a row for the key."""
    columns = _columns(data)
    return Layout((_KEY, *((120 if columns == 2 else 150,) * -(-len(data.panels) // columns))), columns=columns)


def _columns(data: Overlay) -> int:
    return 2 if len(data.panels) > 3 else 1


def draw(data: Overlay, axes: Sequence[Axes]) -> None:
    """Draw each metric, and what the lines are above them all."""
    columns = _columns(data)
    panels = axes[columns:]
    for place, (one, own) in enumerate(zip(data.panels, panels, strict=False)):
        _panel(data, one, own)
        finish(own, one.title, last=place >= len(data.panels) - columns)
    for own in panels[len(data.panels) :]:
        own.axis("off")
        panels[len(data.panels) - 2].tick_params(labelbottom=True)
    for own in axes[:columns]:
        own.axis("off")
    handles, names = panels[0].get_legend_handles_labels()
    axes[0].legend(handles, names, loc="upper left", bbox_to_anchor=(0.0, 1.7), ncols=4, borderpad=0.0)


def _panel(data: Overlay, one: Compared, axes: Axes) -> None:
    every = [series(data.found, one, run) for run in range(len(data.found.labels))]
    if data.band:
        _band(data, one, axes)
    for run, colour in data.lines.items():
        line(axes, every[run], colour, _label(data, run), width=1.1)
    scale(axes, *every, log=one.metric.log)
    for update, colour in _marks(data, one):
        axes.axvline(update, color=colour, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1.5)


def _label(data: Overlay, run: int) -> str:
    """Return the name of a run, and one name for all that stay with the others."""
    rest = [own for own, colour in data.lines.items() if colour == THIRD]
    if run not in rest:
        return cleaned(data.found.labels[run], _LONGEST)
    return many(len(rest), "run") + ("" if len(rest) == len(data.lines) else " more") if run == rest[0] else ""


def _marks(data: Overlay, one: Compared) -> list[tuple[int, str]]:
    """Return where to mark that a run parts: for two runs once."""
    found = [
        (int(data.found.updates[parting.place]), data.lines[run])
        for run, parting in enumerate(one.judged.partings)
        if parting is not None and run in data.lines
    ]
    return [(update, VERDICTS["critical"]) for update, _ in sorted(found)[:1]] if one.cells.runs == 2 else found


def _band(data: Overlay, one: Compared, axes: Axes) -> None:
    """Draw least to most and the quartiles of all runs that have no line of their own, and their median."""
    rest = [run for run in range(one.cells.runs) if run not in data.lines]
    least, low, middle, high, most = (_over(data.found, cut) for cut in quartiles(_numbers(one)[rest]))
    area(axes, least, most, BAND, "least to most")
    area(axes, low, high, FIRST, "middle half")
    axes.collections[-1].set_alpha(0.3)
    line(axes, middle, FIRST, f"median of {len(rest)}")


def _numbers(one: Compared) -> Floats:
    return np.where(one.cells.finite, one.cells.value, np.nan)


def quartiles(values: Floats) -> Floats:
    """Return least, quartiles and most over runs [5, updates], NaN where none of ``values`` is a number."""
    found = np.full((5, values.shape[1]), np.nan)
    some = np.isfinite(values).any(axis=0)
    if some.any():
        found[:, some] = np.nanquantile(values[:, some], (0, 0.25, 0.5, 0.75, 1), axis=0)
    return found


def _over(found: SideBySide, values: Floats) -> Series:
    return Series(found.updates, values, np.isnan(values))


def series(found: SideBySide, one: Compared, run: int) -> Series:
    """Return what one run has, over the updates it recorded."""
    own = found.rows[run]
    cells = one.cells
    return Series(found.updates[own], cells.value[run][own], ~cells.measured[run][own])


def words(data: Overlay) -> list[str]:
    """Say which of the panels part, and which end apart."""
    parting = [one.title for one in data.panels if _parts(one)]
    apart = [one.title for one in data.panels if any(one.ends)]
    ends = [f"Different at the end: {', '.join(apart)}."] if apart else []
    if not parting:
        return ends or ["None of these parts."]
    return [f"Parts: {', '.join(parting)}. Dashed: the update from which on.", *ends]
