"""Two environments in which a small network learns within seconds."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Cue(gym.Env[Any, Any]):
    """One step an episode: it pays 1 for the action that the observation names, and at random up to ``jitter`` more."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, jitter: float = 0.0) -> None:
        self.jitter = jitter

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed, options=options)
        self.cue = int(self.np_random.integers(2))
        return np.eye(2, dtype=np.float32)[self.cue], {}

    def step(self, action: Any) -> Any:
        paid = float(int(action) == self.cue) + self.jitter * self.np_random.random()
        observation, _ = self.reset()
        return observation, paid, True, False, {}


class Reaching(gym.Env[Any, Any]):
    """Sixteen steps of moving a point to a target in the plane; a step pays 1 less the distance."""

    observation_space = gym.spaces.Box(-4.0, 4.0, (5,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed, options=options)
        self.position, self.target = self.np_random.uniform(-1, 1, (2, 2))
        self.age = 0
        return self.observed(), {}

    def observed(self) -> Any:
        return np.clip(np.concatenate([self.position, self.target, [self.age / 8]]), -4, 4).astype(np.float32)

    def step(self, action: Any) -> Any:
        self.position = self.position + 0.25 * np.clip(action, -1, 1)
        self.age += 1
        distance = float(np.linalg.norm(self.position - self.target))
        return self.observed(), 1 - distance, False, self.age >= 16, {}


class Choice(gym.Env[Any, Any]):
    """Eight choices among five actions, of which some are allowed: the best pays most, and the observation tells."""

    observation_space = gym.spaces.Box(0.0, 1.0, (6,), np.float32)
    action_space = gym.spaces.Discrete(5)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed, options=options)
        self.age = 0
        return self.drawn(), {}

    def drawn(self) -> Any:
        self.pays = self.np_random.uniform(0, 1, 5).astype(np.float32)
        self.allowed = self.np_random.uniform(0, 1, 5) < 0.6
        self.allowed[0] = True
        return np.append(self.pays, np.float32(self.age / 8))

    def step(self, action: Any) -> Any:
        paid = float(self.pays[int(action)])
        self.age += 1
        return self.drawn(), paid, False, self.age >= 8, {}
