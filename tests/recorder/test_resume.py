"""A run that is gone on with after a checkpoint: each update once, judged as if there had been no interruption."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.run import open_run
from esper_analyze.storage.lock import LockedError
from recorder import Recorder
from recorder.store.resume import ResumeError
from recorder.store.run_file import RunExistsError
from tests.patience import PATIENCE

OWN = ("seq", "wall_time", "rollout_s", "optimisation_s", "recorder_ms", "recorder_fraction")
"""Columns that differ between two recordings of the same training."""
UPDATES, CHECKPOINT, KILLED = 30, 14, 21


class ResumedTraining:
    """A few clipped steps an update whose data follow from the update's number; update 17 is far off policy."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-3)

    def state(self) -> dict[str, Any]:
        return copy.deepcopy({"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()})

    def load(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])

    def record(self, run_dir: Path, **options: Any) -> Recorder:
        return Recorder(run_dir, self.net, sizes={"action": 3}, overhead_budget=None, strict=True, **options)

    def updates(self, rec: Recorder, numbers: range) -> None:
        for number in numbers:
            torch.manual_seed(number)
            for _ in range(3):
                x, action = torch.randn(16, 4), torch.randint(3, (16, 1))
                logits = self.net(x).log_softmax(-1)
                log_prob, entropy = logits.gather(1, action)[:, 0], -(logits.exp() * logits).sum(-1)
                old = log_prob.detach() + 0.01 * torch.randn(16) - (2.0 if number == 17 else 0.0)
                loss = -((log_prob - old).exp() * torch.randn(16)).mean()
                rec.minibatch(log_prob=log_prob, old_log_prob=old, entropy=entropy, clip_range=0.2, policy_loss=loss)
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.net.parameters(), 0.5)
                self.optimizer.step()
            rec.episode(float(number), 10)
            returns = torch.randn(64)
            rec.update(values=returns + 0.1 * torch.randn(64), returns=returns, advantages=torch.randn(64))


def table(run_dir: Path, name: str, **options: Any) -> pl.DataFrame:
    return open_run(run_dir, **options).frame(name).drop(OWN, strict=False)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("twin") / "run"
    training = ResumedTraining()
    with training.record(path) as rec:
        training.updates(rec, range(UPDATES))
    return path


def resumed(path: Path, *, detector: bool) -> None:
    """Train to ``KILLED``, come back to ``CHECKPOINT``, and go on to the end."""
    training = ResumedTraining()
    first = training.record(path, resume=True)
    training.updates(first, range(CHECKPOINT))
    saved, judged = training.state(), json.loads(json.dumps(first.state_dict()))
    training.updates(first, range(CHECKPOINT, KILLED))
    first.close()
    training.load(saved)
    with training.record(path, resume=True) as rec:
        if not detector:
            judged["detector"] = None
        rec.load_state_dict(judged)
        training.updates(rec, range(CHECKPOINT, UPDATES))


def test_each_update_is_there_once_with_the_numbers_of_an_undisturbed_run(tmp_path: Path, twin: Path) -> None:
    resumed(tmp_path / "run", detector=True)
    for name in ("updates", "steps", "heads", "groups", "episodes", "findings", "levels"):
        ours, theirs = table(tmp_path / "run", name), table(twin, name)
        if name == "groups":  # the mean gradient of the update before the checkpoint is not part of it
            ours, theirs = ours.drop("cosine_previous_update"), theirs.drop("cosine_previous_update")
        if name == "updates":  # nor are the moments of the optimizer of the process before it, nor its parameters
            other = ("optimizer_state_lost", "parameter_shift_between_updates")
            ours, theirs = ours.drop(other), theirs.drop(other)
        assert ours.equals(theirs, null_equal=True), name
    run = open_run(tmp_path / "run")
    assert run.rows["updates"] == UPDATES
    assert differences(replay(run), recorded(run)) == []
    assert [(row["update"], row["kind"]) for row in run.frame("losses_of_data").to_dicts()] == [(CHECKPOINT, "resumed")]


def test_both_histories_are_there_for_those_who_ask(tmp_path: Path) -> None:
    resumed(tmp_path / "run", detector=True)
    everything = table(tmp_path / "run", "updates", all_attempts=True)
    assert everything["update"].to_list() == [*range(KILLED), *range(CHECKPOINT, UPDATES)]
    counted = open_run(tmp_path / "run").connection().execute("select count(*), count(distinct update) from updates")
    assert counted.fetchall() == [(UPDATES, UPDATES)]


def test_without_the_detectors_state_replay_begins_afresh_where_the_recording_did(tmp_path: Path) -> None:
    resumed(tmp_path / "run", detector=False)
    run = open_run(tmp_path / "run")
    assert run.frame("losses_of_data")["kind"].to_list() == ["resumed_fresh"]
    assert differences(replay(run), recorded(run)) == []


def test_a_resume_without_a_checkpoint_goes_on_after_the_last_update(tmp_path: Path) -> None:
    training = ResumedTraining()
    for numbers in (range(3), range(3, 5)):
        with training.record(tmp_path / "run", resume=True) as rec:
            training.updates(rec, numbers)
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["update"].to_list() == list(range(5))
    assert differences(replay(run), recorded(run)) == []


def test_a_killed_run_is_gone_on_with_from_its_log(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from tests.recorder.test_resume import ResumedTraining
training = ResumedTraining()
rec = training.record(Path(sys.argv[1]))
training.updates(rec, range(4))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], env=environment, timeout=PATIENCE, check=False)
    training = ResumedTraining()
    with training.record(tmp_path / "run", resume=True) as rec:
        training.updates(rec, range(4, 6))
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["update"].to_list() == list(range(6))
    assert run.closed


def test_what_cannot_be_gone_on_with_is_refused_in_words(tmp_path: Path) -> None:
    training = ResumedTraining()
    with training.record(tmp_path / "run") as rec:
        training.updates(rec, range(1))
        with pytest.raises(LockedError, match="is being written by pid"):
            training.record(tmp_path / "run", resume=True)
    with pytest.raises(RunExistsError):
        training.record(tmp_path / "run")
    with pytest.raises(ResumeError, match=r'heads: \{"action": 3\} before, \{"other": null\} now'):
        Recorder(tmp_path / "run", training.net, heads=["other"], resume=True)
    with pytest.raises(ResumeError, match='level: "NORMAL" before, "DEBUG" now'):
        training.record(tmp_path / "run", level="DEBUG", resume=True)
