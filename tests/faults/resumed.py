"""Row 27: a training is killed, goes back to a checkpoint, and counts its updates from there once more.

``main`` is the process that forks the trainings; it has imported everything.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.run import open_run
from esper_analyze.schema import TABLES
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.repair import repair
from esper_analyze.storage.maintenance.verify import verify
from tests.faults.children import ROOT
from tests.faults.outcome import Bench, TrialTally, facts
from tests.patience import PATIENCE

UPDATES = 20
ENDS = ("SIGKILL", "close", "os._exit")
OWN = ("seq", "wall_time", "rollout_s", "optimisation_s", "recorder_ms", "recorder_fraction")
"""Columns in which two recordings of the same training differ."""
LOOKS_BACK = ("cosine_previous_update", "parameter_shift_between_updates", "observation_shift")
"""Not known of the first update after a checkpoint: what they compare with is not part of it."""
DERIVED = ("grad_norm_post_clip", "grad_norm_post_clip_max", "grad_norm_post_clip_last", "clip_scale_mean")
"""Follow from the clip's coefficient once measurements have agreed with it, and are measured until then: 1e-8 apart."""
ROUNDING = 1e-6
HISTORY = "losses_of_data"
"""Tells of the resume itself."""

Step = dict[str, Any]
"""One process of a training: the checkpoint it begins at, the ones it leaves, its last update, how it ends."""


def rewound(bench: Bench) -> TrialTally:
    """Every update once, as the undisturbed twin has it; all that was recorded before is there for those who ask."""
    outcome, attempts = TrialTally(), 0
    trainer = _Trainer(bench.scratch / "resumed")
    twin = trainer.train([_step(None, UPDATES, "close")])
    clean = _frames(twin)
    for _ in range(bench.trials(3, 40)):
        steps = _plan(bench)
        attempts += len(steps)
        run_dir = trainer.train(steps)
        label = " → ".join(f"{step['begin'] or 0}…{step['end']} {step['how']}" for step in steps)
        outcome.trials += 1
        _judge(outcome, label, run_dir, clean, steps)
        repair(run_dir)
        compact(run_dir)
        _judge(outcome, f"{label}, repaired and compacted", run_dir, clean, steps)
        shutil.rmtree(run_dir)
    trainer.close()
    outcome.notes.append(facts(attempts=attempts))
    return outcome


def _step(begin: int | None, end: int, how: str) -> Step:
    return {"begin": begin, "end": end, "how": how}


def _plan(bench: Bench) -> list[Step]:
    """Return two or three processes, each beginning at a checkpoint before the end of the one before it."""
    ends = sorted(bench.random.sample(range(3, UPDATES), bench.random.choice([1, 1, 2])))
    steps: list[Step] = [_step(None, ends[0], bench.random.choice(ENDS))]
    for end in [*ends[1:], UPDATES]:
        begin = bench.random.randrange(1, steps[-1]["end"])
        steps.append(_step(begin, end, "close" if end == UPDATES else bench.random.choice(ENDS)))
    return steps


def _frames(run_dir: Path, **options: Any) -> dict[str, pl.DataFrame]:
    run = open_run(run_dir, **options)
    return {table.name: run.frame(table.name).drop(OWN, strict=False) for table in TABLES}


