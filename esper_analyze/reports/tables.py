"""The report's tables of judgements: incidents with their consequences, what could not be judged, thresholds used."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from esper_analyze.replay.recorded_rules import stored_thresholds
from esper_analyze.reports.narrative.primary_incident import children_of, consequences
from esper_analyze.reports.render.rows import Cell, Mark, SectionTable
from esper_analyze.terminal import cleaned
from esper_analyze.wording import on, times

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.replay.replay import Unjudged
    from esper_analyze.runs.moments import Moment

MOST_ROWS = 200
"""Incidents shown on the page; report.json has all."""
_ENDINGS = ("still open", "better, not cleared yet", "cleared")
_VERDICTS = ("ok", "info", "warning", "critical", "no_data", "not_applicable")
_NAMED, _NAMED_UNJUDGED = 4, 6


@dataclass(frozen=True, slots=True)
class IncidentGroup:
    """Incidents of the same rule and metric, in one row. ``consequence``: they stand under their cause.

    ``began``: how far the training was when update ``start`` ended. ``in_alarm`` counts updates; ``worst``: the judged
    value (words where words were judged).
    """

    consequence: bool
    verdict: str
    rule: str
    title: str
    metric: str
    subjects: tuple[str, ...]
    count: int
    rules_seeing: int
    start: int
    end: int
    began: Moment
    in_alarm: int
    worst: Cell
    worst_at: int
    ended: str

    @property
    def named_subjects(self) -> str:
        """The first subjects by name, the others counted; empty for the run."""
        if len(self.subjects) == 1:
            return on(self.subjects[0])
        more = len(self.subjects) - _NAMED
        return f" on {', '.join(self.subjects[:_NAMED])}" + (f" and {more} more" if more > 0 else "")

    @property
    def words(self) -> str:
        """The row in words, a consequence after an arrow."""
        where = on(self.subjects[0]) if len(self.subjects) == 1 else f" on {len(self.subjects)} subjects"
        often = f", {times(self.count)}" if self.count > 1 else ""
        often += f" ({self.rules_seeing} rules see the same NaN)" if self.rules_seeing > 1 else ""
        return f"{'↳ ' if self.consequence else ''}{self.title}{where}{often}"


@dataclass(frozen=True, slots=True)
class IncidentList:
    """The first groups of incidents, each incident by itself (empty where the groups say it all), and their number."""

    groups: tuple[IncidentGroup, ...]
    single: tuple[IncidentGroup, ...]
    total: int


def incident_list(evidence: Evidence) -> IncidentList:
    """Return incidents with their consequences below: repeats in one row, and each incident in its own."""
    incidents = evidence.replay.incidents
    groups = grouped(incidents)
    alone = [([incident], depth) for group, depth in groups for incident in group]
    same = len(groups) == len(incidents) <= MOST_ROWS
    shown, single = (
        tuple(_group(evidence, group, depth) for group, depth in part[:MOST_ROWS]) for part in (groups, alone)
    )
    return IncidentList(shown, () if same else single, len(incidents))


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


def _group(evidence: Evidence, incidents: list[Incident], depth: int) -> IncidentGroup:
    """Return one row for incidents of the same rule and metric, in order of their start."""
    first = incidents[0]
    worst = _worst(incidents, higher=evidence.rules[first.rule].higher_is_worse)
    text = evidence.cell_text(worst)
    return IncidentGroup(
        consequence=depth > 0,
        verdict="critical" if any(item.peak_verdict == "critical" for item in incidents) else first.peak_verdict,
        rule=first.rule,
        title=evidence.title(first.rule),
        metric=first.metric,
        subjects=tuple(dict.fromkeys(incident.subject for incident in incidents)),
        count=len(incidents),
        rules_seeing=len(first.seen_by),
        start=first.start,
        end=max(incident.end for incident in incidents),
        began=evidence.moments.at(first.start),
        in_alarm=sum(incident.count for incident in incidents),
        worst=cleaned(text, 80) if text else worst.peak,
        worst_at=worst.peak_update,
        ended=min((incident.how_it_ended for incident in incidents), key=_ENDINGS.index),
    )


def _worst(incidents: list[Incident], *, higher: bool) -> Incident:
    broken = [incident for incident in incidents if not math.isfinite(incident.peak)]
    if broken:
        return broken[0]
    return max(incidents, key=lambda incident: incident.peak if higher else -incident.peak)


def incident_rows(evidence: Evidence) -> SectionTable:
    """Return the groups of incidents as a table of plain cells."""
    when = ("from", "until", "env_steps", "seconds", "in_alarm")
    columns = ("verdict", "what", "rule", "metric", *when, "worst", "at", "ended")
    groups = [_group(evidence, group, depth) for group, depth in grouped(evidence.replay.incidents)]
    return SectionTable(columns, tuple(map(_cells, groups)))


def _cells(group: IncidentGroup) -> tuple[Cell, ...]:
    return (
        Mark(group.verdict, group.verdict),
        group.words,
        group.rule,
        group.metric,
        group.start,
        group.end,
        group.began.env_steps,
        group.began.seconds,
        group.in_alarm,
        group.worst,
        group.worst_at,
        group.ended,
    )


@dataclass(frozen=True, slots=True)
class UnjudgedRow:
    """One rule that could not judge: its verdict, on whom, why, and at how many updates ("all": at none it could)."""

    verdict: str
    rule: str
    subjects: str
    reason: str
    updates: str


def unjudged_rows(evidence: Evidence) -> list[UnjudgedRow]:
    """Return what could not be judged and why, one row for each reason, including rules without any row."""
    counts = evidence.replay.verdict_counts
    by_reason: dict[tuple[str, str, str], list[Unjudged]] = defaultdict(list)
    for entry in evidence.replay.unjudged:
        by_reason[entry.rule, entry.verdict, entry.reason].append(entry)
    rows = [
        UnjudgedRow(verdict, rule, _named(entries), reason, f"{max(entry.count for entry in entries):,}")
        for (rule, verdict, reason), entries in by_reason.items()
    ]
    silent = [rule for rule in evidence.replay.rules if not counts.get(rule.name)]
    why = "table {} has no rows"
    return [*rows, *(UnjudgedRow("not_applicable", rule.name, "–", why.format(rule.table), "all") for rule in silent)]


def _named(entries: Sequence[Unjudged]) -> str:
    subjects = list(dict.fromkeys(entry.subject for entry in entries))
    more = len(subjects) - _NAMED_UNJUDGED
    return ", ".join(subjects[:_NAMED_UNJUDGED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class VerdictCounts:
    """How often each rule gave each verdict: titles of the columns, and (rule, counts) in their order."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]


