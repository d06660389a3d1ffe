"""Faults, and changes that do no harm, held back: nobody who writes rules looks at one of them before a release.

Which rules name a fault was written down from what the rules mean, before any of them had judged one.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

import tests.faultbench.held_parts as parts
import tests.faultbench.held_touches as touches
from tests.faultbench.draw import Setup
from tests.faultbench.fault import (
    ADVANTAGES,
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
    several_heads,
)  # fmt: skip
from tests.faultbench.tasks import TASKS


def _real(setup: Setup) -> bool:
    return bool(TASKS[setup.task].make.dimensions)


def _several_controls(setup: Setup) -> bool:
    return TASKS[setup.task].make.dimensions > 1


def _heads_to_exchange(setup: Setup) -> bool:
    return len(TASKS[setup.task].make.sizes) > 1


def _masked(setup: Setup) -> bool:
    return TASKS[setup.task].make.masked


def _normalises(setup: Setup) -> bool:
    return setup.normalise_observations


@cache
def _by_chance(name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return rewards and observations by random actions, and the share of episodes that the time limit ended."""
    task, random = TASKS[name].make(8, 0), np.random.default_rng(0)
    rewards, observed, ended, truncated = [], [], 0, 0
    for _ in range(task.limit + 20):
        observed.append(task.observe())
        if task.dimensions:
            step = task.step({"move": random.normal(size=(8, task.dimensions))})
        else:
            step = task.step({head: (random.random(m.shape) * m).argmax(1) for head, m in task.masks().items()})
        rewards.append(step.reward)
        truncated += int(step.truncated.sum())
        ended += int((step.truncated | step.terminated).sum())
    return np.stack(rewards), np.stack(observed), truncated / ended


def _out_of_time(setup: Setup) -> bool:
    """Return whether the time limit ends some episodes, and something else others."""
    return 0.02 < _by_chance(setup.task)[2] < 0.98


def _penalties(setup: Setup) -> bool:
    return bool((_by_chance(setup.task)[0] < 0).mean() > 0.02)


def _of_many_sizes(setup: Setup) -> bool:
    """Return whether rewards, where there are some, are of more than two sizes."""
    rewards = _by_chance(setup.task)[0]
    return len(np.unique(np.abs(rewards[rewards != 0]).round(3))) > 2


def _beyond_1(setup: Setup) -> bool:
    return bool((np.abs(_by_chance(setup.task)[1]) > 1).mean() > 0.05)


def _large_returns(setup: Setup) -> bool:
    known = TASKS[setup.task]
    return max(abs(known.by_chance), abs(known.good)) * setup.reward_scale > 3


def _remembers_by_hand(setup: Setup) -> bool:
    return by_hand(setup) and memory(setup)


def _several_minibatches(setup: Setup) -> bool:
    return by_hand(setup) and setup.minibatches > 1


def _several_steps(setup: Setup) -> bool:
    return by_hand(setup) and setup.epochs * setup.minibatches > 1


def _two_bodies(setup: Setup) -> bool:
    return not setup.shared and not setup.recurrent


MISALIGNED = ("advantage_misaligned",)
EXPLODED = ("gradient_explosion", "gradient_drift", "clipping_always")
LOST = ("gradient_missing", "gradient_stopped", "gradient_vanishing")
FORGETS = ("lstm_vanishing",)

