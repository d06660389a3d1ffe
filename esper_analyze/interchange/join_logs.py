"""Several files of one training, an event file beside its progress.csv for one, joined into one log.

Both hold the same numbers, the event file as float32. Rows and events are of one step where a column of the rows, or
their position, is the step of the events. Every number that both have is compared: logs that disagree by more than
rounding to float32 are of two trainings, and joining them would make up a third one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from esper_analyze.errors import UsageError
from esper_analyze.interchange.import_tensorboard import FORMAT, EventRun
from esper_analyze.interchange.imported import Row
from esper_analyze.interchange.raw_log import RawLog
from esper_analyze.interchange.row_log import COUNTS, ENV_STEPS, RowLog, number_of
from esper_analyze.interchange.series import ScalarLog
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

_BEFORE = {"ray/tune/": "", "train/": "", "eval/": "eval_"}
"""What RLlib and the trainers of transformers put before each name in their event files, and what in other logs."""
_ROUNDING = 1e-6
"""Relative: float32 rounds by 6e-8, and some loggers print seven digits."""
_SMALLEST = 1e-37
"""Below the smallest normal float32, which loses digits."""
_FIT = 0.5
"""Share of the steps of an event file that the rows have too: either may have been cut."""
_NAMED = 4


class TwoLogsError(UsageError):
    """The files are not of one training."""


@dataclass(frozen=True, slots=True)
class _Matched:
    """The rows by step, and how many numbers both have that agree and that do not.

    ``column`` has the step, None where it is the position of the row.
    """

    by_step: Mapping[int, Row]
    column: str | None
    agreeing: int
    differing: tuple[str, ...]

    def rank(self) -> tuple[bool, int]:
        """Return what is greatest for the steps that fit best."""
        return not self.differing and self.agreeing > 0, self.agreeing + len(self.differing)


def joined(events: EventRun, rows: RowLog) -> RawLog:
    """Return the log of both. Raises ``TwoLogsError``."""
    if len(events.attempts) > 1:
        raw = events.raw()
        raw.remarks.append(f"{rows.names[0]} was left out: the event files beside it tell where the training restarted")
        return raw
    log = _renamed(events.attempts[0], set(rows.columns()))
    names = f"{rows.names[0]} and {events.files[0].path.name}"
    matched = max(_matches(log, rows), key=_Matched.rank, default=None)
    if matched is None or not matched.agreeing + len(matched.differing):
        raise TwoLogsError(
            f"{names} cannot be told to be of one training: they share no step and value",
            hint="give one of them, or --from tensorboard or csv",
        )
    if matched.differing:
        raise TwoLogsError(
            f"{names} are two different logs: {cleaned(matched.differing[0])} differs",
            hint="give one of them, or --from tensorboard or csv",
        )
    both, only_events = _both(log, matched)
    raw = events.raw()
    raw.format, raw.attempts = FORMAT, [both]
    raw.losses.add(rows.losses)
    in_rows = {name for name in rows.columns() if any(row.get(name) is not None for row in rows.rows)}
    only_rows = sorted(in_rows - log.series.keys())
    shared = many(len(in_rows & log.series.keys()), "column")
    alone = f"{_listed(only_rows)} from {rows.names[0]} alone, {_listed(only_events)} from the event file alone"
    raw.remarks += [*rows.remarks, f"{names} are of one run and were joined: {shared} from both, {alone}"]
    return raw


def joined_rows(first: RowLog, second: RowLog) -> RowLog:
    """Return the columns of two logs of rows of one training. Raises ``TwoLogsError``."""
    names = f"{first.names[0]} and {second.names[0]}"
    column = next((name for name in (*COUNTS, *ENV_STEPS) if _unique(first, name) and _unique(second, name)), None)
    others = {} if column is None else dict(zip(_unique(second, column) or (), second.rows, strict=True))
    steps = [] if column is None else _unique(first, column) or []
    compared = [
        (name, number_of(cell), number_of(others[step][name]))
        for step, row in zip(steps, first.rows, strict=False)
        if step in others
        for name, cell in row.items()
        if others[step].get(name) is not None and cell is not None
    ]
    numbers = [(name, one, other) for name, one, other in compared if one is not None and other is not None]
    differing = next((name for name, one, other in numbers if not _agree(one, other)), None)
    if not numbers or differing is not None:
        why = f"{cleaned(differing)} differs" if differing else "they share no step and value"
        raise TwoLogsError(f"{names} are two different logs: {why}", hint="give one of them")
    rows = [others.get(step, {}) | {name: cell for name, cell in row.items() if cell is not None}
            for step, row in zip(steps, first.rows, strict=True)]  # fmt: skip
    rows += [row for step, row in others.items() if step not in set(steps)]
    joined_log = RowLog(first.format, rows, [*first.names, *second.names], first.losses)
    joined_log.losses.add(second.losses)
    only = sorted(set(second.columns()) - set(first.columns()))
    words = f"{names} are of one run and were joined: {_listed(only)} from {second.names[0]} alone"
    joined_log.remarks = [*first.remarks, *second.remarks, words]
    return joined_log


def _unique(rows: RowLog, column: str) -> list[int] | None:
    steps = rows.steps(column)
    return steps if steps is not None and len(set(steps)) == len(steps) else None


def _renamed(log: ScalarLog, columns: Collection[str]) -> ScalarLog:
    """Return ``log`` with the names that the ``columns`` of the rows have."""
    renamed = {}
    for name, series in log.series.items():
        other = next(
            (after + name[len(before) :] for before, after in _BEFORE.items() if name.startswith(before)), name
        )
        renamed[other if name not in columns and (other in columns or name.startswith("ray/")) else name] = series
    return ScalarLog(renamed, log.timesteps)


def _matches(log: ScalarLog, rows: RowLog) -> Iterator[_Matched]:
    """Yield what each column of steps, and the position of a row from 0 and from 1, would make of both."""
    columns = {column: _unique(rows, column) for column in (*ENV_STEPS, *COUNTS)}
    axes: list[tuple[Sequence[int], str | None]] = [
        (steps, column) for column, steps in columns.items() if steps is not None
    ]
    axes += [(range(first, first + len(rows.rows)), None) for first in (0, 1)]
    points = {name: dict(zip(series.steps, series.values, strict=True)) for name, series in log.series.items()}
    logged = {step for values in points.values() for step in values}
    for steps, column in axes:
        by_step = dict(zip(steps, rows.rows, strict=True))
        if len(logged & by_step.keys()) < _FIT * min(len(by_step), len(logged)):
            continue
        agreeing, differing = 0, list[str]()
        for name, values in points.items():
            for step in values.keys() & by_step.keys():
                number, other = number_of(by_step[step].get(name)), number_of(values[step])
                if number is not None and other is not None:
                    same = _agree(number, other)
                    agreeing += same
                    differing += [] if same else [name]
        yield _Matched(by_step, column, agreeing, tuple(differing))


def _agree(first: float, second: float) -> bool:
    if math.isnan(first) or math.isnan(second):
        return math.isnan(first) and math.isnan(second)
    return first == second or abs(first - second) <= max(_ROUNDING * max(abs(first), abs(second)), _SMALLEST)


def _both(log: ScalarLog, matched: _Matched) -> tuple[ScalarLog, list[str]]:
    """Return the rows' numbers by step with the events' times, and the events that the rows lack; and their names."""
    walls = _walls(log)
    both = ScalarLog(timesteps=matched.column in ENV_STEPS)
    for step, row in sorted(matched.by_step.items(), key=lambda item: item[0]):
        for name, cell in row.items():
            if cell is not None:
                both.add(name, step, cell, walls.get(step))
    only = sorted(log.series.keys() - both.series.keys())
    for step in sorted(walls.keys() - matched.by_step.keys() if matched.column else ()):
        both.add(str(matched.column), step, step, walls[step])  # the rows end before: their step is known
    for name, series in log.series.items():
        for step, value, wall in zip(series.steps, series.values, series.walls, strict=True):
            if matched.by_step.get(step, {}).get(name) is None:
                both.add(name, step, value, wall)
    return both, only


def _walls(log: ScalarLog) -> dict[int, float]:
    """Return the last time at which something was logged at each step."""
    walls: dict[int, float] = {}
    for series in log.series.values():
        for step, wall in zip(series.steps, series.walls, strict=True):
            if wall is not None:
                walls[step] = max(wall, walls.get(step, wall))
    return walls


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return ", ".join(map(cleaned, names[:_NAMED])) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
