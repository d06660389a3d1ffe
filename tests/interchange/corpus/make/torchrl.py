"""Records the cases of TorchRL: ``python -m tests.interchange.corpus.make.torchrl FOLDER``.

The loop is our own; what is logged, and under which names, is as in TorchRL's own PPO script, with its own loggers.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torchrl
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.data.replay_buffers import SamplerWithoutReplacement
from torchrl.envs import GymEnv, RewardSum, StepCounter, TransformedEnv
from torchrl.modules import IndependentNormal, NormalParamExtractor, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE
from torchrl.record.loggers import get_logger

from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, event_files, event_name, sound

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from torchrl.collectors import Collector

NAMES: dict[str, str | None] = {
    "train/loss_objective": "policy_loss",
    "train/loss_critic": "value_loss",
    "train/loss_entropy": None,
    "train/lr": "learning_rate",
    "train/reward": "episode_return_mean",
}
TORCHRL = Collection("torchrl", torchrl.__version__)
FRAMES, BATCH, EPOCHS = 400, 100, 6


def train(
    folder: Path,
    *,
    updates: int = 40,
    seed: int = 1,
    entropy: float = 0.0,
    learning_rate: float = 2e-3,
) -> Path:
    """Train on Pendulum with both loggers."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["loc", "scale"]),
        ["loc", "scale"],
        distribution_class=IndependentNormal,
        return_log_prob=True,
        out_keys=["action"],
    )
    critic = ValueOperator(nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1)), in_keys=["observation"])
    loss = ClipPPOLoss(actor, critic, clip_epsilon=0.2, entropy_coeff=entropy, critic_coeff=0.5, loss_critic_type="l2")
    env = TransformedEnv(GymEnv("Pendulum-v1"), RewardSum()).append_transform(StepCounter())
    env.set_seed(seed)
    collector = Collector(env, actor, frames_per_batch=FRAMES, total_frames=FRAMES * updates)
    advantage = GAE(gamma=0.9, lmbda=0.95, value_network=critic)
    optimizer = torch.optim.Adam(loss.parameters(), learning_rate)
    buffer = ReplayBuffer(storage=LazyTensorStorage(FRAMES), sampler=SamplerWithoutReplacement(), batch_size=BATCH)
    loggers = [get_logger(kind, logger_name=str(folder), experiment_name=kind) for kind in ("tensorboard", "csv")]
    for update, data in enumerate(collector):
        rows: dict[str, Any] = {}
        ended = data["next", "done"]
        if ended.any():
            rows["train/reward"] = data["next", "episode_reward"][ended].mean().item()
            rows["train/episode_length"] = data["next", "step_count"][ended].float().mean().item()
        rows |= learn(data, loss, advantage, buffer, optimizer)
        rows |= {"train/lr": optimizer.param_groups[0]["lr"], "train/clip_epsilon": 0.2}
        for logger in loggers:
            for name, value in rows.items():
                logger.log_scalar(name, value, (update + 1) * FRAMES)
    collector.shutdown()
    loggers[0].experiment.close()
    return folder


def learn(data: Any, loss: Any, advantage: Any, buffer: Any, optimizer: Any) -> dict[str, float]:
    """Train on one batch; return the means of the losses over its minibatches."""
    sums: dict[str, float] = {}
    for _ in range(EPOCHS):
        with torch.no_grad():
            advantage(data)
        buffer.extend(data.reshape(-1))
        for _ in range(FRAMES // BATCH):
            result = loss(buffer.sample())
            losses = [result[name] for name in ("loss_critic", "loss_entropy", "loss_objective")]
            torch.stack(losses).sum().backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            for name, value in zip(("loss_critic", "loss_entropy", "loss_objective"), losses, strict=True):
                sums[f"train/{name}"] = sums.get(f"train/{name}", 0.0) + value.item()
    return {name: total / (EPOCHS * FRAMES // BATCH) for name, total in sums.items()}


def events(folder: Path, diagnosis: Diagnosis, split: str) -> None:
    path = f"{folder.name}/{event_name()}"
    TORCHRL.keep([(event_files(folder)[0], path)], path, diagnosis, split=split, names=NAMES)


def csv(folder: Path, diagnosis: Diagnosis, split: str) -> None:
    """Keep the files of the CSV logger: one a name, each with lines of step and number."""
    case = f"{folder.name}_csv"
    scalars = next(folder.rglob("scalars"))
    files = [(path, f"{case}/scalars/{path.relative_to(scalars)}") for path in sorted(scalars.rglob("*.csv"))]
    names = {"train/loss_critic": "value_loss"}
    cells_of = f"{case}/scalars/train/loss_critic.csv"
    TORCHRL.keep(files, case, diagnosis, split=split, names=names, cells_of=cells_of)


def main(out: Path) -> None:
    folder = train(out / "pendulum")
    events(folder, sound("no entropy bonus: its loss is 0"), "held")
    csv(folder, SOUND, "tune")
    fault = Diagnosis("std_runaway", "entropy coefficient so large that the standard deviation runs away", 0)
    events(train(out / "std_runaway", entropy=2.0, learning_rate=5e-3, seed=3), fault, "held")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
