"""Faults, and changes that do no harm, that the third release held back: they are known since the fourth."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tests.faultbench.draw import Setup
from tests.faultbench.fault import (
    ADVANTAGES,
    BAD_NUMBERS,
    CRITIC,
    DETERMINISM,
    FALLEN,
    LOSSES,
    NO_SIGNAL,
    OBSERVED,
    REPLACED,
    RETURNS,
    SETTING,
    STALE,
    STEPS,
    STOPPED,
    Fault,
    Touch,
    by_hand,
    categorical,
    knob,
    memory,
    once,
)  # fmt: skip
from tests.faultbench.tasks import TASKS
from tests.faultbench.training import Training, gae


def _real(setup: Setup) -> bool:
    return bool(TASKS[setup.task].make.dimensions)


def _masked(setup: Setup) -> bool:
    return TASKS[setup.task].make.masked


def _fractions(setup: Setup) -> bool:
    """Return whether more is observed than 0 and 1."""
    x = TASKS[setup.task].make(8, 0).observe()
    return bool((x % 1 != 0).mean() > 0.3)


def _more_than_one_step(setup: Setup) -> bool:
    return by_hand(setup) and setup.epochs * setup.minibatches > 1


# Estimates of a rollout


def _ends_late(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Take for the end of a step that of the step before."""
    return gae(reward, value, end.roll(1, 0), last, gamma, gae_lambda)


