"""For every rule, runs that are sound, then ill: which fault begins when, and what the rule is to say of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tests.recorder.inline import store_of
from tests.recorder.sick_loop import FaultyLoop, Rollout, unlike

Stage = Callable[[FaultyLoop], None]
RUN, INFO, WARNING, CRITICAL = "run", "info", "warning", "critical"


@dataclass(frozen=True)
class Drive:
    """A run that is sound until its first fault.

    Of ``sound`` and ``faults`` (by update) the latest one reached is applied before every update's collection.
    ``says`` maps (subject, metric) to every verdict worse than ok that the rule is to announce, by update. Where a rule
    looks at a level of its own only now and then, faults begin so that looking twice as often would not tell it sooner.
    """

    faults: Mapping[int, Stage]
    says: Mapping[tuple[str, str], Mapping[int, str]]
    sound: Mapping[int, Stage] = field(default_factory=dict)
    loop: Mapping[str, Any] = field(default_factory=dict)
    recorder: Mapping[str, Any] = field(default_factory=dict)

    @property
    def begins(self) -> int:
        """The first update that is not sound."""
        return min(self.faults)

    @property
    def verdicts(self) -> set[str]:
        """What the rule is to say, at some time."""
        return {verdict for said in self.says.values() for verdict in said.values()}

    def record(self, run_dir: Path) -> None:
        """Record the run, up to the update after the last thing the rule is to say: there the level has changed."""
        loop, stages = FaultyLoop(**self.loop), {**self.sound, **self.faults}
        with loop.recorder(run_dir, **self.recorder):
            for number in range(max(update for said in self.says.values() for update in said) + 2):
                reached = [start for start in stages if start <= number]
                if reached:
                    stages[max(reached)](loop)
                loop.update(number)


def have(**symptoms: Any) -> Stage:
    """Set fields of the loop."""

    def stage(loop: FaultyLoop) -> None:
        for name, value in symptoms.items():
            assert hasattr(loop, name)
            setattr(loop, name, value)

    return stage


def prefer(**heads: Sequence[float]) -> Stage:
    return lambda loop: loop.prefer(**heads)


def leap(*op: float, after: int = 1) -> Stage:
    """Let one optimizer step move the logits of ``op`` by so much."""
    return have(leap={"op": op}, leap_after=after)


def gates(gate: float, *candidate: float) -> Stage:
    return lambda loop: loop.set_gates(gate, candidate)


def miss(size: float) -> Stage:
    """Let the critic be off by ``size`` deviations of the returns: explained variance 1 − size², nrmse 1.04 size."""

    def spoil(rollout: Rollout) -> None:
        error = unlike(rollout.returns, torch.Generator().manual_seed(0))
        rollout.values = rollout.returns - size * rollout.returns.std(correction=0) * error

    return have(spoil=spoil)


def shrink(share: float) -> Stage:
    """Leave only a share of the advantages."""

    def spoil(rollout: Rollout) -> None:
        rollout.values = rollout.returns - share * rollout.advantages

    return have(spoil=spoil)


def say_the_mean(rollout: Rollout) -> None:
    rollout.values = torch.full_like(rollout.values, rollout.returns.mean().item())


def say_far_off(rollout: Rollout) -> None:
    far = rollout.returns.mean() + 3 * rollout.returns.std(correction=0)
    rollout.values = torch.full_like(rollout.values, far.item())


def one_reward(size: float) -> Stage:
    """Let one return be off by ``size`` deviations of all."""

    def spoil(rollout: Rollout) -> None:
        rollout.returns[0] += size * rollout.returns.std(correction=0)

    return have(spoil=spoil)


def write_to_critic(loop: FaultyLoop) -> None:
    loop.net.critic.bias.data.add_(0.1)


def partly_infinite(x: torch.Tensor) -> torch.Tensor:
    seen = x.clone()
    seen[0, 0] = math.inf
    return seen


def halved(free: torch.Tensor, clipped: torch.Tensor) -> torch.Tensor:
    return 0.5 * torch.min(free, clipped)


def stale_log_probs(rollout: Rollout) -> None:
    rollout.old["op"] = rollout.old["op"] + 1e-3


def forgotten_masks(rollout: Rollout) -> None:
    rollout.masks = {name: torch.ones_like(mask) for name, mask in rollout.masks.items()}


def broken_state(number: float) -> Stage:
    def spoil(rollout: Rollout) -> None:
        assert rollout.state is not None
        rollout.state = (rollout.state[0] * number, rollout.state[1])

    return have(spoil=spoil)


def of_the_next_step(rollout: Rollout) -> None:
    rollout.returns = rollout.returns.roll(2)


def beyond_ends(share: float) -> Stage:
    """Let the returns of a share of the ends look beyond them."""

    def spoil(rollout: Rollout) -> None:
        places = rollout.ends.nonzero().squeeze(1)
        rollout.returns[places[: round(share * len(places))]] += 1.0

    return have(spoil=spoil)


def without_ends(rollout: Rollout) -> None:
    rollout.ends = torch.zeros_like(rollout.ends)


def reward_nothing(rollout: Rollout) -> None:
    rollout.rewards = torch.zeros_like(rollout.rewards)


def one_environment(rollout: Rollout) -> None:
    rollout.values = rollout.values.reshape(-1, 2)[:, :1].expand(-1, 2).reshape(-1).clone()


def learn_at(rate: float) -> Stage:
    """Give every group of the optimizer this learning rate."""

    def stage(loop: FaultyLoop) -> None:
        loop.optimizer.param_groups[0]["lr"] = rate

    return stage


def leave_critic_out(loop: FaultyLoop) -> None:
    """Take the critic's parameters from the optimizer."""
    critic = {id(parameter) for parameter in loop.net.critic.parameters()}
    group = loop.optimizer.param_groups[0]
    group["params"] = [parameter for parameter in group["params"] if id(parameter) not in critic]


