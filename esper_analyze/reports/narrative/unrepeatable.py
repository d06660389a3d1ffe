"""What the live detector alarmed at and replay cannot judge again, because the rows it was judged by are gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.replay.recorded_rules import foreign_rules
from esper_analyze.reports.narrative.primary_incident import judged_rules
from esper_analyze.terminal import cleaned
from esper_analyze.wording import on

if TYPE_CHECKING:
    from esper_analyze.replay.evidence import Evidence


@dataclass(frozen=True, slots=True)
class LiveAlarm:
    """The first of the worst live findings of one rule on one subject."""

    update: int
    rule: str
    subject: str
    verdict: str

    @property
    def told(self) -> str:
        """Name it."""
        where = on(self.subject)
        return f"{cleaned(self.rule, 40)}{where}, {self.verdict} live at update {self.update:,}"


def lost_alarms(evidence: Evidence) -> list[LiveAlarm]:
    """Return the live alarms of rules that could judge nothing at all this time, by update."""
    skipped = {*judged_rules(evidence)[0], *foreign_rules(evidence.run)}
    columns = ["update", "rule", "subject", "verdict"]
    found: dict[tuple[str, str], LiveAlarm] = {}
    for update, rule, subject, verdict in evidence.run.frame("findings", columns).iter_rows():
        if rule in skipped or verdict not in ("warning", "critical"):
            continue
        known = found.get((rule, subject))
        if known is None or (known.verdict == "warning" and verdict == "critical"):
            found[rule, subject] = LiveAlarm(update, rule, subject, verdict)
    return sorted(found.values(), key=lambda one: (one.update, one.rule, one.subject))
