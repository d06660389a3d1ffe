"""What the detector found on seeds, in the words of those who grow them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.detector.incidents import Incident
from esper_analyze.replay.evidence import Evidence
from esper_analyze.runs.series import queried
from esper_analyze.terminal import cleaned
from esper_analyze.wording import number

if TYPE_CHECKING:
    import duckdb

RULES = ("seed_dormant", "host_dominating", "slot_gradient_explosion", "slot_gradient_vanishing")
"""Rules that judge table ``slots``."""
_CAUSES = {
    "dormant": "it never woke: its gradient was small from the beginning",
    "saturated": "it has faded: its gradient was sound before",
    "host_learning_fast": "the host learns faster than usual, the seed itself is fine",
    "disconnected": "only some of its tensors are reached by the loss",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """An incident on a place, told: one sentence, and a few words for a table."""

    place: str
    incident: Incident
    sentence: str
    brief: str


def trouble_of(evidence: Evidence, connection: duckdb.DuckDBPyConnection) -> list[Trouble]:
    """Return what was found on places, critical before warning, each in order of its beginning."""
    found = [incident for incident in evidence.replay.single_incidents if incident.rule in RULES]
    found.sort(key=lambda one: (one.peak_verdict != "critical", one.start, one.subject))
    return [_told(incident, _cause(incident, connection)) for incident in found]


def _cause(incident: Incident, connection: duckdb.DuckDBPyConnection) -> str | None:
    """Return the cause that the recorder named most often during the incident."""
    if incident.metric != "normalized_ratio":
        return None
    rows = queried(
        connection,
        "select low_ratio_cause from slots where place = $place and update between $start and $end "
        "and low_ratio_cause is not null group by low_ratio_cause order by count(*) desc, low_ratio_cause limit 1",
        {"place": incident.subject, "start": incident.onset, "end": incident.end},
    )
    return None if rows.is_empty() else str(rows.item())


def _told(incident: Incident, cause: str | None) -> Trouble:
    place, when = cleaned(incident.subject, 40), _when(incident)
    worst = f"{number(incident.peak)} at update {incident.peak_update}"
    if incident.rule == "slot_gradient_explosion":
        what, brief = f"its gradient explodes (severity {worst})", f"▲ exploding, severity {number(incident.peak)}"
    elif incident.rule == "slot_gradient_vanishing":
        what, brief = f"its gradient vanishes (severity {worst})", f"▼ vanishing, severity {number(incident.peak)}"
    elif incident.metric == "low_ratio_cause":
        what = "disconnected: the loss reaches none of its tensors. It is not dormant; look for a detach() before it"
        brief = "⊘ disconnected"
    elif incident.rule == "host_dominating":
        what, brief = f"the host drowns it (ratio {worst})", "▼ host dominates"
    else:
        named = "" if cause is None else f"; {_CAUSES.get(cause, cause)}"
        what, brief = f"it hardly learns beside its host (ratio {worst}){named}", f"▼ {cause or 'low ratio'}"
    mark = brief[0]
    sentence = f"{mark} {place}, {when} ({incident.peak_verdict}): {what}."
    return Trouble(incident.subject, incident, sentence, f"{brief}, {when}")


def _when(incident: Incident) -> str:
    begun = f", begun at {incident.onset}" if incident.onset < incident.start else ""
    if incident.start == incident.end:
        return f"update {incident.start}{begun}"
    still = f", {incident.how_it_ended}" if incident.ended == "open" else ""
    return f"updates {incident.start}–{incident.end}{begun}{still}"