def refuse_writing(loop: FaultyLoop) -> None:
    """Let the store try to write what waits, on a full disk, with room for little in memory."""
    full = OSError(28, "No space left on device")
    with (
        patch("esper_analyze.storage.shard_file.write_whole", side_effect=full),
        patch("recorder.store.store.MAX_WAITING_ROWS", 50),
    ):
        store_of(loop.rec).flush()


RECURRENT: Mapping[str, Any] = {"recurrent": True}
UNMASKED: Mapping[str, Any] = {"masked": False}

POLICY: dict[str, tuple[Drive, ...]] = {
    "setting_changed": (
        Drive(
            {3: learn_at(5e-4), 5: learn_at(2e-2)},
            {(RUN, "learning_rate"): {3: INFO, 5: WARNING}},
        ),
        Drive({3: have(entropy_coef=-0.01)}, {(RUN, "entropy_coef"): {3: WARNING}}),
    ),
    "policy_replaced": (
        Drive(
            {10: prefer(op=(6, 0, 0, 0), slot=(4, -4))},
            {(RUN, "entropy"): {10: WARNING}},
            loop=UNMASKED,
        ),
    ),
    "optimizer_restarted": (
        Drive({5: FaultyLoop.begin_optimizer}, {(RUN, "optimizer_state_lost"): {5: WARNING, 11: INFO}}),
    ),
    "parameters_changed": (
        Drive({5: write_to_critic}, {(RUN, "parameter_shift_between_updates"): {5: WARNING, 11: INFO}}),
    ),
    "observations_changed": (
        Drive({14: have(watched=lambda x: 5.0 * x)}, {(RUN, "observation_shift"): {14: INFO, 15: WARNING}}),
        Drive({5: have(watched=partly_infinite)}, {(RUN, "observation_nonfinite_fraction"): {5: CRITICAL}}),
        Drive({0: have(watched=partly_infinite)}, {(RUN, "observation_nonfinite_fraction"): {0: INFO}}),
    ),
    "losses_inconsistent": (
        Drive({5: have(surrogate=halved)}, {(RUN, "policy_loss_error"): {5: INFO, 6: WARNING}}),
        Drive({0: have(surrogate=halved)}, {(RUN, "policy_loss_error"): {0: INFO}}),
        Drive({5: have(value_factor=3.0)}, {(RUN, "value_loss_factor"): {5: WARNING}}),
    ),
    "ends_ignored": (Drive({5: have(spoil=without_ends)}, {(RUN, "rollout_ends"): {6: CRITICAL}}),),
    "returns_inconsistent": (
        Drive({5: have(spoil=of_the_next_step)}, {(RUN, "return_residual"): {5: CRITICAL}}),
        Drive({5: have(discount=0.8)}, {(RUN, "return_gamma"): {5: CRITICAL}}),
        Drive({0: have(discount=0.8)}, {(RUN, "return_gamma"): {0: INFO}}),
        Drive({5: beyond_ends(1.0)}, {(RUN, "ends_continued_fraction"): {5: WARNING}}),
        Drive({5: beyond_ends(0.5), 6: beyond_ends(1.0)}, {(RUN, "ends_continued_fraction"): {6: INFO}}),
    ),
    "advantage_inconsistent": (
        Drive({0: have(policy_sign=-1.0)}, {(RUN, "minibatch_advantage_consistency"): {0: WARNING}}),
        Drive({5: have(policy_sign=-1.0)}, {(RUN, "minibatch_advantage_consistency"): {5: CRITICAL}}),
    ),
    "environments_alike": (
        Drive({0: have(spoil=one_environment)}, {(RUN, "environments_distinct"): {0: INFO, 2: WARNING}}),
        Drive({5: have(spoil=one_environment)}, {(RUN, "environments_distinct"): {5: WARNING}}),
    ),
    "episodes_stopped": (
        Drive({15: have(episodes=0)}, {(RUN, "episodes_finished"): {24: WARNING}}),
        Drive({5: have(episode_length=9), 7: have(episodes=0)}, {(RUN, "episodes_finished"): {16: INFO}}),
    ),
    "first_ratio": (
        Drive(
            {3: have(spoil=stale_log_probs), 5: have(spoil=forgotten_masks)},
            {(RUN, "first_ratio_error"): {3: WARNING, 5: CRITICAL}},
        ),
    ),
    "kl_spike": (
        Drive({3: leap(1.5, 0, 0, 0), 5: leap(4, 0, 0, 0)}, {(RUN, "kl_k3"): {3: INFO, 4: WARNING, 5: CRITICAL}}),
        Drive(
            {3: leap(0.8, 0, 0, 0)},
            {(RUN, "kl_k3"): {5: WARNING}},
            loop={"target_kl": 0.01},
        ),
    ),
    "spike_then_silence": (
        Drive(
            {3: have(leap={"op": (60, 0, 0, 0), "slot": (60, 0)}, stays=True), 4: have(leap={})},
            {(RUN, "kl_k3"): {5: CRITICAL}},
        ),
    ),
    "frozen_update": (
        Drive(
            {3: learn_at(0.0), 6: have(loss_scale=1e25)},
            {(RUN, "kl_k3"): {5: WARNING}, (RUN, "grad_norm_post_clip_max"): {6: CRITICAL}},
        ),
    ),
    "entropy_low": (
        Drive({3: prefer(op=(4, 0, 0, 0), slot=(1.6, -1.6))}, {(RUN, "entropy_norm"): {3: INFO}}, loop=UNMASKED),
    ),
    "entropy_collapse": (
        Drive(
            {3: prefer(op=(5.5, 0, 0, 0), slot=(2.5, -2.5)), 5: prefer(op=(9, 0, 0, 0), slot=(5, -5))},
            {(RUN, "entropy_norm"): {3: WARNING, 5: CRITICAL}},
            loop=UNMASKED,
        ),
        Drive(
            {36: prefer(op=(5.5, 0, 0, 0), slot=(2.5, -2.5))},
            {(RUN, "entropy_norm"): {36: INFO}},
            loop={"masked": False, "episode_growth": 5.0},
        ),
    ),
    "entropy_rises": (
        Drive(
            {8: prefer(op=(0, 0, 0, 0), slot=(0, 0))},
            {(RUN, "entropy"): {17: WARNING}},
            sound={0: prefer(op=(2.5, 0, 0, 0), slot=(1.5, -1.5))},
            loop=UNMASKED,
        ),
    ),
    "entropy_stuck": (
        Drive(
            {3: prefer(op=(0, 0, 0, 0), slot=(0, 0))},
            {(RUN, "entropy_norm"): {22: WARNING}},
            sound={0: prefer(op=(1, 0, 0, 0), slot=(0.5, -0.5))},
            loop={"masked": False, "limits": [("entropy_stuck", "sustained", 20)]},
        ),
    ),
    "eval_apart": (
        Drive(
            {20: have(eval_growth=0.0)},
            {(RUN, "eval_return_mean"): {22: WARNING}},
            loop={"episode_growth": 5.0, "eval_return": 100.0, "eval_growth": 5.0},
        ),
    ),
    "head_entropy_collapse": (
        Drive({3: prefer(slot=(4, -4))}, {("slot", "entropy_norm"): {5: WARNING, 22: CRITICAL}}),
        Drive(
            {36: prefer(slot=(4, -4))},
            {("slot", "entropy_norm"): {38: INFO}},
            loop={"episode_growth": 5.0},
        ),
    ),
    "std_nonpositive": (Drive({3: have(std=0.0)}, {("slot", "std_min"): {3: CRITICAL}}, loop={"std": 1.0}),),
    "std_runaway": (
        Drive({22: have(std_growth=1.1)}, {("slot", "std_mean"): {29: WARNING, 38: CRITICAL}}, loop={"std": 1.0}),
    ),
    "std_collapse": (
        Drive({5: have(std_growth=0.7)}, {("slot", "std_mean"): {13: WARNING, 15: CRITICAL}}, loop={"std": 1.0}),
        Drive(
            {5: have(std_growth=0.93)},
            {("slot", "std_mean"): {38: INFO}},
            loop={"std": 1.0, "episode_growth": 5.0},
        ),
    ),
    "mask_collapse": (Drive({3: have(single=("slot",))}, {("slot", "learnable_fraction"): {3: INFO}}),),
    "ratio_explosion": (
        Drive(
            {3: leap(0, 0, 0, 2.1), 5: leap(0, 0, 0, 5)},
            {(RUN, "ratio_max"): {3: INFO, 4: WARNING, 5: CRITICAL}},
            sound={0: prefer(op=(0, 0, 0, -4))},
            loop={"masked": False, "forced": {"op": 3}},
        ),
    ),
    "ratio_collapse": (
        Drive(
            {3: leap(-3.2, 0, 0, 0), 5: leap(-10, 0, 0, 0)},
            {(RUN, "ratio_min"): {3: INFO, 4: WARNING, 5: CRITICAL}},
            loop={"masked": False, "forced": {"op": 0}},
        ),
    ),
    "clip_saturation": (
        Drive(
            {3: leap(1.5, 0, 0, 0, after=2), 6: leap(1.5, 0, 0, 0, after=1)},
            {(RUN, "clip_fraction"): {5: WARNING, 8: CRITICAL}},
            loop=UNMASKED,
        ),
        Drive({3: leap(0.74, 0, 0, 0)}, {(RUN, "clip_fraction"): {5: INFO}}, loop=UNMASKED),
    ),
}

