"""Faults, and changes that do no harm, that the second release held back: they are known since the third."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

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
    STALE,
    STEPS,
    STOPPED,
    Fault,
    Touch,
    by_hand,
    categorical,
    knob,
    once,
)  # fmt: skip
from tests.faultbench.training import Training


class _Delayed:
    """Hands over each reward one step late."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def __call__(self, reward: Tensor) -> Tensor:
        before = torch.zeros_like(reward) if self.last is None else self.last
        self.last = reward
        return before


class _Stuck:
    """Shows of the first half of the environments for ever what they showed first."""

    def __init__(self) -> None:
        self.first: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        half = len(x) // 2
        self.first = x[:half].clone() if self.first is None else self.first
        return torch.cat([self.first, x[half:]])


def _delay_rewards(training: Training) -> None:
    training.knobs.reward = _Delayed()


def _stick(training: Training) -> None:
    training.knobs.observation = _Stuck()


def _garbage(x: Tensor) -> Tensor:
    half = len(x) // 2
    return torch.cat([torch.randn_like(x[:half]), x[half:]])


def _deaf(x: Tensor) -> Tensor:
    changed = x.clone()
    changed[..., : (x.shape[-1] + 1) // 2] = 0.0
    return changed


def _of_another_environment(x: Tensor) -> Tensor:
    return x.roll(1, 0)


def _partly_another(actions: Tensor) -> Tensor:
    chosen = torch.rand(len(actions)) < 0.3
    others = actions[torch.randperm(len(actions))]
    return torch.where(chosen.view(-1, *[1] * (actions.dim() - 1)), others, actions)


def _accumulate(training: Training) -> None:
    setattr(training.optimizer, "zero_grad", lambda *_, **__: None)  # noqa: B010


def _decay(training: Training) -> None:
    for group in training.optimizer.param_groups:
        group["weight_decay"] = 1.0


def _stop_critic(training: Training) -> None:
    optimizer = training.optimizer
    critic = [one for name, one in training.network.named_parameters() if name.startswith("critic")]
    numbers = {id(one) for one in critic}
    actor = optimizer.param_groups[0]
    actor["params"] = [one for one in actor["params"] if id(one) not in numbers]
    optimizer.add_param_group({name: value for name, value in actor.items() if name != "params"} | {"params": critic})
    training.knobs.critic_rate = 0.0


def _drop_out(training: Training) -> None:
    def dropped(module: nn.Module, _: object, features: Tensor) -> Tensor:
        return nn.functional.dropout(features, 0.3, module.training)

    training.policy_body().register_forward_hook(dropped)


def _freeze_body(training: Training) -> None:
    for parameter in training.policy_body().parameters():
        parameter.requires_grad_(False)


def _plain_sgd(training: Training) -> None:
    rate = training.optimizer.param_groups[0]["lr"]
    training.replace_optimizer(torch.optim.SGD(training.network.parameters(), lr=rate))


FAULTS_2: dict[str, Fault] = {
    "gae_across_environments": Fault(knob(across_environments=True), (*RETURNS, *CRITIC), hard=True),
    "bootstrap_missing": Fault(knob(bootstrap=False), (*RETURNS, *CRITIC)),
    "advantages_absolute": Fault(
        knob(advantages=torch.abs), (*ADVANTAGES, "advantage_misaligned", *FALLEN), hard=True
    ),
    "log_prob_of_another_sample": Fault(knob(resample=True), STALE, hard=True, possible=by_hand),
    "observations_of_another_environment": Fault(
        knob(stored_observation=_of_another_environment), (*STALE, *OBSERVED), hard=True
    ),
    "next_observation_stored": Fault(knob(next_observation=True), STALE, hard=True),
    "gradients_accumulated": Fault(
        once(_accumulate), ("gradient_explosion", "gradient_drift", "clipping_always", "advantage_misaligned",
                            *STEPS, *FALLEN),
    ),
    "weight_decay_1": Fault(once(_decay), (*FALLEN, *CRITIC, "advantage_misaligned")),
    "critic_rate_0": Fault(once(_stop_critic), CRITIC, possible=by_hand),
    "policy_loss_sign": Fault(knob(policy=-1.0), ("advantage_misaligned", *LOSSES, *FALLEN), possible=by_hand),
    "reward_delayed": Fault(once(_delay_rewards), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "environments_stuck": Fault(once(_stick), (*FALLEN, *CRITIC, *OBSERVED)),
    "observations_half_garbage": Fault(knob(observation=_garbage), (*FALLEN, *CRITIC, *REPLACED, *OBSERVED)),
    "sensor_dead": Fault(knob(observation=_deaf), (*FALLEN, *CRITIC, *REPLACED, *OBSERVED)),
    "actions_partly_another": Fault(knob(executed=_partly_another), (*FALLEN, *CRITIC, *NO_SIGNAL)),
    "temperature_while_acting": Fault(
        knob(temperature=3.0), STALE, hard=True, possible=lambda setup: by_hand(setup) and categorical(setup)
    ),
    "dropout_in_update": Fault(once(_drop_out), STALE, hard=True),
    "body_frozen": Fault(once(_freeze_body), ("gradient_stopped", "gradient_missing"), hard=True),
    "plain_sgd": Fault(once(_plain_sgd), ("optimizer_restarted", *STOPPED)),
    "rollout_reused": Fault(knob(refill=False), (*STALE, *STEPS, *DETERMINISM), hard=True, possible=by_hand),
}  # fmt: skip


def _restart_rate(training: Training, age: int) -> None:
    """Double the learning rate and let it fall back over 20 updates, as a warm restart does."""
    training.knobs.rate = 1.0 + max(0.0, 1.0 - age / 20)


def _reseed(training: Training) -> None:
    training.world.task.random = np.random.default_rng(training.setup.number + 1000)


def _restore(training: Training) -> None:
    """Save network and optimizer, and load them again, bit for bit."""
    network, optimizer = training.network, training.optimizer
    network.load_state_dict(copy.deepcopy(network.state_dict()))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def _evaluate(training: Training, age: int) -> None:
    if age % 5 == 0:
        training.evaluate()


HARMLESS_2: dict[str, Touch] = {
    "rate_restarted_x2": _restart_rate,
    "environments_reseeded": once(_reseed),
    "checkpoint_restored": once(_restore),
    "evaluated_between": _evaluate,
    "target_kl_set": knob(target_kl=0.03),
}
