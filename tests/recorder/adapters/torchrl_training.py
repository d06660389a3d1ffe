"""Small trainings with TorchRL's ClipPPOLoss: a loop as in its tutorial, with what the loss returned kept."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import CompositeDistribution, TensorDictModule
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.data import Binary, Bounded, Categorical, Composite, LazyTensorStorage, ReplayBuffer, Unbounded
from torchrl.data.replay_buffers import SamplerWithoutReplacement
from torchrl.envs import EnvBase, RewardSum, StepCounter, TransformedEnv
from torchrl.modules import (
    IndependentNormal,
    MaskedCategorical,
    NormalParamExtractor,
    ProbabilisticActor,
    ValueOperator,
)
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from recorder.adapters.torchrl import attach

with warnings.catch_warnings():  # TorchRL uses what it calls deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from torchrl.collectors import Collector

Distribution.set_default_validate_args(True)  # switched off by what was imported; conftest.py says when it is off

SIZES = {"op": 4, "slot": 3}
ENVS, FRAMES, BATCH, EPOCHS = 4, 128, 32, 2


class Yard(EnvBase):
    """Four environments of eight steps. The factored action has masks; the first part of ``op`` pays by the cue."""

    def __init__(self, seed: int, *, factored: bool) -> None:
        super().__init__(batch_size=[ENVS])
        self.factored = factored
        self.random = torch.Generator().manual_seed(seed)
        shape = (ENVS,)
        self.observation_spec = Composite(
            observation=Unbounded((ENVS, 4)),
            masks=Composite(
                {name: Binary(size, (ENVS, size), dtype=torch.bool) for name, size in SIZES.items()}, shape=shape
            ),
            shape=shape,
        )
        if factored:
            heads = {name: Categorical(size, shape) for name, size in SIZES.items()}
            self.action_spec = Composite(heads, shape=shape)
        else:
            self.action_spec = Bounded(-1, 1, (ENVS, 2))
        self.reward_spec = Unbounded((ENVS, 1))

    def _observe(self) -> dict[str, Any]:
        self.seen = torch.rand(ENVS, 4, generator=self.random)
        masks = {name: torch.rand(ENVS, size, generator=self.random) < 0.7 for name, size in SIZES.items()}
        masks["op"][:, 0] = True
        masks["slot"][:, 0] = True
        masks["slot"][:2, 1:] = False
        return {"observation": self.seen, "masks": TensorDict(masks, [ENVS])}

    def _reset(self, tensordict: Any, **_: Any) -> Any:
        if tensordict is None or "_reset" not in tensordict.keys():  # noqa: SIM118
            self.age = torch.zeros(ENVS, 1, dtype=torch.int64)
        else:
            self.age = self.age.masked_fill(tensordict["_reset"], 0)
        return TensorDict(self._observe(), [ENVS])

    def _step(self, tensordict: Any) -> Any:
        if self.factored:
            reward = (tensordict["op"] == (self.seen[:, 0] > 0.5).long()).float()
        else:
            reward = -(tensordict["action"][:, 0] - self.seen[:, 0]).square()
        self.age = self.age + 1
        ended = self.age >= 8
        return TensorDict(
            self._observe() | {"reward": reward.unsqueeze(-1), "done": ended, "terminated": ended}, [ENVS]
        )

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.random.manual_seed(seed)


class HeadLayers(nn.Module):
    """One linear layer a head, with the masks beside the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh())
        self.op, self.slot = (nn.Linear(16, size) for size in SIZES.values())

    def forward(self, seen: Tensor, op: Tensor, slot: Tensor) -> tuple[Tensor, ...]:
        hidden = self.body(seen)
        return self.op(hidden), op, self.slot(hidden), slot


def actor(*, factored: bool) -> Any:
    if not factored:
        net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4), NormalParamExtractor())
        module = TensorDictModule(net, ["observation"], ["loc", "scale"])
        return ProbabilisticActor(
            module, ["loc", "scale"], distribution_class=IndependentNormal, return_log_prob=True, out_keys=["action"]
        )
    keys = [("params", head, name) for head in SIZES for name in ("logits", "mask")]
    module = TensorDictModule(HeadLayers(), ["observation", ("masks", "op"), ("masks", "slot")], keys)
    return ProbabilisticActor(
        module,
        ["params"],
        distribution_class=CompositeDistribution,
        distribution_kwargs={"distribution_map": dict.fromkeys(SIZES, MaskedCategorical)},
        return_log_prob=True,
    )


@dataclass
class TorchRLTrained:
    """The loss after the training, what it had returned, and the rollouts as they were before their update."""

    loss: Any
    returned: list[list[dict[str, float]]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    rollouts: list[Any] = field(default_factory=list)

    def mean(self, update: int, name: str) -> float:
        return sum(one[name] for one in self.returned[update]) / len(self.returned[update])


def make(*, factored: bool, updates: int) -> dict[str, Any]:
    """Return what a loop needs, by the names that the README uses."""
    torch.manual_seed(0)
    policy = actor(factored=factored)
    value = ValueOperator(nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)), in_keys=["observation"])
    env = TransformedEnv(Yard(1, factored=factored), RewardSum()).append_transform(StepCounter())
    frames = {"frames_per_batch": FRAMES, "total_frames": updates * FRAMES}
    loss = ClipPPOLoss(policy, value, clip_epsilon=0.1, entropy_coeff=0.02, critic_coeff=0.5, loss_critic_type="l2")
    return {
        "loss_module": loss,
        "collector": Collector(env, policy, auto_register_policy_transforms=True, **frames),
        "advantage": GAE(gamma=0.9, lmbda=0.9, value_network=value),
        "optimizer": torch.optim.Adam(loss.parameters(), lr=3e-2),
    }


def train(run_dir: Path | None, *, factored: bool, updates: int = 4, **options: Any) -> TorchRLTrained:
    """Train, recorded into ``run_dir`` unless that is None."""
    made = make(factored=factored, updates=updates)
    loss, collector, optimizer = made["loss_module"], made["collector"], made["optimizer"]
    buffer = ReplayBuffer(storage=LazyTensorStorage(FRAMES), sampler=SamplerWithoutReplacement(), batch_size=BATCH)
    trained = TorchRLTrained(loss)
    with nullcontext() if run_dir is None else attach(loss, run_dir, collector=collector, **options):
        for data in collector:
            trained.returned.append([])
            for epoch in range(EPOCHS):
                with torch.no_grad():
                    made["advantage"](data)
                if epoch == 0:
                    trained.rollouts.append(data.clone())
                buffer.extend(data.reshape(-1))
                for _ in range(FRAMES // BATCH):
                    result = loss(buffer.sample())
                    numbers = {name: float(one.detach().mean()) for name, one in result.items() if one.numel() == 1}
                    trained.returned[-1].append(numbers)
                    sum(result[name] for name in ("loss_objective", "loss_critic", "loss_entropy")).backward()
                    trained.norms.append(float(torch.nn.utils.clip_grad_norm_(loss.parameters(), 0.5)))
                    optimizer.step()
                    optimizer.zero_grad()
    collector.shutdown()
    return trained
