"""What a harmed run still holds, compared bit for bit with the run of a twin that nobody harmed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from esper_analyze.errors import EsperError
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema import TABLES
from tests.faults.children import Child

CLOCK = {"wall_time", "rollout_s", "optimisation_s", "recorder_ms", "recorder_fraction", "dropped_rows", "seq"}
"""Columns that say how long something took, or depend on what else was recorded; no two runs agree on them."""
OWN = {"losses_of_data"}
"""Tables in which a harmed run may say more than its twin."""


@dataclass
class Twin:
    """What a training gives that nobody harms: its parameters, and its rows by table."""

    sha: str
    frames: dict[str, pl.DataFrame]

    @classmethod
    def of(cls, recorded: Child, plain: Child) -> Twin:
        """Read the twin's run. The training without recorder gives the parameters."""
        assert plain.sha is not None
        run = open_run(recorded.run_dir)
        return cls(plain.sha, {table.name: run.frame(table.name) for table in TABLES})

    def rows(self, updates: int) -> int:
        """Return the rows of the first ``updates`` updates."""
        frames = [frame for name, frame in self.frames.items() if name not in OWN]
        return sum(len(frame.filter(pl.col("update") < updates)) for frame in frames)


@dataclass
class TrialVerdict:
    """What a trial showed. ``lost``: rows of updates the training had finished that readers do not find."""

    lost: int = 0
    wrong: list[str] = field(default_factory=list)
    rows: int = 0
    last: int = -1
    closed: bool = False
    told: int = 0
    """Rows that the run itself says were lost."""
    torn: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is lost and nothing is wrong."""
        return not self.lost and not self.wrong


def judged(
    run_dir: Path,
    twin: Twin,
    finished: int,
    *,
    interrupted: bool = False,
    rank: int | None = None,
    one_writer: bool = True,
) -> TrialVerdict:
    """Open the run as any reader does; ``finished``: updates the training had finished.

    ``interrupted``: the update in progress may be there as such, and is not compared. ``rank``: judge it alone.
    ``one_writer``: sequence numbers are unique; each writer numbers its own rows.
    """
    try:
        run = open_run(run_dir)
        run = run if rank is None else run.only(rank)
    except EsperError as error:
        if finished == 0 and ("has no run.json" in error.message or "does not exist" in error.message):
            return TrialVerdict(lost=twin.rows(finished))
        return TrialVerdict(lost=twin.rows(finished), wrong=[f"refused: {error.message}"])
    except Exception as error:
        return TrialVerdict(lost=twin.rows(finished), wrong=[f"crashed: {type(error).__name__}: {error}"])
    last = -1 if run.last_update is None else run.last_update
    verdict = TrialVerdict(last=last, closed=run.closed, told=run.lost_rows, torn=len(run.torn))
    if interrupted and run.frame("updates", ["status"])["status"].to_list()[-1:] == ["interrupted"]:
        verdict.last = last = last - 1
    for name, whole in twin.frames.items():
        found = run.frame(name)
        verdict.rows += len(found)
        if interrupted:
            found = found.filter(pl.col("update") <= last)
        if name not in OWN:
            _compare(verdict, name, found, whole, finished)
    verdict.wrong += _numbered(run, one_writer=one_writer)
    return verdict


def _compare(verdict: TrialVerdict, name: str, found: pl.DataFrame, whole: pl.DataFrame, finished: int) -> None:
    """Compare one table up to the last update found; what is missing of finished updates is lost."""
    expected = whole.filter(pl.col("update") <= verdict.last)
    before = pl.col("update") < finished
    verdict.lost += max(len(whole.filter(before)) - len(found.filter(before)), 0)
    if len(found) != len(expected):
        verdict.wrong.append(f"{name}: {len(found)} rows where the twin has {len(expected)}")
        return
    for column in found.columns:
        if column not in CLOCK and column != "rank" and not same_bits(found[column], expected[column]):
            verdict.wrong.append(f"{name}.{column} differs from the twin")


def same_bits(one: pl.Series, other: pl.Series) -> bool:
    """Whether two columns hold the same, null apart from NaN, floats bit by bit."""
    if one.dtype != other.dtype or one.is_null().to_list() != other.is_null().to_list():
        return False
    if one.dtype == pl.Float64:
        bits = [series.fill_null(0.0).to_numpy().view(np.int64) for series in (one, other)]
        return bool((bits[0] == bits[1]).all())
    return one.equals(other)


def _numbered(run: RecordedRun, *, one_writer: bool) -> list[str]:
    """Return whether a sequence number or an update is there twice."""
    seqs: list[Any] = []
    for table in TABLES:
        seqs += run.frame(table.name, ["seq"])["seq"].to_list()
    updates = run.frame("updates", ["update"])["update"].to_list()
    wrong = [] if len(set(seqs)) == len(seqs) or not one_writer else ["a sequence number is there twice"]
    return wrong if len(set(updates)) == len(updates) else [*wrong, "an update is there twice"]


def counted(child: Child, verdict: TrialVerdict) -> list[str]:
    """Return what is wrong with the count of losses: handed over = found + counted as lost, in process and on disk."""
    wrong = []
    if verdict.rows + child.lost != child.handed:
        wrong.append(f"{child.handed} rows handed over, {verdict.rows} found, {child.lost} counted as lost")
    if verdict.closed and verdict.told != child.lost:
        wrong.append(f"{child.lost} rows counted as lost in the process, {verdict.told} on disk")
    return wrong


def percentile(seconds: list[float], share: float) -> float:
    """Return the value below which ``share`` of ``seconds`` lie."""
    ordered = sorted(seconds)
    return ordered[min(math.floor(share * len(ordered)), len(ordered) - 1)]
