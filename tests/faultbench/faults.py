"""The faults of the bench: each turns one knob, or touches the parts of a training once, at its onset.

``rules``: those whose finding names the cause, any of them.
A fault is ``hard`` where the update itself shows it beyond doubt: it must then be found in the very update.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.faultbench.draw import Setup
from tests.faultbench.tasks import TASKS
from tests.faultbench.training import Training

Touch = Callable[[Training, int], None]
"""Called with the fault's age, 0 at its onset, as each update begins."""


@dataclass(frozen=True)
class Fault:
    """One kind: what it does, what names it, and which trainings can have it."""

    touch: Touch
    rules: tuple[str, ...]
    hard: bool = False
    possible: Callable[[Setup], bool] = lambda _: True


def once(change: Callable[[Training], None]) -> Touch:
    """Return a fault that touches the training at its onset only."""

    def touch(training: Training, age: int) -> None:
        if age == 0:
            change(training)

    return touch


def knob(**values: object) -> Touch:
    """Return a fault that turns knobs at its onset."""

    def change(training: Training) -> None:
        for name, value in values.items():
            if not hasattr(training.knobs, name):
                raise AttributeError(name)
            setattr(training.knobs, name, value)

    return once(change)


def _linears(training: Training) -> Iterator[nn.Linear]:
    yield from (one for one in training.network.modules() if isinstance(one, nn.Linear))


def _scale_weights(training: Training) -> None:
    with torch.no_grad():
        for layer in _linears(training):
            layer.weight.mul_(1e4)


def _reset(training: Training) -> None:
    for module in training.network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.RNNBase):
            module.reset_parameters()


def _dead_relus(training: Training) -> None:
    with torch.no_grad():
        for layer in training.policy_body().modules():
            if isinstance(layer, nn.Linear):
                layer.bias.sub_(100.0)


def _push_bias(training: Training) -> None:
    with torch.no_grad():
        for layer, sizes in training.action_layers():
            firsts = [sum(sizes[:place]) for place in range(len(sizes))]
            layer.bias[firsts] += 12.0


def _lose_moments(training: Training) -> None:
    """Start the optimizer anew, at the step count it had: its first steps are then up to 1/(1 − β₁) too large."""
    old = training.optimizer
    steps = {parameter: copy.deepcopy(state["step"]) for parameter, state in old.state.items()}
    new = torch.optim.Adam(training.network.parameters(), lr=old.param_groups[0]["lr"], eps=1e-5)
    for parameter, step in steps.items():
        zeros = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        new.state[parameter] = {"step": step, **zeros}
    training.replace_optimizer(new)


def _forget_normaliser(training: Training) -> None:
    training.world.moments = (torch.zeros(()), torch.ones(()), 1e-4)


def _first_nan(reward: Tensor) -> Tensor:
    changed = reward.clone()
    changed[0] = torch.nan
    return changed


def _first_inf(x: Tensor) -> Tensor:
    changed = x.clone()
    changed.view(len(x), -1)[0, 0] = torch.inf
    return changed


def _drifting(training: Training, age: int) -> None:
    training.knobs.observation = lambda x: x * 1.08**age


def _noise(reward: Tensor) -> Tensor:
    return torch.randn_like(reward) * reward.std().clamp(min=0.1)


def _shuffled(cells: Tensor) -> Tensor:
    return cells.flatten()[torch.randperm(cells.numel())].view_as(cells)


def _previous(cells: Tensor) -> Tensor:
    return cells.roll(1, 0)


def _shifted(actions: Tensor) -> Tensor:
    return actions.roll(1, 0)


def _jittered(log_prob: Tensor) -> Tensor:
    return log_prob - 0.3 * torch.rand_like(log_prob)


def _rewards_x1000(training: Training) -> None:
    training.knobs.reward = lambda reward: 1000.0 * reward
    training.knobs.normalise_advantages = False


def _unclipped(training: Training) -> None:
    training.knobs.clip_gradients, training.knobs.rate = False, 10.0


def _memory(setup: Setup) -> bool:
    return bool(setup.recurrent)


def _categorical(setup: Setup) -> bool:
    return bool(TASKS[setup.task].make.sizes)


def _by_hand(setup: Setup) -> bool:
    return setup.algorithm == "loop"


def _several_heads(setup: Setup) -> bool:
    return _by_hand(setup) and len(TASKS[setup.task].make.sizes) > 1


_STEPS = ("kl_spike", "ratio_explosion", "ratio_collapse", "clip_saturation")
_BAD_NUMBERS = ("numerical_instability", "update_skipped", "lstm_nonfinite", "gradient_explosion")
_STALE = ("first_ratio",)
_CRITIC = ("critic_constant", "critic_not_learning", "value_collapse", "value_divergence", "gradient_vanishing")
_STOPPED = ("frozen_update", "update_skipped")
_DETERMINISM = ("entropy_collapse", "entropy_low", "head_entropy_collapse")
_FALLEN = ("performance_degradation",)
_NO_SIGNAL = ("advantage_collapse",)
_SETTING = ("setting_changed",)
_REPLACED = ("policy_replaced",)

