"""Records the cases of tianshou: ``python -m tests.interchange.corpus.make.tianshou FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils import TensorboardLogger
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from torch.utils.tensorboard import SummaryWriter

from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, Names, event_files, event_name

NAMES: dict[str, str | None] = {
    "update/actor_loss/mean": "policy_loss",
    "update/vf_loss/mean": "value_loss",
    "update/ent_loss/mean": "entropy",
    "update/loss/mean": "total_loss",
    "training/returns_stat/mean": "episode_return_mean",
}
TIANSHOU = Collection("tianshou", version("tianshou"))
STEPS = 256


def train(
    folder: Path,
    *,
    updates: int = 20,
    change: tuple[int, Callable[[Any], None]] | None = None,
    seed: int = 1,
    learning_rate: float = 2e-3,
    **settings: Any,
) -> Path:
    """Train with a row each update and an evaluation each ten; ``change`` is made before the rollout of its update."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    env = gym.make("CartPole-v1")
    shape, actions = env.observation_space.shape, env.action_space.n  # type: ignore[attr-defined]
    actor = DiscreteActor(preprocess_net=Net(state_shape=shape, hidden_sizes=[32]), action_shape=(actions,),
                          softmax_output=False)  # fmt: skip
    critic = DiscreteCritic(preprocess_net=Net(state_shape=shape, hidden_sizes=[32]))
    policy = ProbabilisticActorPolicy(
        actor=actor,
        dist_fn=lambda logits: torch.distributions.Categorical(logits=logits),
        action_space=env.action_space,
        action_scaling=False,
    )
    optim = AdamOptimizerFactory(lr=learning_rate)
    algorithm = PPO(policy=policy, critic=critic, optim=optim, **{"gamma": 0.9, "max_grad_norm": 2.0} | settings)
    envs = DummyVectorEnv([lambda: gym.make("CartPole-v1")] * 4)
    envs.seed(seed)
    collector = Collector(algorithm, envs, VectorReplayBuffer(STEPS * 2, 4))
    evaluated = Collector(algorithm, DummyVectorEnv([lambda: gym.make("CartPole-v1")]))
    writer = SummaryWriter(str(folder))
    logger = TensorboardLogger(writer, training_interval=1, update_interval=1, write_flush=False)

    def before(_epoch: int, env_step: int) -> None:
        if change is not None and env_step // STEPS == change[0]:
            change[1](algorithm)

    algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            test_collector=evaluated,
            max_epochs=updates // 10,
            epoch_num_steps=STEPS * 10,
            collection_step_num_env_steps=STEPS,
            update_step_num_repetitions=4,
            test_step_num_episodes=2,
            batch_size=64,
            training_fn=before,
            logger=logger,
            verbose=False,
            show_progress=False,
        )
    )
    writer.close()
    return folder


def keep(folder: Path, diagnosis: Diagnosis, split: str, names: Names = NAMES) -> None:
    path = f"{folder.name}/{event_name()}"
    TIANSHOU.keep([(event_files(folder)[0], path)], path, diagnosis, split=split, names=names)


def one_action(algorithm: Any) -> None:
    last = algorithm.policy.actor.last.model[0]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([60.0, -60.0]))


def main(out: Path) -> None:
    keep(train(out / "cartpole"), SOUND, "held")
    fault = Diagnosis("policy_dead", "one action only, entropy 0, from update 10 on", 10)
    keep(train(out / "policy_dead", change=(10, one_action), seed=2), fault, "tune")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
