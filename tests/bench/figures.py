"""Figures of one case: medians over its pairs with their spread, the noise, and the target beside them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.sides import Side

Pair = tuple[Side, Side]
"""The same training without and with a recorder."""
MEASURES = ("wall", "cpu", "updates_wall", "updates_cpu")


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of a few shares; and each."""

    median: float
    smallest: float
    largest: float
    each: tuple[float, ...]

    @classmethod
    def of(cls, shares: Sequence[float]) -> Spread:
        """Return the spread of at least one share."""
        return cls(statistics.median(shares), min(shares), max(shares), tuple(shares))

    def __str__(self) -> str:
        return f"{100 * self.median:+.1f} % [{100 * self.smallest:+.1f} … {100 * self.largest:+.1f}]"


def added(pairs: Sequence[Pair], measure: str) -> Spread:
    """Return the share that the second side of each pair took more."""
    return Spread.of([getattr(second, measure) / getattr(first, measure) - 1 for first, second in pairs])


@dataclass(frozen=True)
class RecordingCost:
    """What recording one training at one level costs.

    ``added``: share that recording added, by the measures of ``Side``. ``noise``: the same where neither side is
    recorded, which would be 0 on a quiet machine; None when that was not measured. ``once_ms``: CPU time that opening
    and closing the recording add, once a run.
    """

    training: str
    level: str
    target: float
    pairs: int
    seconds: float
    added: dict[str, Spread]
    noise: dict[str, Spread] | None
    once_ms: float
    account: dict[str, Any]
    parameters_equal: bool

    @property
    def name(self) -> str:
        """The case's name."""
        return f"{self.training}-{self.level.lower()}"

    def within(self, *measures: str) -> bool:
        """Whether the medians of these measures are within the target."""
        return all(self.added[measure].median <= self.target for measure in measures)

    @property
    def met(self) -> bool:
        """Whether the whole run is within the target, on both clocks."""
        return self.within("wall", "cpu")

    @property
    def verdict(self) -> str:
        """Whether the target is met, in words."""
        if self.met:
            return "met"
        return "not met; met by the updates" if self.within("updates_wall", "updates_cpu") else "not met"


def case_of(training: str, level: str, target: float, pairs: Sequence[Pair], control: Sequence[Pair]) -> RecordingCost:
    """Return the figures of one level's pairs; in ``control`` neither side is recorded."""
    without, recorded = [first for first, _ in pairs], [second for _, second in pairs]
    accounts = [side.account for side in recorded if side.account is not None]
    return RecordingCost(
        training=training,
        level=level,
        target=target,
        pairs=len(pairs),
        seconds=statistics.median(side.wall for side in without),
        added={measure: added(pairs, measure) for measure in MEASURES},
        noise={measure: added(control, measure) for measure in MEASURES} if control else None,
        once_ms=1000 * statistics.median(_once(*pair) for pair in pairs),
        account=accounts[-1],
        parameters_equal=len({side.digest for pair in (*pairs, *control) for side in pair}) == 1,
    )


def _once(first: Side, second: Side) -> float:
    """Return the CPU seconds that the second side took more, less what all its updates did."""
    each = (second.updates_cpu - first.updates_cpu) / (first.updates - 1)
    return second.cpu - first.cpu - each * first.updates
