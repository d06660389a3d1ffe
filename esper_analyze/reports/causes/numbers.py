"""The recorded numbers around an incident, and their steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import Floats, Ints
from esper_analyze.reports.narrative.onset import around
from esper_analyze.runs.series import all_series
from esper_analyze.schema import BY_NAME, Kind
from esper_analyze.wording import number

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.replay.evidence import Evidence

_BEFORE, _AFTER = 80, 4
"""Updates around the start of the incident that are looked at."""
_NEAR = 15
"""An incident of another rule so many updates before or after belongs to this one."""
RECENT = 20
"""A step so many updates before an incident can have led to it."""
_SIDE = 10
"""Updates on each side of a step."""
_LEAST = 4
"""Finite values before a step at least."""
_NOISE, _LEVEL = 6.0, 0.1
"""A step is larger than so many scatters (median absolute deviations, as standard deviations) and this share of the
level before. In 20 updates of a sound training of the fault bench's tuning half 0 to 5 % of the columns have one."""


@dataclass(frozen=True, slots=True)
class Step:
    """The largest step of a column: at ``update`` its median went from ``before`` to ``after``."""

    name: str
    update: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """Size after against before, infinite from 0."""
        return abs(self.after) / abs(self.before) if self.before else np.inf

    @property
    def words(self) -> str:
        """The step in words."""
        return f"{self.name} went from {number(self.before)} to {number(self.after)} at update {self.update:,}"


