"""A training framework by the names that its logger writes, and its updates by them."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import translate
from functools import cached_property

from esper_analyze.interchange.imported import Imported, Row
from esper_analyze.interchange.numbering import by_batches, by_count, by_step
from esper_analyze.interchange.series import (
    LogRow,
    NameTable,
    ScalarLog,
    add_head,
    cell,
    in_schema,
    leave_out,
    mapped_cells,
    without_zeros,
)


@dataclass(frozen=True)
class Framework:
    """Whose names a log may have: ``name`` is what ``--from`` takes, ``title`` what run.json says.

    ``telling`` are patterns of names that only it writes; ``trained`` and ``beside`` of what it says of trainings and
    of all else, under names that others may write, too.
    """

    name: str
    title: str
    telling: tuple[str, ...]
    trained: tuple[str, ...]
    beside: tuple[str, ...]
    take: Callable[[ScalarLog, Imported], None]

    def tells(self, names: Iterable[str]) -> bool:
        """Whether one of ``names`` is one that only it writes."""
        return any(map(self._telling.match, names))

    def trains(self, names: Iterable[str]) -> bool:
        """Whether one of ``names`` is what it says of trainings: without one there is no update."""
        return any(map(self._trained.match, names))

    def knows(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` that it writes."""
        return [name for name in names if self._any.match(name)]

    @cached_property
    def _telling(self) -> re.Pattern[str]:
        return _any_of(self.telling)

    @cached_property
    def _trained(self) -> re.Pattern[str]:
        return _any_of(self.trained)

    @cached_property
    def _any(self) -> re.Pattern[str]:
        return _any_of((*self.telling, *self.trained, *self.beside))


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")


class StepMeaning(Enum):
    """What the steps of a log count. Rows are updates, but at ``ENV_STEPS_AT_TIMES``, where they are now and then."""

    UPDATES = 1
    ENV_STEPS = 2
    ENV_STEPS_AT_TIMES = 3
    OTHER = 4


_ENV_STEPS = (StepMeaning.ENV_STEPS, StepMeaning.ENV_STEPS_AT_TIMES)


@dataclass(frozen=True)
class NameMap:
    """A framework that logs all of an update at one step.

    ``names`` are logged with an update. ``between`` at steps of their own: the last one since the update before counts;
    ``by_clock`` where their steps count something else than those of updates, so that the time of logging tells.
    ``counts``: names that count updates from 1. ``first``: the first update's step, where steps count updates.
    ``prefixes`` may stand before any name. ``prepare`` renames what is logged under ``patterns`` to ``names``.
    ``reasons``: why names that begin so are in no column. ``algorithms``: what a log with that name is one of, not PPO.
    """

    name: str
    title: str
    telling: tuple[str, ...]
    names: NameTable
    between: NameTable = field(default_factory=dict)
    step: StepMeaning = StepMeaning.UPDATES
    first: int = 0
    counts: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    by_clock: bool = False
    prepare: Callable[[ScalarLog, Imported], ScalarLog] | None = None
    patterns: tuple[str, ...] = ()
    algorithms: Mapping[str, str] = field(default_factory=dict)

    def framework(self) -> Framework:
        """Return what recognises and reads its logs."""

        def prefixed(names: Iterable[str]) -> tuple[str, ...]:
            return tuple(prefix + name for name in names for prefix in ("", *self.prefixes))

        trained = self.patterns or tuple(self.names)
        return Framework(
            self.name, self.title, prefixed(self.telling), prefixed(trained), prefixed(self.between), self.take
        )

    def take(self, log: ScalarLog, imported: Imported) -> None:
        """Add the updates of ``log`` to ``imported``."""
        log = _without_prefix(log, self.prefixes)
        algorithm = next((algorithm for name, algorithm in self.algorithms.items() if name in log.series), "PPO")
        imported.facts |= {"framework": self.title, "algorithm": algorithm}
        if self.note:
            imported.facts["notes"] = self.note
        log = self.prepare(log, imported) if self.prepare else log
        names, between = without_zeros(log, in_schema(self.names), imported), in_schema(self.between)
        rows = log.rows(lambda name: name in names or name in self.counts, imported)
        rows = [row for row in rows if row.cells.keys() & names.keys()]
        numbers = by_count(rows, self.counts)
        if numbers is None:
            numbers = self._numbers(rows, log)
        latest = _latest(log, between, rows, imported, by_clock=self.by_clock)
        for row, number, late in zip(rows, numbers, latest, strict=True):
            env_steps = row.step if self.step in _ENV_STEPS and log.timesteps else None
            placed: Row = {"update": number, "level": "NORMAL", "status": "performed", "wall_time": row.wall}
            cells = {"env_steps": env_steps} | late | mapped_cells(imported, row, names)
            imported.add("updates", placed | cells)
            add_head(imported, number, mapped_cells(imported, row, names, "heads"))
        if self.step is not StepMeaning.ENV_STEPS_AT_TIMES:
            imported.count_gaps(numbers, "was not logged")
        leave_out(imported, log.series, (*names, *between, *self.counts), self.reasons)

    def _numbers(self, rows: Sequence[LogRow], log: ScalarLog) -> list[int]:
        if self.step is StepMeaning.UPDATES:
            return by_step(rows, self.first)
        return by_batches(rows, counted=log.timesteps and self.step is StepMeaning.ENV_STEPS)


def _without_prefix(log: ScalarLog, prefixes: Sequence[str]) -> ScalarLog:
    if not prefixes:
        return log
    plain = ScalarLog(timesteps=log.timesteps)
    for name, series in log.series.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        plain.series.setdefault(name.removeprefix(prefix), series)
    return plain


_FOLLOWING = ("training/",)
"""Names that tianshou 2 logs of a rollout after its training."""


def _latest(
    log: ScalarLog, names: NameTable, rows: Sequence[LogRow], imported: Imported, *, by_clock: bool
) -> list[Row]:
    """Return for each row what ``names`` logged last, since the row before it."""
    marks = [mark for row in rows if (mark := row.wall if by_clock else row.step) is not None]
    cells: list[Row] = [{} for _ in rows]
    if len(marks) < len(rows):  # not all have a time
        return cells
    for name, named in names.items():
        series = log.series.get(name)
        points = [] if series is None else _points(series.walls if by_clock else series.steps, series.values)
        places = [place for place, _ in points]
        ends = marks
        if name.startswith(_FOLLOWING) and places and marks and places[0] > marks[0]:
            ends = [*marks[1:], math.inf]
        before = 0
        for row, mark, filled in zip(rows, ends, cells, strict=True):
            end = bisect_right(places, mark)
            if end > before and filled.get(named.column) is None:
                value = cell(imported, named.table, named.column, points[end - 1][1], f"{name} at {row.step}")
                filled[named.column] = value
                imported.columns.setdefault(f"{named.table}.{named.column}", named.words(name))
            before = end
    return cells


def _points(places: Sequence[float | None], values: Sequence[object]) -> list[tuple[float, object]]:
    points = [(place, value) for place, value in zip(places, values, strict=True) if place is not None]
    return sorted(points, key=lambda point: point[0])


def window(what: str) -> str:
    """Return the caveat of a return or length over more episodes than those of the update."""
    return f"mean over {what}, not those of the update"
