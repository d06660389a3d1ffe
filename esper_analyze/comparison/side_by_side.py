"""The comparison of several runs: divergence and end of every common metric, settings, and what was not compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.comparison.divergence import HITS, Divergence, DivergenceResult, find_divergences
from esper_analyze.comparison.ends import EndDifference, end_differences
from esper_analyze.comparison.metrics import CLOCKS, METRICS, SLOTS, Metric
from esper_analyze.comparison.settings import SettingDifference, differences, opaque, used
from esper_analyze.comparison.tenths import TITLES, tenths
from esper_analyze.detector.signals import Bools, Ints
from esper_analyze.reports.listing import summary_of
from esper_analyze.runs.damaged_shard import naming_damaged_shard
from esper_analyze.runs.merge_ranks import merge_ranks
from esper_analyze.runs.run import RecordedRun
from esper_analyze.runs.series import Series, all_series, by_subject, rows_of, series_of
from esper_analyze.runs.tenths import Tenths
from esper_analyze.schema import BY_NAME, TABLES
from esper_analyze.schema.column import Kind
from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.schema.tables.updates import SETTINGS
from esper_analyze.terminal import cleaned

MOST_SUBJECTS = 64
"""The first so many heads or groups of a run are compared."""


Key = tuple[Metric, str]
"""A metric and its subject."""


@dataclass(frozen=True, slots=True, eq=False)
class ComparedMetric:
    """One metric of one subject (empty: of the run) in all runs."""

    metric: Metric
    subject: str
    cells: MetricMatrix
    judged: DivergenceResult
    ends: tuple[EndDifference | None, ...] = ()

    @property
    def name(self) -> str:
        """The metric's name: column, or table:subject.column."""
        return self.metric.name(self.subject)

    @property
    def title(self) -> str:
        """The metric in words."""
        return self.metric.title.format(cleaned(self.subject, 40))


@dataclass(frozen=True, slots=True)
class RunDivergence:
    """Where a run diverges from the others in one metric."""

    run: int
    update: int
    divergence: Divergence
    compared: ComparedMetric

    @property
    def order(self) -> tuple[int, int, float]:
        """Sort key: update, then non-finite or missing values before excesses, then the larger excess."""
        return self.update, self.divergence.kind == "beyond", -self.divergence.size


