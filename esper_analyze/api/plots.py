"""Metrics over updates as one figure: a panel for each metric, a line for each subject or run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.api.tables import declared_table
from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.replay.replay import merged_run
from esper_analyze.reports.render.draw import finish, incidents_behind, line, scale
from esper_analyze.reports.render.figure import figure_of
from esper_analyze.reports.render.section import Drawing, Layout
from esper_analyze.reports.render.style import FIRST, SECOND, THIRD, VERDICTS
from esper_analyze.runs.series import Series, all_series, by_subject
from esper_analyze.schema import TABLES, Kind
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from esper_analyze.detector.incidents import Incident
    from esper_analyze.runs.run import RecordedRun
    from esper_analyze.schema.column import Column, Table

MOST_LINES = 8
"""Lines in one panel; the title says how many there are."""
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
_ABOVE = 4
"""Names of lines that have room beside the title."""
_NEXT = "ea.columns(TABLE) lists the columns of a table; write TABLE.COLUMN for a column that several tables have"


@dataclass(frozen=True, slots=True)
class PlottedMetric:
    """A column with numbers, one for each update (and subject) of its table."""

    table: Table
    column: Column

    @property
    def title(self) -> str:
        """Name, unit and meaning, cut to the width of a figure."""
        unit = f" ({self.column.unit})" if self.column.unit else ""
        return cleaned(f"{self.column.name}{unit}: {self.column.meaning}", 100)


@dataclass(frozen=True, slots=True)
class Panel:
    """The lines of one metric by label, ``total`` of them there are, and incidents to shade."""

    title: str
    lines: dict[str, Series]
    total: int
    incidents: tuple[Incident, ...] = ()


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
            hint="give subject=",
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


def plotted(panels: Sequence[Panel]) -> Figure:
    """Return a figure with one panel below the other."""
    return figure_of(_PLOT, tuple(panels))


def _layout(panels: Sequence[Panel]) -> Layout:
    return Layout((_HEIGHT,) * len(panels))


def _draw(panels: Sequence[Panel], axes: Sequence[Axes]) -> None:
    for index, (panel, axis) in enumerate(zip(panels, axes, strict=True)):
        shown = dict(list(panel.lines.items())[:MOST_LINES])
        for colour, (label, series) in zip(_COLOURS, shown.items(), strict=False):
            line(axis, series, colour, label)
        scale(axis, *shown.values())
        finish(axis, _title(panel, shown), last=index == len(panels) - 1, legend=1 < len(shown) <= _ABOVE)
        if len(shown) > _ABOVE:
            axis.legend(loc="upper right", ncols=2, frameon=True, framealpha=0.8)
        incidents_behind(axis, panel.incidents, tuple({incident.rule for incident in panel.incidents}))


def _title(panel: Panel, shown: dict[str, Series]) -> str:
    if all(series.empty for series in shown.values()):
        return f"{panel.title} (not recorded)"
    return panel.title if len(shown) == panel.total else f"{panel.title} ({len(shown)} of {panel.total} drawn)"


_PLOT = Drawing("plot", _layout, _draw)
