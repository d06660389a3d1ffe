"""Logs of rows, as progress.csv and result.json hold them: a row for each update, and in some a column of its step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from esper_analyze.interchange.cells import CellError, real, whole_number
from esper_analyze.interchange.found_run import FoundRun
from esper_analyze.interchange.imported import Imported, ImportLosses, Row
from esper_analyze.interchange.raw_log import RawLog, first_step, last_step
from esper_analyze.interchange.series import ScalarLog
from esper_analyze.wording import many

ENV_STEPS = (
    *("global_step", "num_env_steps_sampled_lifetime", "timesteps_total", "num_env_steps_sampled", "TotalEnvInteracts"),
    *("misc/total_timesteps", "total_timesteps", "time/total_timesteps"),
)
"""Names under which a log counts environment steps."""
COUNTS = ("step", "training/global_step", "training_iteration", "iteration", "time/iterations", "misc/nupdates")
"""Names under which a log counts something else that grows with the training."""
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
        steps, strict = self._progress()
        parts = list(_rising(steps, strict=strict))
        if len(parts) < 2 or any(len(part) < 2 or part[0][1] > parts[0][1][1] for part in parts):
            return [self]
        return [replace(self, rows=[self.rows[position] for position, _ in part]) for part in parts]

    def raw(self) -> RawLog:
        """Return the scalars: by a column of steps that never goes back, else by the position of their row.

        Where the steps go back into the middle of the training, it was restarted there and goes on in the same file:
        what follows is a new attempt.
        """
        raw = RawLog(self.format, [self._by_position()], self.losses, self.facts, self.remarks)
        steps, strict = self._progress()
        attempts = [self._by_steps(part, counted=strict) for part in _rising(steps, strict=strict)]
        if attempts and all(_within(later, before) for before, later in pairwise(attempts)):
            raw.attempts = attempts
            if len(attempts) > 1:
                restarts = many(len(attempts) - 1, "restart")
                self.remarks.append(f"{restarts} in {self.names[0]}: each attempt stands from its first step on")
        return raw

    def _progress(self) -> tuple[list[int], bool]:
        """Return the step of every row, and whether it counts environment steps; none where no column has them."""
        columns = set(self.columns())
        if not columns.isdisjoint(_OWN_ORDER):
            return [], False
        for column in (*ENV_STEPS, *COUNTS):
            steps = self.steps(column) if column in columns else None
            if steps is not None:
                return steps, column in ENV_STEPS
        return [], False

    def _by_position(self) -> ScalarLog:
        log = ScalarLog(timesteps=False)
        for position, row in enumerate(self.rows):
            _add(log, position, row)
        return log

    def _by_steps(self, part: Iterable[tuple[int, int]], *, counted: bool) -> ScalarLog:
        log = ScalarLog(timesteps=counted)
        for position, step in part:
            _add(log, step, self.rows[position])
        return log


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


def _within(later: ScalarLog, before: ScalarLog) -> bool:
    """Whether ``later`` begins in the middle of ``before``: behind its first step."""
    return bool(later.series and before.series) and first_step(before) < first_step(later) <= last_step(before)


def _rising(steps: Sequence[int], *, strict: bool) -> Iterator[list[tuple[int, int]]]:
    """Yield (position, step) of each stretch in which the steps rise; unless ``strict``, equal ones are of one."""
    part: list[tuple[int, int]] = []
    for position, step in enumerate(steps):
        if part and (step < part[-1][1] or (strict and step == part[-1][1])):
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