VALUE: dict[str, tuple[Drive, ...]] = {
    "advantage_collapse": (
        Drive({10: shrink(0.02), 15: shrink(0.0)}, {(RUN, "advantage_std"): {14: INFO, 19: CRITICAL}}),
        Drive({25: shrink(0.02)}, {(RUN, "advantage_std"): {29: INFO}}, loop={"episode_growth": 5.0}),
        Drive({12: have(spoil=reward_nothing)}, {(RUN, "reward_max"): {16: WARNING}}),
    ),
    "advantage_misaligned": (
        Drive({10: have(policy_sign=-1.0)}, {(RUN, "advantage_alignment"): {16: INFO, 18: WARNING, 27: CRITICAL}}),
    ),
    "advantage_outlier": (
        Drive(
            {3: one_reward(20.0), 4: one_reward(1e5)},
            {(RUN, "advantage_max"): {3: INFO, 4: WARNING}},
            loop={"samples": 4000},
        ),
    ),
    "critic_constant": (
        Drive({3: have(spoil=say_the_mean)}, {(RUN, "explained_variance"): {22: INFO}}),
        Drive({3: have(spoil=say_far_off)}, {(RUN, "explained_variance"): {22: WARNING, 102: CRITICAL}}),
    ),
    "critic_not_learning": (
        Drive({10: miss(1.0), 72: miss(2.0)}, {(RUN, "explained_variance"): {59: INFO, 149: WARNING}}),
    ),
    "value_fit_lost": (
        Drive({20: miss(2.0)}, {(RUN, "value_return_correlation"): {22: WARNING}}, sound={0: miss(0.5)}),
        Drive(
            {20: miss(2.0)},
            {(RUN, "value_return_correlation"): {22: INFO}},
            sound={0: miss(0.5)},
            loop={"episode_growth": 5.0},
        ),
    ),
    "value_collapse": (
        Drive(
            {50: miss(1.03), 70: miss(1.2), 90: miss(1.6)},
            {(RUN, "explained_variance"): {69: INFO, 89: WARNING, 109: CRITICAL}},
            recorder={"total_updates": 110},  # mid-training: explained variance is to be above 0
        ),
    ),
    "value_divergence": (
        Drive(
            {22: miss(20.0), 25: miss(400.0)},
            {(RUN, metric): {24: WARNING, 27: CRITICAL} for metric in ("value_nrmse", "bellman_error")},
        ),
    ),
    "performance_degradation": (
        Drive(
            {45: have(episode_return=85.0), 65: have(episode_return=50.0), 90: have(episode_return=5.0)},
            {
                (RUN, "episode_return_mean"): {51: INFO, 67: WARNING, 95: CRITICAL},
            },
        ),
    ),
}

