"""What the faults that are held back do to estimates and losses, and to what is stored, observed and executed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.faultbench.loop import LoopTraining, Part, _surrogate
from tests.faultbench.task import Actions, StepResult
from tests.faultbench.training import Training, gae

# Estimates of a rollout


def last_value_stale(reward: Tensor, value: Tensor, end: Tensor, _: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Take for the value after the rollout that of its last step, which was at hand."""
    return gae(reward, value, end, value[-1], gamma, gae_lambda)


def discounted_twice(
    reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Discount each step by the square of gamma."""
    return gae(reward, value, end, last, gamma**2, gae_lambda)


def left_backwards(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Append from the last step to the first, and forget to turn the list round."""
    return gae(reward, value, end, last, gamma, gae_lambda).flip(0)


def ends_inverted(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Take what is 1 at an end for what is 1 where an episode goes on."""
    return gae(reward, value, 1.0 - end, last, gamma, gae_lambda)


def estimates_in_half(
    reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Compute from rewards and values that were rounded to half precision."""
    return gae(reward.half().float(), value.half().float(), end, last.half().float(), gamma, gae_lambda)


def subtract_advantages(training: Training) -> None:
    """Make value targets of the values less the advantages."""
    values: list[Tensor] = []

    def estimate(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
        values[:] = [value]
        return gae(reward, value, end, last, gamma, gae_lambda)

    training.knobs.estimate = estimate
    training.knobs.targets = lambda returns, _: 2.0 * values[0] - returns


class Behind:
    """Hands over each time what came the time before; ``parts``: calls that belong together."""

    def __init__(self, parts: int = 1) -> None:
        self.waiting: list[Tensor] = []
        self.parts = parts

    def __call__(self, cells: Tensor) -> Tensor:
        self.waiting.append(cells.clone())
        return self.waiting.pop(0) if len(self.waiting) > self.parts else cells


def keep_old_values(training: Training) -> None:
    """Estimate with the values of the rollout before."""
    training.knobs.stored_values = Behind()


def tenth(values: Tensor) -> Tensor:
    """Return values in the unit of rewards that were scaled down."""
    return 0.1 * values


def targets_clipped(returns: Tensor, _: Tensor) -> Tensor:
    """Clip value targets to what rewards were clipped to."""
    return returns.clamp(-1.0, 1.0)


def by_environment(advantages: Tensor) -> Tensor:
    """Normalise the advantages [T, B] of each environment by themselves."""
    return (advantages - advantages.mean(0)) / (advantages.std(0) + 1e-8)


def outliers_clipped(advantages: Tensor) -> Tensor:
    """Clip advantages to two standard deviations about their mean."""
    mean, width = advantages.mean(), 2.0 * advantages.std()
    return torch.minimum(torch.maximum(advantages, mean - width), mean + width)


def log_probs_clamped(log_prob: Tensor) -> Tensor:
    """Keep stored log-probs from being low, where only the new ones are not clamped."""
    return log_prob.clamp(min=-0.5)


# Losses and minibatches


def summed(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return the surrogate of which the mean is the sum over the minibatch."""
    return _surrogate(ratio, advantages, clip) * advantages.numel()


def clipped_alone(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Forget the minimum, so that no gradient is left outside of the range, on the wrong side either."""
    return ratio.clamp(1 - clip, 1 + clip) * advantages


def square_forgotten(value: Tensor, returns: Tensor) -> Tensor:
    """Take the mean of what the values are too large by."""
    return (value - returns).mean()


def first_half(parts: list[Any]) -> list[Any]:
    """Leave out every second minibatch."""
    return parts[: (len(parts) + 1) // 2]


def shuffle_in_time(training: Training) -> None:
    """Draw the samples of a sequence in any order, as for a network without memory."""
    steps = training.setup.steps

    def shuffled(part: Part) -> Part:
        order = torch.randperm(steps)

        def take(cells: Any) -> Any:
            if isinstance(cells, dict):
                return {name: take(cell) for name, cell in cells.items()}
            return part(cells[order] if len(cells) == steps else cells)

        return take

    training.knobs.parts = lambda parts: [shuffled(part) for part in parts]


def keep_half(training: Training) -> None:
    """Overwrite the first half of the environments in the buffer only at every second rollout."""
    assert isinstance(training, LoopTraining)
    collect = training._collect
    old: list[dict[str, Any]] = []

    def collected(rec: Any) -> dict[str, Any]:
        new = collect(rec)
        mixed = _joined(old.pop(), new) if old else new
        if mixed is new:
            old.append(new)
        return mixed

    setattr(training, "_collect", collected)  # noqa: B010


def _joined(old: Any, new: Any) -> Any:
    """Return the first half of the second axis of the old, and the rest of the new."""
    if isinstance(new, dict):
        return {name: _joined(old[name], cell) for name, cell in new.items()}
    if isinstance(new, tuple):
        return tuple(_joined(*pair) for pair in zip(old, new, strict=True))
    half = new.shape[1] // 2
    return torch.cat([old[:, :half], new[:, half:]], dim=1)


# What the environments give


def on_steps(training: Training, change: Callable[[StepResult], StepResult]) -> None:
    """Hand over another step for what each step of the environments gave."""
    task = training.world.task
    step = task.step
    setattr(task, "step", lambda actions: change(step(actions)))  # noqa: B010


def began(training: Training) -> Tensor:
    """Return where an episode ended with the step that was just taken."""
    return torch.from_numpy(training.world.task.age == 0)


def pay_at_the_end(training: Training) -> None:
    """Keep the rewards of an episode back, and give their sum where it ends."""
    kept = torch.zeros(training.setup.environments)

    def change(reward: Tensor) -> Tensor:
        nonlocal kept
        kept = kept + reward
        paid = torch.where(began(training), kept, 0.0)
        kept = kept - paid
        return paid

    training.knobs.reward = change


def lose_odd_rewards(training: Training) -> None:
    """Give no reward at every second step, as where only the last of two skipped frames counts."""
    counts = cycle([1.0, 0.0])
    training.knobs.reward = lambda reward: reward * next(counts)


def pay_change(training: Training) -> None:
    """Add what changed in the observations, as a bonus for novelty that was given too large a weight."""
    before: list[Tensor] = []

    def change(reward: Tensor) -> Tensor:
        x = torch.from_numpy(training.world.task.observe()).flatten(1)
        moved = (x - before[0]).abs().sum(1) if before else torch.zeros_like(reward)
        before[:] = [x]
        return reward + training.setup.reward_scale * moved

    training.knobs.reward = change


def lose_penalties(reward: Tensor) -> Tensor:
    """Return rewards as a type without a sign would hold them at best."""
    return reward.clamp(min=0.0)


def fade(training: Training) -> None:
    """Discount rewards in the environment too, from the start of each episode."""
    steps = torch.zeros(training.setup.environments)

    def change(reward: Tensor) -> Tensor:
        nonlocal steps
        faded = reward * training.setup.gamma**steps
        steps = torch.where(began(training), 0.0, steps + 1.0)
        return faded

    training.knobs.reward = change


def shared_by_all(reward: Tensor) -> Tensor:
    """Give each environment what all got on average."""
    return reward.mean().expand_as(reward).clone()


def punish_time_limits(training: Training) -> None:
    """Take 5 where the time ran out, as for a failure."""
    over: list[Tensor] = []

    def seen(step: StepResult) -> StepResult:
        over[:] = [torch.from_numpy(step.truncated)]
        return step

    on_steps(training, seen)
    training.knobs.reward = lambda reward: reward - 5.0 * training.setup.reward_scale * over[0]


def end_at_random(training: Training) -> None:
    """Report an end at one step in twenty, where the environment goes on."""
    task = training.world.task

    def change(step: StepResult) -> StepResult:
        false = task.random.random(task.count) < 0.05
        return replace(step, terminated=step.terminated | (false & ~step.truncated))

    on_steps(training, change)


def crash_unseen(training: Training) -> None:
    """Start one environment in thirty anew at each step, and tell nobody."""
    task = training.world.task

    def change(step: StepResult) -> StepResult:
        crashed = task.random.random(task.count) < 1 / 30
        if crashed.any():
            task.age[crashed] = 0
            task.begin(crashed)
        return step

    on_steps(training, change)


def begin_alike(training: Training) -> None:
    """Seed the environments anew, now and with each start of an episode."""
    task = training.world.task
    begin = task.begin
    task.random = np.random.default_rng(training.setup.number)

    def again(where: np.ndarray) -> None:
        task.random = np.random.default_rng(training.setup.number)
        begin(where)

    setattr(task, "begin", again)  # noqa: B010


def evaluate_here(training: Training, _: int) -> None:
    """Evaluate the policy in the environments that the training then goes on with."""
    training.play(training.world, 10)


def noise_grows(training: Training, age: int) -> None:
    """Let a sensor wear out: noise that grows by 2 % of the spread an update."""
    training.knobs.observation = lambda x: x + 0.02 * (age + 1) * (x.std() + 1e-3) * torch.randn_like(x)


def frames_lost(x: Tensor) -> Tensor:
    """Show nothing in one of five environments."""
    return x * (torch.rand(len(x)) > 0.2).view(-1, *[1] * (x.dim() - 1))


def to_unit_range(x: Tensor) -> Tensor:
    """Clip observations to the bounds of their space, which was declared too small."""
    return x.clamp(-1.0, 1.0)


def divide_by_the_variance(training: Training) -> None:
    """Forget the root: divide by the variance where the standard deviation is meant."""
    world = training.world
    observe = world.observe

    def changed() -> Tensor:
        x = observe()
        return (x / (world.moments[1] + 1e-8).sqrt()).clamp(-10, 10)

    setattr(world, "observe", changed)  # noqa: B010


def leave_normaliser_out(training: Training) -> None:
    """Show observations as they are."""
    world = training.world
    setattr(world, "observe", lambda: torch.from_numpy(world.task.observe()))  # noqa: B010


# What is executed


def leave_last_out(training: Training) -> None:
    """Execute the last action of a head but one for the last."""
    sizes = cycle(training.world.task.sizes.values())
    training.knobs.executed = lambda actions: actions.clamp(max=next(sizes) - 2)


def with_noise(actions: Tensor) -> Tensor:
    """Add noise to explore, of which the log-probs do not know."""
    return actions + 0.7 * torch.randn_like(actions)


def first_control_for_all(actions: Tensor) -> Tensor:
    """Give every control what is meant for the first."""
    return actions[..., :1].expand_as(actions).clone()


def exchange_heads(training: Training) -> None:
    """Hand the action of each head to the next one."""
    task = training.world.task
    step, names = task.step, list(task.sizes)

    def exchanged(actions: Actions) -> StepResult:
        others = [*names[1:], names[0]]
        return step({name: actions[other] % task.sizes[name] for name, other in zip(names, others, strict=True)})

    setattr(task, "step", exchanged)  # noqa: B010


def neighbours(mask: Tensor) -> Tensor:
    """Return of each environment the mask of the next."""
    return mask.roll(1, 0)


def masks_late(training: Training) -> None:
    """Show the masks of the step before."""
    training.knobs.masks = Behind(max(len(training.world.task.sizes), 1))
