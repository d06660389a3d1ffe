"""The observations of a rollout: a bounded sample of them, measured beside that of the rollout before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recorder import arguments
from recorder.measure.observations import feature_statistics, observation_statistics
from recorder.measure.spread import spread

FEATURES = 256
"""Features of an observation that are measured; of larger ones so many, evenly spread."""
CELLS = 1 << 16
"""Numbers measured in one update; of longer rollouts fewer timesteps, evenly spread."""


class Observations:
    """Statistics of each feature in the update before, and in the one in progress."""

    def __init__(self) -> None:
        self._before: _Features | None = None
        self._now: _Features | None = None

    def end(self) -> None:
        """Begin the next update."""
        self._before, self._now = self._now, None

    def statistics(self, observations: Any, lengths: Sequence[int]) -> Tensor:
        """Return ``measure.observations.FIELDS`` and ``DEFINED_FIELDS`` for a rollout.

        ``observations``: an array with the timesteps first, [T, B, …] or [N, …], or a mapping or tuple of such arrays.
        ``lengths``: the numbers of timesteps that the other arrays of the rollout have. Raises ``ValueError`` if their
        leading dimensions are none of these, or there are none.
        """
        parts = {name: _array(part) for name, part in _named(observations)}
        steps = _timesteps([part.shape for part in parts.values()], lengths)
        widths = {name: part.size // steps for name, part in parts.items() if part.size}
        if not widths:
            raise ValueError("observations without features")
        most = max(1, FEATURES // len(widths))
        timesteps = max(1, CELLS // sum(min(width, most) for width in widths.values()))
        rows = [arguments.tensor(parts[name].sample(steps, timesteps, most)) for name in widths]
        cells = torch.cat([part.double() for part in arguments.together(rows)], dim=1)
        self._now = _Features(tuple(widths.items()), feature_statistics(cells))
        before = self._before
        comparable = before is not None and before.widths == self._now.widths
        if before is None or not comparable or before.statistics.device != cells.device:
            return observation_statistics(self._now.statistics, None, len(cells))
        return observation_statistics(self._now.statistics, before.statistics, len(cells))


@dataclass(frozen=True, slots=True)
class _Features:
    """The features of one update: how many each part has, by name, and their statistics [5, F]."""

    widths: tuple[tuple[str, int], ...]
    statistics: Tensor


@dataclass(frozen=True, slots=True)
class _Array:
    """Observations of one kind, timesteps first."""

    numbers: Tensor | np.ndarray[Any, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.numbers.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def sample(self, steps: int, timesteps: int, features: int) -> Tensor | np.ndarray[Any, Any]:
        """Return some features of some timesteps [N, F]; of all others nothing is copied."""
        lead = leading(self.shape, steps)
        rows: Any = self.numbers
        if steps > timesteps:
            rows = rows[np.unravel_index(spread(steps, timesteps), self.shape[:lead])]
        rows = rows.reshape(len(spread(steps, timesteps)), -1)
        chosen: Tensor | np.ndarray[Any, Any] = rows
        if rows.shape[1] > features:
            chosen = rows[:, spread(rows.shape[1], features)]
        return chosen


def _array(part: Any) -> _Array:
    return _Array(part.detach() if isinstance(part, Tensor) else np.asarray(part))


def _named(observations: Any) -> list[tuple[str, Any]]:
    """Return the parts of observations by name, those of a mapping in the order of their names."""
    if isinstance(observations, Mapping):
        return sorted(((str(name), part) for name, part in observations.items()), key=lambda pair: pair[0])
    if isinstance(observations, tuple):
        return [(str(place), part) for place, part in enumerate(observations)]
    return [("", observations)]


def _timesteps(shapes: Sequence[tuple[int, ...]], lengths: Sequence[int]) -> int:
    """Return the most common of ``lengths`` that the leading dimensions of all shapes hold."""
    if not lengths:
        raise ValueError("observations without values, returns or rewards: their number of timesteps is unknown")
    if not shapes:
        raise ValueError("no observations")
    common = [steps for steps, _ in Counter(lengths).most_common()]
    for steps in common:
        if all(leading(shape, steps) for shape in shapes):
            return steps
    wrong = next(shape for shape in shapes if not leading(shape, common[0]))
    raise ValueError(f"observations of shape {wrong} in a rollout of {common[0]} timesteps")


def leading(shape: Sequence[int], steps: int) -> int:
    """Return how many leading dimensions hold the timesteps; 0 if none do."""
    return next((lead for lead in range(1, len(shape) + 1) if math.prod(shape[:lead]) == steps), 0)
