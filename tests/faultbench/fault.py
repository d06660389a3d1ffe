"""What a fault of the bench is: it turns one knob, or touches the parts of a training, at its onset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faultbench.draw import Setup
from tests.faultbench.tasks import TASKS
from tests.faultbench.training import Training

Touch = Callable[[Training, int], None]
"""Called with the fault's age, 0 at its onset, as each update begins."""


@dataclass(frozen=True)
class Fault:
    """One kind: what it does, what names it, and which trainings can have it.

    ``rules``: those whose finding names the cause, any of them, chosen by what they mean before any was asked.
    A fault is ``hard`` where the update itself shows it beyond doubt: it must then be found in the very update.
    """

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


def memory(setup: Setup) -> bool:
    """Return whether the network has a memory."""
    return bool(setup.recurrent)


def categorical(setup: Setup) -> bool:
    """Return whether actions are drawn from logits."""
    return bool(TASKS[setup.task].make.sizes)


def by_hand(setup: Setup) -> bool:
    """Return whether the loop is the hand-written one."""
    return setup.algorithm == "loop"


def several_heads(setup: Setup) -> bool:
    """Return whether the loop is the hand-written one and there are several heads."""
    return by_hand(setup) and len(TASKS[setup.task].make.sizes) > 1


STEPS = ("kl_spike", "ratio_explosion", "ratio_collapse", "clip_saturation")
BAD_NUMBERS = ("numerical_instability", "update_skipped", "lstm_nonfinite", "gradient_explosion")
OBSERVED = ("observations_changed",)
LOSSES = ("losses_inconsistent",)
STALE = ("first_ratio",)
FIT = ("value_fit_lost",)
CRITIC = (*FIT, "critic_constant", "critic_not_learning", "value_collapse", "value_divergence", "gradient_vanishing")
STOPPED = ("frozen_update", "update_skipped")
DETERMINISM = ("entropy_collapse", "entropy_low", "head_entropy_collapse")
FALLEN = ("performance_degradation",)
NO_SIGNAL = ("advantage_collapse",)
SETTING = ("setting_changed",)
REPLACED = ("policy_replaced", "parameters_changed")
RETURNS = ("returns_inconsistent",)
ADVANTAGES = ("advantage_inconsistent",)
