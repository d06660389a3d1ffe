"""A report names the newest checkpoint from before the incident, of those the training told of."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback

from esper_analyze.replay.evidence import gather
from esper_analyze.reports.narrative import story as stories
from esper_analyze.runs.run import open_run
from esper_analyze.storage.checkpoints import checkpoints_of
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.verify import verify
from recorder import Recorder
from recorder.act import channel
from recorder.adapters.sb3 import attach
from tests.recorder.act.loopback import fall_ill, update


def saved(run_dir: Path) -> list[tuple[str, int, int | None]]:
    listed = checkpoints_of(open_run(run_dir).attempts)
    return [(checkpoint.path, checkpoint.update, checkpoint.env_steps) for checkpoint in listed]


def resume_point(run_dir: Path) -> list[str]:
    """Return what NEXT says of checkpoints."""
    points = stories.frame(gather(open_run(run_dir))).after
    return [point.words for point in points if "checkpoint" in point.words.lower() or "Resume" in point.words]


def test_next_names_the_newest_checkpoint_before_the_onset(tmp_path: Path) -> None:
    there = tmp_path / "there.pt"
    there.touch()
    with Recorder(tmp_path / "run", strict=True) as rec:
        rec.checkpoint("ckpt/none.pt")
        update(rec)
        rec.checkpoint(there, env_steps=40_000)
        fall_ill(rec, sound=0)
        rec.checkpoint("ckpt/late.pt")
    assert saved(tmp_path / "run") == [("ckpt/none.pt", -1, None), (str(there), 0, 40_000), ("ckpt/late.pt", 1, None)]
    words = f"Resume from {there}, saved after update 0 (40,000 env steps); the incident began at update 1."
    assert resume_point(tmp_path / "run") == [words]
    there.unlink()
    assert resume_point(tmp_path / "run") == [f"{words} That file no longer exists."]
    assert not verify(tmp_path / "run").faults
    compact(tmp_path / "run")
    assert len(saved(tmp_path / "run")) == 3


def test_a_checkpoint_between_steps_counts_for_the_update_in_progress(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", strict=True) as rec:
        rec.minibatch(log_prob=torch.full((8,), 3.0), old_log_prob=torch.zeros(8), clip_range=0.2)
        rec.checkpoint("within.pt")
        rec.update()
    assert saved(tmp_path / "run") == [("within.pt", 0, None)]
    (words,) = resume_point(tmp_path / "run")
    assert words.startswith("No checkpoint is from before update 0, when the incident began: of 1 checkpoint told")


def test_next_is_silent_without_checkpoints_and_without_an_incident(tmp_path: Path) -> None:
    with Recorder(tmp_path / "ill", strict=True) as rec:
        fall_ill(rec)
    with Recorder(tmp_path / "sound", strict=True) as rec:
        update(rec)
        rec.checkpoint("model.pt")
    assert not resume_point(tmp_path / "ill")
    assert not resume_point(tmp_path / "sound")


def test_checkpoints_of_superseded_updates_and_torn_lines_do_not_count(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with Recorder(run_dir, strict=True) as rec:
        update(rec)
        state = rec.state_dict()
        rec.checkpoint("first.pt")
        update(rec)
        rec.checkpoint("superseded.pt")
    with Recorder(run_dir, strict=True, resume=True) as rec:
        rec.load_state_dict(state)
        update(rec)
        rec.checkpoint("second.pt")
    (first, _) = sorted(run_dir.glob("rank00000/attempt-*/checkpoints.jsonl"))
    with first.open("ab") as file:
        file.write(b'{"path": "torn.pt", "upd\n[1]\n{"path": 1, "update": Infinity, "env_steps": null, "at": 0}\n')
    assert saved(run_dir) == [("first.pt", 0, None), ("second.pt", 1, None)]
    first.unlink()
    os.mkfifo(first)
    assert saved(run_dir) == [("second.pt", 1, None)]


def test_what_cannot_be_noted_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channel, "BACK_OFF", (0.01,))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recorder.act.checkpoints.append_line", full)
    with Recorder(tmp_path / "run") as rec:
        rec.checkpoint("model.pt")
        rec.checkpoint({"state": 1})  # type: ignore[arg-type]
        rec.checkpoint("model.pt", env_steps="many")  # type: ignore[arg-type]
        update(rec)
    rows = open_run(tmp_path / "run").frame("losses_of_data").select("kind", "detail", "rows").rows()
    assert ("checkpoint_lost", "No space left on device (2 of them)", 0) in rows
    assert any("checkpoint() needs the path of the file or folder, not a dict" in detail for _, detail, _ in rows)
    assert "checkpoint to checkpoints.jsonl failed: No space left on device" in caplog.text


def test_models_that_stable_baselines3_saves_are_noted(tmp_path: Path) -> None:
    model, other = (
        PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=16, batch_size=16, n_epochs=1, device="cpu") for _ in range(2)
    )
    with attach(model, tmp_path / "run", strict=True):
        model.learn(64, callback=CheckpointCallback(32, str(tmp_path / "saved"), name_prefix="model"))
        other.save(tmp_path / "other")
        model.save(tmp_path / "final.v2")
        model.save(str(tmp_path / "last"))
    model.save(tmp_path / "after")
    names = [
        f"{tmp_path}/{name}"
        for name in ("saved/model_32_steps.zip", "saved/model_64_steps.zip", "final.v2", "last.zip")
    ]
    assert saved(tmp_path / "run") == list(zip(names, (0, 2, 3, 3), (32, 64, 64, 64), strict=True))
    assert all(Path(name).exists() for name in names)
    assert PPO.load(names[0], device="cpu").num_timesteps == 32


def test_a_trial_message_is_sent_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recorder.act.__main__ import main

    program = tmp_path / "keep.py"
    program.write_text("import sys; open(sys.argv[1], 'w').write(sys.stdin.read())")
    monkeypatch.chdir(tmp_path)
    assert main([f"command: {sys.executable} {program} heard"]) == 0
    assert '"run": "trial"' in (tmp_path / "heard").read_text()
    assert main(["command: no-such-program"]) == 1
    assert main(["nonsense"]) == main([]) == 2
    out, errors = capsys.readouterr()
    assert "command no-such-program: failed: cannot be started (No such file or directory)" in out
    assert "names nothing to do" in errors
