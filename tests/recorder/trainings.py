"""Real SB3 trainings with what SB3 logs of them kept beside the recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from recorder.adapters.sb3 import attach
from tests.recorder.environments import MaskedEnv


def masked_envs() -> DummyVecEnv:
    """Two masked environments that report their episodes."""
    return DummyVecEnv([lambda: Monitor(MaskedEnv())] * 2)


class KeepingLogger(Logger):
    """Keeps what SB3 logs after each training phase."""

    def __init__(self) -> None:
        super().__init__(None, [])
        self.kept: list[dict[str, Any]] = []

    def dump(self, step: int = 0) -> None:
        if "train/loss" in self.name_to_value:
            self.kept.append(dict(self.name_to_value))
        super().dump(step)


@dataclass(frozen=True)
class Recipe:
    """How to make a model; ``updates`` it is trained for."""

    make: Callable[..., Any]
    policy: str = "MlpPolicy"
    env: Callable[[], Any] = masked_envs
    updates: int = 5
    options: dict[str, Any] = field(default_factory=dict)

    def model(self) -> Any:
        torch.manual_seed(0)
        np.random.seed(0)  # SB3 draws from the global generator
        model = self.make(self.policy, self.env(), seed=1, device="cpu", **self.options)
        model.set_logger(KeepingLogger())
        return model

    def steps(self, model: Any) -> int:
        return int(model.n_steps * model.n_envs * self.updates)

    def run(self, run_dir: Path | None) -> Any:
        """Train, recorded into ``run_dir`` unless that is None; return the model."""
        model = self.model()
        if run_dir is None:
            model.learn(self.steps(model))
        else:
            with attach(model, run_dir, strict=True):
                model.learn(self.steps(model))
        return model


TRAININGS = {
    "masked": Recipe(MaskablePPO, options={"n_steps": 96, "batch_size": 64, "n_epochs": 3}),
    "recurrent_padded": Recipe(
        RecurrentPPO, "MlpLstmPolicy", options={"n_steps": 60, "batch_size": 50, "n_epochs": 2, "clip_range_vf": 0.2}
    ),
    "recurrent_shared": Recipe(
        RecurrentPPO,
        "MlpLstmPolicy",
        options={
            "n_steps": 40,
            "batch_size": 40,
            "n_epochs": 2,
            "policy_kwargs": {"shared_lstm": True, "enable_critic_lstm": False},
        },
    ),
    "gaussian_kl_stop": Recipe(
        PPO,
        env=lambda: "Pendulum-v1",
        updates=6,
        options={"n_steps": 128, "batch_size": 64, "n_epochs": 8, "target_kl": 3e-4},
    ),
    "categorical": Recipe(PPO, env=lambda: "CartPole-v1", options={"n_steps": 128, "batch_size": 32, "n_epochs": 3}),
}