FAULTS: dict[str, Fault] = {
    "learning_rate_x30": Fault(knob(rate=30.0), (*_STEPS, *_SETTING)),
    "learning_rate_0": Fault(knob(rate=0.0), (*_STOPPED, *_SETTING), hard=True),
    "step_forgotten": Fault(knob(step=False), _STOPPED, hard=True, possible=_by_hand),
    "entropy_sign": Fault(knob(entropy=-10.0), (*_DETERMINISM, *_SETTING)),
    "entropy_x100": Fault(knob(entropy=100.0), (*_FALLEN, *_SETTING)),
    "advantage_sign": Fault(knob(advantages=torch.neg), ("advantage_misaligned", *_FALLEN)),
    "advantage_shuffled": Fault(knob(advantages=_shuffled), ("advantage_misaligned", *_FALLEN)),
    "rewards_x1000_unnormalised": Fault(
        once(_rewards_x1000), ("value_divergence", "gradient_explosion", "gradient_drift", *_CRITIC)
    ),
    "stale_log_probs": Fault(knob(log_prob=_jittered), _STALE, hard=True),
    "log_probs_of_the_step_before": Fault(knob(log_prob=_previous), _STALE, hard=True),
    "mask_mismatch": Fault(
        knob(masks_in_update=False), _STALE, hard=True, possible=lambda setup: TASKS[setup.task].make.masked
    ),
    "ends_ignored": Fault(knob(ignore_ends=True), (*_CRITIC, *_FALLEN, *_STALE)),
    "gamma_above_1": Fault(knob(gamma=1.05), ("value_divergence", "gradient_explosion", "gradient_drift", *_CRITIC)),
    "value_coefficient_x100": Fault(
        knob(value=100.0), ("gradient_explosion", "gradient_drift", "clipping_always", *_FALLEN)
    ),
    "critic_detached": Fault(
        knob(detach_critic=True), ("gradient_missing", "gradient_stopped", "gradient_vanishing", *_CRITIC), hard=True
    ),
    "head_detached": Fault(
        knob(detach_head="speed"), ("gradient_missing",), hard=True, possible=_several_heads
    ),
    "nan_reward": Fault(knob(reward=_first_nan), _BAD_NUMBERS, hard=True),
    "inf_observation_acting": Fault(knob(observation=_first_inf), _BAD_NUMBERS, hard=True),
    "inf_observation_stored": Fault(knob(stored_observation=_first_inf), (*_BAD_NUMBERS, *_STALE), hard=True),
    "weights_x10000": Fault(once(_scale_weights), (*_DETERMINISM, *_CRITIC, *_REPLACED, "gradient_explosion")),
    "weights_reset": Fault(once(_reset), (*_FALLEN, *_CRITIC, *_REPLACED, "gradient_drift")),
    "observation_drifts": Fault(_drifting, (*_FALLEN, *_CRITIC, *_DETERMINISM)),
    "state_zeroed": Fault(knob(zero_state=True), _STALE, hard=True, possible=_memory),
    "clip_x50": Fault(knob(clip=50.0), (*_STEPS, *_SETTING)),
    "epochs_x10": Fault(knob(epochs=10), _STEPS),
    "reward_0": Fault(knob(reward=torch.zeros_like), _NO_SIGNAL),
    "reward_sign": Fault(knob(reward=torch.neg), _FALLEN),
    "reward_noise": Fault(knob(reward=_noise), (*_FALLEN, *_CRITIC)),
    "action_logged_shifted": Fault(knob(logged=_shifted), _STALE, hard=True),
    "other_action_executed": Fault(knob(executed=_shuffled), (*_FALLEN, *_CRITIC, *_NO_SIGNAL)),
    "clip_gone_rate_x10": Fault(once(_unclipped), (*_STEPS, *_FALLEN, *_SETTING)),
    "dead_relus": Fault(
        once(_dead_relus), ("gradient_missing", "gradient_vanishing", *_FALLEN, *_CRITIC, *_REPLACED),
        possible=lambda setup: setup.activation == "relu",
    ),
    "policy_bias_pushed": Fault(once(_push_bias), (*_DETERMINISM, *_REPLACED), possible=_categorical),
    "environments_identical": Fault(knob(identical=True), (*_FALLEN, *_CRITIC)),
    "value_target_shifted": Fault(knob(target_shift=1), _CRITIC),
    "normaliser_reset": Fault(
        once(_forget_normaliser), (*_FALLEN, *_STEPS, *_CRITIC, *_REPLACED),
        possible=lambda setup: setup.normalise_observations,
    ),
    "moments_lost": Fault(once(_lose_moments), _STEPS),
    "float16_overflow": Fault(knob(half=True), _BAD_NUMBERS, possible=_by_hand),
}  # fmt: skip

HARMLESS: dict[str, Touch] = {
    "rate_halved": knob(rate=0.5),
    "entropy_bonus_taken": knob(entropy=0.0),
    "clip_halved": knob(clip=0.5),
    "epochs_doubled": knob(epochs=2),
    "observations_scaled_by_2": knob(observation=lambda x: 2.0 * x),
    "advantages_normalised": knob(normalise_advantages=True),
}
"""Changes that a training may well bear: where it does as well as its twin, an alarm on it is a false one."""

KINDS_BY_SPLIT = {"tune": tuple(sorted(FAULTS))[::2], "held": tuple(sorted(FAULTS))[1::2]}
"""Half of the kinds each, alternately by name: bounds are chosen on the first half alone."""