GRADIENTS: dict[str, tuple[Drive, ...]] = {
    "numerical_instability": (Drive({3: one_reward(math.nan)}, {(RUN, "nonfinite_sources"): {3: CRITICAL}}),),
    "gradient_missing": (
        Drive(
            {3: have(weights={"slot": 0.0}), 5: have(detached=("slot",))},
            {("slot", "grad_state"): {3: WARNING, 5: CRITICAL}},
        ),
    ),
    "gradient_stopped": (
        Drive({3: have(critic_detached=True)}, {("critic", "tensors_without_grad"): {3: CRITICAL}}),
        Drive({0: have(critic_detached=True)}, {("critic", "tensors_without_grad"): {0: INFO}}),
        Drive({3: leave_critic_out}, {("critic", "update_ratio"): {4: WARNING}}, recorder={"overhead_budget": None}),
    ),
    "gradient_explosion": (
        Drive(
            {22: have(loss_scale=1000.0), 25: have(loss_scale=10000.0)},
            {(group, "grad_norm"): {22: INFO, 24: WARNING, 27: CRITICAL} for group in ("critic", "all")},
        ),
    ),
    "gradient_vanishing": (
        Drive(
            {10: have(weights={"slot": 0.0}), 13: have(loss_scale=1e-9)},
            {("all", "vanishing_severity"): {14: WARNING, 15: CRITICAL}, ("all", "grad_norm"): {15: INFO}},
        ),
    ),
    "gradient_drift": (
        Drive(
            {15: have(loss_scale=2.2)},
            {(group, "grad_norm"): {17: INFO} for group in ("critic", "shared", "all")},
            loop={"same_data": True},
        ),
    ),
    "clipping_always": (
        Drive(
            {10: have(max_norm=1e-3), 30: have(loss_scale=300.0), 72: have(loss_scale=3e4)},
            {(RUN, "clip_active_fraction"): {29: INFO, 60: WARNING, 100: CRITICAL}},
            loop={"same_data": True},
        ),
    ),
}

