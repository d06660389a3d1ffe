"""Logs of rows, as progress.csv and result.json hold them: a row for each update, and in some a column of its step."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from esper_analyze.interchange.cells import CellError, real, whole_number
from esper_analyze.interchange.found_run import FoundRun
from esper_analyze.interchange.imported import Imported, ImportLosses, Row
from esper_analyze.interchange.raw_log import RawLog
from esper_analyze.interchange.sb3_order import EPOCHS, models
from esper_analyze.interchange.series import ScalarLog
from esper_analyze.wording import many

ENV_STEPS = (
    *("global_step", "num_env_steps_sampled_lifetime", "timesteps_total", "num_env_steps_sampled", "TotalEnvInteracts"),
    *("misc/total_timesteps", "total_timesteps", "time/total_timesteps"),
)
"""Names under which a log counts environment steps."""
STEP = "step"
COUNTS = (STEP, "training_iteration", "iteration", "time/iterations", "misc/nupdates")
"""Names under which a log counts something else that grows with the training."""
_Stretch = list[tuple[int, int]]
_OWN_ORDER = ("time/iterations", "time/total_timesteps")
"""Columns of Stable-Baselines3, whose rows are put in order by its own counts; see ``sb3_order``."""


@dataclass(slots=True)
class RowLog:
    """The rows of the files called ``names``, in the order in which they were logged."""

    format: str
    rows: list[Row]
    names: list[str]
    losses: ImportLosses = field(default_factory=ImportLosses)
    remarks: list[str] = field(default_factory=list)
    facts: Row = field(default_factory=dict)

    def columns(self) -> list[str]:
        """Return the names of all columns."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def steps(self, column: str) -> list[int] | None:
        """Return ``column`` as whole numbers, None unless every row has one."""
        steps = [_whole(row.get(column)) for row in self.rows]
        whole = [step for step in steps if step is not None]
        return whole if whole and len(whole) == len(steps) else None

    def trainings(self) -> list[RowLog]:
        """Return the trainings that were logged into the file one after the other: their steps start over."""
        if EPOCHS in self.columns():
            return [replace(self, rows=rows) for rows in models(self.rows)]
        parts = list(_rising(*self._progress()))
        if len(parts) < 2 or any(len(part) < 2 or part[0][1] > parts[0][1][1] for part in parts):
            return [self]
        return [replace(self, rows=[self.rows[position] for position, _ in part]) for part in parts]

    def raw(self) -> RawLog:
        """Return the scalars: by ``step`` where there is such a column, else by the position of their row.

        Where the steps go back into the middle of the training, it was restarted there and goes on in the same file:
        what follows is a new attempt.
        """
        raw = RawLog(self.format, [self._by_position()], self.losses, self.facts, self.remarks)
        steps, column = self._progress()
        parts = list(_rising(steps, column))
        if parts and all(before[0][1] < later[0][1] <= before[-1][1] for before, later in pairwise(parts)):
            raw.attempts = self._attempts(parts, by_steps=column == STEP)
            if len(parts) > 1:
                restarts = many(len(parts) - 1, "restart")
                self.remarks.append(f"{restarts} in {self.names[0]}: each attempt stands from its first step on")
        return raw

    def _progress(self) -> tuple[list[int], str]:
        """Return the step of every row and the column that has it; none where no column does."""
        columns = set(self.columns())
        if not columns.isdisjoint(_OWN_ORDER):
            return [], ""
        for column in (*ENV_STEPS, *COUNTS):
            steps = self.steps(column) if column in columns else None
            if steps is not None:
                return steps, column
        return [], ""

    def _by_position(self) -> ScalarLog:
        log = ScalarLog(timesteps=False)
        for position, row in enumerate(self.rows):
            _add(log, position, row)
        return log

    def _attempts(self, parts: Sequence[_Stretch], *, by_steps: bool) -> list[ScalarLog]:
        """Return a log for each of ``parts``; without ``by_steps`` by the position among the rows that then stood."""
        logs: list[ScalarLog] = []
        standing: list[int] = []
        for part in parts:
            first = bisect_left(standing, part[0][1])
            standing = [*standing[:first], *(step for _, step in part)]
            log = ScalarLog(timesteps=False)
            for index, (position, step) in enumerate(part, start=first):
                _add(log, step if by_steps else index, self.rows[position])
            logs.append(log)
        return logs


def runs_of_rows(log: RowLog, path: Path) -> list[FoundRun]:
    """Return the runs of the file ``path``, one for each training that was logged into it."""
    trainings = log.trainings()
    names = [path.stem] if len(trainings) == 1 else [f"{path.stem}-{number}" for number in range(1, len(trainings) + 1)]

    def reader(training: RowLog) -> Callable[[str | None], Imported]:
        return lambda framework: training.raw().imported(str(path), framework)

    return [FoundRun(name, reader(training)) for name, training in zip(names, trainings, strict=True)]


def _add(log: ScalarLog, step: int, row: Row) -> None:
    for name, value in row.items():
        if value is not None:
            log.add(name, step, value)


def _rising(steps: Sequence[int], column: str) -> Iterator[_Stretch]:
    """Yield (position, step) of each stretch in which the steps rise; rows of one count may be of one step."""
    part: _Stretch = []
    for position, step in enumerate(steps):
        if part and (step < part[-1][1] or (step == part[-1][1] and column in ENV_STEPS)):
            yield part
            part = []
        part.append((position, step))
    if part:
        yield part


def _whole(value: object) -> int | None:
    try:
        return whole_number(value)
    except CellError:
        return None


def number_of(value: object) -> float | None:
    """Return ``value`` as a number, None when it is none."""
    try:
        return real(value)
    except CellError:
        return None


def flat(row: Mapping[str, object], drop: Callable[[str], bool] = lambda name: False) -> Row:  # noqa: ARG005
    """Return the cells of a nested dictionary by their path, "learners/default_policy/entropy"; lists are left out."""
    cells: Row = {}
    for name, value in row.items():
        if drop(name):
            continue
        if isinstance(value, Mapping):
            cells |= {f"{name}/{inner}": cell for inner, cell in flat(value).items()}
        elif not isinstance(value, list):
            cells[name] = value
    return cells
