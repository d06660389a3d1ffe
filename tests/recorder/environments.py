"""Small environments for real trainings in tests."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SIZES = (4, 3, 5)


class MaskedEnv(gym.Env[Any, Any]):
    """MultiDiscrete with masks that vary; head 2 has one valid action at every step, head 1 at about half of them."""

    def __init__(self, seed: int = 0, nan_reward_at: int | None = None) -> None:
        self.observation_space = spaces.Box(-1, 1, (6,), np.float32)
        self.action_space = spaces.MultiDiscrete(list(SIZES))
        self._random = np.random.default_rng(seed)
        self._steps = 0
        self._nan_reward_at = nan_reward_at

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:  # noqa: ARG002
        super().reset(seed=seed)
        self._age = 0
        return self._observe(), {}

    def _observe(self) -> Any:
        self._state = self._random.uniform(-1, 1, 6).astype(np.float32)
        return self._state

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._age += 1
        self._steps += 1
        reward = float(action[0] == int((self._state[0] + 1) * 2)) + 0.1 * float(action[1] == 1)
        if self._steps == self._nan_reward_at:
            reward = float("nan")
        return self._observe(), reward, bool(self._random.random() < 0.1), self._age >= 12, {}

    def action_masks(self) -> Any:
        mask = self._random.random(sum(SIZES)) < 0.7
        mask[[0, 4]] = True
        if self._random.random() < 0.5:
            mask[5:7] = False
        mask[7:] = False
        mask[9] = True
        return mask