class Numbers:
    """The recorded numbers around an incident: columns of ``updates``, and of other tables by subject."""

    def __init__(self, evidence: Evidence, lead: Incident) -> None:
        self.lead, self.evidence = lead, evidence
        columns = [column.name for column in BY_NAME["updates"].columns if column.kind not in (Kind.TEXT, Kind.CHOICE)]
        rows = around(evidence.run, "updates", columns, lead.start - _BEFORE, lead.start + _AFTER)
        rows = rows.unique("update", keep="last", maintain_order=True)
        self.update: Ints = rows["update"].to_numpy()
        self._columns = {name: rows[name].cast(float) for name in columns}
        self._cells: dict[str, Floats] = {}

    def recorded(self, name: str) -> bool:
        """Whether the column has any value around the incident."""
        column = self._columns.get(name)
        return column is not None and column.null_count() < len(column)

    def cells(self, name: str) -> Floats:
        """Return the column, NaN where it is null or NaN, and everywhere for a column that no version here has."""
        if name not in self._columns:
            return np.full(len(self.update), np.nan)
        if name not in self._cells:
            self._cells[name] = self._columns[name].fill_null(float("nan")).to_numpy()
        return self._cells[name]

    def measured(self, name: str, update: int) -> float | None:
        """Return the cell of one update, None if it is null or there is none."""
        where = np.flatnonzero(self.update == update)
        if name not in self._columns or not len(where):
            return None
        cell = self._columns[name][int(where[-1])]
        return None if cell is None else float(cell)

    def since(self, name: str) -> float:
        """Return the median from the start of the incident on, NaN without a finite value."""
        return _median(self.cells(name)[self.update >= self.lead.start])

    def before(self, name: str) -> float:
        """Return the median of the earliest half of what came before the incident, NaN without a finite value."""
        cells = self.cells(name)[self.update < self.lead.onset]
        return _median(cells[: max(len(cells) // 2, _LEAST)])

    def first(self, name: str) -> float:
        """Return the median of a column in the first updates of the run, NaN without a finite value."""
        series = all_series(self.evidence.run, "updates", [name])[name]
        return _median(series.value[series.finite][:_LEAST])

    def left_range(self, name: str) -> bool:
        """Whether the column is now outside the range that it had in the earliest half of what came before."""
        if not self.recorded(name):
            return False
        cells = self.cells(name)[self.update < self.lead.onset]
        earlier = cells[: max(len(cells) // 2, _LEAST)]
        earlier = earlier[np.isfinite(earlier)]
        now = self.since(name)
        return len(earlier) >= _LEAST and not bool(earlier.min() <= now <= earlier.max())

    def step(self, name: str) -> Step | None:
        """Return the largest step of a column up to the incident, None where it has none beyond its scatter."""
        return _step(name, self.update, self.cells(name), self.lead.start) if self.recorded(name) else None

    def holds_since(self, name: str, holds: Callable[[Floats], np.ndarray]) -> int | None:
        """Return the first of the updates up to the incident's start from which on ``holds`` is true, None if not."""
        known = ~np.isnan(self.cells(name)) & (self.update <= self.lead.start)
        update, true = self.update[known], holds(self.cells(name)[known])
        if not len(true) or not true[-1]:
            return None
        false = np.flatnonzero(~true)
        return int(update[false[-1] + 1 if len(false) else 0])

    def incident(self, rule: str) -> Incident | None:
        """Return the first incident of a rule that belongs to this one, None without."""
        near = [
            other
            for other in self.evidence.replay.incidents
            if rule in other.seen_by and -_NEAR - self.reach <= other.start - self.lead.start <= _NEAR
        ]
        return min(near, key=lambda other: other.start, default=None)

    def judged(self, rule: str) -> bool:
        """Whether a rule judged any update."""
        counts = self.evidence.replay.verdict_counts.get(rule, {})
        return any(counts.get(word) for word in ("ok", "info", "warning", "critical"))

    @property
    def reach(self) -> int:
        """Updates before its onset that the statistic of the incident's rule includes."""
        return self.evidence.rules[self.lead.rule].reach

    @cached_property
    def has_memory(self) -> bool:
        """Whether states of a recurrent network were recorded."""
        return bool(self.evidence.run.rows.get("lstm"))

    def subjects(self, table: str, name: str) -> Mapping[str, tuple[Ints, Floats]]:
        """Return a column of another table by subject: updates, and cells with NaN where null."""
        subject = str(BY_NAME[table].subject)
        rows = around(self.evidence.run, table, [subject, name], self.lead.start - _BEFORE, self.lead.start + _AFTER)
        parts = rows.partition_by(subject, as_dict=True, maintain_order=True)
        return {
            str(key[0]): (part["update"].to_numpy(), part[name].cast(float).fill_null(float("nan")).to_numpy())
            for key, part in parts.items()
        }

    def steps(self, table: str, name: str) -> dict[str, Step]:
        """Return the steps of a column of another table by subject."""
        found = {
            subject: _step(f"{name} of {subject}", update, cells, self.lead.start)
            for subject, (update, cells) in self.subjects(table, name).items()
        }
        return {subject: step for subject, step in found.items() if step is not None}


def _median(cells: Floats) -> float:
    finite = cells[np.isfinite(cells)]
    return float(np.median(finite)) if len(finite) else float("nan")


def _step(name: str, update: Ints, cells: Floats, start: int) -> Step | None:
    """Return the step with the largest ratio of change to scatter that is at most ``start``, None without."""
    best, most = None, _NOISE
    finite = np.flatnonzero(np.isfinite(cells))
    update, cells = update[finite], cells[finite]
    for index in np.flatnonzero(update <= start)[_LEAST:]:
        left, right = cells[max(index - _SIDE, 0) : index], cells[index : index + _SIDE]
        before, after = float(np.median(left)), float(np.median(right))
        if abs(after - before) > _LEVEL * abs(before) and (score := _score(left, right)) > most:
            best, most = (int(index), before, after), score
    if best is None:
        return None
    index, before, after = best
    return Step(
        name, int(update[_first_beyond(cells, index, (before + after) / 2, rises=after > before)]), before, after
    )


def _score(left: Floats, right: Floats) -> float:
    """Return the change of the median in scatters, of the values or, where all are positive, of their logarithms."""
    scores = [_in_scatters(left, right)]
    if left.min() > 0 and right.min() > 0:
        scores.append(_in_scatters(np.log(left), np.log(right)))
    return max(scores)


def _in_scatters(left: Floats, right: Floats) -> float:
    level = float(np.median(left))
    scatter = 1.4826 * max(_deviation(left), _deviation(right) if len(right) >= _LEAST else 0.0)
    return abs(float(np.median(right)) - level) / (scatter + 1e-9 + 1e-6 * abs(level))


def _first_beyond(cells: Floats, index: int, middle: float, *, rises: bool) -> int:
    """Return the first index of the cells around ``index`` that are on the far side of a step."""
    beyond = cells > middle if rises else cells < middle
    while index + 1 < len(cells) and not beyond[index]:
        index += 1
    while index > 0 and beyond[index - 1]:
        index -= 1
    return index


def _deviation(cells: Floats) -> float:
    return float(np.median(np.abs(cells - np.median(cells))))
