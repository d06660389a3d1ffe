"""The incident told first, and those around it, in sentences."""

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
"""Updates within which what begins, or ends, before a trouble can belong to it: as long as DEBUG lasts after KL."""


def leading(incidents: Sequence[Incident], rules: Iterable[Rule] = RULES) -> int:
    """Return the position of the incident to tell first: by time and cause, not by severity.

    Incidents whose onsets are at most ``NEAR`` updates apart, or that are shown under each other, are one trouble. The
    trouble told is the one in which most rules became critical (else: in which most rules found something), the
    earliest of equals. Its first critical incident (else its first) is what has to be explained. What leads is the
    earliest incident that can have caused that: of a rule declared as its cause (or as what it follows), and
    in alarm until at most ``NEAR`` updates before; or of any rule that can cause something, begun at most ``NEAR``
    updates before. Of several that began in one update the declared cause leads, then the worst. So a mild incident
    that had ended long before, or that nothing declares a cause, never leads.
    """
    graph = _Graph(incidents, rules)
    trouble = max(graph.troubles(), key=graph.weight)
    return graph.first_cause(graph.first_worst(trouble))


class _Graph:
    """Incidents in time, and which of them can have caused which."""

    def __init__(self, incidents: Sequence[Incident], rules: Iterable[Rule]) -> None:
        self.incidents = incidents
        self._rules = {rule.name: rule for rule in rules}
        self._behind = {name: _all_causes(name, self._rules) for name in self._rules}
        self._can_cause = {cause for rule in self._rules.values() for cause in (*rule.causes, *rule.follows)}
        self._order = sorted(range(len(incidents)), key=lambda place: (incidents[place].onset, place))

    def troubles(self) -> list[list[int]]:
        """Return positions by trouble, each in order of onset."""
        trouble = list(range(len(self.incidents)))

        def root(place: int) -> int:
            while trouble[place] != place:
                trouble[place] = trouble[trouble[place]]
                place = trouble[place]
            return place

        for before, place in pairwise(self._order):
            if self.incidents[place].onset - self.incidents[before].onset <= NEAR:
                trouble[root(place)] = root(before)
        for place, incident in enumerate(self.incidents):
            if incident.cause is not None:
                trouble[root(place)] = root(incident.cause)
        found: dict[int, list[int]] = {}
        for place in self._order:
            found.setdefault(root(place), []).append(place)
        return list(found.values())

    def weight(self, trouble: Sequence[int]) -> tuple[int, int, int]:
        """Return how many rules became critical, how many found something, and how early."""
        several = [self.incidents[place] for place in trouble]
        critical = {rule for one in several if one.peak_verdict == "critical" for rule in one.seen_by}
        return len(critical), len({rule for one in several for rule in one.seen_by}), -several[0].onset

    def first_worst(self, trouble: Sequence[int]) -> int:
        """Return the first critical incident of a trouble, else its first."""
        critical = [place for place in trouble if self.incidents[place].peak_verdict == "critical"]
        return self._first(critical or trouble)

    def first_cause(self, place: int) -> int:
        """Return the earliest incident that can have caused the one at ``place``, itself when there is none."""
        near = [one for one in self._order if self._near(one, place)]
        place = self._first([place, *near])
        known = {place}
        while True:
            earlier = [one for one in self._order if one not in known and self._declared(one, place)]
            if not earlier:
                return place
            place = self._first(earlier)
            known.add(place)

    def _first(self, places: Sequence[int]) -> int:
        """Return the first by onset; of those that began together, declared causes before what follows, worst first."""
        onset = min(self.incidents[place].onset for place in places)
        together = {place for place in places if self.incidents[place].onset == onset}
        roots = [one for one in together if not any(self._can_lead(other, one) for other in together)]
        return min(roots or together, key=lambda one: (self.incidents[one].peak_verdict != "critical", one))

    def _can_lead(self, one: int, other: int) -> bool:
        """Whether the incident at ``one`` is of a rule that can lead to the other, and was first in onset or in alarm.

        The onset of a streak is only the earliest update it can have begun in: what a declared cause of it did at once
        is no later for that.
        """
        before, after = self.incidents[one], self.incidents[other]
        if one == other or after.rule not in self._rules:
            return False
        if before.onset > after.onset and before.start >= after.start:
            return False
        if not self._behind[after.rule].isdisjoint(before.seen_by):
            return True
        follows = not set(self._rules[after.rule].follows).isdisjoint(before.seen_by)
        return follows and (before.onset < after.onset or after.rule not in self._behind.get(before.rule, ()))

    def _near(self, one: int, other: int) -> bool:
        before, after = self.incidents[one], self.incidents[other]
        return not self._can_cause.isdisjoint(before.seen_by) and after.onset - NEAR <= before.onset < after.onset

    def _declared(self, one: int, other: int) -> bool:
        before, after = self.incidents[one], self.incidents[other]
        if one == after.cause:
            return True
        reach = self._rules[after.rule].reach if after.rule in self._rules else 0
        return before.end >= after.onset - NEAR - reach and self._can_lead(one, other)


