"""Every action and observation space SB3's PPO family takes: recorded, exact, and unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from esper_analyze.runs.run import open_run
from recorder.adapters.sb3 import attach
from tests.recorder.trainings import KeepingLogger

BOX = spaces.Box(-1, 1, (2,), np.float32)
DICT = spaces.Dict({"near": spaces.Box(-1, 1, (3,), np.float32), "far": spaces.Box(-1, 1, (2,), np.float32)})


class NoiseEnv(gym.Env[Any, Any]):
    """Random observations and rewards for any action space."""

    def __init__(self, action_space: spaces.Space[Any], observation_space: spaces.Space[Any], masks: int = 0) -> None:
        self.action_space, self.observation_space = action_space, observation_space
        self._random, self._masks = np.random.default_rng(0), masks

    def _observe(self) -> Any:
        near, far = (self._random.uniform(-1, 1, n).astype(np.float32) for n in (3, 2))
        return {"near": near, "far": far} if isinstance(self.observation_space, spaces.Dict) else far

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._age = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ARG002
        self._age += 1
        return self._observe(), float(self._random.random()), False, self._age > 10, {}

    def action_masks(self) -> Any:
        mask = self._random.random(self._masks) < 0.7
        mask[::2] = True
        return mask


Case = tuple[Callable[..., Any], str, Callable[[], Any], dict[str, Any]]


def envs(action_space: spaces.Space[Any], observation_space: spaces.Space[Any] = BOX, masks: int = 0) -> Any:
    return lambda: DummyVecEnv([lambda: NoiseEnv(action_space, observation_space, masks)] * 2)


CASES: dict[str, Case] = {
    "masked discrete": (MaskablePPO, "MlpPolicy", envs(spaces.Discrete(4), masks=4), {}),
    "multi-binary": (PPO, "MlpPolicy", envs(spaces.MultiBinary(3)), {}),
    "masked multi-binary": (MaskablePPO, "MlpPolicy", envs(spaces.MultiBinary(3), masks=6), {}),
    "multi-discrete": (PPO, "MlpPolicy", envs(spaces.MultiDiscrete([3, 2])), {}),
    "squashed box, no closed-form entropy": (
        PPO,
        "MlpPolicy",
        envs(BOX),
        {"use_sde": True, "policy_kwargs": {"squash_output": True}},
    ),
    "dict observations": (PPO, "MultiInputPolicy", envs(spaces.Discrete(3), DICT), {}),
    "recurrent, dict observations": (
        RecurrentPPO,
        "MultiInputLstmPolicy",
        envs(spaces.MultiDiscrete([3, 2]), DICT),
        {},
    ),
    "normalised": (PPO, "MlpPolicy", lambda: VecNormalize(envs(spaces.Discrete(3))()), {}),
    "separate extractors": (
        PPO,
        "MlpPolicy",
        envs(spaces.Discrete(3)),
        {"policy_kwargs": {"share_features_extractor": False}},
    ),
    "uneven minibatches": (PPO, "MlpPolicy", envs(spaces.Discrete(3)), {"batch_size": 21}),
}


def train(case: Case, run_dir: Path | None) -> Any:
    make, policy, env, options = case
    torch.manual_seed(0)
    np.random.seed(0)
    model = make(policy, env(), seed=1, device="cpu", **({"n_steps": 32, "batch_size": 16, "n_epochs": 2} | options))
    model.set_logger(KeepingLogger())
    if run_dir is None:
        model.learn(64 * 4)
    else:
        with attach(model, run_dir, strict=True):
            model.learn(64 * 4)
    return model


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize("name", sorted(CASES))
def test_is_recorded_exactly_and_trained_unchanged(tmp_path: Path, name: str) -> None:
    model, twin = train(CASES[name], tmp_path / "run"), train(CASES[name], None)
    for ours, theirs in zip(model.policy.parameters(), twin.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    rows = open_run(tmp_path / "run").frame("updates").to_dicts()
    assert len(rows) == len(model.logger.kept) + 1
    for row, log in zip(rows, model.logger.kept, strict=False):
        for column in ("clip_fraction", "entropy_loss", "value_loss"):
            assert row[column] == log[f"train/{column}"]
        assert row["policy_loss"] == log["train/policy_gradient_loss"]
        assert row["kl_k3_last_epoch"] == pytest.approx(float(log["train/approx_kl"]), abs=1e-6)
        assert row["explained_variance"] == pytest.approx(float(log["train/explained_variance"]), abs=1e-6)


def test_a_model_that_is_no_ppo_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    from stable_baselines3 import DQN

    model = DQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=10)
    with pytest.raises(TypeError, match="DQN is no PPO"), attach(model, tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_head_names_that_do_not_fit_the_action_space_are_refused(tmp_path: Path) -> None:
    case = CASES["multi-discrete"]
    model = case[0](case[1], case[2](), n_steps=32, batch_size=16, device="cpu")
    with (
        pytest.raises(ValueError, match="3 head names for an action space of 2 heads"),
        attach(model, tmp_path / "run", heads=("a", "b", "c")),
    ):
        pass
