"""Incidents on seed modules, in the terms of growing networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.detector.incidents import Incident
from esper_analyze.detector.rules import rules_over
from esper_analyze.replay.evidence import Evidence
from esper_analyze.runs.series import queried
from esper_analyze.terminal import cleaned
from esper_analyze.wording import number

if TYPE_CHECKING:
    import duckdb

_CAUSES = {
    "dormant": "dormant: its gradient was small from the beginning",
    "saturated": "saturated: its gradient was normal before",
    "host_learning_fast": "the host learns faster than usual; the seed module itself is normal",
    "disconnected": "only some of its tensors are reached by the loss",
}


@dataclass(frozen=True, slots=True)
class SlotIncident:
    """An incident on a slot: one sentence, and a few words for a table."""

    slot: str
    incident: Incident
    sentence: str
    brief: str


def slot_incidents(evidence: Evidence, connection: duckdb.DuckDBPyConnection) -> list[SlotIncident]:
    """Return the incidents on slots, critical before warning, each in order of its start."""
    incidents = [incident for incident in evidence.replay.single_incidents if incident.rule in rules_over("slots")]
    incidents.sort(key=lambda item: (item.peak_verdict != "critical", item.start, item.subject))
    return [_described(incident, _cause(incident, connection)) for incident in incidents]


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


def _described(incident: Incident, cause: str | None) -> SlotIncident:
    slot, when = cleaned(incident.subject, 40), _when(incident)
    worst = f"{number(incident.peak)} at update {incident.peak_update}"
    if incident.rule == "slot_gradient_explosion":
        what, brief = f"its gradient explodes (severity {worst})", f"▲ exploding, severity {number(incident.peak)}"
    elif incident.rule == "slot_gradient_vanishing":
        what, brief = f"its gradient vanishes (severity {worst})", f"▼ vanishing, severity {number(incident.peak)}"
    elif incident.metric == "low_ratio_cause":
        what = "disconnected: the loss reaches none of its tensors; it is not dormant. Look for a detach() before it"
        brief = "⊘ disconnected"
    elif incident.rule == "host_dominating":
        what, brief = f"the host's gradient dominates (ratio {worst})", "▼ host dominates"
    else:
        named = "" if cause is None else f"; {_CAUSES.get(cause, cause)}"
        what, brief = f"it hardly learns compared with its host (ratio {worst}){named}", f"▼ {cause or 'low ratio'}"
    mark = brief[0]
    sentence = f"{mark} {slot}, {when} ({incident.peak_verdict}): {what}."
    return SlotIncident(incident.subject, incident, sentence, f"{brief}, {when}")


def _when(incident: Incident) -> str:
    begun = f", begun at {incident.onset}" if incident.onset < incident.start else ""
    if incident.start == incident.end:
        return f"update {incident.start}{begun}"
    still = f", {incident.how_it_ended}" if incident.ended == "open" else ""
    return f"updates {incident.start}–{incident.end}{begun}{still}"
