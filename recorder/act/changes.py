"""When an incident begins, becomes critical and ends, followed from the findings of the live detector."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from esper_analyze.detector.findings import Finding
from esper_analyze.detector.incidents import ActiveAlarms
from esper_analyze.detector.verdict import BY_WORD, Verdict

BEGAN, CRITICAL, ENDED = "began", "critical", "ended"


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """One moment of an incident: ``event`` is "began", "critical" or "ended", ``finding`` what set it.

    ``start`` is the first update in alarm, None for an incident that was open before this was followed. ``worst`` is
    the worst verdict so far.
    """

    event: str
    finding: Finding
    start: int | None
    worst: str


class IncidentChanges:
    """Follows incidents by rule, subject and metric; agrees with ``IncidentTracker`` on the same verdicts."""

    def __init__(self) -> None:
        self._alarms = ActiveAlarms()

    def take(self, findings: Iterable[Finding]) -> list[IncidentChange]:
        """Return the changes that the findings of the next updates bring, in their order."""
        changes = [self._take_one(finding) for finding in findings]
        return [change for change in changes if change is not None]

    def _take_one(self, finding: Finding) -> IncidentChange | None:
        before = self._alarms.active.get(finding.key)
        cleared = self._alarms.take(finding)
        if cleared is not None:
            return IncidentChange(ENDED, finding, cleared.start, cleared.worst.verdict)
        verdict = BY_WORD[finding.verdict]
        if before is None and _was_alarm(finding):
            return self._begun_earlier(finding, verdict)
        if verdict < Verdict.WARNING:
            return None
        if before is None:
            return IncidentChange(BEGAN, finding, finding.update, finding.verdict)
        if verdict is Verdict.CRITICAL and before.worst.verdict != verdict.word:
            return IncidentChange(CRITICAL, finding, before.start, finding.verdict)
        return None

    @staticmethod
    def _begun_earlier(finding: Finding, verdict: Verdict) -> IncidentChange | None:
        if verdict is Verdict.CRITICAL:
            return IncidentChange(CRITICAL, finding, None, finding.verdict)
        if Verdict.OK <= verdict < Verdict.WARNING:
            return IncidentChange(ENDED, finding, None, str(finding.previous))
        return None


def _was_alarm(finding: Finding) -> bool:
    return finding.previous is not None and BY_WORD[finding.previous] >= Verdict.WARNING
