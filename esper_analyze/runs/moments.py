"""How far a training was at its updates: environment steps and seconds, beside the update's number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.runs.series import Series, all_series
from esper_analyze.wording import lasting

if TYPE_CHECKING:
    from esper_analyze.runs.run import RecordedRun


@dataclass(frozen=True, slots=True)
class Moment:
    """How far the training was when an update ended; None where that was not recorded.

    ``env_steps``: environment steps until then, of all environments; ``seconds``: since the first update ended, pauses
    between attempts included.
    """

    env_steps: int | None = None
    seconds: float | None = None

    @property
    def words(self) -> str:
        """Both in words, empty where neither is known: "2,624 env steps, 3 s"."""
        steps = "" if self.env_steps is None else f"{self.env_steps:,} env steps"
        return ", ".join(filter(None, (steps, "" if self.seconds is None else lasting(self.seconds))))

    def sentence(self, update: int) -> str:
        """Return a sentence about ``update``, empty where nothing is known."""
        known = [] if self.env_steps is None else [f"after {self.env_steps:,} environment steps"]
        known += [f"{lasting(self.seconds)} after the first update"] if self.seconds else []  # not for the first itself
        return f"Update {update:,} ended {', '.join(known)}." if known else ""


@dataclass(frozen=True, slots=True)
class Moments:
    """The moments of one run by update; ``start``: the clock at the end of its first update."""

    steps: Series
    clock: Series
    start: float

    def at(self, update: int) -> Moment:
        """Return the moment at which ``update`` ended."""
        steps, time = _value(self.steps, update), _value(self.clock, update)
        return Moment(None if steps is None else int(steps), None if time is None else time - self.start)

    def listed(self, most: int) -> dict[str, list[float | None]]:
        """Return at most ``most`` moments by name, evenly over the run: update, env_steps and seconds."""
        updates = self.steps.update
        places = np.unique(np.linspace(0, max(len(updates) - 1, 0), min(len(updates), most)).astype(int))
        shown = [(int(update), self.at(int(update))) for update in updates[places]]
        return {
            "update": [update for update, _ in shown],
            "env_steps": [moment.env_steps for _, moment in shown],
            "seconds": [None if moment.seconds is None else float(f"{moment.seconds:.4g}") for _, moment in shown],
        }

    @property
    def axis(self) -> str:
        """The label of an axis of updates: with the environment steps of each where all have as many, and the time."""
        finite = self.steps.finite
        steps, clock = self.steps.value[finite], self.clock.value[self.clock.finite]
        each = np.diff(steps) / np.diff(self.steps.update[finite])
        alike = [f"{each[0]:,.0f} env steps each"] if len(each) and (each == each[0]).all() else []
        in_all = [f"{steps[-1]:,.0f} env steps"] if len(steps) and not alike else []
        in_all += [lasting(float(clock[-1] - clock[0]))] if len(clock) > 1 else []
        known = [*alike, *([f"{', '.join(in_all)} in all"] if in_all else [])]
        return f"update ({', '.join(known)})" if known else "update"


def moments_of(run: RecordedRun) -> Moments:
    """Read the moments of a run whose ranks are merged."""
    columns = all_series(run, "updates", ["env_steps", "wall_time"])
    clock = columns["wall_time"]
    known = np.flatnonzero(clock.finite)
    return Moments(columns["env_steps"], clock, float(clock.value[known[0]]) if len(known) else 0.0)


def _value(series: Series, update: int) -> float | None:
    place = int(np.searchsorted(series.update, update))
    if place == len(series.update) or series.update[place] != update or series.null[place]:
        return None
    value = float(series.value[place])
    return value if math.isfinite(value) else None
