"""Each rule with incidents: its evidence, meaning, recommended action and source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from esper_analyze.detector.signals import RUN
from esper_analyze.reports.narrative.links import figures_of
from esper_analyze.reports.narrative.primary_incident import bound_crossing, primary_incident, worst_and_now
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, number, on, times

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.detector.rule import Rule
    from esper_analyze.replay.evidence import Evidence

_BOUNDS = ("warning", "critical", "threshold")
_LONGEST = 1_000
_MOST_SUBJECTS = 6


@dataclass(frozen=True, slots=True)
class Explained:
    """One rule's incidents in words. ``root``: some of them are not consequences of other incidents."""

    rule: str
    title: str
    verdict: str
    root: bool
    evidence: tuple[str, ...]
    meaning: str
    do: str
    source: str
    bounds: tuple[str, ...]
    figures: tuple[str, ...]


def explained(evidence: Evidence) -> tuple[Explained, ...]:
    """Return every rule with an incident: that of the primary incident, then by the start of the first incident."""
    incidents = evidence.replay.incidents
    by_rule: dict[str, list[Incident]] = {}
    order = [primary_incident(incidents, evidence.replay.rules), *range(len(incidents))] if incidents else []
    for index in dict.fromkeys(order):
        by_rule.setdefault(incidents[index].rule, []).append(incidents[index])
    return tuple(_explained(evidence, evidence.rules[name], of_rule) for name, of_rule in by_rule.items())


def _explained(evidence: Evidence, rule: Rule, incidents: list[Incident]) -> Explained:
    return Explained(
        rule=rule.name,
        title=evidence.title(rule.name),
        verdict="critical"
        if any(incident.peak_verdict == "critical" for incident in incidents)
        else incidents[0].peak_verdict,
        root=any(incident.cause is None for incident in incidents),
        evidence=tuple(_evidence(evidence, incidents)),
        meaning=cleaned(" ".join(dict.fromkeys(rule.meaning_of(incident.metric) for incident in incidents)), _LONGEST),
        do=cleaned(rule.look_first, _LONGEST),
        source=cleaned(rule.reference, _LONGEST),
        bounds=tuple(_bounds(evidence, rule)),
        figures=figures_of(rule),
    )


def _evidence(evidence: Evidence, of_rule: list[Incident]) -> Iterable[str]:
    first = of_rule[0]
    if first.start != first.end or first.subject != RUN:
        yield f"First{on(first.subject)} in {_span(first)}."
    yield from bound_crossing(evidence, first)
    yield from worst_and_now(evidence, first)
    if len(first.seen_by) > 1:
        yield f"{len(first.seen_by)} rules see the same NaN: {', '.join(cleaned(name, 40) for name in first.seen_by)}."
    if len(of_rule) > 1:
        subjects = list(dict.fromkeys(incident.subject for incident in of_rule))
        named = ", ".join(cleaned(name, 40) for name in subjects[:_MOST_SUBJECTS])
        more = f" and {len(subjects) - _MOST_SUBJECTS} more" if len(subjects) > _MOST_SUBJECTS else ""
        alarms = many(sum(incident.count for incident in of_rule), "update")
        where = "" if subjects == [RUN] else f", on {named}{more}"
        yield f"In total {times(len(of_rule))}, {alarms} in alarm{where}."
    causes = {
        evidence.replay.incidents[incident.cause].rule: incident for incident in of_rule if incident.cause is not None
    }
    if causes:
        yield f"Listed as a consequence of {', '.join(cleaned(name, 40) for name in causes)}, open when it began."


def _span(incident: Incident) -> str:
    return (
        f"update {incident.start:,}"
        if incident.start == incident.end
        else f"updates {incident.start:,} to {incident.end:,}"
    )


def _bounds(evidence: Evidence, rule: Rule) -> Iterable[str]:
    """Yield the bounds that were crossed, and where their defaults come from."""
    used, sources, defaults = evidence.replay.thresholds[rule.name], rule.limits.sources(), rule.limits()
    met = {finding.threshold for finding in evidence.replay.findings if finding.rule == rule.name}
    values = {item.name: getattr(used, item.name) for item in fields(rule.limits)}
    plain = {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
    named = [name for name in plain if name in _BOUNDS] or [name for name in plain if plain[name] in met]
    for name in named:
        default = float(getattr(defaults, name))
        changed = "" if plain[name] == default else f", default {number(default)}"
        yield f"{name} {number(plain[name])}{changed} ({cleaned(sources[name], 300)})"
