"""Trainings of Stable-Baselines3 with one known fault each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from sample_runs.environments import HEADS
from tests.bench.zoo.healthy import Train, cartpole, maskable, pendulum
from tests.bench.zoo.label import ZooFault
from tests.bench.zoo.sb3 import Tell, Touch, change_rewards, learn

Change = Callable[[Any], None]
"""Touches a model, once, as the rollout of the update ``onset`` begins."""


def onset_of(seed: int) -> int:
    """Return another onset for every seed."""
    return 25 + 7 * seed


def faulty(
    make: Callable[..., Any], fault: Callable[[int], ZooFault], change: Change, updates: int = 80, **more: bool
) -> Train:
    """Return how to train a model and touch it from the fault's onset on."""

    def train(run_dir: Path, seed: int, tell: Tell) -> tuple[ZooFault, ...]:
        known, model = fault(onset_of(seed)), make(seed)
        touch = Touch(tell, known.onset, lambda: change(model))
        learn(model, run_dir, seed, updates, touch, _heads(model), **more)
        return (known,)

    return train


def _heads(model: Any) -> tuple[str, ...] | None:
    return HEADS if isinstance(model, MaskablePPO) else None


def called(name: str, *rules: str, hard: bool = False) -> Callable[[int], ZooFault]:
    """Return the fault as a function of its onset."""
    return lambda onset: ZooFault(name, onset, rules, hard)


def one_nan_reward(model: Any) -> None:
    """Make the next reward of the first environment NaN, and only that one."""
    left = iter([float("nan")])
    change_rewards(model, lambda reward: next(left, reward), first_only=True)


class ForgetfulBuffer(MaskableRolloutBuffer):
    """Hands the update masks in which everything is valid, once it ``forgets``."""

    forgets = False

    def _get_samples(self, batch_inds: Any, env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env)
        return samples._replace(action_masks=torch.ones_like(samples.action_masks)) if self.forgets else samples


def forgetful(seed: int) -> Any:
    """Return a model whose buffer may forget masks."""
    return maskable(seed, rollout_buffer_class=ForgetfulBuffer)


def forget_masks(model: Any) -> None:
    """Act under masks, update without them."""
    model.rollout_buffer.forgets = True


