"""Small trainings with skrl's PPO on gymnasium's environments, with what the agent tracked kept."""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, GaussianMixin, Model
from skrl.resources.preprocessors.torch import RunningStandardScaler
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from torch import nn
from torch.distributions import Distribution

from recorder.adapters.skrl import attach

Distribution.set_default_validate_args(True)  # switched off by what was imported; conftest.py says when it is off

ENVS, ROLLOUTS, EPOCHS, MINIBATCHES = 4, 32, 3, 2


class SkrlActor(CategoricalMixin, Model):
    def __init__(self, observation_space: Any, action_space: Any) -> None:
        Model.__init__(self, observation_space=observation_space, action_space=action_space, device="cpu")
        CategoricalMixin.__init__(self)
        self.net = nn.Sequential(nn.Linear(self.num_observations, 16), nn.Tanh(), nn.Linear(16, self.num_actions))

    def compute(self, inputs: Any, role: str) -> Any:  # noqa: ARG002
        return self.net(inputs["observations"]), {}


class Steers(GaussianMixin, Model):
    def __init__(self, observation_space: Any, action_space: Any) -> None:
        Model.__init__(self, observation_space=observation_space, action_space=action_space, device="cpu")
        GaussianMixin.__init__(self)
        self.net = nn.Sequential(nn.Linear(self.num_observations, 16), nn.Tanh(), nn.Linear(16, self.num_actions))
        self.log_std = nn.Parameter(torch.zeros(self.num_actions))

    def compute(self, inputs: Any, role: str) -> Any:  # noqa: ARG002
        return self.net(inputs["observations"]), {"log_std": self.log_std}


class Judges(DeterministicMixin, Model):
    def __init__(self, observation_space: Any, action_space: Any) -> None:
        Model.__init__(self, observation_space=observation_space, action_space=action_space, device="cpu")
        DeterministicMixin.__init__(self)
        self.net = nn.Sequential(nn.Linear(self.num_observations, 16), nn.Tanh(), nn.Linear(16, 1))

    def compute(self, inputs: Any, role: str) -> Any:  # noqa: ARG002
        return self.net(inputs["observations"]), {}


@dataclass
class SkrlTrained:
    """The agent after the training, what it tracked in each update, norms that the clip call returned."""

    agent: PPO
    tracked: list[dict[str, float]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


def make(env_id: str, *, updates: int = 1, **cfg: Any) -> tuple[PPO, SequentialTrainer]:
    """Return an agent and its trainer."""
    set_seed(0)
    env = wrap_env(gym.make_vec(env_id, num_envs=ENVS, vectorization_mode="sync"), verbose=False)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    acts = SkrlActor if isinstance(env.action_space, gym.spaces.Discrete) else Steers
    settings = {
        "rollouts": ROLLOUTS,
        "learning_epochs": EPOCHS,
        "mini_batches": MINIBATCHES,
        "learning_rate": 1e-2,
        "entropy_loss_scale": 0.01,
        "value_loss_scale": 0.5,
        "value_preprocessor": RunningStandardScaler,
        "value_preprocessor_kwargs": {"size": 1, "device": "cpu"},
        "experiment": {"write_interval": 0, "checkpoint_interval": 0},
    }
    agent = PPO(
        models={"policy": acts(**spaces), "value": Judges(**spaces)},
        memory=RandomMemory(memory_size=ROLLOUTS, num_envs=ENVS, device="cpu"),
        cfg=PPO_CFG(**(settings | cfg)),
        device="cpu",
        **spaces,
    )
    timesteps = {"timesteps": ROLLOUTS * updates, "headless": True, "disable_progressbar": True}
    return agent, SequentialTrainer(env=env, agents=agent, cfg=timesteps)


def train(
    run_dir: Path | None,
    env_id: str = "CartPole-v1",
    *,
    updates: int = 4,
    options: Any = None,
    loss_scale: float | None = None,
    **cfg: Any,
) -> SkrlTrained:
    """Train, recorded into ``run_dir`` unless that is None."""
    agent, trainer = make(env_id, updates=updates, **cfg)
    if loss_scale is not None:
        agent.scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale)
    trained, tracks, updates_made = SkrlTrained(agent), agent.track_data, agent.update
    tracked: dict[str, float] = defaultdict(float)

    def track(tag: str, value: float) -> None:
        tracked[tag] = value
        tracks(tag, value)

    def update(**given: Any) -> None:
        tracked.clear()
        updates_made(**given)
        trained.tracked.append(dict(tracked))

    agent.track_data, agent.update = track, update
    with nullcontext() if run_dir is None else attach(agent, run_dir, **(options or {})):
        trainer.train()
    return trained
