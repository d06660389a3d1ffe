"""What the documentation's Python examples take for granted: an agent, a training, a framework's objects; all tiny."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from recorder import Recorder
from tests.docs.blocks import BLOCKS

SAMPLES, UPDATES = 32, 2
SIZES = {"op": 4, "slot": 3}
Names = dict[str, Any]


@dataclass
class ExampleBatch:
    """A rollout, or the minibatch that is all of it; by head, or of the one head ``action``."""

    observation: Tensor
    action: dict[str, Tensor]
    log_prob: Any
    masks: dict[str, Tensor]
    values: Tensor
    returns: Tensor
    steps: int = SAMPLES
    episodes: tuple[tuple[float, int], ...] = ((1.0, 8), (2.0, 9))

    @property
    def advantages(self) -> Tensor:
        return self.returns - self.values

    @property
    def rewards(self) -> Tensor:
        return self.returns

    @property
    def ends(self) -> Tensor:
        return torch.arange(self.steps) % 8 == 7

    @property
    def old(self) -> Any:
        return self.log_prob["op"]


class ExampleAgent(nn.Module):
    """A body, a linear layer for each head, and a critic."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.critic = nn.Linear(5, 8), nn.Linear(8, 1)
        self.op, self.slot = (nn.Linear(8, size) for size in SIZES.values())

    def policies(self, batch: Tensor) -> dict[str, Categorical]:
        hidden = torch.tanh(self.body(batch))
        return {name: Categorical(logits=getattr(self, name)(hidden)) for name in SIZES}

    def value(self, batch: Tensor) -> Tensor:
        values: Tensor = self.critic(torch.tanh(self.body(batch))).squeeze(-1)
        return values


def collect(agent: ExampleAgent) -> ExampleBatch:
    observation = torch.randn(SAMPLES, 5)
    with torch.no_grad():
        policies = agent.policies(observation)
        action = {name: policy.sample() for name, policy in policies.items()}
        log_prob = {name: policy.log_prob(action[name]) for name, policy in policies.items()}
        values = agent.value(observation)
    masks = {name: torch.ones(SAMPLES, size, dtype=torch.bool) for name, size in SIZES.items()}
    return ExampleBatch(observation, action, log_prob, masks, values, torch.randn(SAMPLES))


def losses(agent: ExampleAgent, batch: ExampleBatch) -> tuple[Any, ...]:
    """Return log-probs, entropies by head, policy loss, value loss and loss."""
    policies = agent.policies(batch.observation)
    new = {name: policy.log_prob(batch.action[name]) for name, policy in policies.items()}
    entropy = {name: policy.entropy() for name, policy in policies.items()}
    ratio = torch.stack([new[name] - batch.log_prob[name] for name in SIZES]).sum(0).exp()
    policy_loss = -(ratio * batch.advantages).mean()
    value_loss = (agent.value(batch.observation) - batch.returns).square().mean()
    return new, entropy, policy_loss, value_loss, policy_loss + 0.5 * value_loss


def own_loop() -> Names:
    torch.manual_seed(0)
    agent = ExampleAgent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-2)
    parts = {"agent": agent, "optimizer": optimizer, "nn": nn, "updates": UPDATES}
    return parts | {"collect": collect, "minibatches": lambda rollout: [rollout], "losses": losses}


def one_head() -> Names:
    """The loop of the README, whose agent has one head."""
    names = own_loop()
    agent, optimizer = names["agent"], names["optimizer"]

    def of_one_head(agent: ExampleAgent, batch: ExampleBatch) -> tuple[Any, ...]:
        new, entropy, *others, _ = losses(agent, batch)
        return new["op"], entropy["op"], *others

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
        optimizer.step()

    agent.actor = agent.op
    parts = {"minibatches": lambda rollout: [rollout] * 2, "losses": of_one_head, "step": step}
    return names | parts | {"rollouts": (collect(agent) for _ in range(UPDATES))}


def slot() -> Names:
    seed = nn.Linear(3, 3)
    host = nn.Sequential(nn.Linear(2, 3), seed, nn.Linear(3, 1))
    loss = host(torch.randn(4, 2)).square().mean()
    return {"rec": Recorder("runs/growing", host), "loss": loss, "env": 0, "seed": seed, "host": host}


def checkpoint() -> Names:
    agent = ExampleAgent()
    rec = Recorder("runs/mine", agent, sizes={"action": 4})
    rec.update()
    return {"torch": torch, "agent": agent, "rec": rec}


def resume() -> Names:
    names = checkpoint()
    (block,) = [block for block in BLOCKS if block.name == "checkpoint"]
    exec(block.code, names)
    names["rec"].close()
    return names | {"Recorder": Recorder}


def alerts() -> Names:
    return {"agent": ExampleAgent(), "Recorder": Recorder}


def _sb3(env: Any) -> Names:
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=2, seed=0, device="cpu")
    learn = model.learn
    model.learn = lambda _, **more: learn(UPDATES * 16, **more)  # type: ignore[method-assign]
    return {"model": model}


def sb3() -> Names:
    pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed (extra: sb3)")
    return _sb3("CartPole-v1")


def sb3_heads() -> Names:
    pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed (extra: sb3)")
    from sample_runs.environments import Workshop

    return _sb3(Workshop())


def torchrl() -> Names:
    pytest.importorskip("torchrl", reason="TorchRL is not installed (extra: torchrl)")
    from tests.recorder.adapters.torchrl_training import make

    return make(factored=False, updates=UPDATES) | {"torch": torch}


def skrl() -> Names:
    pytest.importorskip("skrl", reason="skrl is not installed (extra: skrl)")
    from tests.recorder.adapters.skrl_training import make

    agent, trainer = make("CartPole-v1", updates=UPDATES)
    return {"agent": agent, "trainer": trainer}


def lightning() -> Names:
    pytest.importorskip("lightning", reason="Lightning is not installed (extra: lightning)")
    from tests.recorder.adapters.lightning_training import SignBandit, trainer

    return {"trainer": trainer(UPDATES), "module": SignBandit()}


SURROUNDINGS: dict[str, Callable[[], Names]] = {
    "readme sb3": sb3,
    "readme own loop": one_head,
    "sb3": sb3,
    "sb3 heads": sb3_heads,
    "sb3 callback": sb3,
    "torchrl": torchrl,
    "skrl": skrl,
    "lightning": lightning,
    "own loop": own_loop,
    "slot": slot,
    "checkpoint": checkpoint,
    "resume": resume,
    **{f"alerts {kind}": alerts for kind in ("command", "program", "slack", "apprise", "python", "function")},
    "alerts checkpoint": checkpoint,
    "backtest stop": alerts,
}
"""By the name of an example: what makes the names that it uses."""


def recorded(code: str) -> Iterator[Path]:
    """Yield the runs that an example writes."""
    yield from map(Path, dict.fromkeys(re.findall(r'(?:attach|Recorder|RecorderCallback)\([^"\n]*"(runs/\w+)"', code)))
