"""Records the cases of rl_games: ``python -m tests.interchange.corpus.make.rl_games FOLDER``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rl_games.common import env_configurations, vecenv
from rl_games.common.ivecenv import IVecEnv
from rl_games.torch_runner import Runner

from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, event_files, event_name, sound
from tests.interchange.corpus.make.points import ENVS, Points

NAMES = {
    "info/kl": None,
    "losses/c_loss": "value_loss",
    "losses/entropy": "entropy",
    "losses/a_loss": "policy_loss",
    "info/last_lr": "learning_rate",
}
RL_GAMES = Collection("rl_games", version("rl_games"))


class ReachGame(Points, IVecEnv):
    """The points as rl_games wants them."""

    def reset(self) -> Any:
        return self.observed()

    def step(self, actions: Any) -> Any:
        rewards, ended = self.move(actions)
        return self.observed(), rewards, ended, {"time_outs": ended}

    def get_env_info(self) -> Any:
        box = gym.spaces.Box
        return {
            "observation_space": box(-4.0, 4.0, (4,), np.float32),
            "action_space": box(-1.0, 1.0, (2,), np.float32),
            "agents": 1,
            "value_size": 1,
        }


def configuration(folder: Path, updates: int, **config: Any) -> dict[str, Any]:
    initial = {"mu_init": {"name": "default"}, "sigma_init": {"name": "const_initializer", "val": 0}}
    space = {"mu_activation": "None", "sigma_activation": "None", "fixed_sigma": True, **initial}
    mlp = {"units": [32, 32], "activation": "elu", "initializer": {"name": "default"}}
    settings = {
        "name": "reach",
        "full_experiment_name": "run",
        "train_dir": str(folder),
        "env_name": "reach",
        "device": "cpu",
        "device_name": "cpu",
        "torch_compile": False,
        "reward_shaper": {"scale_value": 1.0},
        "normalize_advantage": True,
        "normalize_input": False,
        "normalize_value": True,
        "gamma": 0.9,
        "tau": 0.95,
        "learning_rate": 3e-3,
        "lr_schedule": "constant",
        "kl_threshold": 0.008,
        "grad_norm": 1.0,
        "truncate_grads": True,
        "entropy_coef": 0.0,
        "e_clip": 0.2,
        "clip_value": True,
        "num_actors": ENVS,
        "horizon_length": 16,
        "minibatch_size": 512,
        "mini_epochs": 4,
        "critic_coef": 1.0,
        "bounds_loss_coef": 0.0001,
        "max_epochs": updates,
        "save_best_after": 10000,
        "print_stats": False,
        "score_to_win": 1e9,
    }
    return {
        "params": {
            "seed": config.pop("seed", 1),
            "algo": {"name": "a2c_continuous"},
            "model": {"name": "continuous_a2c_logstd"},
            "network": {"name": "actor_critic", "separate": True, "space": {"continuous": space}, "mlp": mlp},
            "config": settings | config,
        }
    }


def train(
    folder: Path,
    *,
    updates: int = 28,
    change: tuple[int, Callable[[Any], None]] | None = None,
    **config: Any,
) -> Path:
    """Train; ``change`` is made before the rollout of its update."""
    folder.mkdir(parents=True)
    runner = Runner()
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        runner.load(configuration(folder, updates, **config))
        runner.reset()
        agent = runner.algo_factory.create(runner.algo_name, base_name="run", params=runner.params)
        epoch_of, done = agent.train_epoch, iter(range(updates + 1))

        def train_epoch() -> Any:
            if change is not None and next(done) == change[0]:
                change[1](agent)
            return epoch_of()

        agent.train_epoch = train_epoch
        with contextlib.suppress(ValueError, RuntimeError):
            agent.train()
        agent.writer.close()
    return folder


def keep(folder: Path, diagnosis: Diagnosis, split: str) -> None:
    path = f"{folder.name}/{event_name()}"
    RL_GAMES.keep([(event_files(folder)[0], path)], path, diagnosis, split=split, names=NAMES)


def faster(agent: Any) -> None:
    agent.last_lr *= 100
    agent.update_lr(agent.last_lr)


def nan_reward(agent: Any) -> None:
    agent.vec_env.scale = float("nan")


def rate(update: int) -> Diagnosis:
    return Diagnosis("kl_too_high", f"learning rate 100 times too large from update {update} on", update)


ADAPTS = sound("the learning rate adapts to the KL divergence")
NAN = Diagnosis("nan", "the reward is NaN from update 20 on", 20)
TRAININGS: tuple[tuple[str, Diagnosis, str, dict[str, Any]], ...] = (
    ("reach", SOUND, "tune", {}),
    ("adaptive", ADAPTS, "held", {"lr_schedule": "adaptive", "seed": 2}),
    ("rate_too_large", rate(18), "tune", {"change": (18, faster), "seed": 3}),
    ("nan_reward", NAN, "held", {"change": (20, nan_reward), "seed": 7}),
)


def main(out: Path, wanted: list[str]) -> None:
    """Record the trainings ``wanted``, all when none is named: each takes about a minute."""
    vecenv.register("REACH", lambda _name, _actors, **_: ReachGame())
    env_configurations.register("reach", {"vecenv_type": "REACH", "env_creator": lambda **_: ReachGame()})
    for name, diagnosis, split, settings in TRAININGS:
        if not wanted or name in wanted:
            keep(train(out / name, **settings), diagnosis, split)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2:])
