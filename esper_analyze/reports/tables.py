"""The page's tables: incidents with their consequences, what could not be judged, thresholds used."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from esper_analyze.replay.recorded_rules import stored_thresholds
from esper_analyze.reports.narrative.primary_incident import children_of, consequences
from esper_analyze.reports.render import html
from esper_analyze.reports.render.rows import Cell, Mark, SectionTable
from esper_analyze.terminal import cleaned
from esper_analyze.wording import number, on, times

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.replay.replay import Unjudged

MOST_ROWS = 200
"""Incidents shown on the page; report.json has all."""
_ENDINGS = ("still open", "better, not cleared yet", "cleared")
_TITLES = ("verdict", "what", "updates", "in alarm", "worst", "ended")


def incident_table(evidence: Evidence) -> str:
    """Return incidents with their consequences below: repeats in one row, each incident in a folded table."""
    incidents = evidence.replay.incidents
    if not incidents:
        return "<p>No incident: no rule reached a warning.</p>"
    groups = grouped(incidents)
    shown = html.table(_TITLES, [_row(evidence, group, depth) for group, depth in groups[:MOST_ROWS]], kind="incidents")
    if len(groups) == len(incidents) <= MOST_ROWS:
        return shown
    single = [_row(evidence, [incident], depth) for group, depth in groups for incident in group]
    note = "" if len(single) <= MOST_ROWS else f"<p>The first {MOST_ROWS}; report.json has all.</p>"
    every = html.table(_TITLES, single[:MOST_ROWS], kind="incidents")
    summary = f"<summary>Each incident in its own row ({len(single):,})</summary>"
    return f'{shown}<details class="more">{summary}{every}{note}</details>'


def grouped(incidents: Sequence[Incident]) -> list[tuple[list[Incident], int]]:
    """Return (incidents of one rule and metric, depth): each root with its consequences under it.

    Roots without consequences stand together with others of their kind.
    """
    groups: list[tuple[list[Incident], int]] = []
    loose: dict[tuple[str, str], list[Incident]] = {}
    children = children_of(incidents)
    for root, incident in enumerate(incidents):
        if incident.cause is not None:
            continue
        after = [incidents[index] for index in consequences(children, root)]
        kind = (incident.rule, incident.metric)
        if not after and kind in loose:
            loose[kind].append(incident)
            continue
        groups.append(([incident], 0))
        groups += [(group, 1) for group in _by_kind(after)]
        if not after:
            loose[kind] = groups[-1][0]
    return groups


def _by_kind(incidents: Sequence[Incident]) -> list[list[Incident]]:
    kinds: dict[tuple[str, str], list[Incident]] = defaultdict(list)
    for incident in incidents:
        kinds[incident.rule, incident.metric].append(incident)
    return list(kinds.values())


def _row(evidence: Evidence, incidents: list[Incident], depth: int) -> list[str]:
    """Return one table row for incidents of the same rule and metric, in order of their start."""
    first = incidents[0]
    verdict = "critical" if any(incident.peak_verdict == "critical" for incident in incidents) else first.peak_verdict
    start, end = first.start, max(incident.end for incident in incidents)
    span = f"{start:,}" if start == end else f"{start:,} – {end:,}"
    ended = min((incident.how_it_ended for incident in incidents), key=_ENDINGS.index)
    worst = _worst(incidents, higher=evidence.rules[first.rule].higher_is_worse)
    value = html.text(evidence.cell_text(worst) or number(worst.peak), 80)
    return [
        html.chip(verdict),
        _what(incidents, depth, evidence.title(first.rule)),
        span,
        f"{sum(incident.count for incident in incidents):,}",
        f"{value} <small>at {worst.peak_update:,}</small>",
        ended,
    ]


def _what(incidents: list[Incident], depth: int, title: str) -> str:
    first = incidents[0]
    subjects = list(dict.fromkeys(incident.subject for incident in incidents))
    where = on(subjects[0]) if len(subjects) == 1 else f" on {', '.join(subjects[:4])}"
    where += f" and {len(subjects) - 4} more" if len(subjects) > 4 else ""
    often = f" · {times(len(incidents))}" if len(incidents) > 1 else ""
    often += f" · {len(first.seen_by)} rules see the same NaN" if len(first.seen_by) > 1 else ""
    under = '<span class="under">consequence</span> ' if depth else ""
    return (
        f'{under}<a href="#rule-{html.text(first.rule)}"><strong>{html.text(title)}</strong></a>{html.text(where)}'
        f"<br><code>{html.text(first.rule)}</code> · {html.text(first.metric)}{often}"
    )


def incident_rows(evidence: Evidence) -> SectionTable:
    """Return the same rows as data, consequences marked with an arrow."""
    columns = ("verdict", "what", "rule", "metric", "from", "until", "in_alarm", "worst", "at", "ended")
    return SectionTable(
        columns, tuple(_plain(evidence, group, depth) for group, depth in grouped(evidence.replay.incidents))
    )


def _plain(evidence: Evidence, incidents: list[Incident], depth: int) -> tuple[Cell, ...]:
    first, worst = incidents[0], _worst(incidents, higher=evidence.rules[incidents[0].rule].higher_is_worse)
    subjects = list(dict.fromkeys(incident.subject for incident in incidents))
    where = on(subjects[0]) if len(subjects) == 1 else f" on {len(subjects)} subjects"
    often = f", {times(len(incidents))}" if len(incidents) > 1 else ""
    often += f" ({len(first.seen_by)} rules see the same NaN)" if len(first.seen_by) > 1 else ""
    verdict = "critical" if any(incident.peak_verdict == "critical" for incident in incidents) else first.peak_verdict
    return (
        Mark(verdict, verdict),
        f"{'↳ ' if depth else ''}{evidence.title(first.rule)}{where}{often}",
        first.rule,
        first.metric,
        first.start,
        max(incident.end for incident in incidents),
        sum(incident.count for incident in incidents),
        cleaned(evidence.cell_text(worst), 80) if evidence.cell_text(worst) else worst.peak,
        worst.peak_update,
        min((incident.how_it_ended for incident in incidents), key=_ENDINGS.index),
    )


def _worst(incidents: list[Incident], *, higher: bool) -> Incident:
    broken = [incident for incident in incidents if not math.isfinite(incident.peak)]
    if broken:
        return broken[0]
    return max(incidents, key=lambda incident: incident.peak if higher else -incident.peak)


def unjudged_table(evidence: Evidence) -> str:
    """Return what could not be judged and why, one row for each reason, including rules without any row."""
    unjudged, counts = evidence.replay.unjudged, evidence.replay.verdict_counts
    silent = [rule for rule in evidence.replay.rules if not counts.get(rule.name)]
    if not unjudged and not silent:
        return "<p>Every rule judged every update.</p>"
    grouped: dict[tuple[str, str, str], list[Unjudged]] = defaultdict(list)
    for entry in unjudged:
        grouped[entry.rule, entry.verdict, entry.reason].append(entry)
    rows = []
    for (rule, verdict, reason), entries in grouped.items():
        subjects = list(dict.fromkeys(entry.subject for entry in entries))
        named = ", ".join(subjects[:6]) + (f" and {len(subjects) - 6} more" if len(subjects) > 6 else "")
        most = max(entry.count for entry in entries)
        rows.append(
            [html.chip(verdict), f"<code>{html.text(rule)}</code>", html.text(named), html.text(reason), f"{most:,}"]
        )
    for mute in silent:
        why = html.text(f"table {mute.table} has no rows")
        rows.append([html.chip("not_applicable"), f"<code>{html.text(mute.name)}</code>", "–", why, "all"])
    return html.table(("verdict", "rule", "on", "why", "updates"), rows)


def verdict_table(evidence: Evidence) -> str:
    """Return how often each rule gave each verdict."""
    words = ("ok", "info", "warning", "critical", "no_data", "not_applicable")
    counts = evidence.replay.verdict_counts
    rows = []
    for rule in evidence.replay.rules:
        by_verdict = counts.get(rule.name, {})
        cells = [f"{by_verdict[word]:,}" if by_verdict.get(word) else '<span class="none">–</span>' for word in words]
        rows.append([f"<code>{html.text(rule.name)}</code>", *cells])
    return html.table(("rule", *(word.replace("_", " ") for word in words)), rows, kind="numbers")


def threshold_table(evidence: Evidence) -> str:
    """Return every threshold used, marking those that differ from the recorded one or from the default."""
    used, stored = evidence.replay.thresholds, stored_thresholds(evidence.run, evidence.replay.rules)
    rows = []
    for rule in evidence.replay.rules:
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
    return html.table(("threshold", "used", "changed", "source of the default"), rows)
