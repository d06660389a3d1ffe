"""Low entropy as a success: it fell slowly, or returns rose. Shared by the rules on entropy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, Rolling, early_known, early_level
from esper_analyze.detector.rule import Limits, Memory, limit
from esper_analyze.detector.signals import Bools, Floats, Ints, Signal
from esper_analyze.detector.streaks import latest, nothing_yet, recent, remember, streak, window, zeros

LONGEST = 200
"""Bound on ``fast_updates``: the flags of so many updates are carried, whatever it is set to."""


EARLY_UPDATES = 10
"""Updates whose mean is the early level of returns."""


def _means(windows: Floats) -> Floats:
    return np.asarray(windows.mean(axis=1))[None, :]


_RECENT = Rolling(_means, length=10, every=5, first=10, inclusive=True)

RETURNS_MEMORY: Mapping[str, Callable[[int], np.ndarray[Any, Any]]] = {
    **{f"returns_{name}": first for name, first in EARLY_MEMORY.items()},
    **_RECENT.memory("returns_recent"),
}
"""The memory that ``rose`` needs."""
CONVERGENCE_MEMORY: Mapping[str, Callable[[int], np.ndarray[Any, Any]]] = {
    "low": zeros,
    "exploring": window(LONGEST),
    "fast": nothing_yet,
    **RETURNS_MEMORY,
}
"""The memory that ``descend`` needs."""


@dataclass(frozen=True, slots=True)
class ConvergenceLimits(Limits):
    """Bounds that distinguish a policy that has learnt from one that has collapsed."""

    better: float = limit(0.1, "returns above their early mean by this share of it: sound runs rose by half or more")
    exploring: float = limit(0.5, "an entropy that counts as exploring")
    fast_updates: int = limit(
        25,
        "recorded collapses took 1 to 14 updates from exploring, sound runs 45 to 190",
        at_least=1,
        below=LONGEST + 1,
    )


@dataclass(frozen=True, slots=True)
class Descent:
    """How long an entropy has been low [n, k], whether it fell there fast, and whether returns rose meanwhile."""

    length: Ints
    fast: Bools
    better: Bools

    @property
    def learnt(self) -> Bools:
        """Where low entropy is the result of learning: it fell slowly, and returns rose."""
        return self.better & ~self.fast


def rose(returns: Signal, memory: Memory, share: float) -> Bools:
    """Return where mean episode returns [n, k] are above their early mean by ``share`` of it; False while unknown."""
    named = {name: memory[f"returns_{name}"] for name in EARLY_MEMORY}
    early = early_level(returns.values, returns.finite, named, EARLY_UPDATES)
    level = _RECENT.baseline(returns.values, returns.finite, memory, "returns_recent")[0]
    risen: Bools = level > early + share * np.abs(early)
    return risen


def rise_steady(returns: Signal, memory: Memory) -> int:
    """Return for how many more updates ``rose`` returns the same, if the same returns stay finite."""
    usable = returns.finite
    if not early_known(usable, memory, EARLY_UPDATES, "returns_"):
        return 0
    return _RECENT.steady(memory, "returns_recent", usable)


def descend(
    entropy: Signal,
    usable: Bools,
    low: Bools,
    clear: Bools,
    returns: Signal,
    memory: Memory,
    limits: ConvergenceLimits,
) -> Descent:
    """Follow the fall of an entropy [n, k]: ``low`` counts updates, ``clear`` resets the count.

    ``returns`` are mean episode returns [n, k]; unknown returns do not count as better.
    """
    length = streak(low, clear, memory["low"])
    exploring, start = usable & (entropy.values > limits.exploring), low & (length == 1)
    if np.count_nonzero(start):
        near = recent(exploring, memory["exploring"], limits.fast_updates) > 0
        fast = latest(near.astype(np.float64), start, memory["fast"]) > 0
    else:
        remember(exploring, memory["exploring"])
        fast = np.broadcast_to(memory["fast"] > 0, low.shape)
    return Descent(length, fast, rose(returns, memory, limits.better))
