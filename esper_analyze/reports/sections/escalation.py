"""The timeline: when incidents were open, and when the recorder recorded more detail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import RUN, Ints
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.causes.cause import Likelihood
from esper_analyze.reports.causes.look_alikes import look_alikes
from esper_analyze.reports.narrative.primary_incident import duration, judged_rules, primary_incident
from esper_analyze.reports.render.draw import finish, merged
from esper_analyze.reports.render.rows import Mark, SectionTable
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import FIRST, VERDICTS
from esper_analyze.reports.sections.incident_list import IncidentEntry, incident_entries, incident_table
from esper_analyze.runs.log_source import is_log
from esper_analyze.runs.series import PIXELS
from esper_analyze.schema.tables import LEVELS
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.escalation import LevelChange
    from esper_analyze.detector.incidents import Incident

MOST_LANES = 16
"""Rules drawn in the timeline, in order of their first incident."""
_DETAIL = {
    "sampled_steps": "steps in detail",
    "layers": "rows of layers",
    "transitions": "worst samples",
    "tensors": "rows of tensors",
}
"""The additional detail that a raised level records."""


@dataclass(frozen=True, slots=True)
class LevelRise:
    """A span of updates at a raised level: the finding that raised it, and the rows of detail recorded in it."""

    start: int
    until: int
    rule: str
    subject: str
    finding: int
    verdict: str
    detail: dict[str, int]

    @property
    def detail_words(self) -> str:
        """The recorded detail in words."""
        return ", ".join(f"{number:,} {_DETAIL[what]}" for what, number in self.detail.items() if number)


@dataclass(frozen=True, slots=True)
class TimelineFrame:
    """Telemetry level from each change on, what triggered the rises, and incidents by rule.

    ``update`` and ``level`` (index into ``LEVELS``) begin at the first update and end at the last.
    """

    update: Ints
    level: Ints
    triggers: tuple[tuple[int, str, str], ...]
    rises: tuple[LevelRise, ...]
    lanes: dict[str, tuple[Incident, ...]]
    incidents: tuple[IncidentEntry, ...]
    sentences: tuple[str, ...] = ()


def frame(evidence: Evidence) -> TimelineFrame | None:
    """Return the levels and incidents over the run, None when it has no update.

    Of an excerpt: what was going on then; the sentences are of the whole run, and say so.
    """
    if evidence.excerpt_of is None:
        return _whole_frame(evidence)
    data = _whole_frame(evidence.excerpt_of.whole)
    return None if data is None else _cut(data, evidence.excerpt_of.first, evidence.excerpt_of.last)


def _cut(data: TimelineFrame, first: int, last: int) -> TimelineFrame:
    incidents = tuple(entry for entry in data.incidents if _open(entry.incident, first, last))
    lanes = {rule: tuple(one for one in lane if _open(one, first, last)) for rule, lane in data.lanes.items()}
    inside = data.update[(data.update > first) & (data.update < last)]
    update = np.concatenate([[first], inside, [last]])
    level = data.level[np.searchsorted(data.update, update, "right") - 1]
    counted = f"{len(incidents):,} of {many(len(data.incidents), 'incident')} in these updates."
    return replace(
        data,
        update=update,
        level=level,
        triggers=tuple(trigger for trigger in data.triggers if first <= trigger[0] <= last),
        lanes={rule: lane for rule, lane in lanes.items() if lane},
        incidents=incidents,
        sentences=(*([counted] if data.incidents else []), *(f"Whole run: {sentence}" for sentence in data.sentences)),
    )


def _open(incident: Incident, first: int, last: int) -> bool:
    return incident.start <= last and incident.end >= first


def _whole_frame(evidence: Evidence) -> TimelineFrame | None:
    last = evidence.run.last_update
    if last is None:
        return None
    changes = _level_changes(evidence)
    base = str(evidence.run.info.get("level", "NORMAL"))
    words = [base, *(change.level for change in changes)]
    update = [0, *(change.update for change in changes), last]
    level = [LEVELS.index(word) if word in LEVELS else 0 for word in [*words, words[-1]]]
    triggers = tuple((_finding_update(c), c.rule, c.subject or RUN) for c in changes if c.rule is not None)
    rises = tuple(level_rises(evidence))
    steps = np.array(update, np.int64), np.array(level, np.int64)
    sentences = (*_troubles(evidence), _level_sentence(triggers))
    return TimelineFrame(*steps, triggers, rises, _lanes(evidence), incident_entries(evidence), sentences)


def _level_changes(evidence: Evidence) -> Sequence[LevelChange]:
    """Return the changes of the telemetry level; none for an imported run, which has no levels."""
    return () if evidence.run.info.get("imported_from") else evidence.replay.levels


def _troubles(evidence: Evidence) -> Iterator[str]:
    """Describe the primary incident with its likely causes, and count the others."""
    incidents = evidence.replay.incidents
    if not incidents:
        judged, lacking = map(len, judged_rules(evidence))
        why = "need what a log does not hold" if is_log(evidence.run.info) else "had no data"
        without = f"; {many(lacking, 'rule')} {why}" if lacking else ""
        yield f"No incident; {many(judged, 'rule')} judged{without}."
        return
    lead = incidents[primary_incident(incidents, evidence.replay.rules)]
    yield duration(evidence, lead)
    yield from (cause.line for cause in look_alikes(evidence, lead) if cause.answer is Likelihood.LIKELY)
    after = sum(incident.cause is not None for incident in incidents)
    if len(incidents) > 1:
        yield f"{many(len(incidents), 'incident')} in total, {after} of them shown under their causes."


def level_rises(evidence: Evidence, first: int = 0) -> list[LevelRise]:
    """Return the spans at a raised level from update ``first`` on, with the detail recorded in them."""
    last = evidence.run.last_update or 0
    changes = _level_changes(evidence)
    ends = [change.update - 1 for change in changes[1:]] + [last]
    spans = [(c, until) for c, until in zip(changes, ends, strict=False) if c.rule is not None and until >= first]
    start, until = (np.array(edge, np.int64) for edge in ([c.update for c, _ in spans], [u for _, u in spans]))
    detail = {what: _recorded_in_spans(evidence, what, start, until) for what in _DETAIL} if spans else {}
    worst = {(f.rule, f.subject, f.update): f.verdict for f in evidence.replay.findings if f.alarm} if spans else {}
    return [
        _rise(change, int(end), {what: int(counts[k]) for what, counts in detail.items()}, worst)
        for k, (change, end) in enumerate(spans)
    ]


def _rise(
    change: LevelChange, until: int, detail: dict[str, int], worst: Mapping[tuple[str, str, int], str]
) -> LevelRise:
    rule, subject, finding = str(change.rule), change.subject or RUN, _finding_update(change)
    return LevelRise(
        change.update, until, rule, subject, finding, worst.get((rule, subject, finding), "warning"), detail
    )


def _finding_update(change: LevelChange) -> int:
    return change.update if change.finding_update is None else change.finding_update


def _recorded_in_spans(evidence: Evidence, what: str, start: Ints, until: Ints) -> Ints:
    """Return how many rows of ``what`` were recorded in each span of updates."""
    count = np.zeros(len(start), np.int64)
    table, column = ("updates", "sampled_steps") if what == "sampled_steps" else (what, None)
    for part in evidence.run.row_sources(table):
        if not ((start <= part.last_update) & (until >= part.first_update)).any():
            continue
        rows = part.frame(["update", *([column] if column else [])]).sort("update")
        update = rows["update"].to_numpy()
        weight = np.ones(len(update), np.int64) if column is None else rows[column].fill_null(0).to_numpy()
        total = np.concatenate([[0], np.cumsum(weight)])
        count += total[np.searchsorted(update, until, "right")] - total[np.searchsorted(update, start, "left")]
    return count


def captured_since(evidence: Evidence, update: int) -> str:
    """Say which detail was recorded at a raised level after ``update``, empty when there was none."""
    rises = level_rises(evidence, update)
    if not rises or not any(rises[0].detail.values()):
        return ""
    rise = rises[0]
    span = f"update {rise.start:,}" if rise.start == rise.until else f"updates {rise.start:,} to {rise.until:,}"
    return f"The level was raised in {span}, which recorded {rise.detail_words}."


def rows(data: TimelineFrame) -> SectionTable:
    """Return every incident in the order in which they began."""
    return incident_table(data.incidents)


def listed(data: TimelineFrame) -> SectionTable:
    """List every rise of the level, what raised it, and the detail recorded."""
    columns = ("from", "until", "raised_by", "on", "verdict", "finding_at", *_DETAIL)
    cells = tuple(
        (r.start, r.until, r.rule, r.subject, Mark(r.verdict, r.verdict), r.finding, *r.detail.values())
        for r in data.rises
    )
    return SectionTable(columns, cells)


def _lanes(evidence: Evidence) -> dict[str, tuple[Incident, ...]]:
    lanes: dict[str, list[Incident]] = {}
    for incident in sorted(evidence.replay.incidents, key=lambda incident: incident.start):
        if incident.peak_verdict in ("warning", "critical"):
            lanes.setdefault(incident.rule, []).append(incident)
    return {rule: tuple(of_rule) for rule, of_rule in lanes.items()}


def layout(data: TimelineFrame) -> Layout:
    """Lanes of incidents above the level."""
    lanes = min(len(data.lanes), MOST_LANES)
    return Layout((24 * lanes + 8, 84), left=166) if lanes else Layout((84,), left=166)


def draw(data: TimelineFrame, axes: Sequence[Axes]) -> None:
    """Draw incidents, one lane for each rule, and the level below."""
    if len(axes) > 1:
        _draw_lanes(data, axes[0])
    level = axes[-1]
    level.step(data.update, data.level, where="post", color=FIRST, linewidth=1.3)
    level.set_yticks(range(len(LEVELS)), LEVELS)
    level.set_ylim(-0.3, len(LEVELS) - 0.3)
    level.set_xlim(float(data.update[0]) - 0.5, max(float(data.update[-1]) + 0.5, 1.0))
    update = np.array([update for update, _, _ in data.triggers], np.int64)
    pixel = update // max(1, -(-int(data.update[-1] - data.update[0] + 1) // PIXELS))
    marked = update[np.unique(pixel, return_index=True)[1]]
    top = np.full(len(marked), len(LEVELS) - 1)
    level.plot(marked, top, "v", color=VERDICTS["critical"], markersize=5, clip_on=False)
    finish(level, "Telemetry level, and (▾) the findings that raised it", last=True)


def _draw_lanes(data: TimelineFrame, axes: Axes) -> None:
    names = list(data.lanes)[:MOST_LANES]
    pixel = float(data.update[-1] - data.update[0] + 1) / PIXELS
    for row, name in enumerate(names):
        for verdict in ("warning", "critical"):
            spans = [(i.start, i.end) for i in data.lanes[name] if i.peak_verdict == verdict]
            bars = [(start - 0.5, max(end - start + 1, 4 * pixel)) for start, end in merged(spans, pixel)]
            axes.broken_barh(bars, (row - 0.3, 0.6), color=VERDICTS[verdict], linewidth=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [cleaned(name, 26) for name in names])
    axes.grid(visible=False, axis="y")
    finish(axes, "Incidents by rule, in the order in which they began")


def words(data: TimelineFrame) -> list[str]:
    """Describe the primary incident, the number of others, and how often and why the level rose."""
    if len(data.lanes) <= MOST_LANES:
        return list(data.sentences)
    return [*data.sentences, f"{len(data.lanes) - MOST_LANES} more rules fired; they are in the table only."]


def _level_sentence(triggers: Sequence[tuple[int, str, str]]) -> str:
    if not triggers:
        return "The telemetry level never rose."
    rules = ", ".join(dict.fromkeys(rule for _, rule, _ in triggers))
    return f"The level rose {times(len(triggers))}, first after update {triggers[0][0]}; raised by {rules}."


SECTION = Section(
    name="timeline",
    title="Timeline",
    asks="When were incidents open, and when did the recorder record more detail?",
    without="The run has no complete update.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
    rows=rows,
    listed=listed,
)
