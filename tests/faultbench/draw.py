"""What a training of the bench is: drawn from its number alone, so that it can be made again anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from tests.faultbench.held_tasks import HELD
from tests.faultbench.task import Known
from tests.faultbench.tune_tasks import TUNE

SHORTEST, LONGEST = 60, 400
"""Updates of a training; short ones are drawn more often."""
RELEASE = 5
"""Of the bench: the tasks and kinds that earlier ones held back are known now."""
BUDGET, BUDGET_PER_UPDATE = 5_000.0, 20.0
"""Milliseconds that a training may take, about, on one core that does nothing else: in all, and more an update."""
SPLITS: dict[str, dict[str, Known]] = {"tune": TUNE, "held": HELD}


@dataclass(frozen=True)
class Setup:
    """One training: the settings it was drawn with. ``kind``: its fault, empty without; ``onset``: its first update."""

    number: int
    split: str
    task: str
    algorithm: str
    recurrent: str
    shared: bool
    hidden: int
    activation: str
    learning_rate: float
    schedule: str
    environments: int
    steps: int
    epochs: int
    minibatches: int
    gamma: float
    gae_lambda: float
    entropy_coefficient: float
    value_coefficient: float
    clip: float
    max_grad_norm: float
    normalise_advantages: bool
    normalise_observations: bool
    reward_scale: float
    updates: int
    kind: str = ""
    onset: int = 0

    @property
    def name(self) -> str:
        """Return the name of the run's folder."""
        return f"{self.split}-{self.number:04d}-{self.kind or 'sound'}"

    def as_json(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)


def draw(split: str, number: int, attempt: int = 0) -> Setup:
    """Return the sound training ``number`` of a split: its settings vary as those of real ones do.

    ``attempt``: how often it was drawn before, and could not have the fault it is the twin of.
    """
    random = np.random.default_rng([number, sorted(SPLITS).index(split), attempt])
    tasks = SPLITS[split]
    task = str(random.choice(list(tasks)))
    known = tasks[task]
    algorithm = str(random.choice(["loop", _of_library(known)]))
    environments = int(random.choice([4, 8, 16, 32, 64]))
    steps = int(random.choice([32, 64] if environments <= 8 else [16, 32] if environments == 16 else [8, 16, 32]))
    epochs, minibatches = (1, 1) if random.random() < 0.08 else (int(random.choice([2, 4, 6, 10])), _split_of(random))
    cost = partial(_cost, known, algorithm, environments, steps)
    updates = int(SHORTEST * (LONGEST / SHORTEST) ** random.random())
    updates, epochs, minibatches = _affordable(cost, updates, epochs, minibatches)
    normalises = bool(random.random() < 0.85)
    return Setup(
        number=number,
        split=split,
        task=task,
        algorithm=algorithm,
        recurrent=_memory(random, algorithm) if known.memory else "",
        shared=bool(random.random() < 0.5),
        hidden=int(random.choice([16, 32, 64])),
        activation=str(random.choice(["tanh", "relu"])),
        learning_rate=float(10 ** random.uniform(*_rates(epochs * minibatches))),
        schedule=str(random.choice(["constant", "linear"], p=[0.6, 0.4])),
        environments=environments,
        steps=steps,
        epochs=epochs,
        minibatches=minibatches,
        gamma=float(random.choice([0.9, 0.95, 0.98, 0.99])),
        gae_lambda=float(random.choice([0.8, 0.9, 0.95, 1.0])),
        entropy_coefficient=float(random.choice([0.0, 0.003, 0.01, 0.03])),
        value_coefficient=float(random.choice([0.25, 0.5, 1.0])),
        clip=float(random.choice([0.1, 0.2, 0.3])),
        max_grad_norm=float(random.choice([0.5, 1.0, 5.0])),
        normalise_advantages=normalises,
        normalise_observations=bool(random.random() < 0.3),
        reward_scale=float(random.choice([0.1, 1.0, 1.0, 10.0] if normalises else [0.1, 1.0])),
        updates=updates,
    )


def _affordable(cost: Callable[[int, int], float], updates: int, epochs: int, minibatches: int) -> tuple[int, int, int]:
    """Return updates, epochs and minibatches with which a training costs no more than it may; ``SHORTEST`` it may."""
    while cost(epochs, minibatches) * updates > BUDGET + BUDGET_PER_UPDATE * updates and epochs * minibatches > 2:
        epochs, minibatches = (epochs, minibatches // 2) if minibatches > 1 else (epochs // 2, 1)
    beyond = max(cost(epochs, minibatches) - BUDGET_PER_UPDATE, 1.0)
    return max(SHORTEST, min(updates, int(BUDGET / beyond))), epochs, minibatches


def _cost(known: Known, algorithm: str, environments: int, steps: int, epochs: int, minibatches: int) -> float:
    """Return the milliseconds of an update; a memory takes one step after the other in every minibatch."""
    heads, pixels = max(len(known.make.sizes), 1), len(known.make.shape) == 3
    remembered = steps * known.memory * (1.0 if algorithm == "recurrent" else 0.5)
    samples = 0.007 * environments * steps * (epochs + 1) * pixels
    return 10 + (0.5 + 0.3 * heads) * steps + epochs * minibatches * (2.5 + heads + remembered) + samples


def _rates(steps: int) -> tuple[float, float]:
    """Return the powers of ten between which the learning rate is drawn, by the optimizer steps of an update."""
    if steps <= 4:
        return -2.9, -2.2
    return (-3.4, -2.5) if steps < 24 else (-3.6, -2.8)


def _of_library(known: Known) -> str:
    """Return the algorithm of Stable-Baselines3 that the task is for."""
    if known.memory:
        return "recurrent"
    return "maskable" if known.make.masked else "ppo"


def _memory(random: np.random.Generator, algorithm: str) -> str:
    return str(random.choice(["lstm", "gru"])) if algorithm == "loop" else "lstm"


def _split_of(random: np.random.Generator) -> int:
    return int(random.choice([1, 2, 4, 8]))
