"""Trainings with Stable-Baselines3 and sb3-contrib: recorded through ``attach``, and touched at a known update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from recorder.adapters.sb3 import attach

Tell = Callable[[int], None]
"""Called with the number of each update as its rollout begins."""


class Touch(BaseCallback):
    """Tells each update, and calls ``change`` once as the rollout of update ``at`` begins."""

    def __init__(self, tell: Tell, at: int | None = None, change: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._tell, self._at, self._change, self.update = tell, at, change, -1

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.update += 1
        self._tell(self.update)
        if self.update == self._at and self._change is not None:
            self._change()


class Rewards(gym.Wrapper[Any, Any, Any, Any]):
    """Passes rewards through ``change``, that may be set while the training goes on."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.change: Callable[[float], float] | None = None

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        paid = float(reward) if self.change is None else self.change(float(reward))
        return observation, paid, terminated, truncated, info

    def action_masks(self) -> Any:
        """Return the masks of an environment that has some."""
        return self.env.unwrapped.action_masks()  # type: ignore[attr-defined]


def _rewarded(make: Callable[[int], Any], seed: int) -> Monitor[Any, Any]:
    return Monitor(Rewards(make(seed)))


def environments(make: Callable[[int], Any], seed: int, count: int) -> DummyVecEnv:
    """Return ``count`` environments that share no seed with those of another run."""
    return DummyVecEnv([partial(_rewarded, make, 1000 * seed + place) for place in range(count)])


def change_rewards(model: Any, change: Callable[[float], float], *, first_only: bool = False) -> None:
    """From now on pass the rewards of the model's environments, or of the first one, through ``change``."""
    for monitor in model.get_env().envs[: 1 if first_only else None]:
        monitor.env.change = change


def learn(
    model: Any,
    run_dir: Path,
    seed: int,
    updates: int,
    callback: BaseCallback,
    heads: Sequence[str] | None = None,
    *,
    raises: bool = False,
) -> None:
    """Train for ``updates`` and record it. ``raises``: the training is expected to end with ``ValueError``."""
    total = updates * model.n_steps * model.n_envs
    options = {"name": run_dir.name, "seeds": {"model": seed, "environments": 1000 * seed}, "overhead_budget": None}
    np.random.seed(seed)  # Stable-Baselines3 draws minibatches from the global generator
    try:
        with attach(model, run_dir, heads=heads, total_timesteps=total, **options):
            model.learn(total, callback=callback)
    except ValueError:
        if not raises:
            raise
        return
    if raises:
        raise RuntimeError(f"{run_dir.name}: the training was expected to raise")