class FaultyFeatures(BaseFeaturesExtractor):
    """Observations as they are, until ``dropout`` is given a probability, or shifted and scaled by running statistics.

    The statistics move before each rollout as they should, or after it, before the update, once ``late`` is set.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, int(observation_space.shape[0]))
        self.dropout = nn.Dropout(0.0)
        self.register_buffer("mean", torch.zeros(self.features_dim))
        self.register_buffer("scale", torch.ones(self.features_dim))
        self.late = False

    def forward(self, observations: Tensor) -> Tensor:
        shown: Tensor = self.dropout((observations.float() - self.mean) / self.scale)
        return shown

    def follow(self, observations: Tensor) -> None:
        """Move the running statistics a twentieth towards those of a rollout."""
        self.mean += 0.05 * (observations.mean(0) - self.mean)
        self.scale += 0.05 * (observations.std(0).clamp(min=0.1) - self.scale)


def with_features(seed: int) -> Any:
    """Return PPO on CartPole behind ``FaultyFeatures``."""
    return cartpole(seed, policy_kwargs={"features_extractor_class": FaultyFeatures})


def drop_in_update(model: Any) -> None:
    """Let dropout be active in the update: SB3 acts in evaluation mode and updates in training mode."""
    model.policy.features_extractor.dropout.p = 0.1


class Normalising(Touch):
    """Moves the statistics of ``FaultyFeatures``: before each rollout, or once touched between rollout and update."""

    def _on_rollout_start(self) -> None:
        super()._on_rollout_start()
        if self.update > 0 and not self._features.late:
            self._features.follow(self._seen())

    def _on_rollout_end(self) -> None:
        if self._features.late:
            self._features.follow(self._seen())

    @property
    def _features(self) -> FaultyFeatures:
        found = self.model.policy.features_extractor
        assert isinstance(found, FaultyFeatures)
        return found

    def _seen(self) -> Tensor:
        assert isinstance(self.model, OnPolicyAlgorithm)
        observations = torch.as_tensor(self.model.rollout_buffer.observations)
        return observations.reshape(-1, observations.shape[-1])


def normalised_late(run_dir: Path, seed: int, tell: Tell) -> tuple[ZooFault, ...]:
    """Normalise observations by statistics that, from the onset on, move between rollout and update."""
    known, model = ZooFault("normalisation_moved", onset_of(seed), ("first_ratio",), hard=True), with_features(seed)

    def change() -> None:
        model.policy.features_extractor.late = True

    learn(model, run_dir, seed, 80, Normalising(tell, known.onset, change))
    return (known,)


def rate(factor: float) -> Change:
    """Return a change that multiplies the learning rate by ``factor`` from now on."""

    def change(model: Any) -> None:
        before = model.lr_schedule
        model.lr_schedule = lambda left: factor * before(left)

    return change


def steady(seed: int) -> Any:
    """Return PPO on CartPole whose learning rate does not fall: a falling one soon takes a leap back."""
    return cartpole(seed, learning_rate=1e-3, clip_range=0.2)


def collapsing(seed: int) -> Any:
    """Return MaskablePPO with nothing to hold an update back."""
    return maskable(seed, ent_coef=0.0, max_grad_norm=1e9, clip_range=1e9)


def leap_once(model: Any) -> None:
    """Learn at 0.3 for one update; within one, SB3 asks for the rate more than once and progress stands still."""
    before, asked = model.lr_schedule, []

    def schedule(left: float) -> float:
        asked.append(left)
        return 0.3 if left == asked[0] else float(before(left))

    model.lr_schedule = schedule


def rewards(change: Callable[[float], float]) -> Change:
    """Return a change of all rewards from now on."""
    return lambda model: change_rewards(model, change)


def entropy_bonus(coefficient: float) -> Change:
    """Return a change of the entropy bonus from now on."""

    def change(model: Any) -> None:
        model.ent_coef = coefficient

    return change


def untrained_critic(make: Callable[..., Any]) -> Train:
    """Return a training in which the value loss has the coefficient 0 from the start."""

    def train(run_dir: Path, seed: int, tell: Tell) -> tuple[ZooFault, ...]:
        model = make(seed, vf_coef=0.0)
        learn(model, run_dir, seed, 120, Touch(tell), _heads(model))
        return (ZooFault("critic_not_trained", 0, ("critic_constant", "value_collapse", "gradient_vanishing")),)

    return train


_NAN = called("nan_reward", "numerical_instability", "update_skipped", hard=True)
_RATE = called("learning_rate_x30", "kl_spike", "ratio_explosion", "ratio_collapse")
_COLLAPSE = called("one_update_collapse", "kl_spike", "ratio_explosion", "spike_then_silence", "entropy_collapse")
_SCALE = called(
    "reward_x1000", "value_divergence", "critic_constant", "value_collapse", "gradient_explosion", "gradient_drift"
)
_ENTROPY = called("entropy_bonus_negative", "entropy_collapse", "entropy_low", "head_entropy_collapse")
_STOP = called("learning_rate_0", "frozen_update", "update_skipped")
_CONSTANT = called("reward_constant", "advantage_collapse")

FAULTY_SB3: dict[str, Train] = {
    "nan-reward": faulty(maskable, _NAN, one_nan_reward, raises=True),
    "mask-mismatch": faulty(forgetful, called("mask_mismatch", "first_ratio", hard=True), forget_masks),
    "dropout": faulty(with_features, called("dropout_in_update", "first_ratio", hard=True), drop_in_update),
    "normalised-late": normalised_late,
    "rate-x30-cartpole": faulty(steady, _RATE, rate(30.0)),
    "rate-x30-maskable": faulty(maskable, _RATE, rate(30.0)),
    "one-update-collapse": faulty(collapsing, _COLLAPSE, leap_once),
    "critic-untrained-cartpole": untrained_critic(cartpole),
    "critic-untrained-maskable": untrained_critic(maskable),
    "reward-x1000-cartpole": faulty(cartpole, _SCALE, rewards(lambda reward: 1000.0 * reward)),
    "reward-x1000-pendulum": faulty(pendulum, _SCALE, rewards(lambda reward: 1000.0 * reward)),
    "entropy-negative-cartpole": faulty(steady, _ENTROPY, entropy_bonus(-0.5)),
    "entropy-negative-maskable": faulty(maskable, _ENTROPY, entropy_bonus(-0.5)),
    "rate-0-cartpole": faulty(cartpole, _STOP, rate(0.0)),
    "rate-0-maskable": faulty(maskable, _STOP, rate(0.0)),
    "reward-constant-maskable": faulty(maskable, _CONSTANT, rewards(lambda _: 0.0), 120),
    "reward-constant-pendulum": faulty(pendulum, _CONSTANT, rewards(lambda _: -4.0), 120),
}
