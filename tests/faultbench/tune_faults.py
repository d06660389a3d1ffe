"""Faults, and changes that do no harm, on which the bounds of rules may be chosen."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tests.faultbench.fault import (
    ADVANTAGES,
    BAD_NUMBERS,
    CRITIC,
    DETERMINISM,
    FALLEN,
    FIT,
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
    several_heads,
)  # fmt: skip
from tests.faultbench.tasks import TASKS
from tests.faultbench.training import Training
from tests.faultbench.tune_faults_2 import FAULTS_2, HARMLESS_2
from tests.faultbench.tune_faults_3 import FAULTS_3, HARMLESS_3
from tests.faultbench.tune_faults_4 import FAULTS_4, HARMLESS_4


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


TUNE_FAULTS: dict[str, Fault] = {
    "learning_rate_x30": Fault(knob(rate=30.0), (*STEPS, *SETTING)),
    "learning_rate_0": Fault(knob(rate=0.0), (*STOPPED, *SETTING), hard=True),
    "step_forgotten": Fault(knob(step=False), STOPPED, hard=True, possible=by_hand),
    "entropy_sign": Fault(knob(entropy=-10.0), (*DETERMINISM, *SETTING)),
    "entropy_x100": Fault(knob(entropy=100.0), (*FALLEN, *SETTING)),
    "advantage_sign": Fault(knob(advantages=torch.neg), ("advantage_misaligned", *ADVANTAGES, *FALLEN)),
    "advantage_shuffled": Fault(knob(advantages=_shuffled), ("advantage_misaligned", *ADVANTAGES, *FALLEN)),
    "rewards_x1000_unnormalised": Fault(
        once(_rewards_x1000), ("value_divergence", "gradient_explosion", "gradient_drift", *CRITIC)
    ),
    "stale_log_probs": Fault(knob(log_prob=_jittered), STALE, hard=True),
    "log_probs_of_the_step_before": Fault(knob(log_prob=_previous), STALE, hard=True),
    "mask_mismatch": Fault(
        knob(masks_in_update=False), STALE, hard=True, possible=lambda setup: TASKS[setup.task].make.masked
    ),
    "ends_ignored": Fault(knob(ignore_ends=True), ("ends_ignored", *RETURNS, *CRITIC, *FALLEN, *STALE)),
    "gamma_above_1": Fault(
        knob(gamma=1.05), ("value_divergence", "gradient_explosion", "gradient_drift", *CRITIC, *SETTING, *RETURNS)
    ),
    "value_coefficient_x100": Fault(
        knob(value=100.0), ("gradient_explosion", "gradient_drift", "clipping_always", *FALLEN, *SETTING)
    ),
    "critic_detached": Fault(
        knob(detach_critic=True), ("gradient_missing", "gradient_stopped", "gradient_vanishing", *CRITIC), hard=True
    ),
    "head_detached": Fault(
        knob(detach_head="speed"), ("gradient_missing",), hard=True, possible=several_heads
    ),
    "nan_reward": Fault(knob(reward=_first_nan), BAD_NUMBERS, hard=True),
    "inf_observation_acting": Fault(knob(observation=_first_inf), (*BAD_NUMBERS, *OBSERVED), hard=True),
    "inf_observation_stored": Fault(
        knob(stored_observation=_first_inf), (*BAD_NUMBERS, *STALE, *OBSERVED), hard=True
    ),
    "weights_x10000": Fault(once(_scale_weights), (*DETERMINISM, *CRITIC, *REPLACED, "gradient_explosion")),
    "weights_reset": Fault(once(_reset), (*FALLEN, *CRITIC, *REPLACED, "gradient_drift")),
    "observation_drifts": Fault(_drifting, (*FALLEN, *CRITIC, *DETERMINISM, *OBSERVED)),
    "state_zeroed": Fault(knob(zero_state=True), STALE, hard=True, possible=memory),
    "clip_x50": Fault(knob(clip=50.0), (*STEPS, *SETTING)),
    "epochs_x10": Fault(
        knob(epochs=10), (*STEPS, *SETTING), possible=lambda setup: setup.epochs * setup.minibatches <= 6
    ),
    "reward_0": Fault(knob(reward=torch.zeros_like), NO_SIGNAL),
    "reward_sign": Fault(knob(reward=torch.neg), (*FALLEN, *FIT)),
    "reward_noise": Fault(knob(reward=_noise), (*FALLEN, *CRITIC)),
    "action_logged_shifted": Fault(knob(logged=_shifted), STALE, hard=True),
    "other_action_executed": Fault(knob(executed=_shuffled), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "clip_gone_rate_x10": Fault(once(_unclipped), (*STEPS, *FALLEN, *SETTING)),
    "dead_relus": Fault(
        once(_dead_relus), ("gradient_missing", "gradient_vanishing", *FALLEN, *CRITIC, *REPLACED),
        possible=lambda setup: setup.activation == "relu",
    ),
    "policy_bias_pushed": Fault(once(_push_bias), (*DETERMINISM, *REPLACED), possible=categorical),
    "environments_identical": Fault(knob(identical=True), ("environments_alike", *OBSERVED, *FALLEN, *CRITIC)),
    "value_target_shifted": Fault(knob(target_shift=1), (*RETURNS, *ADVANTAGES, *CRITIC)),
    "normaliser_reset": Fault(
        once(_forget_normaliser), (*FALLEN, *STEPS, *CRITIC, *REPLACED, *OBSERVED),
        possible=lambda setup: setup.normalise_observations,
    ),
    "moments_lost": Fault(once(_lose_moments), ("optimizer_restarted", *STEPS)),
    "float16_overflow": Fault(knob(half=True), BAD_NUMBERS, possible=by_hand),
} | FAULTS_2 | FAULTS_3 | FAULTS_4  # fmt: skip

TUNE_HARMLESS: dict[str, Touch] = (
    {
        "rate_halved": knob(rate=0.5),
        "entropy_bonus_taken": knob(entropy=0.0),
        "clip_halved": knob(clip=0.5),
        "epochs_doubled": knob(epochs=2),
        "observations_scaled_by_2": knob(observation=lambda x: 2.0 * x),
        "advantages_normalised": knob(normalise_advantages=True),
    }
    | HARMLESS_2
    | HARMLESS_3
    | HARMLESS_4
)
"""Changes that a training may well bear: where it does as well as its twin, an alarm on it is a false one."""
