"""Telemetry levels: a finding at update t puts updates t+1 … t+k at DEBUG."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from esper_analyze.detector.findings import Finding
from esper_analyze.schema.tables import LEVELS

OFF, MINIMAL, NORMAL, DEBUG = LEVELS


@dataclass(frozen=True, slots=True)
class LevelChange:
    """One change of level, in effect from ``update`` on; ``rule`` is None when an escalation ran out."""

    update: int
    level: str
    previous: str
    rule: str | None
    subject: str | None
    finding_update: int | None
    until: int


class Escalation:
    """Carries the level from update to update. A new finding can extend an escalation, never shorten it."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.until = -1
        self.cause: Finding | None = None
        self.level = base

    def level_at(self, update: int) -> str:
        """Return the level in effect for ``update``, given the findings so far."""
        return DEBUG if self.base != OFF and update <= self.until else self.base

    def advance(self, updates: Sequence[int], triggers: Sequence[tuple[Finding, int]]) -> list[LevelChange]:
        """Return the changes over consecutive ``updates``; ``triggers`` are findings with their duration k."""
        changes: list[LevelChange] = []
        pending = sorted(triggers, key=lambda trigger: trigger[0].update)
        if not pending and self.level == self.base and (not updates or updates[0] > self.until):
            return changes
        index = at = 0
        while at < len(updates):  # only where the level can change: at a finding, after it, at an escalation's end
            changes += self._step(updates[at])
            triggered = index < len(pending) and pending[index][0].update <= updates[at]
            while index < len(pending) and pending[index][0].update <= updates[at]:
                self._extend(*pending[index])
                index += 1
            coming = [at + 1] if triggered else []
            coming += [bisect_left(updates, pending[index][0].update, at + 1)] if index < len(pending) else []
            coming += [bisect_right(updates, self.until, at + 1)] if self.until >= updates[at] else []
            at = min(coming, default=len(updates))
        return changes

    def _extend(self, finding: Finding, duration: int) -> None:
        if duration > 0 and finding.update + duration > self.until:
            self.until = finding.update + duration
            self.cause = finding

    def _step(self, update: int) -> list[LevelChange]:
        level = self.level_at(update)
        if level == self.level:
            return []
        previous, self.level = self.level, level
        if level == self.base or self.cause is None:
            return [LevelChange(update, level, previous, None, None, None, update)]
        cause = self.cause
        return [LevelChange(update, level, previous, cause.rule, cause.subject, cause.update, self.until)]

    def state_dict(self) -> dict[str, object]:
        """Return the carried state as plain data."""
        cause = None if self.cause is None else self.cause.as_row()
        return {"until": self.until, "level": self.level, "cause": cause}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore the state from ``state_dict``."""
        self.until = int(str(state["until"]))
        self.level = str(state["level"])
        cause = state["cause"]
        self.cause = Finding(**cause) if isinstance(cause, dict) else None
