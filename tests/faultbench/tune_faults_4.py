"""Faults, and changes that do no harm, that the fourth release held back: they are known since the fifth."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

import tests.faultbench.tune_touches_4 as touches
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
from tests.faultbench.task import Task
from tests.faultbench.tasks import TASKS
from tests.faultbench.training import Training


def _real(setup: Setup) -> bool:
    return bool(TASKS[setup.task].make.dimensions)


def _masked(setup: Setup) -> bool:
    return TASKS[setup.task].make.masked


def _normalises(setup: Setup) -> bool:
    return setup.normalise_observations


def _different_discounts(setup: Setup) -> bool:
    return setup.gamma != setup.gae_lambda


def _below_0(setup: Setup) -> bool:
    """Return whether numbers below 0 are observed before any normalising."""
    return bool((TASKS[setup.task].make(8, 0).observe() < 0).any())


def _fractions(setup: Setup) -> bool:
    """Return whether most rewards, where there are some, are no integers."""
    task, random = TASKS[setup.task].make(8, 0), np.random.default_rng(0)
    rewards = setup.reward_scale * np.stack([task.step(_any_actions(task, random)).reward for _ in range(20)])
    return bool((rewards % 1 != 0).sum() > 0.5 * max((rewards != 0).sum(), 1))


def _any_actions(task: Task, random: np.random.Generator) -> dict[str, np.ndarray]:
    if task.dimensions:
        return {"move": random.normal(size=(task.count, task.dimensions))}
    return {name: (random.random(mask.shape) * mask).argmax(1) for name, mask in task.masks().items()}


def _long(setup: Setup) -> bool:
    return TASKS[setup.task].make.limit >= 8


def _remembers_by_hand(setup: Setup) -> bool:
    return by_hand(setup) and memory(setup)


def _several_minibatches(setup: Setup) -> bool:
    return by_hand(setup) and setup.minibatches > 1


def _one_sample_is_no_number(setup: Setup) -> bool:
    return by_hand(setup) and not setup.recurrent and setup.normalise_advantages


def _several_epochs(setup: Setup) -> bool:
    return setup.epochs >= 4


def _several_steps(setup: Setup) -> bool:
    return by_hand(setup) and setup.epochs * setup.minibatches > 1


MISALIGNED = ("advantage_misaligned",)
EXPLODED = ("gradient_explosion", "gradient_drift", "clipping_always")

FAULTS_4: dict[str, Fault] = {
    "gamma_and_lambda_swapped": Fault(
        knob(estimate=touches.swapped), (*RETURNS, *CRITIC, *FALLEN), possible=_different_discounts
    ),
    "sum_crosses_ends": Fault(knob(estimate=touches.sum_crosses_ends), (*RETURNS, *CRITIC, *FALLEN)),
    "next_value_crosses_ends": Fault(knob(estimate=touches.value_crosses_ends), (*RETURNS, *CRITIC, *FALLEN)),
    "last_step_without_advantage": Fault(knob(estimate=touches.one_step_short), (*RETURNS, *CRITIC)),
    "normalised_before_the_targets": Fault(knob(estimate=touches.normalised_first), (*RETURNS, *CRITIC)),
    "baseline_forgotten": Fault(
        once(touches.forget_baseline), (*ADVANTAGES, *MISALIGNED, *FALLEN, "advantage_outlier")
    ),
    "values_added_twice": Fault(once(touches.add_values_twice), (*RETURNS, *ADVANTAGES, *CRITIC)),
    "values_of_another_environment": Fault(
        knob(stored_values=touches.rolled), (*RETURNS, *CRITIC, *MISALIGNED, *FALLEN)
    ),
    "advantages_cut_to_integers": Fault(knob(advantages=torch.trunc), (*ADVANTAGES, *NO_SIGNAL, *STOPPED, *FALLEN)),
    "advantages_averaged_over_environments": Fault(
        knob(advantages=touches.averaged), (*ADVANTAGES, *MISALIGNED, *NO_SIGNAL, *FALLEN), hard=True
    ),
    "last_reward_lost": Fault(once(touches.lose_last_rewards), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "reward_standardised_by_step": Fault(knob(reward=touches.standardised), (*CRITIC, *FALLEN)),
    "rewards_cut_to_integers": Fault(knob(reward=torch.trunc), (*NO_SIGNAL, *CRITIC, *FALLEN), possible=_fractions),
    "time_costs_more_than_is_won": Fault(once(touches.time_costs), (*CRITIC, *FALLEN, *EXPLODED)),
    "an_action_is_paid": Fault(once(touches.pay_an_action), (*FALLEN, *CRITIC, *DETERMINISM), possible=categorical),
    "bytes_wrapped": Fault(
        knob(observation=touches.wrapped), (*OBSERVED, *FALLEN, *CRITIC, *REPLACED), possible=_below_0
    ),
    "sensor_slow": Fault(once(lambda training: setattr(training.knobs, "observation", touches.Slow())),
                         (*OBSERVED, *FALLEN, *CRITIC)),
    "sensor_offset": Fault(knob(observation=touches.shifted), (*OBSERVED, *FALLEN, *CRITIC, *REPLACED)),
    "end_shown_at_the_start": Fault(once(touches.show_ends), (*OBSERVED, *FALLEN, *CRITIC)),
    "observations_standardised_by_step": Fault(
        knob(observation=touches.standardised), (*OBSERVED, *FALLEN, *CRITIC, *REPLACED)
    ),
    "normaliser_forgets": Fault(touches.forget_moments, (*OBSERVED, *FALLEN, *CRITIC), possible=_normalises),
    "actions_sticky": Fault(once(touches.stick), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "controls_inverted": Fault(once(touches.invert), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "actions_times_10": Fault(knob(executed=touches.ten_times), (*FALLEN, *CRITIC), possible=_real),
    "acts_greedily": Fault(knob(greedy=True), (*NO_SIGNAL, *MISALIGNED, *DETERMINISM, *STEPS, *FALLEN)),
    "exploration_grows": Fault(touches.explore_more, (*REPLACED, *FALLEN, *CRITIC), hard=True, possible=_real),
    "probability_stored_for_its_log": Fault(
        knob(log_prob=torch.exp), (*STALE, *STEPS, *BAD_NUMBERS), hard=True
    ),
    "ratio_of_the_policy_to_itself": Fault(knob(own_ratio=True), (*STEPS, *DETERMINISM, *FALLEN, *STOPPED),
                                           possible=_several_steps),
    "clipped_around_0": Fault(
        knob(surrogate=touches.clipped_around_0), (*LOSSES, *MISALIGNED, *STEPS, *FALLEN), hard=True, possible=by_hand
    ),
    "ratio_detached": Fault(
        knob(surrogate=touches.ratio_detached),
        ("gradient_missing", "gradient_stopped", "gradient_vanishing", *MISALIGNED, *STOPPED), possible=by_hand
    ),
    "ratio_inverted": Fault(
        knob(surrogate=touches.ratio_inverted), (*LOSSES, *MISALIGNED, *FALLEN), possible=by_hand
    ),
    "value_loss_sign": Fault(
        knob(value=-1.0), (*SETTING, *CRITIC, *EXPLODED, *FALLEN), hard=True
    ),
    "memory_kept_at_ends": Fault(
        knob(keep_state=True), (*FALLEN, *CRITIC, "lstm_explosion", "lstm_saturation"), possible=_remembers_by_hand
    ),
    "memory_emptied_each_rollout": Fault(touches.forget_state, (*FALLEN, *CRITIC, "lstm_vanishing"), possible=memory),
    "state_stored_after_the_rollout": Fault(knob(late_state=True), STALE, hard=True, possible=_remembers_by_hand),
    "same_minibatch_for_ever": Fault(
        once(lambda training: setattr(training.knobs, "parts", touches.First())), (*MISALIGNED, *STEPS, *FALLEN),
        possible=_several_minibatches,
    ),
    "minibatch_of_one_sample": Fault(
        once(touches.one_more), BAD_NUMBERS, hard=True, possible=_one_sample_is_no_number
    ),
    "optimizer_maximises": Fault(once(touches.maximise), (*MISALIGNED, *CRITIC, *EXPLODED, *FALLEN)),
    "momentum_0999": Fault(once(touches.raise_momentum), (*FALLEN, *MISALIGNED, *STEPS, *CRITIC)),
    "actor_left_out_of_optimizer": Fault(once(touches.leave_actor_out), STOPPED, hard=True),
    "gradient_nan": Fault(once(touches.lose_gradient), BAD_NUMBERS, hard=True),
    "rate_goes_on_below_0": Fault(touches.rate_goes_on_below_0, (*SETTING, *MISALIGNED, *CRITIC, *FALLEN, *EXPLODED)),
    "target_kl_0": Fault(knob(target_kl=1e-7), (*SETTING, *STOPPED), possible=_several_epochs),
    "weights_kept_in_bfloat16": Fault(once(touches.keep_in_bfloat16), (*STOPPED, *FALLEN, *CRITIC)),
    "averaged_with_old_weights": Fault(touches.average_with_old, (*REPLACED, *FALLEN), hard=True),
    "noise_on_weights": Fault(touches.add_noise, (*REPLACED, *FALLEN, *CRITIC), hard=True),
    "half_of_the_units_pruned": Fault(once(touches.prune), (*REPLACED, *FALLEN, *CRITIC), hard=True),
    "actions_reordered_in_the_head": Fault(
        once(touches.reorder_actions), (*REPLACED, *FALLEN, *CRITIC), hard=True, possible=categorical
    ),
    "values_rescaled": Fault(once(touches.rescale_values), (*REPLACED, *CRITIC, *EXPLODED), hard=True),
    "restarted_each_rollout": Fault(touches.restart_all, ("episodes_stopped", *OBSERVED, *FALLEN, *CRITIC)),
    "episodes_cut_to_a_quarter": Fault(once(touches.shorten), (*FALLEN, *CRITIC, *OBSERVED), possible=_long),
    "seeded_again_each_rollout": Fault(touches.seed_again, (*FALLEN, *DETERMINISM, *STEPS)),
    "masks_inverted": Fault(
        knob(masks=touches.opposite), (*FALLEN, *CRITIC, *REPLACED, *NO_SIGNAL, "mask_collapse"), possible=_masked
    ),
    "masks_missing": Fault(knob(masks=torch.ones_like), (*FALLEN, *CRITIC, *REPLACED), possible=_masked),
    "acts_in_bfloat16": Fault(once(touches.act_in_bfloat16), STALE),
    "acts_with_old_weights": Fault(touches.act_with_old, (*STALE, *STEPS, *FALLEN), hard=True, possible=by_hand),
}  # fmt: skip


def _cosine(training: Training, age: int) -> None:
    """Lower the learning rate to a tenth along half a wave of 100 updates."""
    training.knobs.rate = 0.1 + 0.45 * (1.0 + math.cos(math.pi * min((age + 1) / 100, 1.0)))


def _narrow(training: Training, age: int) -> None:
    """Lower the clip range to a half within 5 updates."""
    training.knobs.clip = max(1.0 - (age + 1) / 10, 0.5)


def _on_groups(**values: object) -> Touch:
    def change(training: Training) -> None:
        for group in training.optimizer.param_groups:
            group.update(values)

    return once(change)


def _restart_some(training: Training) -> None:
    """Start half of the environments anew, so that they are no longer in step with the others."""
    training.restart(np.arange(training.setup.environments) % 2 == 0)


def _slipping(actions: Tensor) -> Tensor:
    """Execute of one in fifty environments what another chose, as a task is made a little less certain."""
    slips = torch.rand(len(actions)) < 0.02
    others = actions.roll(1, 0)
    return torch.where(slips.view(-1, *[1] * (actions.dim() - 1)), others, actions)


def _jittered(reward: Tensor) -> Tensor:
    return reward + 0.01 * torch.randn_like(reward)


HARMLESS_4: dict[str, Touch] = {
    "minibatches_halved": knob(minibatches=2),
    "rate_falls_as_a_cosine": _cosine,
    "clip_annealed_to_a_half": _narrow,
    "adam_betas_lowered": _on_groups(betas=(0.85, 0.99)),
    "weight_decay_small": _on_groups(weight_decay=1e-4),
    "value_coefficient_doubled": knob(value=2.0),
    "gradient_clip_halved": knob(grad_norm=0.5),
    "half_of_the_environments_restarted": once(_restart_some),
    "actions_slip_a_little": knob(executed=_slipping),
    "rewards_jittered": knob(reward=_jittered),
}
