"""Alarms of the live detector that replay cannot judge again, because the rows they were judged by are missing."""

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
    def words(self) -> str:
        """Rule, subject, verdict and update in words."""
        where = on(self.subject)
        return f"{cleaned(self.rule, 40)}{where}, {self.verdict} live at update {self.update:,}"


def lost_alarms(evidence: Evidence) -> list[LiveAlarm]:
    """Return the live alarms of rules that judged nothing in the replay, by update."""
    skipped = {*judged_rules(evidence)[0], *foreign_rules(evidence.run)}
    columns = ["update", "rule", "subject", "verdict"]
    worst: dict[tuple[str, str], LiveAlarm] = {}
    for update, rule, subject, verdict in evidence.run.frame("findings", columns).iter_rows():
        if rule in skipped or verdict not in ("warning", "critical"):
            continue
        earlier = worst.get((rule, subject))
        if earlier is None or (earlier.verdict == "warning" and verdict == "critical"):
            worst[rule, subject] = LiveAlarm(update, rule, subject, verdict)
    return sorted(worst.values(), key=lambda alarm: (alarm.update, alarm.rule, alarm.subject))
