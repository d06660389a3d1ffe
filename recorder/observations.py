"""The observations of a rollout: a bounded sample of them, measured beside that of the rollout before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recorder import arguments
from recorder.measure.observations import feature_statistics, observation_statistics

FEATURES = 256
"""Features of an observation that are measured; of larger ones so many, evenly spread."""
CELLS = 1 << 16
"""Numbers measured in one update; of longer rollouts fewer timesteps, evenly spread."""
GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples modulo 1 lie evenly at every length, and in step with no number of environments (Weyl)."""


Array = Tensor | np.ndarray[Any, Any]


class Observations:
    """The features of the update before."""

    def __init__(self) -> None:
        self._before: Tensor | None = None

    def statistics(self, observations: Any, steps: int | None) -> Tensor:
        """Return ``measure.observations.FIELDS`` and ``DEFINED_FIELDS`` for the rollout of so many timesteps.

        ``observations``: an array with the timesteps first, [T, B, …] or [N, …], or a mapping of such arrays.
        Raises ``ValueError`` if their leading dimensions are not the timesteps, or these are unknown.
        """
        if steps is None:
            raise ValueError("observations without values, returns or rewards: their number of timesteps is unknown")
        parts = list(observations.values()) if isinstance(observations, Mapping) else [observations]
        if not parts:
            raise ValueError("no observations")
        flat = [_by_timestep(part, steps) for part in parts]
        most = max(1, FEATURES // len(parts))
        timesteps = max(1, CELLS // max(1, sum(min(part.shape[1], most) for part in flat)))
        rows = [_sample(part, most, timesteps) for part in flat]
        now = feature_statistics(torch.cat(arguments.together(rows), dim=1))
        before, self._before = self._before, now
        if before is not None and before.shape != now.shape:
            before = None
        return observation_statistics(now, before, len(rows[0]))


def _by_timestep(observations: Any, steps: int) -> Array:
    """Return an array with the timesteps first as [N, F]."""
    array = observations.detach() if isinstance(observations, Tensor) else np.asarray(observations)
    lead = _leading(array.shape, steps)
    flat: Array = array.reshape(steps, math.prod(array.shape[lead:]))
    return flat


def _sample(flat: Array, features: int, timesteps: int) -> Tensor:
    """Return some features of some timesteps [N, F]; only these are copied."""
    if len(flat) > timesteps:
        flat = flat[_positions(flat, len(flat), timesteps)]
    if flat.shape[1] > features:
        flat = flat[:, _positions(flat, flat.shape[1], features)]
    return arguments.tensor(flat)


def _positions(array: Array, length: int, count: int) -> Any:
    """Return the positions of ``_spread`` as an index of the array, on its device."""
    spread = _spread(length, count)
    return torch.from_numpy(spread).to(array.device, non_blocking=True) if isinstance(array, Tensor) else spread


def _leading(shape: Sequence[int], steps: int) -> int:
    """Return how many leading dimensions hold the timesteps. Raises ``ValueError`` if none do."""
    for lead in range(1, len(shape) + 1):
        if math.prod(shape[:lead]) == steps:
            return lead
    raise ValueError(f"observations of shape {tuple(shape)} in a rollout of {steps} timesteps")


@lru_cache(maxsize=16)
def _spread(length: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return ``count`` different positions below ``length``, in order, evenly spread."""
    order = np.argsort(np.arange(length) * GOLDEN % 1.0, kind="stable")
    return np.sort(order[:count])
