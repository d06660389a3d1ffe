"""Metrics over updates as one figure: a panel for each metric, a line for each subject or run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.replay.replay import merged_run
from esper_analyze.reports.render.draw import Places, finish, incidents_behind, itself, line, magnitude, scale
from esper_analyze.reports.render.figure import figure_of, picture
from esper_analyze.reports.render.section import Drawing, Layout
from esper_analyze.reports.render.style import FIRST, SECOND, THIRD, VERDICTS
from esper_analyze.runs.series import Series, all_series, by_subject
from esper_analyze.schema import TABLES, Kind
from esper_analyze.schema.lookup import declared_table
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from esper_analyze.detector.incidents import Incident
    from esper_analyze.runs.run import RecordedRun
    from esper_analyze.schema.column import Column, Table

MOST_NAMED = 8
"""Lines in one panel that have a colour and a name; further ones are thin and grey."""
_UNLISTED = "_"
"""A label that matplotlib leaves out of legends."""
_COLOURS = (
    FIRST,
    VERDICTS["critical"],
    SECOND,
    VERDICTS["ok"],
    VERDICTS["warning"],
    THIRD,
    VERDICTS["no_data"],
    VERDICTS["info"],
)
_NUMBERS = (Kind.FLOAT, Kind.INT, Kind.BOOL)
_HEIGHT = 170
_ABOVE, _ROOM = 4, 110
"""Names of lines, and characters of them and the title, that have room above a panel."""
_NEXT = (
    "`esper-analyze schema` and ea.columns(TABLE) list the columns; write TABLE.COLUMN where several tables have one"
)


@dataclass(frozen=True, slots=True)
class PlottedMetric:
    """A column with numbers, one for each update (and subject) of its table."""

    table: Table
    column: Column

    @property
    def title(self) -> str:
        """Name, unit and meaning, cut to the width of a figure."""
        unit = "" if self.column.unit in ("", "1") else f" ({self.column.unit})"
        return cleaned(f"{self.column.name}{unit}: {self.column.meaning}", 100)


@dataclass(frozen=True, slots=True)
class Against:
    """What metrics are drawn against. ``places`` are the x values of updates by run label (empty: of the only run).

    ``points``: another metric, so that updates are points and not a line.
    """

    title: str = "update"
    places: Mapping[str, Series] = field(default_factory=dict)
    points: bool = False

    def of(self, label: str) -> Places:
        """Return where the updates of a run are on the x axis; NaN where it was not measured, if they are points."""
        series = self.places.get(label, self.places.get(""))
        if series is None:
            return itself
        known = series.finite
        x, y = series.update[known], series.value[known]
        if not len(x):
            return lambda update: np.full(len(update), np.nan)
        if self.points:
            return lambda update: np.where(
                np.isin(update, x), y[np.searchsorted(x, update).clip(max=len(x) - 1)], np.nan
            )
        return lambda update: np.interp(update, x, y)


@dataclass(frozen=True, slots=True)
class Panel:
    """The lines of one metric by label, ``total`` of them there are, and incidents to shade."""

    title: str
    lines: dict[str, Series]
    total: int
    incidents: tuple[Incident, ...] = ()
    against: Against = field(default_factory=Against)


def metric_named(name: str) -> PlottedMetric:
    """Return the metric ``COLUMN`` or ``TABLE.COLUMN``. Raises ``UsageError`` with the nearest name."""
    metrics = {(table.name, column.name): PlottedMetric(table, column) for table in TABLES for column in _drawn(table)}
    table, dot, column = str(name).rpartition(".")
    if dot:
        declared = declared_table(table)
        names = [column for owner, column in metrics if owner == declared.name]
        if column not in names:
            raise UsageError(
                f"table {table} has no metric over updates called {column!r}{did_you_mean(column, names)}", hint=_NEXT
            )
        return metrics[table, column]
    chosen = next((metric for (_, column), metric in metrics.items() if column == name), None)
    if chosen is None:
        names = [column for _, column in metrics]
        close = did_you_mean(str(name), names)
        raise UsageError(f"there is no metric {name!r}{close if 'did you' in close else ''}", hint=_NEXT)
    return chosen


def _drawn(table: Table) -> list[Column]:
    """Return the columns of ``table`` that are numbers over updates: at most one subject tells its rows apart."""
    key = [name for name in table.key if name != "rank"]
    if key[:1] != ["update"] or len(key) > 2:
        return []
    keys = ("rank", "update", "seq")
    return [column for column in table.columns if column.kind in _NUMBERS and column.name not in keys]


def run_panel(run: RecordedRun, metric: PlottedMetric, subject: str | None, incidents: Sequence[Incident]) -> Panel:
    """Return the panel of one run: a line for each subject, incidents on this metric behind them."""
    lines = _lines(run, metric)
    if subject is not None:
        lines = {subject: _known_subject(metric, subject, lines)[subject]}
    behind = tuple(
        incident
        for incident in incidents
        if incident.metric == metric.column.name and subject in (None, incident.subject)
    )
    return Panel(metric.title, lines, len(lines), behind)


def fleet_panel(runs: Sequence[tuple[str, RecordedRun]], metric: PlottedMetric, subject: str | None) -> Panel:
    """Return the panel of several runs: a line for each run that has the subject."""
    if metric.table.subject is not None and subject is None:
        raise UsageError(
            f"{metric.table.name}.{metric.column.name} has a line for each {metric.table.subject}; "
            "of several runs only one is drawn",
            hint="subject= (--subject) says which",
        )
    of_runs = {label: _lines(run, metric) for label, run in runs}
    if subject is None:
        return Panel(metric.title, {label: lines[""] for label, lines in of_runs.items()}, len(runs))
    _known_subject(metric, subject, {name: series for lines in of_runs.values() for name, series in lines.items()})
    shown = {label: lines[subject] for label, lines in of_runs.items() if subject in lines}
    return Panel(f"{cleaned(subject, 40)}, {metric.title}", shown, len(runs))


def _lines(run: RecordedRun, metric: PlottedMetric) -> dict[str, Series]:
    """Return the metric by subject, of the run itself under an empty name; ranks joined."""
    table, column, merged = metric.table, metric.column.name, merged_run(run)
    if table.subject is None:
        return {"": all_series(merged, table.name, [column])[column]}
    return {name: series[column] for name, series in by_subject(merged, table.name, [column]).items()}


def _known_subject(metric: PlottedMetric, subject: str, lines: dict[str, Series]) -> dict[str, Series]:
    table = metric.table
    if table.subject is None:
        raise UsageError(f"{table.name}.{metric.column.name} is one number an update, it has no subject {subject!r}")
    if subject not in lines:
        near = did_you_mean(str(subject), lines) if lines else ": the table has no rows"
        raise UsageError(f"table {table.name} has no {table.subject} {subject!r}{near}")
    return lines


def against(runs: Sequence[tuple[str, RecordedRun]], x: str) -> Against:
    """Return the x axis ``x`` for labelled runs: "update", "env_steps", "time", or a metric of table updates.

    Raises ``UsageError`` for another one.
    """
    if x == "update":
        return Against()
    if x == "time":
        _refuse_unrecorded(runs, "wall_time")
        clocks = {label: all_series(merged_run(run), "updates", ["wall_time"])["wall_time"] for label, run in runs}
        return Against("seconds since the first update", {label: _since(clock) for label, clock in clocks.items()})
    metric = metric_named(x)
    if metric.table.name != "updates":
        raise UsageError(f"{x} has a value for each {metric.table.subject}", hint="x takes a metric of table updates")
    name = metric.column.name
    _refuse_unrecorded(runs, name)
    places = {label: all_series(merged_run(run), "updates", [name])[name] for label, run in runs}
    return Against("env steps" if x == "env_steps" else metric.title, places, points=x != "env_steps")


def _refuse_unrecorded(runs: Sequence[tuple[str, RecordedRun]], name: str) -> None:
    """Raise ``UsageError`` where a run did not record what it is to be drawn against."""
    for label, run in runs:
        if not all_series(merged_run(run), "updates", [name])[name].finite.any():
            which = f"run {label}" if label else "this run"
            raise UsageError(f"{which} has no {name}", hint="draw it against update, or another metric")


def _since(clock: Series) -> Series:
    known = clock.value[clock.finite]
    return Series(clock.update, clock.value - (known[0] if len(known) else 0.0), clock.null)


def between(panel: Panel, first: int | None, last: int | None) -> Panel:
    """Return a panel with the updates from ``first`` to ``last`` alone; a negative ``first`` counts from the end."""
    lines = {label: _cut(series, first, last) for label, series in panel.lines.items()}
    incidents = panel.incidents
    if first is not None or last is not None:
        shown = [series.update for series in lines.values() if len(series.update)]
        begin, end = (min(u[0] for u in shown), max(u[-1] for u in shown)) if shown else (0, -1)
        inside = [i for i in incidents if i.end >= begin and i.start <= end]
        incidents = tuple(replace(i, start=max(i.start, int(begin)), end=min(i.end, int(end))) for i in inside)
    return replace(panel, lines=lines, incidents=incidents)


def _cut(series: Series, first: int | None, last: int | None) -> Series:
    if first is not None and first < 0 and len(series.update):
        first = int(series.update[-1]) + 1 + first
    return series.between(first, last)


def plot_file(panels: Sequence[Panel], form: str) -> bytes:
    """Return the figure as a file, "png" or "svg"."""
    return picture(_PLOT, tuple(panels), form)


def plotted(panels: Sequence[Panel]) -> Figure:
    """Return a figure with one panel below the other."""
    return figure_of(_PLOT, tuple(panels))


def _layout(panels: Sequence[Panel]) -> Layout:
    return Layout((_HEIGHT,) * len(panels))


def _draw(panels: Sequence[Panel], axes: Sequence[Axes]) -> None:
    from matplotlib.ticker import AutoLocator

    first = _named(panels[0])
    for index, (panel, axis) in enumerate(zip(panels, axes, strict=True)):
        alike = panel.lines.keys() == panels[0].lines.keys()
        shown = first if alike else _named(panel)
        for label in (label for label in panel.lines if label not in shown):
            _draw_line(axis, panel, label, None)
        for colour, label in zip(_COLOURS, shown, strict=False):
            _draw_line(axis, panel, label, colour)
        scale(axis, *panel.lines.values())
        title = _title(panel, named=not index or not alike)
        beside = len(shown) <= _ABOVE and len(title) + sum(len(cleaned(label, 40)) + 6 for label in shown) < _ROOM
        finish(
            axis,
            title,
            last=index == len(panels) - 1,
            legend=beside and len(shown) > 1 and not index,
            x=panel.against.title,
        )
        if len(shown) > 1 and not beside and not index:
            axis.legend(loc="upper right", ncols=2, frameon=True, framealpha=0.8)
        if panel.against.points:
            axis.xaxis.set_major_locator(AutoLocator())
            axis.xaxis.set_major_formatter(magnitude)
        else:
            rules = tuple({incident.rule for incident in panel.incidents})
            incidents_behind(axis, panel.incidents, rules, at=panel.against.of(""))


def _named(panel: Panel) -> list[str]:
    """Return the lines that have a colour and a name: of many those that end highest, then those that end lowest."""
    if len(panel.lines) <= MOST_NAMED:
        return list(panel.lines)
    ends = {label: series.value[series.finite][-1] for label, series in panel.lines.items() if series.finite.any()}
    ranked = sorted(ends, key=lambda label: -ends[label])
    return [*ranked[: MOST_NAMED // 2], *ranked[MOST_NAMED // 2 :][-MOST_NAMED // 2 :]]


def _draw_line(axis: Axes, panel: Panel, label: str, colour: str | None) -> None:
    """Draw the line of a label; without a colour of its own thin, grey and not in the legend."""
    series, at = panel.lines[label], panel.against.of(label)
    name, width, size = (label, 1.3, 3) if colour else (_UNLISTED, 0.6, 2)
    colour = colour or VERDICTS["not_applicable"]
    if panel.against.points:
        axis.plot(at(series.update), series.value, ".", color=colour, ms=size, label=name or None)
    else:
        line(axis, series, colour, name, width=width, at=at)


def _title(panel: Panel, *, named: bool) -> str:
    """Return the title; ``named``: the panel says which of many lines have a name."""
    if all(series.empty for series in panel.lines.values()):
        return f"{panel.title} (not recorded)"
    drawn = "" if len(panel.lines) == panel.total else f" ({len(panel.lines)} of {panel.total} have it)"
    few = f" ({len(panel.lines)} lines; named: those that end highest, lowest)"
    return f"{panel.title}{drawn}{few if named and len(panel.lines) > MOST_NAMED else ''}"


_PLOT = Drawing("plot", _layout, _draw)
