"""What the faults do that the fourth release held back: to estimates, what is stored and executed, parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from tests.faultbench.loop import Agent, Part, _samples, _surrogate
from tests.faultbench.training import Estimate, Training, gae

Change = Callable[[Tensor], Tensor]

# Estimates of a rollout


def swapped(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Take lambda for gamma, and gamma for lambda."""
    return gae(reward, value, end, last, gae_lambda, gamma)


def _uncut(of_value: bool) -> Estimate:
    """Return estimates that forget at an end to cut the next value, or the sum of what follows."""

    def estimate(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
        running, advantages = torch.zeros_like(last), torch.zeros_like(reward)
        for t in reversed(range(len(reward))):
            ahead, alive = last if t == len(reward) - 1 else value[t + 1], 1.0 - end[t]
            delta = reward[t] + gamma * ahead * (1.0 if of_value else alive) - value[t]
            running = delta + gamma * gae_lambda * running * (alive if of_value else 1.0)
            advantages[t] = running
        return advantages

    return estimate


sum_crosses_ends, value_crosses_ends = _uncut(of_value=False), _uncut(of_value=True)


def one_step_short(reward: Tensor, value: Tensor, end: Tensor, _: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Begin at the last step but one, so that the last is left at 0."""
    advantages = torch.zeros_like(reward)
    advantages[:-1] = gae(reward[:-1], value[:-1], end[:-1], value[-1], gamma, gae_lambda)
    return advantages


def normalised_first(
    reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Normalise what the value targets are then made of."""
    found = gae(reward, value, end, last, gamma, gae_lambda)
    return (found - found.mean()) / (found.std() + 1e-8)


class _Values:
    """Keeps the values of a rollout as it is estimated, and adds them to what is made of the estimates."""

    def __init__(self) -> None:
        self.values = torch.zeros(())

    def estimate(
        self, reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float
    ) -> Tensor:
        self.values = value
        return gae(reward, value, end, last, gamma, gae_lambda)

    def added(self, cells: Tensor, *_: Tensor) -> Tensor:
        return cells + self.values


def forget_baseline(training: Training) -> None:
    """Take for the advantages the returns."""
    kept = _Values()
    training.knobs.estimate, training.knobs.advantages = kept.estimate, kept.added


def add_values_twice(training: Training) -> None:
    """Add the values to the value targets once more."""
    kept = _Values()
    training.knobs.estimate, training.knobs.targets = kept.estimate, kept.added


def rolled(cells: Tensor) -> Tensor:
    """Return of each environment what is its neighbour's, of [T, B]."""
    return cells.roll(1, 1)


def averaged(cells: Tensor) -> Tensor:
    """Return for every environment the mean of all, of [T, B]."""
    return cells.mean(1, keepdim=True).expand_as(cells).clone()


# Losses and minibatches


def clipped_around_0(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Clip the ratio as if it were its distance from 1."""
    return torch.min(ratio * advantages, ratio.clamp(-clip, clip) * advantages)


def ratio_detached(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Let no gradient through the ratio."""
    return _surrogate(ratio.detach(), advantages, clip)


def ratio_inverted(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Divide the old probability by the new one."""
    return _surrogate(1.0 / ratio, advantages, clip)


class First:
    """Hands over for ever the minibatch that was drawn first, as often as there are some."""

    def __init__(self) -> None:
        self.first: Part | None = None

    def __call__(self, parts: list[Part]) -> list[Part]:
        self.first = self.first or parts[0]
        return [self.first] * len(parts)


def one_more(training: Training) -> None:
    """Take one sample more as a minibatch of its own, whose standard deviation is not a number."""
    warnings.filterwarnings("ignore", r"std\(\): degrees of freedom")
    training.knobs.parts = lambda parts: [*parts, _samples(torch.tensor([0]))]


# What the environments give


def standardised(cells: Tensor) -> Tensor:
    """Take from each environment the mean of all at that step, in units of their standard deviation."""
    return (cells - cells.mean(0)) / (cells.std(0) + 1e-5)


def lose_last_rewards(training: Training) -> None:
    """Give no reward for the step that ended an episode."""
    task = training.world.task
    training.knobs.reward = lambda reward: torch.where(torch.from_numpy(task.age == 0), 0.0, reward)


def pay_an_action(training: Training) -> None:
    """Add as large a reward as most tasks give for the first action of the last head."""
    done: list[Tensor] = []

    def executed(actions: Tensor) -> Tensor:
        done[:] = [actions]
        return actions

    training.knobs.executed = executed
    training.knobs.reward = lambda reward: reward + training.setup.reward_scale * (done[0] == 0)


def time_costs(training: Training) -> None:
    """Take 1 for each step."""
    training.knobs.reward = lambda reward: reward - training.setup.reward_scale


def wrapped(x: Tensor) -> Tensor:
    """Return hundredths as bytes hold them: below 0 they begin anew at 255."""
    return (100.0 * x).long().remainder(256) / 100.0


def shifted(x: Tensor) -> Tensor:
    """Return the last axis with 2 added to its first feature."""
    changed = x.clone()
    changed[..., 0] += 2.0
    return changed


class Slow:
    """Shows what was observed last at every fourth step."""

    def __init__(self) -> None:
        self.calls, self.shown = 0, torch.zeros(())

    def __call__(self, x: Tensor) -> Tensor:
        if self.calls % 4 == 0:
            self.shown = x.clone()
        self.calls += 1
        return self.shown.clone()


def show_ends(training: Training) -> None:
    """Show where an episode begins what was observed before it."""
    before: list[Tensor] = []

    def change(x: Tensor) -> Tensor:
        starts = torch.from_numpy(training.world.task.age == 0).view(-1, *[1] * (x.dim() - 1))
        shown = torch.where(starts, before[0], x) if before else x
        before[:] = [x]
        return shown

    training.knobs.observation = change


def forget_moments(training: Training, _: int) -> None:
    """Begin the count of the normaliser anew, so that its mean and variance are those of what comes next."""
    mean, variance, _count = training.world.moments
    training.world.moments = (mean, variance, 1e-4)


class _Sticky:
    """Executes of each head, in every second environment by chance, what was executed before."""

    def __init__(self, heads: int) -> None:
        self.before: list[Tensor] = []
        self.heads = heads

    def __call__(self, actions: Tensor) -> Tensor:
        done = actions
        if len(self.before) == self.heads:
            again = torch.rand(len(actions)) < 0.5
            done = torch.where(again.view(-1, *[1] * (actions.dim() - 1)), self.before.pop(0), actions)
        self.before.append(done)
        return done


def stick(training: Training) -> None:
    """Repeat actions."""
    training.knobs.executed = _Sticky(max(len(training.world.task.sizes), 1))


def invert(training: Training) -> None:
    """Execute the last action for the first and so on, or a real one with its sign changed."""
    sizes = cycle(training.world.task.sizes.values() or [1])
    training.knobs.executed = lambda actions: next(sizes) - 1 - actions


def ten_times(actions: Tensor) -> Tensor:
    """Return actions in another unit."""
    return 10.0 * actions


def opposite(mask: Tensor) -> Tensor:
    """Allow what cannot be done; all where nothing is left."""
    return ~mask | mask.all(1, keepdim=True)


# A memory


def forget_state(training: Training, _: int) -> None:
    """Begin each rollout with an empty memory."""
    training.forget_state()


# Parameters and optimizer


def linears(training: Training) -> Iterator[nn.Linear]:
    """Yield the linear layers."""
    yield from (one for one in training.network.modules() if isinstance(one, nn.Linear))


def critic_head(training: Training) -> nn.Linear:
    """Return the layer that ends in the value."""
    heads = [one for name, one in training.network.named_modules() if name in ("critic", "value_net")]
    assert isinstance(heads[0], nn.Linear)
    return heads[0]


def rescale_values(training: Training) -> None:
    """Multiply what the critic says by 20, as where its unit changes."""
    with torch.no_grad():
        for one in critic_head(training).parameters():
            one.mul_(20.0)


def lose_gradient(training: Training) -> None:
    """Let a gradient be no number."""
    critic_head(training).weight.register_hook(lambda gradient: gradient * torch.nan)


def prune(training: Training) -> None:
    """Set the inputs of half of the units of each layer to 0; heads stay."""
    with torch.no_grad():
        for layer in training.policy_body().modules():
            if isinstance(layer, nn.Linear):
                layer.weight[::2] = 0.0
                layer.bias[::2] = 0.0


def reorder_actions(training: Training) -> None:
    """Put the actions of each head in the opposite order."""
    with torch.no_grad():
        for layer, sizes in training.action_layers():
            ends = np.cumsum(sizes)
            order = torch.cat(
                [torch.arange(end - 1, end - size - 1, -1) for end, size in zip(ends, sizes, strict=True)]
            )
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])


def explore_more(training: Training, age: int) -> None:
    """Widen the distribution from update to update."""
    if age < 30:
        with torch.no_grad():
            next(one for name, one in training.network.named_parameters() if name.endswith("log_std")).add_(0.1)


def add_noise(training: Training, _: int) -> None:
    """Add noise to all parameters."""
    with torch.no_grad():
        for one in training.network.parameters():
            one.add_(0.05 * torch.randn_like(one))


_KEPT: WeakKeyDictionary[Training, dict[str, Tensor]] = WeakKeyDictionary()


def average_with_old(training: Training, age: int) -> None:
    """Move all parameters by three tenths to where they were at the onset."""
    parameters = dict(training.network.named_parameters())
    if age == 0:
        _KEPT[training] = {name: one.detach().clone() for name, one in parameters.items()}
        return
    with torch.no_grad():
        for name, one in parameters.items():
            one.lerp_(_KEPT[training][name], 0.3)


def keep_in_bfloat16(training: Training) -> None:
    """Round all parameters after each step."""

    def rounded(*_: Any) -> None:
        with torch.no_grad():
            for one in training.network.parameters():
                one.copy_(one.bfloat16())

    training.optimizer.register_step_post_hook(rounded)


def act_in_bfloat16(training: Training) -> None:
    """Round the features of the policy while it acts."""

    def rounded(module: nn.Module, _: object, features: Tensor) -> Tensor:
        return features if module.training else features.bfloat16().float()

    training.policy_body().register_forward_hook(rounded)


def act_with_old(training: Training, age: int) -> None:
    """Act with a copy of the network that is renewed at every eighth update."""
    if age % 8 == 0:
        with torch.random.fork_rng():
            training.knobs.actor = Agent(training.setup)
        training.knobs.actor.load_state_dict(copy.deepcopy(training.network.state_dict()))


def leave_actor_out(training: Training) -> None:
    """Leave the optimizer with the critic's own parameters."""
    of_critic = ("critic", "value_net", "vf_", "lstm_critic")
    kept = {id(one) for name, one in training.network.named_parameters() if name.startswith(of_critic)}
    for group in training.optimizer.param_groups:
        group["params"] = [one for one in group["params"] if id(one) in kept]


def maximise(training: Training) -> None:
    """Let the optimizer go up."""
    for group in training.optimizer.param_groups:
        group["maximize"] = True


def raise_momentum(training: Training) -> None:
    """Let the optimizer hardly forget a gradient."""
    for group in training.optimizer.param_groups:
        group["betas"] = (0.999, 0.999)


# Schedules and environments


def rate_goes_on_below_0(training: Training, age: int) -> None:
    """Lower the learning rate by a tenth of what it was, beyond 0."""
    training.knobs.rate = max(1.0 - (age + 1) / 10, -3.0)


def restart_all(training: Training, _: int) -> None:
    """Start all environments anew with each rollout."""
    training.restart(np.ones(training.setup.environments, bool))


def shorten(training: Training) -> None:
    """Let an episode take a quarter of the time."""
    training.world.task.limit = training.world.task.limit // 4


def seed_again(training: Training, _: int) -> None:
    """Draw the same numbers with each rollout, for actions and in the environments."""
    torch.manual_seed(training.setup.number)
    training.world.task.random = np.random.default_rng(training.setup.number)
