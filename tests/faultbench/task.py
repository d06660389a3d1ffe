"""What a task of the bench is: a batch of environments in numpy, and the returns that it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Actions = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class StepResult:
    """What one step of B environments gave, each [B]: rewards, and which ended, by the task or by the time limit."""

    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


class Task:
    """B environments that start anew by themselves. ``sizes``: actions by head; ``dimensions``: real actions."""

    sizes: dict[str, int] = {}  # noqa: RUF012
    dimensions = 0
    shape: tuple[int, ...] = ()
    limit = 200
    masked = False

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.random = count, np.random.default_rng(seed)
        self.age = np.zeros(count, np.int64)
        self.begin(np.ones(count, bool))

    def begin(self, where: NDArray[np.bool_]) -> None:
        """Start the environments ``where`` anew."""
        raise NotImplementedError

    def observe(self) -> Floats:
        """Return observations [B, *shape]."""
        raise NotImplementedError

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Apply actions [B] by head, or ``move`` [B, dimensions]; return rewards and which environments ended."""
        raise NotImplementedError

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Return valid actions [B, K] by head."""
        return {name: np.ones((self.count, size), bool) for name, size in self.sizes.items()}

    def step(self, actions: Actions) -> StepResult:
        """Act once; what ended has started anew afterwards."""
        self.age += 1
        reward, terminated = self.act(actions)
        truncated = (self.age >= self.limit) & ~terminated
        ended = terminated | truncated
        self.age[ended] = 0
        if ended.any():
            self.begin(ended)
        return StepResult(reward, terminated, truncated)


@dataclass(frozen=True)
class Known:
    """A task, and mean returns of an episode: by random actions (2,000 episodes counted) and by good ones."""

    make: type[Task]
    by_chance: float
    good: float
    memory: bool = False
    sparse: bool = False

    @property
    def family(self) -> str:
        """Return what kind of task it is."""
        if self.memory or self.sparse:
            return "memory" if self.memory else "sparse reward"
        if self.make.masked or self.make.dimensions:
            return "masked" if self.make.masked else "continuous"
        return "pixels" if len(self.make.shape) == 3 else "control"