def verdict_counts(evidence: Evidence) -> VerdictCounts:
    """Return how often each rule gave each verdict."""
    counts = evidence.replay.verdict_counts
    titles = ("rule", *(word.replace("_", " ") for word in _VERDICTS))
    by_rule = [(rule.name, counts.get(rule.name, {})) for rule in evidence.replay.rules]
    return VerdictCounts(titles, tuple((rule, tuple(of.get(word, 0) for word in _VERDICTS)) for rule, of in by_rule))


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """A threshold as used, the other values it was recorded with or has by default, and the source of the default."""

    rule: str
    name: str
    value: object
    changes: tuple[str, ...]
    source: str


def threshold_rows(evidence: Evidence) -> list[ThresholdRow]:
    """Return every threshold used."""
    used, stored = evidence.replay.thresholds, stored_thresholds(evidence.run, evidence.replay.rules)
    rows = []
    for rule in evidence.replay.rules:
        sources, defaults = rule.limits.sources(), rule.limits()
        for item in fields(rule.limits):
            value = getattr(used[rule.name], item.name)
            others = {
                "recorded with": getattr(stored[rule.name], item.name),
                "default": getattr(defaults, item.name),
            }
            changes = tuple(f"{what} {other}" for what, other in others.items() if other != value)
            rows.append(ThresholdRow(rule.name, item.name, value, changes, sources[item.name]))
    return rows
