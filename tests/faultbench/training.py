"""What every training of the bench has, whichever loop it runs in: knobs, a world, a network, what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.faultbench.draw import Setup
from tests.faultbench.tasks import TASKS

EVALUATION_STEPS = 10
Estimate = Callable[[Tensor, Tensor, Tensor, Tensor, float, float], Tensor]
"""Takes what ``gae`` takes."""


@dataclass
class Knobs:
    """What may be turned while a training goes on; as it stands here, nothing is wrong."""

    rate: float = 1.0
    entropy: float = 1.0
    value: float = 1.0
    clip: float = 1.0
    clip_gradients: bool = True
    epochs: int = 1
    gamma: float | None = None
    step: bool = True
    normalise_advantages: bool | None = None
    masks_in_update: bool = True
    ignore_ends: bool = False
    detach_critic: bool = False
    detach_head: str | None = None
    zero_state: bool = False
    target_shift: int = 0
    half: bool = False
    observation: Callable[[Tensor], Tensor] | None = None
    stored_observation: Callable[[Tensor], Tensor] | None = None
    reward: Callable[[Tensor], Tensor] | None = None
    advantages: Callable[[Tensor], Tensor] | None = None
    log_prob: Callable[[Tensor], Tensor] | None = None
    executed: Callable[[Tensor], Tensor] | None = None
    logged: Callable[[Tensor], Tensor] | None = None
    identical: bool = False
    across_environments: bool = False
    bootstrap: bool = True
    next_observation: bool = False
    resample: bool = False
    policy: float = 1.0
    critic_rate: float = 1.0
    temperature: float = 1.0
    refill: bool = True
    target_kl: float | None = None
    estimate: Estimate | None = None
    targets: Callable[[Tensor, Tensor], Tensor] | None = None
    value_loss: Callable[[Tensor, Tensor], Tensor] | None = None
    value_clip: float | None = None
    surrogate: Callable[[Tensor, Tensor, float], Tensor] | None = None
    masks: Callable[[Tensor], Tensor] | None = None
    grad_norm: float = 1.0
    stored_starts: Callable[[Tensor], Tensor] | None = None
    stored_values: Callable[[Tensor], Tensor] | None = None
    minibatches: int = 1
    greedy: bool = False
    own_ratio: bool = False
    keep_state: bool = False
    late_state: bool = False
    parts: Callable[[list[Any]], list[Any]] | None = None
    actor: nn.Module | None = None
    joined: Callable[[Tensor], Tensor] | None = None

    def entropy_coefficient(self, setup: Setup) -> float:
        """Return the weight of the entropy bonus; a turned knob finds a small one where the training has none."""
        bonus = setup.entropy_coefficient or 0.01 * (self.entropy != 1.0)
        return bonus * self.entropy

    def gamma_of(self, setup: Setup) -> float:
        """Return the discount."""
        return setup.gamma if self.gamma is None else self.gamma

    def normalises(self, setup: Setup) -> bool:
        """Return whether advantages are normalised."""
        return setup.normalise_advantages if self.normalise_advantages is None else self.normalise_advantages


@dataclass
class LoopOutcome:
    """What the loop itself saw, by update: mean return of the episodes that ended (NaN without), and the value loss."""

    returns: list[float] = field(default_factory=list)
    value_losses: list[float] = field(default_factory=list)
    died: str = ""


@dataclass(frozen=True)
class Episode:
    """An episode that ended: its environment, undiscounted return before the reward's scale, and steps."""

    env: int
    total: float
    length: int


class World:
    """The environments as the training sees them: observations normalised, rewards scaled, both as the knobs say."""

    def __init__(self, setup: Setup, knobs: Knobs) -> None:
        self.setup, self.knobs = setup, knobs
        self.task = TASKS[setup.task].make(setup.environments, setup.number)
        self.moments: tuple[Tensor, Tensor, float] = (torch.zeros(()), torch.ones(()), 1e-4)
        self._totals = np.zeros(setup.environments)
        self._lengths = np.zeros(setup.environments, np.int64)

    def observe(self) -> Tensor:
        """Return observations [B, *shape]; each call counts for their running mean and variance."""
        x = torch.from_numpy(self.task.observe())
        if self.knobs.identical:
            x = x[:1].expand_as(x).clone()
        if self.knobs.observation is not None:
            x = self.knobs.observation(x)
        if not self.setup.normalise_observations:
            return x
        mean, variance, count = self.moments
        total = count + len(x)
        delta = x.mean(0) - mean
        mean = mean + delta * len(x) / total
        variance = (variance * count + x.var(0, correction=0) * len(x) + delta**2 * count * len(x) / total) / total
        self.moments = (mean, variance, total)
        return ((x - mean) / (variance + 1e-8).sqrt()).clamp(-10, 10)

    def act(self, actions: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[Episode]]:
        """Apply actions [B] by head; return rewards [B], which environments ended [B], and the episodes that did."""
        change = self.knobs.executed
        done = actions if change is None else {name: change(one) for name, one in actions.items()}
        step = self.task.step({name: one.numpy() for name, one in done.items()})
        over = step.terminated | step.truncated
        reward = torch.from_numpy(step.reward).float() * self.setup.reward_scale
        if self.knobs.reward is not None:
            reward = self.knobs.reward(reward)
        return reward, torch.from_numpy(over).float(), self._finished(step.reward, over)

    def masks(self) -> dict[str, Tensor]:
        """Return valid actions [B, K] by head; empty for a task without."""
        if not self.task.masked:
            return {}
        change = self.knobs.masks or (lambda mask: mask)
        return {name: change(torch.from_numpy(mask)) for name, mask in self.task.masks().items()}

    def _finished(self, reward: np.ndarray, over: np.ndarray) -> list[Episode]:
        self._totals += reward
        self._lengths += 1
        ended = np.flatnonzero(over)
        found = [Episode(int(env), float(self._totals[env]), int(self._lengths[env])) for env in ended]
        self._totals[ended], self._lengths[ended] = 0.0, 0
        return found