def _judge(outcome: TrialTally, label: str, run_dir: Path, clean: dict[str, pl.DataFrame], steps: list[Step]) -> None:
    damage = verify(run_dir).damage
    if damage:
        outcome.wrong[f"{label}: {damage[0].file} {damage[0].reason}"] += 1
    for name, found in _frames(run_dir).items():
        whole = clean[name]
        differ = [] if name == HISTORY else _differing(found, whole)
        if differ:
            outcome.lost += max(len(whole) - len(found), 0)
            outcome.wrong[f"{label}: {name} is not what the twin recorded: {', '.join(differ)}"] += 1
    run = open_run(run_dir)
    with run.connection() as connection:
        counts = connection.execute("select count(*), count(distinct update), max(update) from updates").fetchone()
    if counts != (UPDATES, UPDATES, UPDATES - 1):
        outcome.wrong[f"{label}: SQL counts {counts}"] += 1
    expected = [number for step in steps for number in range(step["begin"] or 0, step["end"])]
    everything = _frames(run_dir, all_attempts=True)["updates"]["update"].to_list()
    if everything != expected:
        outcome.wrong[f"{label}: of all attempts {everything}"] += 1
    told = [row["update"] for row in run.frame(HISTORY).to_dicts() if row["kind"] == "resumed"]
    if not set(told) <= {step["begin"] for step in steps[1:]} or steps[-1]["begin"] not in told:
        outcome.wrong[f"{label}: resumes told at {told}"] += 1
    if differences(replay(run), recorded(run)):
        outcome.wrong[f"{label}: replay and recording differ"] += 1


def _differing(found: pl.DataFrame, whole: pl.DataFrame) -> list[str]:
    """Name the columns that differ, and by what; of numbers of rows that differ, these."""
    if len(found) != len(whole) or found.schema != whole.schema:
        return [f"{len(found)} rows of {len(whole)}", *sorted(set(found.columns) ^ set(whole.columns))]
    return [
        f"{name} {_first_difference(found[name], whole[name])}"
        for name in found.columns
        if name not in LOOKS_BACK and not _same(found[name], whole[name])
    ]


def _same(found: pl.Series, whole: pl.Series) -> bool:
    if found.name not in DERIVED:
        return found.equals(whole, null_equal=True)
    return all(
        one == other if None in (one, other) else one == pytest.approx(other, rel=ROUNDING, nan_ok=True)
        for one, other in zip(found, whole, strict=True)
    )


def _first_difference(found: pl.Series, whole: pl.Series) -> str:
    pairs = enumerate(zip(found, whole, strict=True))
    return next(f"row {row}: {one!r} for {other!r}" for row, (one, other) in pairs if repr(one) != repr(other))


class _Trainer:
    """The harness's end of the process that forks trainings."""

    def __init__(self, place: Path) -> None:
        self._place, self._count = place, 0
        place.mkdir()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.resumed"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment,
        )  # fmt: skip

    def train(self, steps: list[Step]) -> Path:
        """Train process after process; return the run."""
        self._count += 1
        run_dir = self._place / f"run{self._count}"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for step in steps:
            self._process.stdin.write(json.dumps({**step, "run": str(run_dir)}) + "\n")
            self._process.stdin.flush()
            status = self._process.stdout.readline().strip()
            if status != {"SIGKILL": "-9", "close": "0", "os._exit": "4"}[step["how"]]:
                raise RuntimeError(f"a training ended with {status!r}")
        return run_dir

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)


def main() -> None:
    """Fork a training for each order on stdin; say how it ended."""
    from tests.recorder.test_resume import ResumedTraining

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _train(ResumedTraining(), json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _train(training: Any, step: Step) -> None:
    """Go on from a checkpoint, leave one before every update, and end as ordered."""
    run_dir = Path(step["run"])
    rec = training.record(run_dir, resume=True)
    begin = step["begin"] or 0
    if step["begin"] is not None:
        state, judged = pickle.loads(_checkpoint(run_dir, begin).read_bytes())
        training.load(state)
        rec.load_state_dict(judged)
    for number in range(begin, step["end"]):
        _checkpoint(run_dir, number).write_bytes(pickle.dumps((training.state(), rec.state_dict())))
        training.updates(rec, range(number, number + 1))
    if step["how"] == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if step["how"] == "os._exit":
        os._exit(4)
    rec.close()
    os._exit(0)


def _checkpoint(run_dir: Path, number: int) -> Path:
    return run_dir.with_name(f"{run_dir.name}-checkpoint{number}")


if __name__ == "__main__":
    main()
