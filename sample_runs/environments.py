"""Small environments whose right answer is known: a masked workshop, and a cue that has to be remembered."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

HEADS = ("op", "slot", "blueprint", "tempo")
SIZES = (4, 3, 5, 3)
EPISODE = 16


class Workshop(gym.Env[Any, Any]):
    """Four factored actions with masks that follow the phase of the work.

    Phase 0 asks for the right operation, slot, blueprint and tempo; later phases leave blueprint and then tempo a
    single valid action. ``nan_reward_at`` puts one NaN into the rewards, at that step of this environment.
    """

    def __init__(self, seed: int = 0, nan_reward_at: int | None = None) -> None:
        self.observation_space = spaces.Box(0, 1, (4 + 3 + 5,), np.float32)
        self.action_space = spaces.MultiDiscrete(list(SIZES))
        self._random = np.random.default_rng(seed)
        self._nan_reward_at = nan_reward_at
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed, options=options)
        self._age = 0
        return self._draw(), {}

    def _draw(self) -> Any:
        self._phase, self._slot, self._blueprint = (int(self._random.integers(n)) for n in (4, 3, 5))
        observation = np.zeros(12, np.float32)
        observation[[self._phase, 4 + self._slot, 7 + self._blueprint]] = 1.0
        return observation

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pay for every factor that was right where it mattered."""
        op, slot, blueprint, tempo = (int(one) for one in action)
        reward = 1.0 * (op == self._phase) + 0.5 * (slot == self._slot)
        reward += 0.5 * (blueprint == self._blueprint) * (self._phase == 0)
        reward += 0.25 * (tempo == self._slot) * (self._phase <= 1) + 0.1 * float(self._random.normal())
        self._age += 1
        self._steps += 1
        if self._steps == self._nan_reward_at:
            reward = float("nan")
        return self._draw(), reward, self._age >= EPISODE, False, {}

    def action_masks(self) -> Any:
        """Return which actions are valid now, all heads in a row."""
        op = self._random.random(SIZES[0]) < 0.75
        op[self._phase] = True
        slot = self._random.random(SIZES[1]) < 0.6
        slot[self._slot] = True
        blueprint, tempo = np.zeros(SIZES[2], bool), np.zeros(SIZES[3], bool)
        blueprint[0], tempo[0] = True, True
        if self._phase == 0:
            blueprint[:] = True
        if self._phase <= 1:
            tempo[:] = True
        return np.concatenate([op, slot, blueprint, tempo])


class RememberedCue(gym.Env[Any, Any]):
    """A cue is always shown at the first step, later only now and then; every step pays for naming it."""

    def __init__(self, seed: int = 0, length: int = 8) -> None:
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = spaces.Discrete(3)
        self._random = np.random.default_rng(seed)
        self._length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Show a new cue."""
        super().reset(seed=seed, options=options)
        self._age = 0
        self._cue = int(self._random.integers(3))
        observation = np.zeros(3, np.float32)
        observation[self._cue] = 1.0
        return observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pay for the remembered cue."""
        self._age += 1
        reward = float(int(action) == self._cue) + 0.5 * float(self._random.normal())
        observation = np.zeros(3, np.float32)
        if self._random.random() < 0.4:
            observation[self._cue] = 1.0
        return observation, reward, self._age >= self._length, False, {}
