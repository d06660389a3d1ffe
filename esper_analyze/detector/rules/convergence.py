"""What success looks like: returns rose and stayed. Shared by the rules on what then is low because it is learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, Rolling, early_known, early_level
from esper_analyze.detector.rule import Memory
from esper_analyze.detector.signals import Bools, Floats, Signal
from esper_analyze.detector.streaks import nothing_yet

EARLY_UPDATES = 3
"""Updates whose mean is the early level of returns."""


def _means(windows: Floats) -> Floats:
    return np.asarray(windows.mean(axis=1))[None, :]


_RECENT = Rolling(_means, length=10, every=1, first=3, inclusive=True)

BETTER = "returns above their early mean by this share of it: sound runs rose by half or more"
"""Source of the share at which returns count as risen."""
NEAR_BEST = 0.2
"""Share of the way from early returns to the best ones within which returns are at their best."""

RETURNS_MEMORY: Mapping[str, Callable[[int], np.ndarray[Any, Any]]] = {
    **{f"returns_{name}": first for name, first in EARLY_MEMORY.items()},
    **_RECENT.memory("returns_recent"),
    "returns_best": nothing_yet,
}
"""The memory that ``at_best`` needs."""


def at_best(returns: Signal, memory: Memory, share: float) -> Bools:
    """Return where mean episode returns [n, k] rose and stayed; False while unknown.

    Their recent mean is above the early one by ``share`` of it, and has not come down from the best recent mean so far
    by more than ``NEAR_BEST`` of the way between the two. What is low then is low because the task is learnt.
    """
    named = {name: memory[f"returns_{name}"] for name in EARLY_MEMORY}
    early = early_level(returns.values, returns.finite, named, EARLY_UPDATES)
    level = _RECENT.baseline(returns.values, returns.finite, memory, "returns_recent")[0]
    best = np.fmax.accumulate(np.concatenate([memory["returns_best"][None], level]), axis=0)[1:]
    if len(best):
        memory["returns_best"] = best[-1].copy()
    risen: Bools = (level > early + share * np.abs(early)) & (level >= best - NEAR_BEST * np.abs(best - early))
    return risen


def rise_steady(returns: Signal, memory: Memory) -> int:
    """Return for how many more updates ``at_best`` returns the same, if the same returns stay finite."""
    usable = returns.finite
    if not early_known(usable, memory, EARLY_UPDATES, "returns_"):
        return 0
    return _RECENT.steady(memory, "returns_recent", usable)
