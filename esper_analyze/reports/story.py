"""What went wrong first, when, how far it went, and what to look at; or that nothing did, and what was judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.reports.evidence import Evidence
from esper_analyze.reports.listing import broken_words, closing_reason, status_words
from esper_analyze.reports.words import many, number, on, times
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from esper_analyze.detector.findings import Finding
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.runs.replay import Replay

_MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class Story:
    """The verdict in words. ``verdict`` is the worst one (ok when nothing fired), ``lead`` the incident told first."""

    verdict: str
    headline: str
    paragraph: str
    look_first: str
    caveats: tuple[str, ...]
    lead: Incident | None


def frame(evidence: Evidence) -> Story:
    """Return the story of the run."""
    replay = evidence.replay
    caveats = tuple(_caveats(evidence))
    if not replay.updates:
        return Story("no_data", "No complete update was recorded", "There is nothing to judge.", "", caveats, None)
    if not replay.incidents:
        return Story("ok", "Nothing fired", _healthy(replay), "", caveats, None)
    lead = replay.incidents[leading(replay.incidents)]
    told = [_first_sentence(evidence, lead), *_how_far(evidence, lead), *_around(replay.incidents)]
    worst = "critical" if any(incident.peak_verdict == "critical" for incident in replay.incidents) else "warning"
    headline = f"{evidence.title(lead.rule)} at update {lead.start}"
    return Story(worst, headline, " ".join(told), evidence.rules[lead.rule].look_first, caveats, lead)


def leading(incidents: Sequence[Incident]) -> int:
    """Return the position of the incident to tell first: the earliest critical one without a cause, else warning."""
    places = [place for place, incident in enumerate(incidents) if incident.cause is None] or [0]
    return min(places, key=lambda place: (incidents[place].peak_verdict != "critical", incidents[place].onset, place))


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


def _first_sentence(evidence: Evidence, lead: Incident) -> str:
    last = evidence.run.last_update
    if lead.start == last:
        lasting = f"at update {lead.start}, the last one recorded"
    elif lead.ended == "open":
        lasting = f"from update {lead.start} on, and still when the record ends at update {last}"
    elif lead.end == lead.start:
        lasting = f"at update {lead.start}, for that update only"
    else:
        lasting = f"from update {lead.start} until update {lead.end}"
    before = f" The streak that made it an alarm began at update {lead.onset}." if lead.onset < lead.start else ""
    return f"{evidence.title(lead.rule)} ({lead.peak_verdict}){on(lead.subject)} {lasting}.{before}"


def _how_far(evidence: Evidence, lead: Incident) -> list[str]:
    written = evidence.said(lead)
    if written is not None:
        return [f"There {lead.metric} said: {cleaned(written)}."]
    alarms = _alarms(evidence.replay.findings, lead)
    metric = f"drift of {lead.metric}" if lead.rule == "gradient_drift" else lead.metric
    said = [_crossed(metric, alarms[0])] if alarms else []
    worse = next((f for f in alarms[1:] if f.verdict == "critical" and alarms[0].verdict != "critical"), None)
    if worse is not None:
        said.append(f"From update {worse.update} it was critical.")
    if lead.peak_update != lead.start:
        said.append(f"At its worst {metric} was {number(lead.peak)}, at update {lead.peak_update}.")
    return said


def _crossed(metric: str, first: Finding) -> str:
    if first.threshold is None:
        return f"There {metric} was {number(first.value)}."
    against = "" if first.baseline is None else f", against its own earlier {number(first.baseline)}"
    bound = f"the {first.verdict} bound of {number(first.threshold)}"
    return f"There {metric} was {number(first.value)}, beyond {bound}{against}."


def _alarms(findings: Iterable[Finding], lead: Incident) -> list[Finding]:
    where = (lead.rule, lead.subject, lead.metric)
    inside = [f for f in findings if (f.rule, f.subject, f.metric) == where and lead.start <= f.update <= lead.end]
    return [finding for finding in inside if finding.alarm]


def _around(incidents: Sequence[Incident]) -> list[str]:
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
            said.append(f"{words}: {_named([incidents[place] for place in places])}.")
    return said


def _named(incidents: Sequence[Incident]) -> str:
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


def _healthy(replay: Replay) -> str:
    words = ("ok", "info")
    judged = [rule for rule, counts in replay.verdict_counts.items() if any(counts.get(word) for word in words)]
    silent = [rule for rule in replay.verdict_counts if rule not in judged]
    said = f"{len(judged)} rules judged {replay.updates:,} updates and none reached a warning: {', '.join(judged)}."
    informed = sum(counts.get("info", 0) for counts in replay.verdict_counts.values())
    if informed:
        said += f" {informed:,} verdicts were noted as information only."
    if silent:
        said += f" Nothing could be said by {', '.join(silent)}; why is listed below."
    return said


def _caveats(evidence: Evidence) -> Iterable[str]:
    run = evidence.run
    if not run.closed:
        yield f"The run was {status_words(run)}: the training was killed, or is still going on."
    elif ":" in closing_reason(run):
        yield f"The training ended with {cleaned(closing_reason(run), 160)}"
    if run.broken:
        yield f"Left out: {many(len(run.broken), 'file')}, {broken_words(run)}."
    if run.lost_rows:
        yield f"{many(run.lost_rows, 'row')} could not be written while recording."
    missing = dict.fromkeys(u.rule for u in evidence.replay.unjudged if u.verdict == "no_data")
    if missing:
        yield f"Data was missing for {', '.join(missing)}: missing is not healthy."