HELD_FAULTS: dict[str, Fault] = {
    # Estimates
    "last_value_stale": Fault(knob(estimate=touches.last_value_stale), (*RETURNS, *CRITIC)),
    "discounted_twice": Fault(knob(estimate=touches.discounted_twice), (*RETURNS, *CRITIC, *FALLEN)),
    "estimates_left_backwards": Fault(
        knob(estimate=touches.left_backwards), (*RETURNS, *MISALIGNED, *CRITIC, *FALLEN), hard=True
    ),
    "ends_inverted": Fault(
        knob(estimate=touches.ends_inverted), (*RETURNS, "ends_ignored", *CRITIC, *FALLEN), hard=True
    ),
    "advantages_subtracted_from_values": Fault(
        once(touches.subtract_advantages), (*RETURNS, *ADVANTAGES, *CRITIC, "value_divergence"), hard=True
    ),
    "values_of_the_rollout_before": Fault(
        once(touches.keep_old_values), (*RETURNS, *CRITIC, *MISALIGNED, *FALLEN)
    ),
    "values_in_another_unit": Fault(knob(stored_values=touches.tenth), (*RETURNS, *CRITIC, *FALLEN)),
    "value_targets_clipped": Fault(
        knob(targets=touches.targets_clipped), (*RETURNS, *ADVANTAGES, *CRITIC), possible=_large_returns
    ),
    "advantages_normalised_by_environment": Fault(
        knob(advantages=touches.by_environment), (*ADVANTAGES, *MISALIGNED, *FALLEN)
    ),
    "advantages_are_signs": Fault(knob(advantages=torch.sign), (*ADVANTAGES, *MISALIGNED, *FALLEN)),
    "log_probs_clamped": Fault(knob(log_prob=touches.log_probs_clamped), (*STALE, *STEPS)),
    # Losses and minibatches
    "policy_loss_summed": Fault(
        knob(surrogate=touches.summed), (*LOSSES, *EXPLODED, *CRITIC, *FALLEN), hard=True, possible=by_hand
    ),
    "clipped_surrogate_alone": Fault(
        knob(surrogate=touches.clipped_alone), (*LOSSES, *MISALIGNED, *STEPS, *FALLEN), possible=_several_steps
    ),
    "square_forgotten": Fault(
        knob(value_loss=touches.square_forgotten), (*LOSSES, *CRITIC, *EXPLODED), hard=True, possible=by_hand
    ),
    "ratio_of_the_heads_averaged": Fault(
        knob(joined=lambda moves: moves.mean(0)), (*LOSSES, *STEPS, *FALLEN), possible=several_heads
    ),
    "half_of_the_minibatches_left_out": Fault(
        knob(parts=touches.first_half), (*SETTING, *FALLEN), possible=_several_minibatches
    ),
    "sequences_shuffled_in_time": Fault(
        once(touches.shuffle_in_time), STALE, hard=True, possible=_remembers_by_hand
    ),
    "half_of_the_rollout_is_old": Fault(once(touches.keep_half), (*STALE, *STEPS, *FALLEN), possible=by_hand),
    # Rewards
    "rewards_paid_at_the_end_only": Fault(once(touches.pay_at_the_end), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "every_second_reward_lost": Fault(once(touches.lose_odd_rewards), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "change_is_paid": Fault(once(touches.pay_change), (*FALLEN, *CRITIC, *EXPLODED)),
    "penalties_lost": Fault(knob(reward=touches.lose_penalties), (*FALLEN, *CRITIC, *NO_SIGNAL), possible=_penalties),
    "rewards_cut_to_signs": Fault(knob(reward=torch.sign), (*FALLEN, *CRITIC, *NO_SIGNAL), possible=_of_many_sizes),
    "rewards_fade_with_the_episode": Fault(once(touches.fade), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "reward_shared_by_all_environments": Fault(
        knob(reward=touches.shared_by_all), (*FALLEN, *CRITIC, *NO_SIGNAL, *MISALIGNED)
    ),
    "time_limits_punished": Fault(
        once(touches.punish_time_limits), (*CRITIC, *FALLEN, *EXPLODED, "advantage_outlier"), possible=_out_of_time
    ),
    # Observations
    "noise_grows_on_observations": Fault(touches.noise_grows, (*OBSERVED, *FALLEN, *CRITIC)),
    "frames_lost": Fault(knob(observation=touches.frames_lost), (*OBSERVED, *FALLEN, *CRITIC)),
    "observations_clipped_to_1": Fault(
        knob(observation=touches.to_unit_range), (*OBSERVED, *FALLEN, *CRITIC), possible=_beyond_1
    ),
    "divided_by_the_variance": Fault(
        once(touches.divide_by_the_variance), (*OBSERVED, *FALLEN, *CRITIC, *REPLACED), possible=_normalises
    ),
    "normaliser_left_out": Fault(
        once(touches.leave_normaliser_out), (*OBSERVED, *FALLEN, *CRITIC, *REPLACED), possible=_normalises
    ),
    # Actions and masks
    "last_action_out_of_reach": Fault(
        once(touches.leave_last_out), (*FALLEN, *CRITIC, *NO_SIGNAL), possible=categorical
    ),
    "actions_squashed": Fault(knob(executed=torch.tanh), (*FALLEN, *CRITIC), possible=_real),
    "noise_added_to_actions": Fault(knob(executed=touches.with_noise), (*FALLEN, *CRITIC, *NO_SIGNAL), possible=_real),
    "one_control_moves_all": Fault(
        knob(executed=touches.first_control_for_all), (*FALLEN, *CRITIC), possible=_several_controls
    ),
    "heads_exchanged": Fault(
        once(touches.exchange_heads), (*FALLEN, *CRITIC, *NO_SIGNAL), possible=_heads_to_exchange
    ),
    "masks_of_another_environment": Fault(
        knob(masks=touches.neighbours), (*FALLEN, *CRITIC, *REPLACED), possible=_masked
    ),
    "masks_one_step_late": Fault(once(touches.masks_late), (*FALLEN, *CRITIC, *REPLACED), possible=_masked),
    # Environments
    "ends_reported_where_none_is": Fault(once(touches.end_at_random), (*FALLEN, *CRITIC, *OBSERVED)),
    "environments_crash_unseen": Fault(once(touches.crash_unseen), (*FALLEN, *CRITIC, *OBSERVED)),
    "every_episode_begins_alike": Fault(
        once(touches.begin_alike), ("environments_alike", *OBSERVED, *FALLEN, *DETERMINISM)
    ),
    "evaluated_in_the_training_s_environments": Fault(
        touches.evaluate_here, (*STALE, *OBSERVED, *FALLEN, *CRITIC)
    ),
    # A memory
    "memory_of_another_environment": Fault(parts.exchange_states, (*FALLEN, *CRITIC), possible=memory),
    "forget_gate_closed": Fault(
        once(parts.close_forget_gate), (*REPLACED, *FORGETS, *FALLEN, *CRITIC), hard=True, possible=memory
    ),
    "gradient_through_time_stopped": Fault(
        once(parts.stop_gradient_in_time), (*LOST, *FORGETS, *FALLEN), possible=_remembers_by_hand
    ),
    # Network
    "activations_lost": Fault(once(parts.lose_activations), (*REPLACED, *FALLEN, *CRITIC)),
    "weights_quantised": Fault(once(parts.quantise), (*REPLACED, *FALLEN, *CRITIC), hard=True),
    "bodies_exchanged": Fault(
        once(parts.exchange_bodies), (*REPLACED, *FALLEN, *CRITIC), hard=True, possible=_two_bodies
    ),
    "biases_lost": Fault(once(parts.lose_biases), (*REPLACED, *FALLEN, *CRITIC), hard=True),
    "logits_squashed": Fault(
        once(parts.squash_logits), (*REPLACED, *FALLEN, *LOST), possible=categorical
    ),
    "values_squashed": Fault(
        once(parts.squash_values), (*CRITIC, *LOST, *FALLEN), possible=_large_returns
    ),
    "policy_gradient_stopped_at_the_heads": Fault(
        once(parts.stop_at_heads), (*LOST, *MISALIGNED, *FALLEN), possible=categorical
    ),
    "spread_not_learnt": Fault(once(parts.fix_spread), LOST, possible=_real),
    # Optimizer and schedules
    "gradients_one_step_old": Fault(
        once(lambda training: parts.on_gradients(training, touches.Behind)), (*MISALIGNED, *STEPS, *FALLEN)
    ),
    "gradients_sent_in_few_bits": Fault(
        once(lambda training: parts.on_gradients(training, lambda: parts.few_levels)),
        (*MISALIGNED, *STOPPED, *FALLEN),
    ),
    "critic_rate_x100": Fault(once(parts.hurry_critic), (*CRITIC, *EXPLODED, *FALLEN), possible=by_hand),
    "optimizer_stepped_twice": Fault(once(parts.step_twice), (*STEPS, *FALLEN)),
    "moments_of_other_weights": Fault(once(parts.mix_moments), ("optimizer_restarted", *STEPS, *FALLEN)),
    "weights_kept_small": Fault(once(parts.clamp_weights), (*REPLACED, *FALLEN, *CRITIC)),
    "rate_spikes": Fault(parts.rate_spikes, (*SETTING, *STEPS, *FALLEN)),
    "entropy_bonus_falls_below_0": Fault(parts.entropy_falls_below_0, (*SETTING, *DETERMINISM, *FALLEN)),
}  # fmt: skip
"""Kinds that were not there while rules were written; all others are drawn in the held half as well."""

HELD_HARMLESS: dict[str, Touch] = {
    "estimates_in_half": knob(estimate=touches.estimates_in_half),
    "outliers_of_advantages_clipped": knob(advantages=touches.outliers_clipped),
    "rewards_times_08": knob(reward=lambda reward: 0.8 * reward),
    "entropy_bonus_doubled": knob(entropy=2.0),
    "checkpoint_in_half": once(parts.round_to_half),
    "moments_kept_in_bfloat16": parts.moments_in_bfloat16,
    "gradients_jittered": once(lambda training: parts.on_gradients(training, lambda: parts.a_little_noise)),
    "rate_wobbles": parts.rate_wobbles,
    "epochs_alternate": parts.epochs_alternate,
}
"""Harmless changes that were not there while rules were written."""
