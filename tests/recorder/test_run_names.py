"""Runs that nobody named, names that are taken, and what run.json says of how a run came to be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import SubprocVecEnv
from torch import nn

from esper_analyze.comparison.settings import differences
from esper_analyze.runs.run import open_run
from recorder import Recorder, run_names
from recorder.adapters.lightning import RecorderCallback as LightningCallback
from recorder.adapters.sb3 import RecorderCallback as Sb3Callback
from recorder.adapters.sb3 import attach
from recorder.store.run_file import create_run, shown_arguments
from tests.recorder.trainings import TRAININGS

NAME = r"train-\d{8}-\d{6}"


@pytest.fixture(autouse=True)
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as ``train.py`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", main("/somewhere/train.py"))


def main(file: str | None) -> ModuleType:
    module = ModuleType("__main__")
    if file is not None:
        module.__file__ = file
    return module


def test_a_run_without_a_name_has_that_of_its_script_and_time(tmp_path: Path) -> None:
    with Recorder() as rec:
        rec.update()
    assert rec.run_dir.parent == tmp_path / "runs"
    assert re.fullmatch(NAME, rec.run_dir.name)
    assert open_run(rec.run_dir).info["name"] == rec.run_dir.name


def test_runs_of_one_second_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20260102-030405")
    with ThreadPoolExecutor(8) as pool:
        recorders = list(pool.map(lambda _: Recorder(), range(8)))
    for rec in recorders:
        rec.close()
    numbers = ["", *(f"-{number}" for number in range(2, 9))]
    assert sorted(rec.run_dir.name for rec in recorders) == sorted(f"train-20260102-030405{n}" for n in numbers)


def test_a_framework_s_training_needs_no_name_either(tmp_path: Path) -> None:
    with attach(TRAININGS["masked"].model(), strict=True) as rec:
        pass
    assert re.fullmatch(NAME, rec.run_dir.name)
    assert rec.run_dir.parent == tmp_path / "runs"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("/a/train.py", "train"),
        ("/a/my package/__main__.py", "my_package"),
        ("/a/ipykernel_launcher.py", "notebook"),
        ("/a/..py", "session"),
        (None, "session"),
    ],
)
def test_the_script_is_named_as_it_was_started(file: str | None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", main(file))
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert run_names.script() == name


def test_a_name_that_is_taken_is_numbered_where_asked_and_refused_otherwise(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with Recorder("runs/mine", exists="number") as rec:
            names.append(rec.run_dir)
    assert names == [tmp_path / "runs" / name for name in ("mine", "mine-2", "mine-3")]
    with pytest.raises(FileExistsError, match="already holds a run"):
        Recorder("runs/mine")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resume": True}, "run_dir is not given, but resume=True"),
        ({"run_dir": "x", "exists": "number", "resume": True}, "exists='number', but resume=True"),
        ({"world_size": 2, "rank": 0}, "all 2 ranks need the same directory"),
        ({"run_dir": "x", "exists": "overwrite"}, "exists must be one of refuse, number, not 'overwrite'"),
    ],
)
def test_where_no_name_can_be_chosen_it_is_said_and_nothing_is_made(
    options: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Recorder(**options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_run_says_how_it_was_started_and_on_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1", "--wandb-api-key=abc"])
    with Recorder("run", nn.Linear(2, 2)) as rec:
        rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4))
        rec.update()
    info = open_run("run").info
    assert info["argv"] == ["train.py", "--lr", "0.1", "--wandb-api-key=…"]
    assert info["device"] == "cpu"
    assert isinstance(info["host"], str)
    elsewhere = {**info, "host": "other", "argv": ["eval.py"], "device": "cuda:0"}
    assert [name for name, _ in differences([info, elsewhere])] == ["device"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["x", "--token", "abc", "--lr", "1"], ["x", "--token", "…", "--lr", "1"]),
        (["x", "--hub_token=abc", "-p", "1"], ["x", "--hub_token=…", "-p", "1"]),
        (["x", "--api-key", "-s3cret", "--lr=1"], ["x", "--api-key", "…", "--lr=1"]),
        (["x", "wandb.api_key=a", "+logger.token=b"], ["x", "wandb.api_key=…", "+logger.token=…"]),
        (["x", "--pwd", "a", "--auth=b"], ["x", "--pwd", "…", "--auth=…"]),
        (["x", "--url=https://me:pw@host/a"], ["x", "--url=https://…@host/a"]),
        (["x", "--tokenizer", "gpt2", "--max-tokens=512"], ["x", "--tokenizer", "gpt2", "--max-tokens=512"]),
        (["x", "--monkey", "3", "secret"], ["x", "--monkey", "3", "secret"]),
    ],
)
def test_what_is_named_like_a_secret_is_not_stored(given: list[str], shown: list[str]) -> None:
    assert shown_arguments(given) == shown


def test_the_commit_and_whether_tracked_files_were_changed_are_stored(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = {
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        done = subprocess.run(["git", *words], check=True, capture_output=True, text=True, env=os.environ | who)
        return done.stdout.strip()

    try:
        git("init", "-q")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    facts = [create_run(tmp_path / "before", {})]
    (tmp_path / "train.py").write_text("1")
    git("add", "train.py")
    git("commit", "-q", "-m", "first")
    facts.append(create_run(tmp_path / "clean", {}))
    (tmp_path / "train.py").write_text("2")
    facts.append(create_run(tmp_path / "dirty", {}))
    commit = git("rev-parse", "HEAD")
    found = [(fact["git_commit"], fact["git_dirty"]) for fact in facts]
    assert found == [(None, False), (commit, False), (commit, True)]


def test_a_schedule_is_stored_by_name_with_its_first_and_last_value(tmp_path: Path) -> None:
    def linear(rate: float) -> Callable[[float], float]:
        return lambda progress: rate * progress

    named = TRAININGS["masked"]
    model = named.make(named.policy, named.env(), learning_rate=linear(0.5), device="cpu", **named.options)
    with attach(model, tmp_path / "run", strict=True):
        pass
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["hyperparameters"]["learning_rate"] == "linear.lambda: 0.5 → 0"
    assert info["environment"] is None


def test_a_schedule_of_the_clip_range_is_stored_too_and_a_constant_one_as_its_number(tmp_path: Path) -> None:
    named = TRAININGS["masked"]
    found = []

    def falling(progress: float) -> float:
        return 0.2 * progress

    clips: tuple[Any, ...] = (falling, 0.3)
    for number, clip in enumerate(clips):
        model = named.make(named.policy, named.env(), clip_range=clip, device="cpu", **named.options)
        with attach(model, tmp_path / str(number), strict=True) as rec:
            pass
        found.append(open_run(rec.run_dir).info["hyperparameters"]["clip_range"])
    assert found[0].endswith("falling: 0.2 → 0")
    assert found[1] == 0.3


def test_a_schedule_that_has_no_end_does_not_stop_the_training(tmp_path: Path) -> None:
    named = TRAININGS["masked"]

    def endless(progress: float) -> float:
        return 0.1 / progress

    model = named.make(
        named.policy, named.env(), clip_range=endless, learning_rate=endless, device="cpu", **named.options
    )
    with attach(model, tmp_path / "run", strict=True) as rec:
        pass
    settings = open_run(rec.run_dir).info["hyperparameters"]
    assert settings["clip_range"].endswith("endless: ZeroDivisionError")
    assert settings["learning_rate"].endswith("endless: ZeroDivisionError")


def scaled() -> gym.Env[Any, Any]:
    """Return an environment of which a worker cannot send the specification: it holds a lambda."""
    return gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda reward: 0.1 * float(reward))


def test_environments_in_other_processes_are_asked_nothing(tmp_path: Path) -> None:
    envs = SubprocVecEnv([scaled, scaled], start_method="fork")
    try:
        model = PPO("MlpPolicy", envs, n_steps=32, batch_size=64, n_epochs=1, device="cpu")
        with attach(model, tmp_path / "run", strict=True):
            model.learn(128)
    finally:
        envs.close()
    run = open_run(tmp_path / "run")
    assert run.info["environment"] is None
    assert run.frame("updates").height == 2


def test_an_environment_of_this_process_is_named(tmp_path: Path) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, device="cpu")
    with attach(model, tmp_path / "run", strict=True) as rec:
        pass
    assert open_run(rec.run_dir).info["environment"] == "CartPole-v1"


@pytest.mark.parametrize("callback", [Sb3Callback, LightningCallback])
def test_a_callback_that_is_to_resume_needs_a_directory(callback: Any) -> None:
    with pytest.raises(ValueError, match="run_dir is not given, but resume=True"):
        callback(resume=True)


def test_an_environment_that_does_not_answer_has_no_name(tmp_path: Path) -> None:
    model = TRAININGS["masked"].model()
    model.env = SimpleNamespace()
    with attach(model, tmp_path / "run", strict=True) as rec:
        pass
    assert open_run(rec.run_dir).info["environment"] is None
