"""The report as Markdown with PNG figures, for issues, wikis and terminals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from esper_analyze.reports.narrative import foreign
from esper_analyze.reports.narrative import story as stories
from esper_analyze.reports.narrative.explained import explained
from esper_analyze.reports.render.rows import MOST_ROWS, SectionTable, spelled
from esper_analyze.reports.sections import identity as identities
from esper_analyze.reports.tables import incident_rows, unjudged_rows
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.reports.answer import Answer

_LONGEST = 4_000
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&])")


def text(value: object) -> str:
    """Return ``value`` as one line of Markdown, with every special character escaped."""
    return _SPECIAL.sub(r"\\\1", cleaned(value, _LONGEST))


def markdown(evidence: Evidence, answers: Sequence[Answer], story: stories.Story) -> str:
    """Return the report: narrative, incidents, findings, every figure with its sentences, the run."""
    identity = identities.frame(evidence.run)
    blocks = [
        f"# {text(identity.name)}",
        text(identity.line),
        *_story(story),
        *_incidents(evidence),
        *_foreign(evidence),
        *(block for answer in answers for block in _answer(answer)),
        "## The run",
        _listed(f"{what}: {value}" for what, value in (*identity.facts, *identity.hyperparameters)),
        *_unjudged(evidence),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _story(story: stories.Story) -> list[str]:
    blocks = [f"## {text(story.headline)}", f"**{story.standing.label}**"]
    for title, points in story.parts:
        lines = [
            text(point.words) + (f" `{cleaned(point.command, _LONGEST)}`" if point.command else "") for point in points
        ]
        blocks += [f"**{title}**", "\n".join(f"- {line}" for line in lines)]
    if story.traceback:
        blocks += ["**Traceback of the fatal signal**", _indented(story.traceback)]
    return [*blocks, *(f"> {text(caveat)}" for caveat in story.caveats)]


def _indented(lines: str) -> str:
    """Return lines as a block of code: indented, so that nothing in them can end it."""
    return "\n".join(f"    {cleaned(line, _LONGEST)}" for line in lines.splitlines())


def _incidents(evidence: Evidence) -> list[str]:
    if not evidence.replay.incidents:
        return ["## Incidents", "No incident: no rule reached a warning."]
    blocks = ["## Incidents", table(incident_rows(evidence))]
    for explanation in explained(evidence):
        lines = (
            f"Evidence: {' '.join(explanation.evidence)}",
            f"Meaning: {explanation.meaning}",
            f"To do: {explanation.do}",
            f"Source: {explanation.source}",
        )
        blocks += [f"### {text(explanation.title)} ({text(explanation.rule)}, {explanation.verdict})", _listed(lines)]
    return blocks


def _answer(answer: Answer) -> list[str]:
    title = [f"## {text(answer.section.title)}", text(answer.section.asks)]
    if answer.figure is None:
        return [*title, text(answer.section.without)]
    image = f"![{text(answer.section.title)}]({answer.section.name}.png)"
    rows = table(answer.rows) if answer.rows is not None else ""
    return [*title, text(" ".join(answer.words[:MOST_ROWS])), image, rows]


def _foreign(evidence: Evidence) -> list[str]:
    theirs = foreign.alarms(evidence.run)
    return [] if theirs is None else [f"## {foreign.TITLE}", table(theirs)]


def _unjudged(evidence: Evidence) -> list[str]:
    lines = [f"{row.rule}: {row.verdict.replace('_', ' ')}, {row.reason}" for row in unjudged_rows(evidence)]
    return ["## What could not be judged", _listed(lines) or "Every rule judged every update."]


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {text(line)}" for line in lines)


def table(rows: SectionTable) -> str:
    """Return the first rows as a Markdown table, with a note on those left out."""
    shown = rows.shown
    lines = [[text(name) for name in shown.columns], ["---"] * len(shown.columns)]
    lines += [[text(spelled(cell)) for cell in row] for row in shown.cells]
    left = len(rows.cells) - len(shown.cells)
    more = f"\n\n{left:,} more rows are in report.json." if left else ""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + more