def _all_causes(name: str, rules: Mapping[str, Rule]) -> frozenset[str]:
    """Return every rule that is declared a cause of rule ``name``, directly or through others."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        rule = rules.get(waiting.pop())
        new = set() if rule is None else set(rule.causes) - found
        found |= new
        waiting += new
    return frozenset(found)


def judged_rules(evidence: Evidence) -> tuple[list[str], list[str]]:
    """Return the rules that judged some update, and those that never did because data was missing."""
    counts = evidence.replay.verdict_counts
    bounded = ("ok", "info", "warning", "critical")
    judged = [rule for rule, said in counts.items() if any(said.get(word) for word in bounded)]
    return judged, list(without_data(evidence.replay))


def children_of(incidents: Sequence[Incident]) -> dict[int, list[int]]:
    """Return position of a cause → positions of what it caused."""
    children: dict[int, list[int]] = defaultdict(list)
    for place, incident in enumerate(incidents):
        if incident.cause is not None:
            children[incident.cause].append(place)
    return children


def consequences(children: Mapping[int, Sequence[int]], root: int) -> list[int]:
    """Return the positions of incidents that lead back to ``root``, in order of their start."""
    found: set[int] = set()
    waiting = [root]
    while waiting:
        new = [place for place in children.get(waiting.pop(), ()) if place != root and place not in found]
        found.update(new)
        waiting += new
    return sorted(found)


def lasted(evidence: Evidence, lead: Incident) -> str:
    """Say which trouble it was, how bad, and from when to when."""
    last = last_update(evidence)
    if lead.start == last:
        lasting = f"at update {lead.start}, the last one recorded"
    elif lead.ended == "open":
        lasting = f"from update {lead.start} {_not_cleared(lead, last)}"
    elif lead.end == lead.start:
        lasting = f"at update {lead.start}, for that update only"
    else:
        lasting = f"from update {lead.start} until update {lead.end}"
    several = len(lead.seen_by)
    same = f" {several} rules see the same NaN: {', '.join(cleaned(rule, 40) for rule in lead.seen_by)}."
    before = same if several > 1 else ""
    before += f" The streak that made it an alarm began at update {lead.onset}." if lead.onset < lead.start else ""
    return f"{title_of(evidence, lead)} ({lead.peak_verdict}){on(lead.subject)} {lasting}.{before}"


def _not_cleared(one: Incident, last: int) -> str:
    """Say until when an incident that never cleared was in alarm, the record ending at update ``last``."""
    if one.end == last:
        return f"on, and still when the record ends at update {last}"
    if one.now_update is None or one.now_update == one.end:
        return f"on; after update {one.end} it could not be judged, and the record ends at update {last}"
    return f"until update {one.end}; better since, but not for long enough to clear when the record ends at {last}"


def title_of(evidence: Evidence, lead: Incident) -> str:
    """Return what a trouble is called; of a number that is none, no rule but one on NaN says more than that."""
    if math.isfinite(lead.peak) or lead.rule in ("numerical_instability", "lstm_nonfinite"):
        return evidence.title(lead.rule)
    return f"{lead.metric} was {number(lead.peak)}"


def last_update(evidence: Evidence) -> int:
    """Return the last update there is anything of; rows of ``updates`` may be gone."""
    known = evidence.run.last_update
    return known if known is not None else max((one.end for one in evidence.replay.incidents), default=0)


def crossed(evidence: Evidence, lead: Incident) -> list[str]:
    """Say what was judged, against which bound, and when it became critical; words are quoted from its worst."""
    written = evidence.cell_text(lead)
    if written is not None:
        return [f"At update {lead.peak_update:,} {lead.metric} said: {cleaned(written)}."]
    alarms, statistic = alarms_of(evidence.replay.findings, lead), evidence.rules[lead.rule].statistic(lead.metric)
    said = [f"At update {alarms[0].update:,} {statistic.name} was {_beyond(alarms[0], statistic)}."] if alarms else []
    worse = next((f for f in alarms[1:] if f.verdict == "critical" and alarms[0].verdict != "critical"), None)
    if worse is not None:
        said.append(f"From update {worse.update:,} it was critical. There it was {_beyond(worse, statistic)}.")
    return said


def worst_and_now(evidence: Evidence, one: Incident) -> list[str]:
    """Say what the judged statistic was at its worst, and at the last update that could be judged; no words."""
    if evidence.cell_text(one) is not None:
        return []
    at_worst = f"At its worst it was {number(one.peak)}, at update {one.peak_update:,}"
    if one.now is None or one.now_update is None or one.now_update == one.peak_update:
        return [f"{at_worst}."]
    return [f"{at_worst}; at update {one.now_update:,}, the last that was judged, it was {number(one.now)}."]


def _beyond(found: Finding, statistic: Statistic) -> str:
    """Return the judged value with its unit, the bound it crossed, and what it was held against."""
    value = f"{number(found.value)} {statistic.unit}".rstrip()
    if found.threshold is None or found.value is None:
        return value
    side = "at" if found.value == found.threshold else "beyond"
    against = "" if found.baseline is None else f", against {statistic.baseline}, {number(found.baseline)}"
    return f"{value}, {side} the {found.verdict} bound of {number(found.threshold)}{against}"


def alarms_of(findings: Iterable[Finding], lead: Incident) -> list[Finding]:
    """Return the findings that began ``lead`` or made it worse."""
    where = (lead.rule, lead.subject, lead.metric)
    inside = [f for f in findings if (f.rule, f.subject, f.metric) == where and lead.start <= f.update <= lead.end]
    return [finding for finding in inside if finding.alarm]


def around(incidents: Sequence[Incident], rules: Iterable[Rule] = RULES) -> list[str]:
    """Say what followed from the incident told first, and what else there was."""
    root = leading(incidents, rules)
    lead, after = incidents[root], consequences(children_of(incidents), root)
    told = {root, *after}
    rest = [place for place in range(len(incidents)) if place not in told]
    again = [place for place in rest if incidents[place].rule == lead.rule]
    roots = [place for place in rest if incidents[place].rule != lead.rule and incidents[place].cause in (None, *told)]
    early = [place for place in roots if incidents[place].start < lead.onset]
    late = [place for place in roots if incidents[place].start - lead.start > NEAR]
    soon = [place for place in roots if place not in (*early, *late)]
    said = []
    for places, words in (
        (after, "As its consequences"),
        (again, "The same elsewhere or again"),
        (soon, f"Begun within {NEAR} updates of it"),
        (early, "Before it and not tied to it"),
        (late, "Not tied to it"),
    ):
        if places:
            said.append(f"{words}: {named([incidents[place] for place in places])}.")
    return said


def named(incidents: Sequence[Incident]) -> str:
    """Name each rule once, with its first update and where else it was."""
    by_rule: dict[str, list[Incident]] = {}
    for incident in incidents:
        by_rule.setdefault(incident.rule, []).append(incident)
    parts = []
    for rule, found in list(by_rule.items())[:_MOST_NAMED]:
        subjects = list(dict.fromkeys(incident.subject for incident in found))
        where = on(subjects[0]) if len(subjects) == 1 else f" on {len(subjects)} subjects"
        often = f", {times(len(found))}" if len(found) > 1 else ""
        parts.append(f"{rule}{where} from update {found[0].start}{often}")
    if len(by_rule) > _MOST_NAMED:
        parts.append(f"and {many(len(by_rule) - _MOST_NAMED, 'further rule')} in the table below")
    return "; ".join(parts)
