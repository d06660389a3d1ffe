"""The HTML page: narrative first, then the figures, each under the question it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from esper_analyze.reports import tables
from esper_analyze.reports.narrative import course, foreign
from esper_analyze.reports.narrative.explained import explained
from esper_analyze.reports.narrative.primary_incident import NEAR
from esper_analyze.reports.render.figure import fitted
from esper_analyze.reports.render.html import render
from esper_analyze.reports.sections import identity

if TYPE_CHECKING:
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.reports.answer import Answer
    from esper_analyze.reports.narrative.story import Story

MOST_MOMENTS = 4_000
"""Updates of which the page knows environment steps and time: all of a run that a reader can point at one by one."""
_LAST = {
    "unrecorded": "Not recorded in this run",
    "unjudged": "What could not be judged",
    "run": "The run",
    "verdicts": "Verdicts by rule",
    "thresholds": "Thresholds used",
    "reading": "How to read the figures",
}
_READING = (
    "A gap in a line: not measured. A cross on the upper edge: NaN; a triangle on an edge: +Inf or −Inf. Zero is drawn "
    "as zero, on a logarithmic axis at its own position. Shaded: an incident was open. Dashed: the detector's bounds. "
    "Where a pixel covers several updates, the strong line is their mean, and the thin one goes through the least and "
    "the greatest of them, so that no spike is lost; zooming in shows more of them. The primary incident is, of the "
    "cluster in which most rules became critical, the earliest that can have caused it (declared as its cause, or "
    f"begun at most {NEAR} updates before), not the worst one."
)


def page(evidence: Evidence, answers: Sequence[Answer], story: Story) -> str:
    """Return the page as one self-contained HTML document."""
    theirs = foreign.alarms(evidence.run)
    shown = [answer for answer in answers if answer.figure]
    figures = fitted(answer.figure for answer in shown if answer.figure)
    drawn = [replace(answer, figure=figure) for answer, figure in zip(shown, figures, strict=True)]
    contents = {
        "incidents": "Incidents",
        **({} if theirs is None else {"foreign": foreign.TITLE}),
        **{answer.section.name: answer.section.title for answer in drawn},
        **_LAST,
    }
    rules = {incident.rule for incident in evidence.replay.incidents}
    return render(
        "report.html.j2",
        contents=contents,
        titles=contents | {f"rule-{name}": "what to do, and why" for name in rules},
        identity=identity.frame(evidence.run),
        moments=evidence.moments.listed(MOST_MOMENTS),
        story=story,
        sight=course.frame(evidence),
        incidents=tables.incident_list(evidence),
        explained=explained(evidence),
        foreign=theirs,
        answers=drawn,
        unrecorded=[answer.section for answer in answers if not answer.figure],
        unjudged=tables.unjudged_rows(evidence),
        verdicts=tables.verdict_counts(evidence),
        thresholds=tables.threshold_rows(evidence),
        reading=_READING,
    )
