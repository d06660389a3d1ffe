"""The page's tables: incidents with their consequences, what could not be judged, thresholds used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from esper_analyze.detector.rules import RULES
from esper_analyze.reports import html
from esper_analyze.reports.story import consequences, number, on, title
from esper_analyze.runs.replay import stored_thresholds

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.reports.evidence import Evidence
    from esper_analyze.runs.replay import Unjudged

MOST_ROWS = 200
"""Incidents shown on the page; report.json holds all."""


def incident_table(evidence: Evidence) -> str:
    """Return all incidents, each consequence under its cause."""
    incidents = evidence.replay.incidents
    if not incidents:
        return "<p>No incident: nothing reached a warning.</p>"
    order = [
        (place, depth)
        for root, incident in enumerate(incidents)
        if incident.cause is None
        for place, depth in [(root, 0), *((child, 1) for child in consequences(incidents, root))]
    ]
    rows = [_incident_row(evidence, incidents[place], depth) for place, depth in order[:MOST_ROWS]]
    shown = html.table(("verdict", "what", "updates", "in alarm", "worst", "ended"), rows, kind="incidents")
    if len(order) > MOST_ROWS:
        shown += f"<p>{len(order) - MOST_ROWS} more of {len(order)} incidents are in report.json.</p>"
    return shown


def _incident_row(evidence: Evidence, incident: Incident, depth: int) -> list[str]:
    what = f"<strong>{html.text(title(incident.rule))}</strong>{html.text(on(incident.subject))}"
    what += f"<br><code>{html.text(incident.rule)}</code> · {html.text(incident.metric)}"
    if depth:
        what = f'<span class="under">consequence</span> {what}'
    span = f"{incident.start:,}" if incident.start == incident.end else f"{incident.start:,} – {incident.end:,}"
    ended = "still open at the end" if incident.ended == "open" else "cleared"
    worst = evidence.said(incident) or number(incident.peak)
    worst = f"{html.text(worst, 80)} <small>at {incident.peak_update:,}</small>"
    return [html.chip(incident.peak_verdict), what, span, f"{incident.count:,}", worst, ended]


def unjudged_table(unjudged: Sequence[Unjudged]) -> str:
    """Return what could not be judged and why, subjects of one reason in one row."""
    if not unjudged:
        return "<p>Every rule could judge every update.</p>"
    grouped: dict[tuple[str, str, str], list[Unjudged]] = defaultdict(list)
    for one in unjudged:
        grouped[one.rule, one.verdict, one.reason].append(one)
    rows = []
    for (rule, verdict, reason), found in grouped.items():
        subjects = list(dict.fromkeys(one.subject for one in found))
        named = ", ".join(subjects[:6]) + (f" and {len(subjects) - 6} more" if len(subjects) > 6 else "")
        most = max(one.count for one in found)
        rows.append(
            [html.chip(verdict), f"<code>{html.text(rule)}</code>", html.text(named), html.text(reason), f"{most:,}"]
        )
    return html.table(("verdict", "rule", "on", "why", "updates"), rows)


def verdict_table(evidence: Evidence) -> str:
    """Return how often each rule gave each verdict."""
    words = ("ok", "info", "warning", "critical", "no_data", "not_applicable")
    counts = evidence.replay.verdict_counts
    rows = []
    for rule in RULES:
        said = counts.get(rule.name, {})
        cells = [f"{said[word]:,}" if said.get(word) else '<span class="none">–</span>' for word in words]
        rows.append([f"<code>{html.text(rule.name)}</code>", *cells])
    return html.table(("rule", *(word.replace("_", " ") for word in words)), rows, kind="numbers")


def threshold_table(evidence: Evidence) -> str:
    """Return every threshold used, marking what differs from the run's own and from the default."""
    used, stored = evidence.replay.thresholds, stored_thresholds(evidence.run)
    rows = []
    for rule in RULES:
        sources, defaults = rule.limits.sources(), rule.limits()
        for item in fields(rule.limits):
            value = getattr(used[rule.name], item.name)
            notes = []
            if value != getattr(stored[rule.name], item.name):
                notes.append(f"recorded with {getattr(stored[rule.name], item.name)}")
            if value != getattr(defaults, item.name):
                notes.append(f"default {getattr(defaults, item.name)}")
            shown = f"<code>{html.text(rule.name)}.{html.text(item.name)}</code>"
            mark = f"<strong>{html.text(value)}</strong>" if notes else html.text(value)
            rows.append([shown, mark, html.text("; ".join(notes)), html.text(sources[item.name])])
    return html.table(("threshold", "used", "changed", "where the default comes from"), rows)
