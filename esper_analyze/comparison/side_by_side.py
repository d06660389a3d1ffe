"""Runs side by side: every metric they have in common, judged, and the facts around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from esper_analyze.comparison.cells import Cells
from esper_analyze.comparison.divergence import HITS, Judged, Parting, judge
from esper_analyze.comparison.ends import Apart, apart
from esper_analyze.comparison.metrics import CLOCKS, METRICS, SLOTS, Metric
from esper_analyze.comparison.settings import Difference, differences, opaque, used
from esper_analyze.detector.signals import Bools, Ints
from esper_analyze.runs.merge_ranks import joined
from esper_analyze.runs.run import RecordedRun
from esper_analyze.runs.series import Series, all_series, by_subject, rows_of, series_of
from esper_analyze.schema import BY_NAME, TABLES
from esper_analyze.schema.column import Kind
from esper_analyze.schema.tables.updates import SETTINGS
from esper_analyze.storage.decode_errors import blamed
from esper_analyze.terminal import cleaned

MOST_SUBJECTS = 64
"""Heads or groups of a run that are compared, the first of them."""


Key = tuple[Metric, str]
"""A metric and its subject."""


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One metric of one subject (empty: of the run) in all runs."""

    metric: Metric
    subject: str
    cells: Cells
    judged: Judged
    ends: tuple[Apart | None, ...] = ()

    @property
    def name(self) -> str:
        """How the metric is called."""
        return self.metric.name(self.subject)

    @property
    def title(self) -> str:
        """The metric in words."""
        return self.metric.title.format(cleaned(self.subject, 40))


@dataclass(frozen=True, slots=True)
class Left:
    """A run parted from the others in one metric."""

    run: int
    update: int
    parting: Parting
    compared: Compared

    @property
    def order(self) -> tuple[int, int, float]:
        """What comes first: the update, then facts, then by how far it lies beyond."""
        return self.update, self.parting.kind == "beyond", -self.parting.size