@dataclass(frozen=True)
class SideBySide:
    """Several runs compared. ``updates`` are those that any run recorded; ``rows`` [runs, updates] says which did.

    ``metrics`` were measured by two runs at least, ``not_common`` not by all. ``exact`` are the other numbers of table
    updates, compared for equality only; ``tables`` have rows but were not compared. ``tenths`` are by column, ``worst``
    is how each run stands and its worst alarm, by what its live detector said.
    """

    labels: tuple[str, ...]
    infos: tuple[Mapping[str, Any], ...]
    updates: Ints
    rows: Bools
    metrics: tuple[ComparedMetric, ...]
    not_common: tuple[ComparedMetric, ...]
    settings: tuple[SettingDifference, ...]
    functions: tuple[str, ...]
    tenths: Mapping[str, tuple[Tenths | None, ...]]
    worst: tuple[str, ...]
    exact: tuple[tuple[str, MetricMatrix], ...] = ()
    tables: tuple[str, ...] = ()

    @cached_property
    def divergences(self) -> list[RunDivergence]:
        """Every divergence of a run in a metric, in order of updates."""
        return self._listed({metric: metric.judged.divergences for metric in self.metrics})

    @cached_property
    def pending(self) -> list[RunDivergence]:
        """Every metric in which a run's last values lie outside the band, too few of them to call it a divergence."""
        return self._listed({metric: metric.judged.pending for metric in self.metrics})

    @cached_property
    def end_differences(self) -> list[tuple[ComparedMetric, int, EndDifference]]:
        """Every metric and run whose last tenth does not overlap the others'; a pair is listed once."""
        differing = [
            (entry, run, end) for entry in self.metrics for run, end in enumerate(entry.ends) if end is not None
        ]
        return [entry for entry in differing if len(self.labels) > 2 or entry[1] == 0]

    @property
    def returns_end_apart(self) -> bool:
        """Whether the returns of some run end apart from the others'."""
        return any(ended.metric.topic == "returns" for ended, _, _ in self.end_differences)

    def _listed(self, by_metric: Mapping[ComparedMetric, Sequence[Divergence | None]]) -> list[RunDivergence]:
        divergences = [
            RunDivergence(run, int(self.updates[divergence.index]), divergence, metric)
            for metric, of_metric in by_metric.items()
            for run, divergence in enumerate(of_metric)
            if divergence is not None
        ]
        return sorted(divergences, key=lambda divergence: divergence.order)

    @cached_property
    def too_short(self) -> tuple[int, ...]:
        """Runs of which no metric can be judged: too few updates in common, or no metric's noise is known."""
        shared = (self.rows & (self.rows.sum(axis=0) > 1)).sum(axis=1)
        unknown = len(self.unjudged) == len(self.metrics)
        return tuple(run for run, updates in enumerate(shared) if updates < HITS or unknown)

    @cached_property
    def ceased(self) -> list[tuple[str, int, int]]:
        """Metrics that a run stops measuring while another continues: name, run and the last update that has it."""
        ceased = []
        for metric in self.metrics:
            measured = metric.cells.measured
            for run in np.flatnonzero(metric.cells.has_measurements).tolist():
                columns = np.flatnonzero(measured[run])
                widest = int(np.diff(columns).max(initial=1))
                after = measured[:, columns[-1] + 1 :][:, self.rows[run, columns[-1] + 1 :]]
                if after.shape[1] >= max(HITS, 2 * widest) and after.any():
                    ceased.append((metric.name, run, int(self.updates[columns[-1]])))
        return ceased

    def first(self, run: int) -> RunDivergence | None:
        """Return the first divergence of ``run`` from the others, None when there is none."""
        return next((entry for entry in self.divergences if entry.run == run), None)

    def last_update(self, run: int) -> int:
        """Return the last update of ``run``."""
        return int(self.updates[np.flatnonzero(self.rows[run])[-1]])

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Metrics with too few values to estimate their noise: only NaN, Inf and missing values were compared."""
        return tuple(metric.name for metric in self.metrics if not np.isfinite(metric.judged.noise))

    @cached_property
    def first_difference(self) -> tuple[int, tuple[str, ...]] | None:
        """The first update in which two runs differ at all, and in which metrics; None when they are equal."""
        every = [*((metric.name, metric.cells) for metric in self.metrics), *self.exact]
        columns = {name: column for name, cells in every if (column := _differing(cells, self.rows)) is not None}
        first = min(columns.values(), default=None)
        if first is None:
            return None
        return int(self.updates[first]), tuple(name for name, column in columns.items() if column == first)


def side_by_side(
    runs: Sequence[tuple[str, RecordedRun]], *, progress: Callable[[int], None] | None = None
) -> SideBySide:
    """Compare labelled ``runs``, each with at least one update. Ranks of a distributed training are merged.

    ``progress`` is called with the number of runs read.
    """
    columns: list[dict[Key, Series]] = []
    others: list[dict[str, Series]] = []
    settings: list[dict[str, Series]] = []
    for done, (_, run) in enumerate(runs, start=1):
        with naming_damaged_shard(run):
            merged = merge_ranks(run)
            columns.append(_columns(merged))
            others += [all_series(merged, "updates", _others())] if len(runs) == 2 else []
            settings.append(all_series(merged, "updates", list(SETTINGS)))
        if progress is not None:
            progress(done)
    updates_by_run = [next(iter(item.values())).update for item in columns]
    updates = np.unique(np.concatenate(updates_by_run))
    every_metric = [_compared(key, columns, updates) for key in dict.fromkeys(key for item in columns for key in item)]
    measured = [item for item in every_metric if item.cells.has_measurements.any()]
    infos = tuple(run.info for _, run in runs)
    rows = np.array([np.isin(updates, item) for item in updates_by_run])
    as_used = (used(name, _cells([item[name] for item in settings], updates), rows, updates) for name in SETTINGS)
    return SideBySide(
        labels=tuple(label for label, _ in runs),
        infos=infos,
        updates=updates,
        rows=rows,
        metrics=tuple(item for item in measured if item.cells.has_measurements.sum() > 1),
        not_common=tuple(item for item in measured if not item.cells.has_measurements.all()),
        settings=(*(item for item in as_used if item is not None), *differences(infos)),
        functions=tuple(opaque(infos)),
        tenths={item.metric.column: tenths(item.cells) for item in measured if item.name in TITLES},
        worst=tuple(summary_of(run).short_verdict for _, run in runs),
        exact=tuple((name, _cells([item[name] for item in others], updates)) for name in _others() if others),
        tables=tuple(table.name for table in TABLES if _unseen(table.name, [run for _, run in runs])),
    )


def _columns(run: RecordedRun) -> dict[Key, Series]:
    """Return every metric of ``run`` by metric and subject, those of table ``updates`` first."""
    by_metric: dict[Key, Series] = {}
    for table in dict.fromkeys(metric.table for metric in METRICS):
        metrics = [metric for metric in METRICS if metric.table == table]
        names = [metric.column for metric in metrics]
        if BY_NAME[table].subject is None:
            series = all_series(run, table, names)
            by_metric |= {(metric, ""): series[metric.column] for metric in metrics}
            continue
        every = by_subject(run, table, names).items()
        subjects = [(subject, by_column) for subject, by_column in every if not _twice(table, subject)][:MOST_SUBJECTS]
        by_metric |= {
            (metric, subject): by_column[metric.column] for metric in metrics for subject, by_column in subjects
        }
    return by_metric | _slots(run)


def _slots(run: RecordedRun) -> dict[Key, Series]:
    """Return metrics over all slots of an update, where the run has slots; a NaN in any slot makes the value NaN."""
    import polars

    if not run.row_sources("slots"):
        return {}
    rows = rows_of(run, "slots", ["host_grad_norm", "normalized_ratio"])
    least = polars.col("normalized_ratio").nan_min().alias("normalized_ratio_min")
    most = polars.col("host_grad_norm").nan_max().alias("host_grad_norm_max")
    merged = rows.group_by("update").agg(most, least).sort("update")
    return {(metric, ""): series_of(merged, metric.column) for metric in SLOTS}


def _others() -> list[str]:
    """Return the numeric columns of table updates that are neither metric, setting nor clock."""
    skipped = {*CLOCKS, *SETTINGS, *(metric.column for metric in METRICS if metric.table == "updates")}
    numbers = (Kind.FLOAT, Kind.INT, Kind.BOOL)
    return [
        declared.name
        for declared in BY_NAME["updates"].columns
        if declared.kind in numbers and declared.name not in skipped
    ]


def _unseen(table: str, runs: Sequence[RecordedRun]) -> bool:
    """Whether ``table`` has measurements that were not compared."""
    compared = {
        "findings",
        "levels",
        "ranks",
        "events",
        "losses_of_data",
        *(metric.table for metric in (*METRICS, *SLOTS)),
    }
    return table not in compared and any(run.row_sources(table) for run in runs)


def _twice(table: str, subject: str) -> bool:
    """Whether another metric has the same numbers: heads are in table heads, the whole model in table updates."""
    return table == "groups" and (subject == "all" or subject.startswith(HEAD_GROUP))


def _compared(key: Key, columns: Sequence[Mapping[Key, Series]], updates: Ints) -> ComparedMetric:
    metric, subject = key
    cells = _cells([by_metric.get(key) for by_metric in columns], updates)
    judged = find_divergences(cells, log=metric.log, least=metric.least, sparse=metric.sparse)
    return ComparedMetric(metric, subject, cells, judged, end_differences(cells, log=metric.log, least=metric.least))


def _cells(many: Sequence[Series | None], updates: Ints) -> MetricMatrix:
    """Return several series over all ``updates``."""
    shape = (len(many), len(updates))
    cells = MetricMatrix(np.full(shape, np.nan), np.zeros(shape, bool), np.zeros(shape, bool))
    for run, series in enumerate(many):
        if series is None:
            continue
        columns = np.searchsorted(updates, series.update)
        cells.value[run, columns] = np.where(series.null, np.nan, series.value)
        cells.nonfinite[run, columns], cells.null[run, columns] = series.nonfinite, series.null
    return cells


def _differing(cells: MetricMatrix, rows: Bools) -> int | None:
    """Return the first column in which the first two runs, both with a row, have different cells."""
    first, second = cells.value[:2]
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    same &= (cells.nonfinite[0] == cells.nonfinite[1]) & (cells.null[0] == cells.null[1])
    places = np.flatnonzero(~same & rows[0] & rows[1])
    return int(places[0]) if len(places) else None
