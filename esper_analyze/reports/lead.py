"""The incident told first, and those around it, in sentences."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from esper_analyze.reports.words import many, number, on, times
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from esper_analyze.detector.findings import Finding
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.detector.rule import Statistic
    from esper_analyze.reports.evidence import Evidence

_MOST_NAMED = 4


def leading(incidents: Sequence[Incident]) -> int:
    """Return the position of the incident to tell first: the earliest critical one without a cause, else warning."""
    places = [place for place, incident in enumerate(incidents) if incident.cause is None] or [0]
    return min(places, key=lambda place: (incidents[place].peak_verdict != "critical", incidents[place].onset, place))


def judged_rules(evidence: Evidence) -> tuple[list[str], list[str]]:
    """Return the rules that judged some update, and those that never did because data was missing."""
    counts = evidence.replay.verdict_counts
    bounded = ("ok", "info", "warning", "critical")
    judged = [rule for rule, said in counts.items() if any(said.get(word) for word in bounded)]
    return judged, [rule for rule, said in counts.items() if rule not in judged and said.get("no_data")]


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
    before = f" The streak that made it an alarm began at update {lead.onset}." if lead.onset < lead.start else ""
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
    written = evidence.said(lead)
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
    if evidence.said(one) is not None:
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


def around(incidents: Sequence[Incident]) -> list[str]:
    """Say what followed from the incident told first, and what else there was."""
    root = leading(incidents)
    after = consequences(children_of(incidents), root)
    told = {root, *after}
    rest = [place for place in range(len(incidents)) if place not in told]
    again = [place for place in rest if incidents[place].rule == incidents[root].rule]
    roots = [p for p in rest if incidents[p].cause is None and incidents[p].rule != incidents[root].rule]
    early = [place for place in roots if incidents[place].start < incidents[root].start]
    late = [place for place in roots if incidents[place].start >= incidents[root].start]
    said = []
    for places, words in (
        (after, "As its consequences"),
        (again, "The same elsewhere or again"),
        (early, "Before it, milder and not tied to it"),
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