def estimates(knobs: Knobs, setup: Setup, reward: Tensor, value: Tensor, end: Tensor, last: Tensor) -> Tensor:
    """Return the generalised advantage estimates [T, B] that the training makes of its rollout.

    ``end`` [T, B]: whether an episode ended with the step; ``last`` [B]: the values of what was observed after it.
    """
    if not knobs.bootstrap:
        last = torch.zeros_like(last)
    gamma, gae_lambda = knobs.gamma_of(setup), setup.gae_lambda
    if knobs.across_environments:  # as if all were steps of one environment, one after the other
        reward_, value_, end_ = (one.reshape(-1, 1) for one in (reward, value, end))
        return gae(reward_, value_, end_, last[-1:], gamma, gae_lambda).view_as(reward)
    return (knobs.estimate or gae)(reward, value, end, last, gamma, gae_lambda)


def gae(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Return generalised advantage estimates [T, B] (Schulman et al. 2016); a time limit counts as an end."""
    advantages, running = torch.zeros_like(reward), torch.zeros_like(last)
    for t in reversed(range(len(reward))):
        ahead = last if t == len(reward) - 1 else value[t + 1]
        alive = 1.0 - end[t]
        running = reward[t] + gamma * ahead * alive - value[t] + gamma * gae_lambda * alive * running
        advantages[t] = running
    return advantages


class Training:
    """One training: its parts and ``knobs`` may be touched as each update begins."""

    def __init__(self, setup: Setup) -> None:
        torch.manual_seed(setup.number)
        self.setup, self.knobs, self.outcome = setup, Knobs(), LoopOutcome()
        self.world = World(setup, self.knobs)

    @property
    def network(self) -> nn.Module:
        """Return actor and critic together."""
        raise NotImplementedError

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer that steps next."""
        raise NotImplementedError

    def replace_optimizer(self, new: torch.optim.Optimizer) -> None:
        """Step with another optimizer from here on."""
        raise NotImplementedError

    def policy_body(self) -> nn.Module:
        """Return the layers between an observation and the actor's last layers."""
        raise NotImplementedError

    def action_layers(self) -> Sequence[tuple[nn.Linear, Sequence[int]]]:
        """Return each linear layer that ends in logits, and how many belong to each head in turn."""
        raise NotImplementedError

    def run(self, run_dir: Path, before: Callable[[Training, int], None]) -> LoopOutcome:
        """Train and record to the end, or to where it raises; ``before`` is called as each update begins."""
        raise NotImplementedError

    def forget_state(self) -> None:
        """Go on with the state of a memory that saw nothing yet."""
        self.change_state(torch.zeros_like)

    def change_state(self, change: Callable[[Tensor], Tensor]) -> None:
        """Go on with another state of the memory, made of each of its tensors [layers, B, hidden]."""
        raise NotImplementedError

    def critic_body(self) -> nn.Module | None:
        """Return the layers between an observation and the value, where the critic has its own."""
        raise NotImplementedError

    def restart(self, where: NDArray[np.bool_]) -> None:
        """Start the environments ``where`` anew in the middle of an episode; the training is not told of an end."""
        task = self.world.task
        task.begin(where)
        task.age[where] = 0

    def rate(self, update: int) -> float:
        """Return the learning rate of an update."""
        left = 1.0 - update / self.setup.updates if self.setup.schedule == "linear" else 1.0
        return self.setup.learning_rate * left * self.knobs.rate

    def evaluate(self) -> None:
        """Play some steps without exploring in environments of their own; nothing of the training changes."""
        world = World(self.setup, self.knobs)
        world.moments = self.world.moments
        self.play(world, EVALUATION_STEPS)

    def play(self, world: World, steps: int) -> None:
        """Act without exploring in a world."""
        raise NotImplementedError

    def ended(self, episodes: Sequence[Episode]) -> None:
        """Keep the mean return of the episodes that ended in a rollout."""
        self.outcome.returns.append(float(np.mean([one.total for one in episodes])) if episodes else float("nan"))
