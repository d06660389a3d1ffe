"""An error in the recorder costs the rows of its update: numbers of updates stay right, and nothing reaches a loop."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from esper_analyze.runs.run import open_run
from recorder import Recorder
from recorder.store.store import Store
from tests.recorder.plain import Plain, ordinary


def _raise(*_: object, **__: object) -> None:
    raise RuntimeError("injected")


def test_the_update_after_a_lost_one_has_its_own_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rec = Recorder(tmp_path / "run", Plain())
    for number in range(4):
        with monkeypatch.context() as broken:
            if number == 1:
                broken.setattr("recorder.pipeline.rollout_tensors", _raise)
            ordinary(rec)
            rec.update()
    rec.close()
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["update"].to_list() == [0, 2, 3]
    assert [row["kind"] for row in run.frame("losses_of_data").to_dicts()] == ["recorder_error"]


def test_close_lets_no_error_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rec = Recorder(tmp_path / "run", Plain())
    ordinary(rec)
    rec.update()
    with monkeypatch.context() as broken:
        broken.setattr(Store, "put", _raise)
        rec.close()
    assert open_run(tmp_path / "run").frame("updates")["update"].to_list() == [0]


def test_a_step_of_the_wall_clock_is_told_with_its_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rec = Recorder(tmp_path / "run", Plain())
    clock, wrong = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: clock() + wrong[0])
    for number in range(4):
        wrong[0] = -3600.0 if number == 2 else wrong[0]
        ordinary(rec)
        rec.update()
    rec.close()
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["update"].to_list() == [0, 1, 2, 3]
    told = run.frame("losses_of_data").to_dicts()
    assert [(row["update"], row["kind"], row["rows"]) for row in told] == [(2, "clock_step", 0)]
    assert "-3600" in told[0]["detail"]


def test_a_strict_recording_that_cannot_end_its_last_update_is_closed_and_the_training_s_error_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(**_: object) -> None:
        raise TypeError("of the recorder")

    def train() -> None:
        with Recorder(tmp_path / "run", Plain(), strict=True) as rec:
            rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4))
            rec.update()
            monkeypatch.setattr(rec, "update", refused)
            raise ValueError("of the training")

    with pytest.raises(ValueError, match="of the training"):
        train()
    assert "could not be recorded: of the recorder" in caplog.text
    assert open_run(tmp_path / "run").closed
    assert not hasattr(torch.nn.utils.clip_grad_norm_, "__recorder__")