def _always_ends(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    return gae(reward, value, torch.ones_like(end), last, gamma, gae_lambda)


def _forwards(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Go through the steps from the first to the last."""
    return gae(reward.flip(0), value.flip(0), end.flip(0), last, gamma, gae_lambda).flip(0)


def _undiscounted(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Forget the discount of the next value, as in ``reward + next_value - value``."""
    return gae(reward, value, end, last, 1.0, gamma * gae_lambda)


def _same_value(reward: Tensor, value: Tensor, end: Tensor, _: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Take for the next value that of the step itself."""
    running, advantages = torch.zeros_like(reward[0]), torch.zeros_like(reward)
    for t in reversed(range(len(reward))):
        alive = 1.0 - end[t]
        running = reward[t] + gamma * value[t] * alive - value[t] + gamma * gae_lambda * alive * running
        advantages[t] = running
    return advantages


def _standardised(returns: Tensor, _: Tensor) -> Tensor:
    return (returns - returns.mean()) / (returns.std() + 1e-8)


def _rewards_alone(_: Tensor, rewards: Tensor) -> Tensor:
    return rewards.clone()


def _transposed(cells: Tensor) -> Tensor:
    return cells.T.reshape(cells.shape)


def _positive(cells: Tensor) -> Tensor:
    return cells.clamp(min=0.0)


class _Before:
    """Hands over each time what came the time before; ``parts``: calls that belong together."""

    def __init__(self, parts: int = 1) -> None:
        self.waiting: list[Tensor] = []
        self.parts = parts

    def __call__(self, cells: Tensor) -> Tensor:
        self.waiting.append(cells.clone())
        return self.waiting.pop(0) if len(self.waiting) > self.parts else cells


def _late(name: str) -> Touch:
    def change(training: Training) -> None:
        parts = max(len(training.world.task.sizes), 1) if name == "executed" else 1
        setattr(training.knobs, name, _Before(parts))

    return once(change)


# Losses


def _broadcast(value: Tensor, returns: Tensor) -> Tensor:
    """Subtract every return from every value, as [N, 1] - [N] does."""
    return (value.flatten().unsqueeze(1) - returns.flatten()).square().mean()


def _log_ratio(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Forget to exponentiate."""
    log_ratio = ratio.log()
    return torch.min(log_ratio * advantages, log_ratio.clamp(1 - clip, 1 + clip) * advantages)


def _larger(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Take of both the larger."""
    return torch.max(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


# What is stored


class _Shared:
    """Stores every step in the same memory, so that all of a rollout are what came last."""

    def __init__(self) -> None:
        self.cells: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        self.cells = x.clone() if self.cells is None else self.cells
        return self.cells.copy_(x)


def _share(training: Training) -> None:
    training.knobs.stored_observation = _Shared()


def _over_255(x: Tensor) -> Tensor:
    return x / 255.0


def _clipped(actions: Tensor) -> Tensor:
    return actions.clamp(-0.5, 0.5)


def _impossible(log_prob: Tensor) -> Tensor:
    changed = log_prob.clone()
    changed[0, 0] = -torch.inf
    return changed


# What the environments give


def _spikes(reward: Tensor) -> Tensor:
    return torch.where(torch.rand_like(reward) < 0.02, 300.0, reward)


def _plus_100(reward: Tensor) -> Tensor:
    return reward + 100.0


def _neighbours(reward: Tensor) -> Tensor:
    return reward.roll(1, 0)


def _score(training: Training) -> None:
    """Hand over the score of the episode so far."""
    score = torch.zeros(training.setup.environments)

    def change(reward: Tensor) -> Tensor:
        nonlocal score
        total = score + reward
        score = torch.where(torch.from_numpy(training.world.task.age == 0), 0.0, total)
        return total

    training.knobs.reward = change


def _shrink(training: Training, age: int) -> None:
    training.knobs.reward = lambda reward: reward * 0.8**age


def _missing(x: Tensor) -> Tensor:
    """Show of a quarter of the environments a number that stands for no measurement."""
    changed = x.clone()
    changed.view(len(x), -1)[: max(len(x) // 4, 1), 0] = -9999.0
    return changed


def _reversed(x: Tensor) -> Tensor:
    return x.flip(-1)


def _first_alone(mask: Tensor) -> Tensor:
    return mask & (mask.cumsum(1) == 1)


# Parameters and optimizer


def _linears(training: Training) -> Iterator[nn.Linear]:
    yield from (one for one in training.network.modules() if isinstance(one, nn.Linear))


def _critic_head(training: Training) -> nn.Linear:
    heads = [one for name, one in training.network.named_modules() if name in ("critic", "value_net")]
    assert isinstance(heads[0], nn.Linear)
    return heads[0]


def _flip_bits(training: Training) -> None:
    """Flip a high bit of the exponent of one weight of each layer."""
    with torch.no_grad():
        for layer in _linears(training):
            weights = layer.weight.view(-1)
            weights[weights.abs().argmax()] *= 2.0**16


def _lose_weight(training: Training) -> None:
    with torch.no_grad():
        _critic_head(training).weight[0, 0] = torch.nan


def _reset_policy_heads(training: Training) -> None:
    for layer, _ in training.action_layers():
        layer.reset_parameters()


def _reset_critic_head(training: Training) -> None:
    _critic_head(training).reset_parameters()


def _stop_exploring(training: Training) -> None:
    with torch.no_grad():
        next(one for name, one in training.network.named_parameters() if name.endswith("log_std")).sub_(4.0)


_SAVED: WeakKeyDictionary[Training, dict[str, Tensor]] = WeakKeyDictionary()


def _load_again(training: Training, age: int) -> None:
    """Load at every second update what was saved at the onset."""
    if age == 0:
        _SAVED[training] = copy.deepcopy(training.network.state_dict())
    elif age % 2 == 0:
        training.network.load_state_dict(_SAVED[training])


def _step_a_copy(training: Training) -> None:
    """Leave the optimizer with the parameters of a network that was replaced."""
    for group in training.optimizer.param_groups:
        group["params"] = [nn.Parameter(one.detach().clone()) for one in group["params"]]


def _damp(training: Training) -> None:
    for group in training.optimizer.param_groups:
        group["eps"] = 1.0


def _normalise_batches(training: Training) -> None:
    mean, variance = torch.zeros(training.setup.hidden), torch.ones(training.setup.hidden)

    def normalised(module: nn.Module, _: object, features: Tensor) -> Tensor:
        return nn.functional.batch_norm(features, mean, variance, training=module.training)

    training.policy_body().register_forward_hook(normalised)


def _on_gradients(change: Callable[[Tensor], Tensor]) -> Touch:
    def hook(training: Training) -> None:
        for parameter in training.network.parameters():
            if parameter.requires_grad:
                parameter.register_hook(change)

    return once(hook)


def _noisy(gradient: Tensor) -> Tensor:
    return gradient + 5.0 * gradient.square().mean().sqrt() * torch.randn_like(gradient)


# Schedules


def _rate_grows(training: Training, age: int) -> None:
    training.knobs.rate = min(1.2**age, 1e3)


def _rate_decays(training: Training, age: int) -> None:
    training.knobs.rate = 0.5**age


def _entropy_grows(training: Training, age: int) -> None:
    training.knobs.entropy = min(1.25**age, 1e4)


FAULTS_3: dict[str, Fault] = {
    "ends_one_step_late": Fault(knob(estimate=_ends_late), (*RETURNS, "ends_ignored", *CRITIC, *FALLEN)),
    "every_step_an_end": Fault(knob(estimate=_always_ends), (*RETURNS, *CRITIC, *FALLEN)),
    "gae_forwards": Fault(knob(estimate=_forwards), (*RETURNS, *CRITIC, *FALLEN), hard=True),
    "next_value_undiscounted": Fault(knob(estimate=_undiscounted), (*RETURNS, *CRITIC, "value_divergence")),
    "next_value_of_the_step_itself": Fault(knob(estimate=_same_value), (*RETURNS, *CRITIC)),
    "value_targets_standardised": Fault(knob(targets=_standardised), (*RETURNS, *ADVANTAGES, *CRITIC)),
    "value_targets_are_rewards": Fault(knob(targets=_rewards_alone), (*RETURNS, *ADVANTAGES, *CRITIC)),
    "value_loss_broadcast": Fault(
        knob(value_loss=_broadcast), (*CRITIC, *LOSSES), possible=lambda setup: by_hand(setup) and not setup.recurrent
    ),
    "value_clip_0": Fault(knob(value_clip=1e-4), (*CRITIC, *SETTING, *LOSSES)),
    "value_coefficient_0": Fault(knob(value=0.0), (*SETTING, *CRITIC, "gradient_stopped", "gradient_missing")),
    "gamma_0": Fault(knob(gamma=0.0), (*SETTING, *RETURNS, *FALLEN)),
    "rate_grows": Fault(_rate_grows, (*STEPS, *SETTING, *FALLEN)),
    "rate_decays_in_a_few_updates": Fault(_rate_decays, (*STOPPED, *SETTING)),
    "entropy_bonus_grows": Fault(_entropy_grows, (*FALLEN, *SETTING)),
    "clip_0": Fault(knob(clip=1e-4), ("clip_saturation", *STOPPED, *SETTING)),
    "gradient_clip_0": Fault(
        knob(grad_norm=1e-7), (*STOPPED, "clipping_always", "gradient_vanishing", *SETTING)
    ),
    "adam_epsilon_1": Fault(once(_damp), STOPPED),
    "optimizer_of_a_copy": Fault(once(_step_a_copy), (*STOPPED, "optimizer_restarted"), hard=True),
    "checkpoint_loaded_again_and_again": Fault(_load_again, (*REPLACED, *STOPPED, *FALLEN)),
    "policy_heads_reset": Fault(once(_reset_policy_heads), (*REPLACED, *FALLEN, *STEPS), possible=categorical),
    "critic_head_reset": Fault(once(_reset_critic_head), (*CRITIC, *REPLACED)),
    "bits_flipped": Fault(
        once(_flip_bits), (*REPLACED, *CRITIC, *DETERMINISM, *FALLEN, "gradient_explosion", "gradient_drift")
    ),
    "nan_weight": Fault(once(_lose_weight), BAD_NUMBERS, hard=True),
    "log_prob_minus_infinity": Fault(
        knob(log_prob=_impossible), (*BAD_NUMBERS, *STALE, "ratio_explosion"), hard=True
    ),
    "batch_norm_in_update": Fault(once(_normalise_batches), STALE, hard=True),
    "gradients_noisy": Fault(
        _on_gradients(_noisy),
        ("advantage_misaligned", "gradient_explosion", "gradient_drift", "clipping_always", *FALLEN),
    ),
    "buffer_shares_memory": Fault(once(_share), (*STALE, *OBSERVED), hard=True),
    "scaled_in_update_only": Fault(knob(stored_observation=_over_255), (*STALE, *OBSERVED), hard=True),
    "actions_stored_clipped": Fault(knob(logged=_clipped), STALE, hard=True, possible=_real),
    "starts_forgotten_in_update": Fault(knob(stored_starts=torch.zeros_like), STALE, hard=True, possible=memory),
    "advantages_transposed": Fault(
        knob(advantages=_transposed), (*ADVANTAGES, "advantage_misaligned", *FALLEN), hard=True
    ),
    "advantages_of_the_rollout_before": Fault(
        _late("advantages"), (*ADVANTAGES, "advantage_misaligned", *FALLEN)
    ),
    "advantages_positive_only": Fault(
        knob(advantages=_positive), (*ADVANTAGES, "advantage_misaligned", *FALLEN), hard=True
    ),
    "exponential_forgotten": Fault(
        knob(surrogate=_log_ratio), ("advantage_misaligned", *LOSSES, *FALLEN, *STEPS), possible=_more_than_one_step
    ),
    "larger_of_both_surrogates": Fault(
        knob(surrogate=_larger), (*STEPS, *LOSSES, *DETERMINISM, *FALLEN), possible=_more_than_one_step
    ),
    "reward_spikes": Fault(
        knob(reward=_spikes), ("advantage_outlier", "gradient_explosion", "gradient_drift", *CRITIC, *FALLEN)
    ),
    "reward_plus_100": Fault(
        knob(reward=_plus_100), ("gradient_explosion", "gradient_drift", "clipping_always", *CRITIC, *FALLEN)
    ),
    "reward_is_the_score_so_far": Fault(once(_score), (*CRITIC, *FALLEN)),
    "reward_of_another_environment": Fault(knob(reward=_neighbours), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "reward_shrinks": Fault(_shrink, (*NO_SIGNAL, *CRITIC)),
    "observations_one_step_late": Fault(_late("observation"), (*FALLEN, *CRITIC, *OBSERVED)),
    "observations_cut_to_integers": Fault(
        knob(observation=torch.trunc), (*FALLEN, *CRITIC, *REPLACED, *OBSERVED), possible=_fractions
    ),
    "features_reordered": Fault(knob(observation=_reversed), (*FALLEN, *CRITIC, *REPLACED, *OBSERVED)),
    "missing_values_observed": Fault(
        knob(observation=_missing),
        (
            *FALLEN, *CRITIC, *REPLACED, *OBSERVED, *DETERMINISM, "gradient_explosion", "gradient_drift",
            "lstm_saturation",
        ),
    ),
    "actions_one_step_late": Fault(_late("executed"), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "masks_leave_one": Fault(
        knob(masks=_first_alone), ("mask_collapse", *FALLEN, *DETERMINISM, *REPLACED), possible=_masked
    ),
    "exploration_gone": Fault(once(_stop_exploring), (*DETERMINISM, *REPLACED, *STEPS, *FALLEN), possible=_real),
}  # fmt: skip


def _rounded(log_prob: Tensor) -> Tensor:
    return log_prob.half().float()


def _shorter(reward: Tensor, value: Tensor, end: Tensor, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    return gae(reward, value, end, last, gamma, gae_lambda - 0.1)


def _lower_discount(training: Training) -> None:
    training.knobs.gamma = training.setup.gamma - 0.02


def _warm_up(training: Training, age: int) -> None:
    training.knobs.rate = min((age + 1) / 20, 1.0)


def _jittered(x: Tensor) -> Tensor:
    return x + 0.02 * torch.randn_like(x)


def _anneal(training: Training, age: int) -> None:
    training.knobs.entropy = max(1.0 - (age + 1) / 30, 0.0)


HARMLESS_3: dict[str, Touch] = {
    "log_probs_stored_in_half": knob(log_prob=_rounded),
    "gradients_summed_over_4": _on_gradients(lambda gradient: 4.0 * gradient),
    "lambda_lowered": knob(estimate=_shorter),
    "discount_lowered": once(_lower_discount),
    "rate_warmed_up": _warm_up,
    "observations_jittered": knob(observation=_jittered),
    "entropy_bonus_annealed": _anneal,
}
