"""Trainings with Stable-Baselines3 and sb3-contrib, recorded through ``recorder.adapters.sb3.attach``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from recorder.adapters.sb3 import attach
from sample_runs.environments import HEADS, RememberedCue, Workshop

ENVS = 4
STEPS = 64


class Progress(BaseCallback):
    """Tell the caller each finished update."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._tell, self._count = tell, 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._tell(self._count)
        self._count += 1


def monitored(make: Callable[[int], Any], seed: int) -> Monitor[Any, Any]:
    """Return the environment of a seed with its episodes counted."""
    return Monitor(make(seed))


def _envs(make: Callable[[int], Any]) -> DummyVecEnv:
    return DummyVecEnv([partial(monitored, make, seed) for seed in range(ENVS)])


def _record(model: Any, run_dir: Path, updates: int, tell: Callable[[int], None], heads: Any = None) -> None:
    total = updates * model.n_steps * model.n_envs
    options = {"name": run_dir.name, "seeds": {"model": 1}, "overhead_budget": None}
    with attach(model, run_dir, heads=heads, total_timesteps=total, **options):
        model.learn(total, callback=Progress(tell))


def _workshop(**options: Any) -> MaskablePPO:
    nan_at = options.pop("nan_reward_at", None)
    chosen = {"n_steps": STEPS, "batch_size": 64, "n_epochs": 4, "learning_rate": 1e-3, "ent_coef": 0.01} | options
    env = _envs(lambda seed: Workshop(seed, nan_at if seed == 0 else None))
    return MaskablePPO("MlpPolicy", env, seed=1, device="cpu", **chosen)


def masked_healthy(run_dir: Path, tell: Callable[[int], None]) -> None:
    """Learn the workshop with sound settings."""
    _record(_workshop(), run_dir, 120, tell, HEADS)


def kl_too_high(run_dir: Path, tell: Callable[[int], None]) -> None:
    """Learn it with a learning rate thirty times too high and ten epochs."""
    _record(_workshop(learning_rate=3e-2, n_epochs=10), run_dir, 60, tell, HEADS)


def one_update_collapse(run_dir: Path, tell: Callable[[int], None]) -> None:
    """Let the learning rate jump to 0.3 for one update, with nothing to hold it back."""
    updates, at = 90, 40
    width = 1 / updates

    def rate(remaining: float) -> float:
        done = 1 - remaining - width  # progress at the start of the update being trained on
        return 0.3 if abs(done - at * width) < width / 2 else 1e-3

    model = _workshop(learning_rate=rate, ent_coef=0.0, max_grad_norm=1e9, clip_range=1e9)
    _record(model, run_dir, updates, tell, HEADS)


class ForgetfulBuffer(MaskableRolloutBuffer):
    """From the ``after``-th rollout on, hands the update masks in which everything is valid."""

    after = 30
    _rollouts = -1

    def reset(self) -> None:
        """Count rollouts."""
        super().reset()
        self._rollouts += 1

    def _get_samples(self, batch_inds: Any, env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env)
        if self._rollouts > self.after:
            samples = samples._replace(action_masks=torch.ones_like(samples.action_masks))
        return samples


def mask_mismatch(run_dir: Path, tell: Callable[[int], None]) -> None:
    """Act under masks, update without them, from update 30 on."""
    model = _workshop()
    buffer = model.rollout_buffer
    model.rollout_buffer = ForgetfulBuffer(
        buffer.buffer_size,
        buffer.observation_space,
        buffer.action_space,
        device="cpu",
        gamma=buffer.gamma,
        gae_lambda=buffer.gae_lambda,
        n_envs=buffer.n_envs,
    )
    _record(model, run_dir, 70, tell, HEADS)


def nan_reward(run_dir: Path, tell: Callable[[int], None]) -> None:
    """Put one NaN into the rewards of update 25: the training itself raises, and the run is whole up to there."""
    model = _workshop(nan_reward_at=25 * STEPS + 10)
    try:
        _record(model, run_dir, 70, tell, HEADS)
    except ValueError:
        return
    raise RuntimeError("the training was expected to raise")


def recurrent_healthy(run_dir: Path, tell: Callable[[int], None]) -> None:
    """Learn to remember a cue with an LSTM policy."""
    model = RecurrentPPO(
        "MlpLstmPolicy",
        _envs(RememberedCue),
        n_steps=2 * STEPS,
        batch_size=256,
        n_epochs=4,
        learning_rate=1e-3,
        ent_coef=0.25,
        policy_kwargs={"lstm_hidden_size": 32},
        seed=1,
        device="cpu",
    )
    _record(model, run_dir, 80, tell)
