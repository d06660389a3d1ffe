"""How a training went, by what its loop saw itself; decided before any alarm is looked at."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.faultbench.draw import Setup
from tests.faultbench.tasks import TASKS
from tests.faultbench.training import LoopOutcome

FILE = "outcome.json"
LEARNT, SOLVED, FALLEN, HARM = 0.1, 0.7, 0.25, 0.15
"""Shares of the way from random to good returns: learnt at least, solved at, fallen from the best by, harmed by."""


@dataclass(frozen=True)
class Made:
    """A training that ended: its settings, and what its loop saw."""

    setup: Setup
    outcome: LoopOutcome

    @property
    def share(self) -> NDArray[np.float64]:
        """Return the mean return by update, 0 that of random actions and 1 a good one; NaN where no episode ended."""
        known = TASKS[self.setup.task]
        returns = np.asarray(self.outcome.returns, np.float64)
        return (returns - known.by_chance) / (known.good - known.by_chance)

    @property
    def broken(self) -> bool:
        """Return whether it died, or its value loss was not finite."""
        return bool(self.outcome.died) or not np.isfinite(self.outcome.value_losses).all()

    @property
    def sound(self) -> bool:
        """Return whether it learnt, or had solved its task, and did not fall back."""
        fifths = [mean(part) for part in np.array_split(self.share, 5)]
        learnt = fifths[-1] >= fifths[0] + LEARNT or fifths[-1] >= SOLVED
        return not self.broken and learnt and fifths[-1] >= max(fifths) - FALLEN

    def did_harm(self, twin: Made) -> bool:
        """Return whether it fared worse than its twin from the onset on."""
        onset = self.setup.onset
        lost = mean(twin.share[onset:]) - mean(self.share[onset:])
        return (self.broken and not twin.broken) or lost >= HARM or math.isnan(lost)


def mean(values: NDArray[np.float64]) -> float:
    """Return the mean of what is not NaN, NaN without."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def write(run_dir: Path, made: Made) -> None:
    """Write it beside ``run.json``; its presence says that the run is whole."""
    (run_dir / FILE).write_text(json.dumps({"setup": made.setup.as_json(), "outcome": asdict(made.outcome)}))


def read(run_dir: Path) -> Made:
    """Return what ``write`` wrote."""
    found = json.loads((run_dir / FILE).read_text())
    return Made(Setup(**found["setup"]), LoopOutcome(**found["outcome"]))
