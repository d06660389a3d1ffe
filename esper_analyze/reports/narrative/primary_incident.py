"""The primary incident of a run, and the incidents around it, in sentences."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from esper_analyze.detector.rules import RULES
from esper_analyze.replay.standing import without_data
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, number, on, times

if TYPE_CHECKING:
    from esper_analyze.detector.findings import Finding
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.detector.rule import Rule, Statistic
    from esper_analyze.replay.evidence import Evidence

_MOST_NAMED = 4
NEAR = 10
"""Incidents at most so many updates apart can belong together: as long as level DEBUG lasts after a KL spike."""


def primary_incident(incidents: Sequence[Incident], rules: Iterable[Rule] = RULES) -> int:
    """Return the index of the primary incident, chosen by time and cause, not by severity.

    Incidents whose onsets are at most ``NEAR`` updates apart, or that are shown under each other, form a cluster. The
    chosen cluster is the one in which most rules became critical (else: in which most rules found something), the
    earliest of equals. Its first critical incident (else its first) has to be explained. The primary incident is the
    earliest that can have caused it: of a rule declared as its cause (or as what it follows), in alarm until at most
    ``NEAR`` updates before; or of any rule that can cause something, begun at most ``NEAR`` updates before. Of several
    that began in one update a declared cause comes first, then the worst. So a mild incident that ended long before,
    or that no rule declares as a cause, is never primary.
    """
    graph = _Graph(incidents, rules)
    trouble = max(graph.troubles(), key=graph.weight)
    return graph.first_cause(graph.first_worst(trouble))


class _Graph:
    """Incidents in order of time, and which of them can have caused which."""

    def __init__(self, incidents: Sequence[Incident], rules: Iterable[Rule]) -> None:
        self.incidents = incidents
        self._rules = {rule.name: rule for rule in rules}
        self._behind = {name: _all_causes(name, self._rules) for name in self._rules}
        self._can_cause = {cause for rule in self._rules.values() for cause in (*rule.causes, *rule.follows)}
        self._order = sorted(range(len(incidents)), key=lambda index: (incidents[index].onset, index))

    def troubles(self) -> list[list[int]]:
        """Return the clusters as lists of indices, each in order of onset."""
        trouble = list(range(len(self.incidents)))

        def root(index: int) -> int:
            while trouble[index] != index:
                trouble[index] = trouble[trouble[index]]
                index = trouble[index]
            return index

        for before, position in pairwise(self._order):
            if self.incidents[position].onset - self.incidents[before].onset <= NEAR:
                trouble[root(position)] = root(before)
        for position, incident in enumerate(self.incidents):
            if incident.cause is not None:
                trouble[root(position)] = root(incident.cause)
        by_root: dict[int, list[int]] = {}
        for position in self._order:
            by_root.setdefault(root(position), []).append(position)
        return list(by_root.values())

    def weight(self, trouble: Sequence[int]) -> tuple[int, int, int]:
        """Return how many rules became critical, how many found something, and how early."""
        several = [self.incidents[index] for index in trouble]
        critical = {rule for incident in several if incident.peak_verdict == "critical" for rule in incident.seen_by}
        return len(critical), len({rule for incident in several for rule in incident.seen_by}), -several[0].onset

    def first_worst(self, trouble: Sequence[int]) -> int:
        """Return the first critical incident of a cluster, else its first."""
        critical = [index for index in trouble if self.incidents[index].peak_verdict == "critical"]
        return self._first(critical or trouble)

    def first_cause(self, index: int) -> int:
        """Return the earliest incident that can have caused the one at ``index``, itself when there is none."""
        near = [candidate for candidate in self._order if self._near(candidate, index)]
        index = self._first([index, *near])
        visited = {index}
        while True:
            earlier = [
                candidate for candidate in self._order if candidate not in visited and self._declared(candidate, index)
            ]
            if not earlier:
                return index
            index = self._first(earlier)
            visited.add(index)

    def _first(self, indices: Sequence[int]) -> int:
        """Return the first by onset; of those that began together, declared causes before what follows, worst first."""
        onset = min(self.incidents[index].onset for index in indices)
        together = {index for index in indices if self.incidents[index].onset == onset}
        roots = [index for index in together if not any(self._can_lead(other, index) for other in together)]
        return min(roots or together, key=lambda index: (self.incidents[index].peak_verdict != "critical", index))

    def _can_lead(self, first: int, second: int) -> bool:
        """Whether the incident at ``first`` is of a rule that can lead to the other, and began or alarmed earlier.

        The onset of a streak is only the earliest update it can have begun in: a declared cause that alarmed at once
        does not come later because of that.
        """
        before, after = self.incidents[first], self.incidents[second]
        if first == second or after.rule not in self._rules:
            return False
        if before.onset > after.onset and before.start >= after.start:
            return False
        if not self._behind[after.rule].isdisjoint(before.seen_by):
            return True
        follows = not set(self._rules[after.rule].follows).isdisjoint(before.seen_by)
        return follows and (before.onset < after.onset or after.rule not in self._behind.get(before.rule, ()))

    def _near(self, first: int, second: int) -> bool:
        before, after = self.incidents[first], self.incidents[second]
        return not self._can_cause.isdisjoint(before.seen_by) and after.onset - NEAR <= before.onset < after.onset

    def _declared(self, first: int, second: int) -> bool:
        before, after = self.incidents[first], self.incidents[second]
        if first == after.cause:
            return True
        reach = self._rules[after.rule].reach if after.rule in self._rules else 0
        return before.end >= after.onset - NEAR - reach and self._can_lead(first, second)


def _all_causes(name: str, rules: Mapping[str, Rule]) -> frozenset[str]:
    """Return every rule that is declared a cause of rule ``name``, directly or through others."""
    ancestors: set[str] = set()
    waiting = [name]
    while waiting:
        rule = rules.get(waiting.pop())
        new = set() if rule is None else set(rule.causes) - ancestors
        ancestors |= new
        waiting += new
    return frozenset(ancestors)


def judged_rules(evidence: Evidence) -> tuple[list[str], list[str]]:
    """Return the rules that judged some update, and those that never did because data was missing."""
    counts = evidence.replay.verdict_counts
    bounded = ("ok", "info", "warning", "critical")
    judged = [rule for rule, by_verdict in counts.items() if any(by_verdict.get(word) for word in bounded)]
    return judged, list(without_data(evidence.replay))


def children_of(incidents: Sequence[Incident]) -> dict[int, list[int]]:
    """Return index of a cause → indices of its direct consequences."""
    children: dict[int, list[int]] = defaultdict(list)
    for index, incident in enumerate(incidents):
        if incident.cause is not None:
            children[incident.cause].append(index)
    return children


def consequences(children: Mapping[int, Sequence[int]], root: int) -> list[int]:
    """Return the indices of all direct and indirect consequences of ``root``, in order of their start."""
    indices: set[int] = set()
    waiting = [root]
    while waiting:
        new = [index for index in children.get(waiting.pop(), ()) if index != root and index not in indices]
        indices.update(new)
        waiting += new
    return sorted(indices)


def duration(evidence: Evidence, lead: Incident) -> str:
    """Return title, verdict, subject and duration of an incident as a sentence."""
    last = last_update(evidence)
    if lead.start == last:
        lasting = f"at update {lead.start}, the last one recorded"
    elif lead.ended == "open":
        lasting = f"from update {lead.start} {_not_cleared(lead, last)}"
    elif lead.end == lead.start:
        lasting = f"at update {lead.start}" + ("" if evidence.rules[lead.rule].persists else ", for that update only")
    else:
        lasting = f"from update {lead.start} until update {lead.end}"
    several = len(lead.seen_by)
    same = f" {several} rules see the same NaN: {', '.join(cleaned(rule, 40) for rule in lead.seen_by)}."
    before = same if several > 1 else ""
    before += f" The streak that made it an alarm began at update {lead.onset}." if lead.onset < lead.start else ""
    return f"{title_of(evidence, lead)} ({lead.peak_verdict}){on(lead.subject)} {lasting}.{before}"


def _not_cleared(incident: Incident, last: int) -> str:
    """Say until when an incident that never cleared was in alarm; the recording ends at update ``last``."""
    if incident.end == last:
        return f"on, and still when the recording ends at update {last}"
    if incident.now_update is None or incident.now_update == incident.end:
        return f"on; after update {incident.end} it could not be judged, and the recording ends at update {last}"
    return f"until update {incident.end}; better since, but not yet cleared when the recording ends at {last}"


def title_of(evidence: Evidence, lead: Incident) -> str:
    """Return the title of an incident; for a non-finite number, that fact unless the rule is about NaN itself."""
    if math.isfinite(lead.peak) or evidence.rules[lead.rule].finiteness:
        return evidence.title(lead.rule)
    return f"{lead.metric} was {number(lead.peak)}"


def last_update(evidence: Evidence) -> int:
    """Return the last update of which anything is recorded; rows of ``updates`` may be lost."""
    recorded = evidence.run.last_update
    return (
        recorded if recorded is not None else max((incident.end for incident in evidence.replay.incidents), default=0)
    )


def bound_crossing(evidence: Evidence, lead: Incident) -> list[str]:
    """Say what was judged, against which bound, and when it became critical; text metrics are quoted at their worst."""
    written = evidence.cell_text(lead)
    if written is not None:
        return [f"At update {lead.peak_update:,} {lead.metric} said: {cleaned(written)}."]
    alarms, statistic = alarms_of(evidence.replay.findings, lead), evidence.rules[lead.rule].statistic(lead.metric)
    sentences = (
        [f"At update {alarms[0].update:,} {statistic.name} was {_beyond(alarms[0], statistic)}."] if alarms else []
    )
    worse = next((f for f in alarms[1:] if f.verdict == "critical" and alarms[0].verdict != "critical"), None)
    if worse is not None:
        sentences.append(f"From update {worse.update:,} it was critical: {_beyond(worse, statistic)}.")
    return sentences


def worst_and_now(evidence: Evidence, incident: Incident) -> list[str]:
    """Say the judged statistic at its worst and at the last judged update; empty for text metrics."""
    if evidence.cell_text(incident) is not None:
        return []
    at_worst = f"At its worst it was {number(incident.peak)}, at update {incident.peak_update:,}"
    if incident.now is None or incident.now_update is None or incident.now_update == incident.peak_update:
        return [f"{at_worst}."]
    return [f"{at_worst}; at update {incident.now_update:,}, the last that was judged, it was {number(incident.now)}."]


def _beyond(finding: Finding, statistic: Statistic) -> str:
    """Return the judged value with its unit, the bound it crossed, and the baseline."""
    value = f"{number(finding.value)} {statistic.unit}".rstrip()
    if finding.threshold is None or finding.value is None:
        return value
    side = "at" if finding.value == finding.threshold else "below" if finding.value < finding.threshold else "beyond"
    against = "" if finding.baseline is None else f", against {statistic.baseline}, {number(finding.baseline)}"
    return f"{value}, {side} the {finding.verdict} bound of {number(finding.threshold)}{against}"


def alarms_of(findings: Iterable[Finding], lead: Incident) -> list[Finding]:
    """Return the findings that began ``lead`` or made it worse."""
    where = (lead.rule, lead.subject, lead.metric)
    inside = [f for f in findings if (f.rule, f.subject, f.metric) == where and lead.start <= f.update <= lead.end]
    return [finding for finding in inside if finding.alarm]


def other_incidents(incidents: Sequence[Incident], rules: Iterable[Rule] = RULES) -> list[str]:
    """Name the consequences of the primary incident, and the other incidents."""
    root = primary_incident(incidents, rules)
    lead, after = incidents[root], consequences(children_of(incidents), root)
    explained = {root, *after}
    rest = [index for index in range(len(incidents)) if index not in explained]
    again = [index for index in rest if incidents[index].rule == lead.rule]
    roots = [
        index for index in rest if incidents[index].rule != lead.rule and incidents[index].cause in (None, *explained)
    ]
    early = [index for index in roots if incidents[index].start < lead.onset]
    late = [index for index in roots if incidents[index].start - lead.start > NEAR]
    soon = [index for index in roots if index not in (*early, *late)]
    sentences = []
    for indices, words in (
        (after, "As its consequences"),
        (again, "The same rule elsewhere or again"),
        (soon, f"Begun within {NEAR} updates of it"),
        (early, "Before it and unrelated"),
        (late, "Later and unrelated"),
    ):
        if indices:
            sentences.append(f"{words}: {rule_list([incidents[index] for index in indices])}.")
    return sentences


def rule_list(incidents: Sequence[Incident]) -> str:
    """Name each rule once, with its first update and its subjects."""
    by_rule: dict[str, list[Incident]] = {}
    for incident in incidents:
        by_rule.setdefault(incident.rule, []).append(incident)
    parts = []
    for rule, of_rule in list(by_rule.items())[:_MOST_NAMED]:
        subjects = list(dict.fromkeys(incident.subject for incident in of_rule))
        where = on(subjects[0]) if len(subjects) == 1 else f" on {len(subjects)} subjects"
        often = f", {times(len(of_rule))}" if len(of_rule) > 1 else ""
        parts.append(f"{rule}{where} from update {of_rule[0].start}{often}")
    if len(by_rule) > _MOST_NAMED:
        parts.append(f"and {many(len(by_rule) - _MOST_NAMED, 'further rule')} in the table below")
    return "; ".join(parts)
