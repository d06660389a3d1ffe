"""Sound trainings: nothing is wrong with them, so whatever a detector says of them is a false alarm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO

from sample_runs.environments import HEADS, RememberedCue, Workshop
from tests.bench.zoo import loop
from tests.bench.zoo.label import ZooFault
from tests.bench.zoo.sb3 import Tell, Touch, environments, learn

Train = Callable[[Path, int, Tell], "tuple[ZooFault, ...]"]
"""Trains a seed into a folder; returns the faults that were put in."""

CARTPOLE: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "ent_coef": 0.0,
    "learning_rate": lambda left: 1e-3 * left,
    "clip_range": lambda left: 0.2 * left,
}
"""RL Baselines3 Zoo, hyperparams/ppo.yml, CartPole-v1 (8 environments, 390 updates)."""

PENDULUM: dict[str, Any] = {
    "n_steps": 256,
    "batch_size": 64,
    "n_epochs": 10,
    "gamma": 0.9,
    "gae_lambda": 0.95,
    "ent_coef": 0.0,
    "learning_rate": 1e-3,
    "clip_range": 0.2,
}
"""RL Baselines3 Zoo, Pendulum-v1, without gSDE and with rollouts of 2 × 256 in place of 4 × 1024: its 100,000 steps
are 200 updates."""


def maskable(seed: int, **options: Any) -> MaskablePPO:
    """Return MaskablePPO with the settings of the sample run."""
    chosen = {"n_steps": 64, "batch_size": 64, "n_epochs": 4, "learning_rate": 1e-3, "ent_coef": 0.01} | options
    return MaskablePPO("MlpPolicy", environments(Workshop, seed, 4), seed=seed, device="cpu", **chosen)


def recurrent(seed: int, **options: Any) -> RecurrentPPO:
    """Return RecurrentPPO with the settings of the sample run, and half its rollout."""
    chosen = {"n_steps": 64, "batch_size": 128, "n_epochs": 4, "learning_rate": 1e-3, "ent_coef": 0.25} | options
    chosen["policy_kwargs"] = {"lstm_hidden_size": 32}
    return RecurrentPPO("MlpLstmPolicy", environments(RememberedCue, seed, 4), seed=seed, device="cpu", **chosen)


def gymnasium_ppo(name: str, envs: int, seed: int, **options: Any) -> PPO:
    """Return PPO on an environment of Gymnasium."""
    return PPO("MlpPolicy", environments(lambda _: gym.make(name), seed, envs), seed=seed, device="cpu", **options)


def cartpole(seed: int, **options: Any) -> PPO:
    """Return PPO on CartPole-v1."""
    return gymnasium_ppo("CartPole-v1", 8, seed, **(CARTPOLE | options))


def pendulum(seed: int, **options: Any) -> PPO:
    """Return PPO on Pendulum-v1."""
    return gymnasium_ppo("Pendulum-v1", 2, seed, **(PENDULUM | options))


def acrobot(seed: int) -> PPO:
    """Return PPO on Acrobot-v1: no reward but −1 a step until the first success, by chance, after many updates."""
    return gymnasium_ppo("Acrobot-v1", 8, seed, n_steps=64, batch_size=64, n_epochs=4, gae_lambda=0.94, ent_coef=0.0)


def mountain_car(seed: int) -> PPO:
    """Return PPO on MountainCarContinuous-v0 with the Zoo's odd settings: rollouts of 8 steps, in one batch."""
    options: dict[str, Any] = {
        "n_steps": 8,
        "batch_size": 8,
        "n_epochs": 10,
        "gamma": 0.9999,
        "gae_lambda": 0.9,
        "ent_coef": 0.00429,
        "vf_coef": 0.19,
        "learning_rate": 7.77e-5,
        "clip_range": 0.1,
        "max_grad_norm": 5,
        "use_sde": True,
        "policy_kwargs": {"log_std_init": -3.29, "ortho_init": False},
    }
    return gymnasium_ppo("MountainCarContinuous-v0", 1, seed, **options)


def sound(make: Callable[[int], Any], updates: int, heads: tuple[str, ...] | None = None) -> Train:
    """Return how to train such a model to the end without touching it."""

    def train(run_dir: Path, seed: int, tell: Tell) -> tuple[ZooFault, ...]:
        learn(make(seed), run_dir, seed, updates, Touch(tell), heads)
        return ()

    return train


HEALTHY: dict[str, Train] = {
    "maskable": sound(maskable, 300, HEADS),
    "recurrent": sound(recurrent, 250),
    "loop": loop.sound(200),
    "cartpole": sound(cartpole, 390),
    "pendulum": sound(pendulum, 200),
}
HARD_TO_LOOK_AT: dict[str, Train] = {
    "acrobot": sound(acrobot, 200),
    "mountain-car": sound(mountain_car, 400),
}
