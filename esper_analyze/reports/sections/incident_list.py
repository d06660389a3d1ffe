"""Every incident of a run in the order in which they began, as rows of the timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.reports.render.rows import Cell, Mark, SectionTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esper_analyze.detector.incidents import Incident
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.runs.moments import Moment

_COLUMNS = (
    "start",
    "end",
    "verdict",
    "rule",
    "subject",
    "metric",
    "onset",
    "peak",
    "peak_update",
    "judged",
    "bound",
    "now",
    "now_update",
    "in_alarm",
    "ended",
    "seen_by",
    "worst",
    "cause",
    "start_env_steps",
    "start_seconds",
)
_BRIEF = (
    ("start", "start"),
    ("end", "end"),
    ("start_env_steps", "env steps"),
    ("start_seconds", "seconds"),
    *((name, name) for name in ("verdict", "rule", "subject", "judged", "bound", "worst", "now", "cause")),
)


@dataclass(frozen=True, slots=True)
class IncidentEntry:
    """An incident, the text recorded at its peak where words were judged, and the rule it is shown under.

    ``began``: how far the training was when the incident's first update ended.
    """

    incident: Incident
    text: str | None
    cause: str | None
    began: Moment


def incident_entries(evidence: Evidence) -> tuple[IncidentEntry, ...]:
    """Return every incident, the earliest first."""
    incidents = evidence.replay.incidents
    return tuple(
        IncidentEntry(
            incident,
            evidence.cell_text(incident),
            None if incident.cause is None else incidents[incident.cause].rule,
            evidence.moments.at(incident.start),
        )
        for incident in sorted(incidents, key=lambda incident: incident.start)
    )


def incident_table(entries: Sequence[IncidentEntry]) -> SectionTable:
    """Return one row for each entry; ``cause`` names the rule of the incident it is shown under."""
    return SectionTable(_COLUMNS, tuple(map(_cells, entries)), _BRIEF)


def _cells(entry: IncidentEntry) -> tuple[Cell, ...]:
    incident = entry.incident
    return (
        incident.start,
        incident.end,
        Mark(incident.peak_verdict, incident.peak_verdict),
        incident.rule,
        incident.subject,
        incident.metric,
        incident.onset,
        incident.peak,
        incident.peak_update,
        incident.statistic,
        incident.threshold,
        incident.now,
        incident.now_update,
        incident.count,
        incident.ended,
        ", ".join(incident.seen_by),
        entry.text or incident.peak,
        entry.cause,
        entry.began.env_steps,
        entry.began.seconds,
    )
