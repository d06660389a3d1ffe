"""How often detail may be measured: the recorder's time against its share of the training's time."""

from __future__ import annotations

from dataclasses import dataclass

AT_LEAST_EVERY = 50
"""One update in this many is sampled even if the core statistics alone use up the budget."""
SAVED_AT_MOST = 4
"""Unused budget is saved for at most this many sampled updates."""
_FORGET = 0.7


@dataclass(slots=True)
class Budget:
    """Decides which updates are sampled so that the recorder keeps to ``fraction`` of the time.

    Every update adds its share of time to the balance and subtracts the recording time; an update is sampled when the
    balance covers the recent cost of a sampled one. Core statistics are never thinned. ``fraction`` None: every update
    is sampled. ``cost`` is at first the predicted one, so that the first sample waits until it is paid for.
    """

    fraction: float | None
    cost: float = 0.0
    balance: float = 0.0
    earned: float = 0.0  # shares paid in so far
    last: int | None = None  # update sampled last

    def __post_init__(self) -> None:
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f"overhead_budget must be a share of the time in (0, 1], not {self.fraction}")

    def wants(self, update: int, *, every: bool) -> bool:
        """Return whether to sample ``update``; ``every``: the telemetry level requires all updates."""
        if every or self.fraction is None or self.balance >= self.cost:
            return True
        if self.last is None:
            return update >= AT_LEAST_EVERY and self.earned >= self.cost
        return update - self.last >= AT_LEAST_EVERY

    def settle(self, update: int, *, elapsed: float, core: float, detail: float) -> None:
        """Account for one update: its seconds ``elapsed``, and those spent on ``core`` statistics and ``detail``."""
        if detail > 0:
            self.cost = detail if self.last is None else _FORGET * self.cost + (1 - _FORGET) * detail
            self.last = update
        if self.fraction is None:
            return
        room = self.fraction * elapsed
        self.earned += room
        self.balance = min(self.balance + room - core - detail, SAVED_AT_MOST * max(self.cost, room))
        self.balance = max(self.balance, -AT_LEAST_EVERY * room)