@dataclass(frozen=True)
class SideBySide:
    """Runs compared. ``updates`` are those that any run recorded, ``rows`` [runs, updates] who recorded which.

    ``metrics`` were measured by two runs at least, ``not_common`` not by all. ``exact`` are the other numbers of table
    updates, looked at for equality only; ``tables`` have rows and were not looked at.
    """

    labels: tuple[str, ...]
    infos: tuple[Mapping[str, Any], ...]
    updates: Ints
    rows: Bools
    metrics: tuple[Compared, ...]
    not_common: tuple[Compared, ...]
    settings: tuple[Difference, ...]
    functions: tuple[str, ...]
    exact: tuple[tuple[str, Cells], ...] = ()
    tables: tuple[str, ...] = ()

    @cached_property
    def leavings(self) -> list[Left]:
        """Every metric in which a run parts, in order of updates."""
        return self._listed({one: one.judged.partings for one in self.metrics})

    @cached_property
    def pending(self) -> list[Left]:
        """Every metric in which the last values of a run lie beyond, too few to know whether it parts."""
        return self._listed({one: one.judged.pending for one in self.metrics})

    @cached_property
    def ends_apart(self) -> list[tuple[Compared, int, Apart]]:
        """Every metric and run whose last tenth does not overlap the others'; a pair is listed once."""
        found = [(one, run, end) for one in self.metrics for run, end in enumerate(one.ends) if end is not None]
        return [one for one in found if len(self.labels) > 2 or one[1] == 0]

    @property
    def outcome_apart(self) -> bool:
        """Whether the returns of some run end apart from the others'."""
        return any(one.metric.topic == "returns" for one, _, _ in self.ends_apart)

    def _listed(self, partings: Mapping[Compared, Sequence[Parting | None]]) -> list[Left]:
        found = [
            Left(run, int(self.updates[parting.place]), parting, one)
            for one, own in partings.items()
            for run, parting in enumerate(own)
            if parting is not None
        ]
        return sorted(found, key=lambda one: one.order)

    @cached_property
    def too_short(self) -> tuple[int, ...]:
        """Runs of which no metric can be judged: too few updates beside others, or nobody's noise is known."""
        shared = (self.rows & (self.rows.sum(axis=0) > 1)).sum(axis=1)
        unknown = len(self.unjudged) == len(self.metrics)
        return tuple(run for run, updates in enumerate(shared) if updates < HITS or unknown)

    @cached_property
    def ceased(self) -> list[tuple[str, int, int]]:
        """Metrics that a run ceases to measure while another goes on, with the run and the last update that has it."""
        found = []
        for one in self.metrics:
            measured = one.cells.measured
            for run in np.flatnonzero(one.cells.known).tolist():
                places = np.flatnonzero(measured[run])
                widest = int(np.diff(places).max(initial=1))
                after = measured[:, places[-1] + 1 :][:, self.rows[run, places[-1] + 1 :]]
                if after.shape[1] >= max(HITS, 2 * widest) and after.any():
                    found.append((one.name, run, int(self.updates[places[-1]])))
        return found

    def first(self, run: int) -> Left | None:
        """Return where ``run`` parts from the others first, None when it stays."""
        return next((one for one in self.leavings if one.run == run), None)

    def last_update(self, run: int) -> int:
        """Return the last update of ``run``."""
        return int(self.updates[np.flatnonzero(self.rows[run])[-1]])

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Metrics with too few values to know their noise: only facts (NaN, missing) were looked at."""
        return tuple(one.name for one in self.metrics if not np.isfinite(one.judged.noise))

    @cached_property
    def first_difference(self) -> tuple[int, tuple[str, ...]] | None:
        """The first update in which two runs differ at all, and in which metrics; None: they are the same."""
        every = [*((one.name, one.cells) for one in self.metrics), *self.exact]
        places = {name: place for name, cells in every if (place := _differing(cells, self.rows)) is not None}
        first = min(places.values(), default=None)
        if first is None:
            return None
        return int(self.updates[first]), tuple(name for name, place in places.items() if place == first)


def side_by_side(
    runs: Sequence[tuple[str, RecordedRun]], *, progress: Callable[[int], None] | None = None
) -> SideBySide:
    """Return labelled ``runs`` compared; each must have an update. Ranks of a distributed training are joined.

    ``progress`` is called with the number of runs read.
    """
    columns: list[dict[Key, Series]] = []
    others: list[dict[str, Series]] = []
    settings: list[dict[str, Series]] = []
    for done, (_, run) in enumerate(runs, start=1):
        with blamed(run):
            whole = joined(run)
            columns.append(_columns(whole))
            others += [all_series(whole, "updates", _others())] if len(runs) == 2 else []
            settings.append(all_series(whole, "updates", list(SETTINGS)))
        if progress is not None:
            progress(done)
    own = [next(iter(one.values())).update for one in columns]
    updates = np.unique(np.concatenate(own))
    found = [_compared(key, columns, updates) for key in dict.fromkeys(key for one in columns for key in one)]
    known = [one for one in found if one.cells.known.any()]
    infos = tuple(run.info for _, run in runs)
    rows = np.array([np.isin(updates, one) for one in own])
    as_used = (used(name, _cells([one[name] for one in settings], updates), rows, updates) for name in SETTINGS)
    return SideBySide(
        labels=tuple(label for label, _ in runs),
        infos=infos,
        updates=updates,
        rows=rows,
        metrics=tuple(one for one in known if one.cells.known.sum() > 1),
        not_common=tuple(one for one in known if not one.cells.known.all()),
        settings=(*(one for one in as_used if one is not None), *differences(infos)),
        functions=tuple(opaque(infos)),
        exact=tuple((name, _cells([one[name] for one in others], updates)) for name in _others() if others),
        tables=tuple(table.name for table in TABLES if _unseen(table.name, [run for _, run in runs])),
    )


def _columns(run: RecordedRun) -> dict[Key, Series]:
    """Return every metric of ``run`` by metric and subject, those of table ``updates`` first."""
    found: dict[Key, Series] = {}
    for table in dict.fromkeys(metric.table for metric in METRICS):
        metrics = [metric for metric in METRICS if metric.table == table]
        names = [metric.column for metric in metrics]
        if BY_NAME[table].subject is None:
            series = all_series(run, table, names)
            found |= {(metric, ""): series[metric.column] for metric in metrics}
            continue
        every = by_subject(run, table, names).items()
        subjects = [(subject, own) for subject, own in every if not _twice(table, subject)][:MOST_SUBJECTS]
        found |= {(metric, subject): own[metric.column] for metric in metrics for subject, own in subjects}
    return found | _slots(run)


def _slots(run: RecordedRun) -> dict[Key, Series]:
    """Return what table slots says over all places of an update, where the run has slots; NaN counts as NaN."""
    import polars

    if not run.parts("slots"):
        return {}
    rows = rows_of(run, "slots", ["host_grad_norm", "normalized_ratio"])
    least = polars.col("normalized_ratio").nan_min().alias("normalized_ratio_min")
    most = polars.col("host_grad_norm").nan_max().alias("host_grad_norm_max")
    merged = rows.group_by("update").agg(most, least).sort("update")
    return {(metric, ""): series_of(merged, metric.column) for metric in SLOTS}


def _others() -> list[str]:
    """Return the numbers of table updates that are no metric, no setting and no clock."""
    skipped = {*CLOCKS, *SETTINGS, *(metric.column for metric in METRICS if metric.table == "updates")}
    numbers = (Kind.FLOAT, Kind.INT, Kind.BOOL)
    return [one.name for one in BY_NAME["updates"].columns if one.kind in numbers and one.name not in skipped]


def _unseen(table: str, runs: Sequence[RecordedRun]) -> bool:
    """Whether ``table`` holds measurements that were not looked at."""
    seen = {"findings", "levels", "ranks", "events", "losses_of_data", *(metric.table for metric in (*METRICS, *SLOTS))}
    return table not in seen and any(run.parts(table) for run in runs)


def _twice(table: str, subject: str) -> bool:
    """Whether another metric says the same: heads have a table of their own, and the whole model a column."""
    return table == "groups" and (subject == "all" or subject.startswith("head:"))


def _compared(key: Key, columns: Sequence[Mapping[Key, Series]], updates: Ints) -> Compared:
    metric, subject = key
    cells = _cells([one.get(key) for one in columns], updates)
    judged = judge(cells, log=metric.log, least=metric.least, sparse=metric.sparse)
    return Compared(metric, subject, cells, judged, apart(cells, log=metric.log, least=metric.least))


def _cells(many: Sequence[Series | None], updates: Ints) -> Cells:
    """Return several series over all ``updates``."""
    shape = (len(many), len(updates))
    cells = Cells(np.full(shape, np.nan), np.zeros(shape, bool), np.zeros(shape, bool))
    for run, series in enumerate(many):
        if series is None:
            continue
        place = np.searchsorted(updates, series.update)
        cells.value[run, place] = np.where(series.null, np.nan, series.value)
        cells.nonfinite[run, place], cells.null[run, place] = series.nonfinite, series.null
    return cells


def _differing(cells: Cells, rows: Bools) -> int | None:
    """Return the first place where the first two runs, both having a row, do not have the very same cell."""
    one, other = cells.value[:2]
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    same &= (cells.nonfinite[0] == cells.nonfinite[1]) & (cells.null[0] == cells.null[1])
    places = np.flatnonzero(~same & rows[0] & rows[1])
    return int(places[0]) if len(places) else None