REST: dict[str, tuple[Drive, ...]] = {
    "data_lost": (Drive({3: refuse_writing, 4: have()}, {(RUN, "dropped_rows"): {3: WARNING}}),),
    "update_skipped": (
        Drive({3: one_reward(math.nan)}, {(RUN, "status"): {3: WARNING, 5: CRITICAL}}, loop={"guard": True}),
    ),
    "lstm_nonfinite": (
        Drive(
            {3: broken_state(math.nan), 4: broken_state(math.inf)},
            {("rollout", "has_nan"): {3: CRITICAL}, ("rollout", "has_inf"): {4: CRITICAL}},
            loop=RECURRENT,
        ),
    ),
    "lstm_explosion": (
        Drive(
            {12: gates(50, *[0.469] * 4), 15: gates(50, *[50] * 4)},  # cells of 7, then 16, after sixteen steps
            {(phase, "c_rms"): {12: INFO, 14: WARNING, 17: CRITICAL} for phase in ("rollout", "update")},
            loop={**RECURRENT, "limits": [("lstm_explosion", "warning", 5.0), ("lstm_explosion", "critical", 10.0)]},
        ),
    ),
    "lstm_vanishing": (
        Drive(
            {3: gates(0, *[2e-5] * 4), 5: gates(0, *[1e-8] * 4)},
            {("rollout", metric): {3: WARNING, 5: CRITICAL} for metric in ("h_rms", "c_rms")},
            loop=RECURRENT,
        ),
    ),
    "lstm_saturation": (
        Drive(
            {3: gates(50, 50, 50, 50, 0), 5: gates(50, *[50] * 4)},
            {("rollout", "h_saturation"): {3: INFO}, ("update", "forget_saturation"): {3: INFO}},
            loop=RECURRENT,
        ),
    ),
}

DRIVES = POLICY | VALUE | GRADIENTS | REST
