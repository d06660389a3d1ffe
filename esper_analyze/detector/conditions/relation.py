"""A relation that holds by construction: once it has held for some updates, a breach is news whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from esper_analyze.detector.deferral_guards import until
from esper_analyze.detector.rule import Memory
from esper_analyze.detector.signals import Bools
from esper_analyze.detector.streaks import streak, tally, zeros

UPDATES = 3
"""Updates in a row in which a relation must have held before it counts as one of this training."""
EVIDENCE = "updates in a row in which it held before a breach is one (set by design)"
"""Source of that number where it is a limit."""


def relation_memory(*names: str) -> Mapping[str, Callable[[int], np.ndarray[Any, Any]]]:
    """Return the memory that ``established`` needs for relations of these names."""
    return {f"{name}_{part}": zeros for name in names for part in ("holding", "breaches", "established")}


def established(holds: Bools, known: Bools, memory: Memory, name: str, updates: int) -> Bools:
    """Return where the relation is known to be one of this training: once, and from then on.

    That is where it has held in ``updates`` updates in a row, and in more than it did not hold in before: one that
    often does not hold comes true by chance for a while.
    """
    holding, breaches, known_so = (memory[f"{name}_{part}"] for part in ("holding", "breaches", "established"))
    if known_so.all():
        return np.broadcast_to(np.True_, holds.shape)
    run = streak(holds, known & ~holds, holding)
    result = tally((run >= updates) & (run > tally(known & ~holds, breaches)), known_so) > 0
    for numbers, settled in ((holding, 0), (breaches, 0), (known_so, 1)):  # the same however updates are cut
        numbers[known_so > 0] = settled
    return result


def establishing(memory: Memory, name: str, updates: int) -> int:
    """Return for how many more updates ``established`` returns the same if the relation goes on as now."""
    enough = np.maximum(memory[f"{name}_breaches"] + 1, updates)
    return until(memory[f"{name}_holding"], *enough.tolist())
