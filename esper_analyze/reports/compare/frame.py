"""Runs side by side: every metric they have in common, judged, and the facts around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from esper_analyze.detector.signals import Bools, Ints
from esper_analyze.reports.series import Series, all_series, by_subject
from esper_analyze.runs.blame import blamed
from esper_analyze.runs.compared.cells import Cells
from esper_analyze.runs.compared.metrics import METRICS, Metric
from esper_analyze.runs.compared.parting import Judged, Parting, judge
from esper_analyze.runs.compared.settings import Difference, differences, opaque
from esper_analyze.runs.joined import joined
from esper_analyze.runs.run import Run
from esper_analyze.schema import BY_NAME
from esper_analyze.terminal import cleaned

MOST_SUBJECTS = 64
"""Heads or groups of a run that are compared, the first of them."""


Key = tuple[Metric, str]
"""A metric and its subject."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of one subject (empty: of the run) in all runs."""

    metric: Metric
    subject: str
    cells: Cells
    judged: Judged

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

    ``metrics`` were measured by two runs at least, ``not_common`` not by all.
    """

    labels: tuple[str, ...]
    infos: tuple[Mapping[str, Any], ...]
    updates: Ints
    rows: Bools
    metrics: tuple[Compared, ...]
    not_common: tuple[Compared, ...]
    settings: tuple[Difference, ...]
    functions: tuple[str, ...]

    @cached_property
    def leavings(self) -> list[Left]:
        """Every metric in which a run parts, in order of updates."""
        found = [
            Left(run, int(self.updates[parting.place]), parting, one)
            for one in self.metrics
            for run, parting in enumerate(one.judged.partings)
            if parting is not None
        ]
        return sorted(found, key=lambda one: one.order)

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
        places = {one.name: place for one in self.metrics if (place := _differing(one.cells, self.rows)) is not None}
        first = min(places.values(), default=None)
        if first is None:
            return None
        return int(self.updates[first]), tuple(name for name, place in places.items() if place == first)


def side_by_side(runs: Sequence[tuple[str, Run]], *, progress: Callable[[int], None] | None = None) -> SideBySide:
    """Return labelled ``runs`` compared; each must have an update. Ranks of a distributed training are joined.

    ``progress`` is called with the number of runs read.
    """
    columns: list[dict[Key, Series]] = []
    for done, (_, run) in enumerate(runs, start=1):
        with blamed(run):
            columns.append(_columns(joined(run)))
        if progress is not None:
            progress(done)
    own = [next(iter(one.values())).update for one in columns]
    updates = np.unique(np.concatenate(own))
    found = [_compared(key, columns, updates) for key in dict.fromkeys(key for one in columns for key in one)]
    known = [one for one in found if one.cells.known.any()]
    infos = tuple(run.info for _, run in runs)
    return SideBySide(
        labels=tuple(label for label, _ in runs),
        infos=infos,
        updates=updates,
        rows=np.array([np.isin(updates, one) for one in own]),
        metrics=tuple(one for one in known if one.cells.known.sum() > 1),
        not_common=tuple(one for one in known if not one.cells.known.all()),
        settings=tuple(differences(infos)),
        functions=tuple(opaque(infos)),
    )


def _columns(run: Run) -> dict[Key, Series]:
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
    return found


def _twice(table: str, subject: str) -> bool:
    """Whether another metric says the same: heads have a table of their own, and the whole model a column."""
    return table == "groups" and (subject == "all" or subject.startswith("head:"))


def _compared(key: Key, columns: Sequence[Mapping[Key, Series]], updates: Ints) -> Compared:
    metric, subject = key
    cells = _cells([one.get(key) for one in columns], updates)
    judged = judge(cells, log=metric.log, least=metric.least, sparse=metric.sparse)
    return Compared(metric, subject, cells, judged)


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
