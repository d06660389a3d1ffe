"""The recording agrees with what Stable-Baselines3 itself logs, and the training is unchanged to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from esper_analyze.runs.run import open_run
from tests.recorder.trainings import TRAININGS

EXACT = {
    "train/clip_fraction": "clip_fraction",
    "train/entropy_loss": "entropy_loss",
    "train/value_loss": "value_loss",
    "train/policy_gradient_loss": "policy_loss",
    "train/clip_range": "clip_range",
}
CLOSE = {"train/approx_kl": "kl_k3_last_epoch", "train/explained_variance": "explained_variance"}


@pytest.fixture(scope="module", params=sorted(TRAININGS))
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """Return the model trained with the recorder, its twin trained without, and the run."""
    training = TRAININGS[request.param]
    run_dir = tmp_path_factory.mktemp("runs") / request.param
    return training.run(run_dir), training.run(None), run_dir


def test_final_parameters_are_bit_equal_with_and_without_recorder(recorded: tuple[Any, Any, Path]) -> None:
    model, twin, _ = recorded
    theirs = twin.policy.state_dict()
    assert theirs
    for name, parameter in model.policy.state_dict().items():
        assert torch.equal(parameter, theirs[name]), name


def test_numbers_that_sb3_logs_are_recorded_exactly(recorded: tuple[Any, Any, Path]) -> None:
    model, _, run_dir = recorded
    rows = open_run(run_dir).frame("updates").to_dicts()
    logged = model.logger.kept
    assert len(rows) == len(logged) + 1  # SB3 dumps the last training phase only at the next rollout
    for row, log in zip(rows, logged, strict=False):
        for theirs, ours in EXACT.items():
            assert row[ours] == log[theirs], (row["update"], ours)
        for theirs, ours in CLOSE.items():
            assert row[ours] == pytest.approx(float(log[theirs]), abs=1e-6), (row["update"], ours)


def test_last_training_phase_is_recorded_too(recorded: tuple[Any, Any, Path]) -> None:
    model, _, run_dir = recorded
    last = open_run(run_dir).frame("updates").to_dicts()[-1]
    for theirs, ours in EXACT.items():
        assert last[ours] == model.logger.name_to_value[theirs]


def test_joint_log_prob_of_rollout_and_update_agree_up_to_float_noise(recorded: tuple[Any, Any, Path]) -> None:
    errors = open_run(recorded[2]).frame("updates")["first_ratio_error"].to_list()
    assert all(error is not None and error < 1e-5 for error in errors)


def test_replay_gives_the_findings_recorded_live(recorded: tuple[Any, Any, Path]) -> None:
    from esper_analyze.replay.replay import differences, replay
    from esper_analyze.replay.replay import recorded as recorded_live

    run = open_run(recorded[2])
    assert differences(replay(run), recorded_live(run)) == []


def test_pre_clip_norm_is_the_number_the_clip_call_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    original = torch.nn.utils.clip_grad_norm_

    def listening(*args: Any, **kwargs: Any) -> torch.Tensor:
        total = original(*args, **kwargs)
        seen.append(float(total))
        return total

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", listening)
    TRAININGS["masked"].run(tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.frame("steps")["grad_norm_pre_clip"].to_list() == seen
    assert max(seen[-9:]) == run.frame("updates")["grad_norm_pre_clip_max"].to_list()[-1]


def test_early_stop_by_kl_is_a_status_and_its_last_minibatch_made_no_step(tmp_path: Path) -> None:
    TRAININGS["gaussian_kl_stop"].run(tmp_path / "run")
    run = open_run(tmp_path / "run")
    stopped = [row for row in run.frame("updates").to_dicts() if row["status"] == "kl_stopped"]
    assert stopped
    for row in stopped:
        steps = [s for s in run.frame("steps").to_dicts() if s["update"] == row["update"]]
        assert [s["stepped"] for s in steps] == [True] * (len(steps) - 1) + [False]
        assert row["optimizer_steps"] == row["minibatches"] - 1


def test_saving_inside_a_recorded_run_carries_no_recorder(tmp_path: Path) -> None:
    from sb3_contrib import MaskablePPO

    from recorder.adapters.sb3 import attach

    training = TRAININGS["masked"]
    model = training.model()
    with attach(model, tmp_path / "run", strict=True):
        model.learn(training.steps(model))
        model.save(tmp_path / "model")
    assert b"recorder" not in (tmp_path / "model.zip").read_bytes()
    loaded = MaskablePPO.load(tmp_path / "model", env=training.env(), device="cpu")
    for name, parameter in model.policy.state_dict().items():
        assert torch.equal(parameter, loaded.policy.state_dict()[name])
    loaded.learn(training.steps(model))


def test_detaching_leaves_no_wrapper_behind(tmp_path: Path) -> None:
    original = torch.nn.utils.clip_grad_norm_
    model = TRAININGS["masked"].run(tmp_path / "run")
    assert torch.nn.utils.clip_grad_norm_ is original
    for owner in (model.policy, model.rollout_buffer):
        assert not [name for name, part in vars(owner).items() if getattr(part, "__name__", "") == "wrapped"]


def test_callback_records_the_same_rows_as_attach(tmp_path: Path) -> None:
    from recorder.adapters.sb3 import RecorderCallback

    training = TRAININGS["categorical"]
    training.run(tmp_path / "attached")
    model = training.model()
    model.learn(training.steps(model), callback=RecorderCallback(tmp_path / "called", strict=True))
    columns = ["update", "kl_k3", "entropy", "value_loss", "grad_norm_pre_clip", "explained_variance"]
    ours, theirs = (open_run(tmp_path / name).frame("updates", columns) for name in ("called", "attached"))
    assert ours.equals(theirs)
    assert len(ours) == training.updates
