"""Records the cases of skrl: ``python -m tests.interchange.corpus.make.skrl FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import skrl
import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from torch import nn

from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, Names, event_files, event_name
from tests.interchange.corpus.make.environments import Reaching

NAMES: dict[str, str | None] = {
    "Loss / Policy loss": "policy_loss",
    "Loss / Value loss": "value_loss",
    "Loss / Entropy loss": None,  # scaled by its coefficient
    "Reward / Total reward (mean)": "episode_return_mean",
}
CONTINUOUS: dict[str, str | None] = {"Policy / Standard deviation": None, **NAMES}
SKRL = Collection("skrl", skrl.__version__)
ENVS, ROLLOUTS = 4, 64


def layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))


class Chooses(CategoricalMixin, Model):
    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, device="cpu", **spaces)
        CategoricalMixin.__init__(self)
        self.net = layers(self.num_observations, self.num_actions)

    def compute(self, inputs: Any, role: str) -> Any:  # noqa: ARG002
        return self.net(inputs["observations"]), {}


class SteeringModel(GaussianMixin, Model):
    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, device="cpu", **spaces)
        GaussianMixin.__init__(self)
        self.net = layers(self.num_observations, self.num_actions)
        self.log_std = nn.Parameter(torch.zeros(self.num_actions))

    def compute(self, inputs: Any, role: str) -> Any:  # noqa: ARG002
        return self.net(inputs["observations"]), {"log_std": self.log_std}


class ValueModel(DeterministicMixin, Model):
    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, device="cpu", **spaces)
        DeterministicMixin.__init__(self)
        self.net = layers(self.num_observations, 1)

    def compute(self, inputs: Any, role: str) -> Any:  # noqa: ARG002
        return self.net(inputs["observations"]), {}


def train(
    folder: Path,
    *,
    updates: int = 28,
    change: tuple[int, Callable[[PPO], None]] | None = None,
    seed: int = 1,
    **settings: Any,
) -> Path:
    """Train with a row each update; ``change`` is made after the update before its own."""
    set_seed(seed)
    env_id = settings.pop("env_id", "CartPole-v1")
    env = wrap_env(gym.make_vec(env_id, num_envs=ENVS, vectorization_mode="sync"), verbose=False)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    acts = Chooses if isinstance(env.action_space, gym.spaces.Discrete) else SteeringModel
    config = {
        "rollouts": ROLLOUTS,
        "learning_epochs": 6,
        "mini_batches": 4,
        "learning_rate": 2e-3,
        "entropy_loss_scale": 0.01,
        "value_loss_scale": 0.5,
        "discount_factor": 0.9,
        "experiment": {
            "directory": str(folder),
            "experiment_name": "run",
            "write_interval": ROLLOUTS,
            "checkpoint_interval": 0,
        },
    }
    memory = RandomMemory(memory_size=ROLLOUTS, num_envs=ENVS, device="cpu")
    models = {"policy": acts(**spaces), "value": ValueModel(**spaces)}
    agent = PPO(models=models, memory=memory, cfg=PPO_CFG(**config | settings), device="cpu", **spaces)
    update_of, done = agent.update, iter(range(1, updates + 2))

    def update(**timestep: Any) -> None:
        update_of(**timestep)
        if change is not None and next(done) == change[0]:
            change[1](agent)

    agent.update = update
    timesteps = {"timesteps": ROLLOUTS * updates, "headless": True, "disable_progressbar": True}
    SequentialTrainer(env=env, agents=agent, cfg=timesteps).train()
    agent.writer.close()
    return folder


def keep(folder: Path, diagnosis: Diagnosis, split: str, names: Names = NAMES) -> None:
    path = f"{folder.name}/{event_name()}"
    SKRL.keep([(event_files(folder)[0], path)], path, diagnosis, split=split, names=names)


def one_action(agent: PPO) -> None:
    with torch.no_grad():
        agent.policy.net[2].weight.zero_()
        agent.policy.net[2].bias.copy_(torch.tensor([60.0, -60.0]))


def faster(agent: PPO) -> None:
    for group in agent.optimizer.param_groups:
        group["lr"] *= 100


def main(out: Path) -> None:
    gym.register("Reaching-v0", lambda **_: Reaching())
    keep(train(out / "cartpole"), SOUND, "tune")
    keep(train(out / "reach", env_id="Reaching-v0", seed=2), SOUND, "held", CONTINUOUS)
    fault = Diagnosis("policy_dead", "one action only, entropy 0, from update 15 on", 15)
    keep(train(out / "policy_dead", change=(15, one_action), seed=3), fault, "tune")
    fault = Diagnosis("return_fell", "learning rate 100 times too large from update 16 on: the return falls", 16)
    keep(train(out / "return_fell", change=(16, faster), env_id="Reaching-v0", seed=4), fault, "held", CONTINUOUS)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
