"""Tables of the questions about judgements: drift, incidents and heads, as commands list them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.rows import Mark, SectionTable
from esper_analyze.reports.sections.signs import head_state
from esper_analyze.runs.series import Series, rows_of, series_of
from esper_analyze.schema.constants import HEAD_GROUP

if TYPE_CHECKING:
    import polars

    from esper_analyze.detector.incidents import Incident

DRIFT_RULES = ("gradient_drift",)
HEAD_RULES = ("head_entropy_collapse", "mask_collapse", "gradient_missing")
"""Rules that judge table ``heads``; those on gradients judge the group of its parameters, head:<name>."""
_HEAD_NUMBERS = ("grad_norm", "learnable_fraction", "entropy_norm")


def timeline_rows(evidence: Evidence, _data: object = None) -> SectionTable:
    """Return every incident in order of its start; ``cause`` names the rule of the incident it is shown under."""
    columns = (
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
    )
    incidents = evidence.replay.incidents
    cells = [
        (*_incident(incident), evidence.cell_text(incident) or incident.peak, _cause(incidents, incident))
        for incident in sorted(incidents, key=lambda incident: incident.start)
    ]
    shown = ("start", "end", "verdict", "rule", "subject", "judged", "bound", "worst", "now", "cause")
    return SectionTable((*columns, "cause"), tuple(cells), tuple((name, name) for name in shown))


def _incident(incident: Incident) -> tuple[object, ...]:
    verdict = Mark(incident.peak_verdict, incident.peak_verdict)
    where = (incident.start, incident.end, verdict, incident.rule, incident.subject, incident.metric)
    judged = (incident.statistic, incident.threshold, incident.now, incident.now_update)
    return (
        *where,
        incident.onset,
        incident.peak,
        incident.peak_update,
        *judged,
        incident.count,
        incident.ended,
        ", ".join(incident.seen_by),
    )


def _cause(incidents: list[Incident], incident: Incident) -> str | None:
    return None if incident.cause is None else incidents[incident.cause].rule


def drift_rows(evidence: Evidence, _data: object = None) -> SectionTable:
    """Return each group and metric judged: value, baseline and drift at the end, the largest drift, and alarms."""
    columns = (
        "group",
        "state",
        "drift",
        "most_drift",
        "most_at",
        "value",
        "baseline",
        "metric",
        "alarms",
        "first_alarm",
    )
    cells = []
    for metric, groups in evidence.drift.items():
        values = rows_of(evidence.run, "groups", [metric]).partition_by("group", as_dict=True, maintain_order=True)
        for group, judged in groups.items():
            alarms = [
                i
                for i in evidence.replay.single_incidents
                if (i.rule, i.subject, i.metric) == ("gradient_drift", group, metric)
            ]
            value = series_of(values[group,], metric).last if (group,) in values else None
            worst = (_peak(judged.value), _peak_at(judged.value))
            first = alarms[0].start if alarms else None
            ends = (judged.value.last, *worst, value, judged.baseline.last)
            cells.append((group, _state(alarms, judged.value), *ends, metric, len(alarms), first))
    cells.sort(key=lambda row: _order(row[1]))
    brief = (
        ("group", "group"),
        ("metric", "metric"),
        ("state", "state"),
        ("drift", "drift"),
        ("most_drift", "most"),
        ("most_at", "at"),
        ("first_alarm", "alarm"),
    )
    return SectionTable(columns, tuple(cells), brief)


def _peak(series: Series) -> float | None:
    return float(series.value[series.largest]) if series.finite.any() else None


def _peak_at(series: Series) -> int | None:
    return int(series.update[series.largest]) if series.finite.any() else None


def _state(incidents: list[Incident], judged: Series) -> Mark:
    if not incidents:
        return Mark("ok", "● steady") if judged.finite.any() else Mark("no_data", "– not judged")
    worst = "critical" if any(incident.peak_verdict == "critical" for incident in incidents) else "warning"
    return Mark(worst, "▲ drifted")


def _order(cell: object) -> int:
    order = ("critical", "warning", "no_data", "not_applicable", "ok")
    return order.index(cell.verdict) if isinstance(cell, Mark) else len(order)


def head_rows(evidence: Evidence, _data: object = None) -> SectionTable:
    """Return each head: gradient, learnable fraction and entropy at the end, its worst, and whether it learns."""
    columns = (
        "head",
        "state",
        "grad_norm",
        "learnable_fraction",
        "entropy_norm",
        "grad_state",
        "zero_explained",
        "least_entropy",
        "unexplained",
        "first_unexplained",
        "nonfinite",
        "first_nonfinite",
        "alarms",
    )
    rows = rows_of(evidence.run, "heads", [*_HEAD_NUMBERS, "grad_state", "zero_explained"])
    alarms: dict[str, list[Incident]] = {}
    for incident in evidence.replay.single_incidents:
        alarms.setdefault(incident.subject, []).append(incident)
    parts = rows.partition_by("head", as_dict=True, maintain_order=True)
    about = {str(key[0]): [*alarms.get(str(key[0]), []), *alarms.get(f"{HEAD_GROUP}{key[0]}", [])] for key in parts}
    cells = [_head(str(key[0]), part, about[str(key[0])]) for key, part in parts.items()]
    cells.sort(key=lambda row: _order(row[1]))
    brief = (
        ("head", "head"),
        ("state", "state"),
        ("grad_norm", "gradient"),
        ("learnable_fraction", "learnable"),
        ("entropy_norm", "entropy"),
        ("zero_explained", "zero"),
    )
    return SectionTable(columns, tuple(cells), brief)


def _head(name: str, rows: polars.DataFrame, alarms: list[Incident]) -> tuple[object, ...]:
    norm, learnable, entropy = (series_of(rows, column) for column in _HEAD_NUMBERS)
    unexplained = norm.update[(rows["zero_explained"] == "unexplained").fill_null(value=False).to_numpy()]
    broken = norm.update[norm.nonfinite | (rows["grad_state"] == "nonfinite").fill_null(value=False).to_numpy()]
    last = rows.row(-1, named=True)
    least = float(entropy.value[entropy.finite].min()) if entropy.finite.any() else None
    now = head_state(last, {incident.rule: incident.peak_verdict for incident in alarms if incident.ended == "open"})
    state = Mark(now.verdict, str(now))
    gradient = None if last["grad_state"] in (None, "removed") else norm.last
    ends = (state, gradient, learnable.last, entropy.last, last["grad_state"], last["zero_explained"], least)
    return (name, *ends, *_counted(unexplained), *_counted(broken), len(alarms))


def _counted(updates: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[int, int | None]:
    return len(updates), int(updates[0]) if len(updates) else None
