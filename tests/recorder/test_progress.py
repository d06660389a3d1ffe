"""Progress is the share of the plan that is done: in [0, 1], never falling, null once nobody knows the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import PPO

from esper_analyze.runs.run import open_run
from recorder import Recorder
from recorder.adapters.sb3 import RecorderCallback, attach
from recorder.plan import TrainingPlan

ROLLOUT = 64
Learns = Callable[[Any], None]


def ppo() -> Any:
    return PPO("MlpPolicy", "CartPole-v1", n_steps=ROLLOUT, batch_size=64, n_epochs=1, seed=1, device="cpu")


def learn(*steps: int, reset: bool = False) -> Learns:
    """Return a training in calls of ``learn``; the first one always begins at 0."""

    def learns(model: Any) -> None:
        for call, count in enumerate(steps):
            model.learn(count, reset_num_timesteps=reset or call == 0)

    return learns


def rows(run_dir: Path) -> tuple[list[int], list[float | None]]:
    frame = open_run(run_dir).frame("updates", ["env_steps", "progress"])
    return frame["env_steps"].to_list(), frame["progress"].to_list()


TRAININGS: dict[str, tuple[Learns, dict[str, Any], list[float | None]]] = {
    "one learn": (learn(4 * ROLLOUT), {}, [0.25, 0.5, 0.75, 1.0]),
    "one learn that its last rollout exceeds": (learn(150), {}, [64 / 150, 128 / 150, 1.0]),
    "two chunks": (learn(128, 128), {}, [0.5, 1.0, None, None]),
    "two chunks of one rollout": (learn(64, 64), {}, [1.0, None]),
    "four chunks that their rollouts exceed": (learn(100, 100, 100, 100), {}, [0.64, 1.0, *[None] * 6]),
    "two chunks, the plan given": (learn(128, 128), {"total_timesteps": 256}, [0.25, 0.5, 0.75, 1.0]),
    "more than the plan given": (learn(64, 64, 64), {"total_timesteps": 128}, [0.5, 1.0, 1.0]),
    "two chunks, the plan given in updates": (learn(64, 64), {"total_updates": 2}, [0.5, 1.0]),
    "begun again": (learn(128, 128, reset=True), {}, [0.5, 1.0, None, None]),
    "begun again, one rollout each": (learn(64, 64, reset=True), {}, [1.0, None]),
    "begun again, the plan given": (learn(64, 64, reset=True), {"total_timesteps": 128}, [0.5, 1.0]),
}


@pytest.mark.parametrize("name", sorted(TRAININGS))
def test_progress_of_stable_baselines(tmp_path: Path, name: str) -> None:
    learns, options, expected = TRAININGS[name]
    model = ppo()
    with attach(model, tmp_path / "run", strict=True, **options):
        learns(model)
    env_steps, progress = rows(tmp_path / "run")
    assert env_steps == [ROLLOUT * (number + 1) for number in range(len(expected))]
    assert progress == expected


def test_a_model_trained_before_goes_on_at_its_own_count(tmp_path: Path) -> None:
    model = ppo()
    model.learn(128)
    with attach(model, tmp_path / "run", strict=True):
        model.learn(128, reset_num_timesteps=False)
    assert rows(tmp_path / "run") == ([192, 256], [0.75, 1.0])


@pytest.mark.parametrize("options", [{}, {"resume": True}])
def test_a_callback_given_to_each_learn_records_one_run_and_knows_that_the_plan_was_changed(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model, callback = ppo(), RecorderCallback(tmp_path / "run", strict=True, **options)
    for call in range(2):
        model.learn(128, callback=callback, reset_num_timesteps=call == 0)
        assert open_run(tmp_path / "run").closed
    assert rows(tmp_path / "run") == ([64, 128, 192, 256], [0.5, 1.0, None, None])
    assert len(list((tmp_path / "run").rglob("attempt*"))) == 2


def test_another_model_with_the_same_callback_is_another_run(tmp_path: Path) -> None:
    callback = RecorderCallback(tmp_path / "run", strict=True)
    for seed in range(3):
        model = PPO("MlpPolicy", "CartPole-v1", n_steps=ROLLOUT, batch_size=64, n_epochs=1, seed=seed, device="cpu")
        for call in range(2):
            model.learn(64, callback=callback, reset_num_timesteps=call == 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2", "run-3"]
    assert all(rows(path)[0] == [64, 128] for path in tmp_path.iterdir())


def test_a_callback_without_a_directory_records_its_learns_into_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, callback = ppo(), RecorderCallback(strict=True)
    for call in range(3):
        model.learn(64, callback=callback, reset_num_timesteps=call == 0)
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert rows(run_dir)[0] == [64, 128, 192]


def test_a_learn_that_was_stopped_and_is_finished_later_has_one_plan(tmp_path: Path) -> None:
    model = ppo()
    stops = lambda given, _: given["self"].num_timesteps < 129  # noqa: E731
    with attach(model, tmp_path / "run", strict=True):
        model.learn(256, callback=stops)
        assert model.num_timesteps == 129
        model.learn(256 - 129, reset_num_timesteps=False)
    assert rows(tmp_path / "run")[1] == [0.25, 0.5, pytest.approx(193 / 256), 1.0]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ({"total_updates": 3}, [1 / 3, 2 / 3, 1.0, 1.0]),
        ({"total_env_steps": 25}, [0.4, 0.8, 1.0, 1.0]),
        ({}, [None] * 4),
    ],
)
def test_progress_of_a_loop(tmp_path: Path, plan: dict[str, int], expected: list[float | None]) -> None:
    with Recorder(tmp_path / "run", strict=True, **plan) as rec:  # type: ignore[arg-type]
        for update in range(4):
            rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), clip_range=0.2)
            rec.update(env_steps=10 * (update + 1))
    assert rows(tmp_path / "run")[1] == expected


def test_an_unknown_total_has_no_progress() -> None:
    plan = TrainingPlan()
    plan.reach(64, None)
    assert (plan.done, plan.progress) == (64, None)
    plan.reach(128, 256)
    assert (plan.done, plan.progress) == (128, None)
