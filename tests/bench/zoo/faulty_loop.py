"""Trainings of the hand-written loop with one known fault each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sample_runs.lstm_loop import SIZES, Agent, Yards
from tests.bench.zoo.healthy import Train
from tests.bench.zoo.label import ZooFault
from tests.bench.zoo.loop import ZooTraining
from tests.bench.zoo.sb3 import Tell

UPDATES = 80
COLLAPSED = 0.95
"""Share of one action among those of a head that had a choice, from which on it counts as collapsed."""


def onset_of(seed: int) -> int:
    """Return another onset for every seed."""
    return 25 + 7 * seed


def faulty(
    fault: ZooFault,
    touch: Callable[[ZooTraining, int], None],
    make: Callable[[int], ZooTraining] = ZooTraining,
    updates: int = UPDATES,
    *,
    raises: bool = False,
) -> Train:
    """Return how to train the loop; ``touch`` is called before each update from the onset on, with its age."""

    def train(run_dir: Path, seed: int, tell: Tell) -> tuple[ZooFault, ...]:
        training, known = make(seed), replace(fault, onset=onset_of(seed))

        def before(update: int) -> None:
            if update >= known.onset:
                touch(training, update - known.onset)

        try:
            training.run(run_dir, updates, tell, before)
        except ValueError:
            if not raises:
                raise
        return (known,)

    return train


class CutAgent(Agent):
    """The agent with a head or a critic that may be cut off from the loss."""

    detached: str | None = None
    without_critic = False

    def forward(self, x: Tensor, starts: Tensor, masks: dict[str, Tensor], state: tuple[Tensor, Tensor]) -> Any:
        logits, value, after = super().forward(x, starts, masks, state)
        if self.detached is not None:
            logits[self.detached] = logits[self.detached].detach()
        return logits, value.detach() if self.without_critic else value, after


def breakable(seed: int) -> ZooTraining:
    """Return the loop with an agent whose heads may be cut off."""
    torch.manual_seed(seed)
    return ZooTraining(seed, agent=CutAgent())


def detach_head(training: ZooTraining, _: int) -> None:
    """Cut one head off from the loss; which one follows from the seed."""
    training.agent.detached = ("op", "style", "tempo")[training.seed % 3]  # type: ignore[assignment]


class Payment(Yards):
    """The yards, with rewards that may be replaced."""

    change: Callable[[Tensor], Tensor] | None = None

    def step(self, actions: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[tuple[int, float]]]:
        reward, done, finished = super().step(actions)
        return (reward if self.change is None else self.change(reward)), done, finished


def paid(seed: int) -> ZooTraining:
    """Return the loop with rewards that may be replaced."""
    return ZooTraining(seed, yards=Payment(seed))


def one_nan(training: ZooTraining, age: int) -> None:
    """Make one reward of the rollout NaN."""
    left = [1] * (age == 0)

    def change(reward: Tensor) -> Tensor:
        if left:
            left.pop()
            reward[0] = float("nan")
        return reward

    training.yards.change = change  # type: ignore[attr-defined]


def constant(training: ZooTraining, _: int) -> None:
    """Pay the same for everything."""
    training.yards.change = lambda reward: torch.full_like(reward, 0.6)  # type: ignore[attr-defined]


def overflow(training: ZooTraining, age: int) -> None:
    """Multiply every gradient by 1e30, as a loss that large would: its norm overflows and the clip scale is 0."""
    for parameter in training.agent.parameters() if age == 0 else ():
        parameter.register_hook(lambda grad: 1e30 * grad)


def stop(training: ZooTraining, _: int) -> None:
    """Forget to call the optimizer's step."""
    training.optimizer.step = lambda *_: None  # type: ignore[method-assign]


def grow(training: ZooTraining, _: int) -> None:
    """Push the gates of the LSTM open and its weights up, more with every update."""
    lstm = training.agent.lstm
    hidden = lstm.hidden_size
    with torch.no_grad():
        lstm.get_parameter("bias_hh_l0")[: 2 * hidden] += 0.5
        for name in ("weight_hh_l0", "weight_ih_l0"):
            lstm.get_parameter(name)[2 * hidden : 3 * hidden] *= 1.3


def untrained_critic(run_dir: Path, seed: int, tell: Tell) -> tuple[ZooFault, ...]:
    """Train with the critic cut off from the loss, from the start."""
    training = breakable(seed)
    training.agent.without_critic = True  # type: ignore[assignment]
    training.run(run_dir, 120, tell)
    return (ZooFault("critic_not_trained", 0, ("critic_constant", "value_collapse", "gradient_vanishing")),)


def head_collapse(run_dir: Path, seed: int, tell: Tell) -> tuple[ZooFault, ...]:
    """Take the entropy bonus from ``style``; the onset is where its actions, counted, are all but one and the same."""
    training, taken_away, onsets = ZooTraining(seed), onset_of(seed), []

    def before(update: int) -> None:
        if update == taken_away:
            training.coefficients["style"] = 0.0
        if update > taken_away and _same_action(training) > COLLAPSED:
            onsets.append(update - 1)

    training.run(run_dir, 100, tell, before)
    if not onsets:
        raise RuntimeError(f"{run_dir.name}: style did not collapse")
    return (ZooFault("head_collapse", onsets[0], ("head_entropy_collapse",)),)


def _same_action(training: ZooTraining) -> float:
    taken = training.rollout["actions"]
    counted = np.bincount(taken["style"][taken["op"] != 0].numpy(), minlength=SIZES["style"])
    return float(counted.max() / counted.sum())


_NAN = ZooFault("nan_reward", 0, ("numerical_instability", "update_skipped"), hard=True)
_MISSING = ZooFault("missing_gradient", 0, ("gradient_missing",), hard=True)
_LSTM = ZooFault("lstm_explosion", 0, ("lstm_explosion", "lstm_saturation"))
_OVERFLOW = ZooFault("gradients_overflow", 0, ("frozen_update", "numerical_instability"))
_STOP = ZooFault("no_optimizer_step", 0, ("frozen_update", "update_skipped"))
_CONSTANT = ZooFault("reward_constant", 0, ("advantage_collapse",))

FAULTY_LOOP: dict[str, Train] = {
    "nan-reward-loop": faulty(_NAN, one_nan, paid, raises=True),
    "missing-gradient": faulty(_MISSING, detach_head, breakable),
    "critic-untrained-loop": untrained_critic,
    "head-collapse": head_collapse,
    "lstm-explosion": faulty(_LSTM, grow),
    "gradients-overflow": faulty(_OVERFLOW, overflow),
    "no-optimizer-step": faulty(_STOP, stop),
    "reward-constant-loop": faulty(_CONSTANT, constant, paid, 120),
}
