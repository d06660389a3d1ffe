"""Each rule that found something: its evidence, what it means, what to do, and where the rule comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from esper_analyze.detector.signals import RUN
from esper_analyze.reports.narrative.links import figures_of
from esper_analyze.reports.narrative.primary_incident import crossed, leading, worst_and_now
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
    """One rule's incidents in words. ``root``: some of them are no consequence of another's."""

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
    """Return every rule with an incident: the one told first, then by the start of its first incident."""
    incidents = evidence.replay.incidents
    by_rule: dict[str, list[Incident]] = {}
    order = [leading(incidents, evidence.replay.rules), *range(len(incidents))] if incidents else []
    for place in dict.fromkeys(order):
        by_rule.setdefault(incidents[place].rule, []).append(incidents[place])
    return tuple(_explained(evidence, evidence.rules[name], found) for name, found in by_rule.items())


def _explained(evidence: Evidence, rule: Rule, found: list[Incident]) -> Explained:
    return Explained(
        rule=rule.name,
        title=evidence.title(rule.name),
        verdict="critical" if any(one.peak_verdict == "critical" for one in found) else found[0].peak_verdict,
        root=any(one.cause is None for one in found),
        evidence=tuple(_evidence(evidence, found)),
        meaning=cleaned(" ".join(dict.fromkeys(rule.meaning_of(one.metric) for one in found)), _LONGEST),
        do=cleaned(rule.look_first, _LONGEST),
        source=cleaned(rule.reference, _LONGEST),
        bounds=tuple(_bounds(evidence, rule)),
        figures=figures_of(rule),
    )


def _evidence(evidence: Evidence, found: list[Incident]) -> Iterable[str]:
    first = found[0]
    if first.start != first.end or first.subject != RUN:
        yield f"First{on(first.subject)} in {_span(first)}."
    yield from crossed(evidence, first)
    yield from worst_and_now(evidence, first)
    if len(first.seen_by) > 1:
        yield f"{len(first.seen_by)} rules see the same NaN: {', '.join(cleaned(name, 40) for name in first.seen_by)}."
    if len(found) > 1:
        subjects = list(dict.fromkeys(one.subject for one in found))
        named = ", ".join(cleaned(name, 40) for name in subjects[:_MOST_SUBJECTS])
        more = f" and {len(subjects) - _MOST_SUBJECTS} more" if len(subjects) > _MOST_SUBJECTS else ""
        alarms = many(sum(one.count for one in found), "update")
        where = "" if subjects == [RUN] else f", on {named}{more}"
        yield f"In all {times(len(found))}, {alarms} in alarm{where}."
    causes = {evidence.replay.incidents[one.cause].rule: one for one in found if one.cause is not None}
    if causes:
        yield f"Told as a consequence of {', '.join(cleaned(name, 40) for name in causes)}, open when it began."


def _span(one: Incident) -> str:
    return f"update {one.start:,}" if one.start == one.end else f"updates {one.start:,} to {one.end:,}"


def _bounds(evidence: Evidence, rule: Rule) -> Iterable[str]:
    """Say which bounds were met, and where their defaults come from."""
    used, sources, defaults = evidence.replay.thresholds[rule.name], rule.limits.sources(), rule.limits()
    met = {found.threshold for found in evidence.replay.findings if found.rule == rule.name}
    values = {item.name: getattr(used, item.name) for item in fields(rule.limits)}
    plain = {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
    named = [name for name in plain if name in _BOUNDS] or [name for name in plain if plain[name] in met]
    for name in named:
        default = float(getattr(defaults, name))
        changed = "" if plain[name] == default else f", default {number(default)}"
        yield f"{name} {number(plain[name])}{changed} ({cleaned(sources[name], 300)})"
