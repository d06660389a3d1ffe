"""The report as Markdown, with the figures as PNG beside it: for issues, wikis and terminals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from esper_analyze.reports.narrative import foreign
from esper_analyze.reports.narrative import story as stories
from esper_analyze.reports.narrative.explained import explained
from esper_analyze.reports.render.rows import Rows, spelled
from esper_analyze.reports.sections import identity as identities
from esper_analyze.reports.tables import incident_rows
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.reports.page import Answer

MOST_ROWS = 24
"""Rows of a table; report.json holds all."""
_LONGEST = 4_000
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&])")


def text(value: object) -> str:
    """Return ``value`` as one line of Markdown that means nothing but itself."""
    return _SPECIAL.sub(r"\\\1", cleaned(value, _LONGEST))


def markdown(evidence: Evidence, answers: Sequence[Answer], story: stories.Story) -> str:
    """Return the whole report: narrative, incidents, findings, every figure with its words, the run."""
    identity = identities.frame(evidence.run)
    known = dict(identity.facts)
    blocks = [
        f"# {text(identity.name)}",
        text(f"{identity.subtitle} · {known['updates']} updates · {known['ended']}"),
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
        told = [text(one.words) + (f" `{cleaned(one.command, _LONGEST)}`" if one.command else "") for one in points]
        blocks += [f"**{title}**", "\n".join(f"- {line}" for line in told)]
    return [*blocks, *(f"> {text(caveat)}" for caveat in story.caveats)]


def _incidents(evidence: Evidence) -> list[str]:
    if not evidence.replay.incidents:
        return ["## Incidents", "No incident: nothing reached a warning."]
    blocks = ["## Incidents", table(incident_rows(evidence))]
    for one in explained(evidence):
        said = (
            f"Evidence: {' '.join(one.evidence)}",
            f"Means: {one.meaning}",
            f"To do: {one.do}",
            f"From: {one.source}",
        )
        blocks += [f"### {text(one.title)} ({text(one.rule)}, {one.verdict})", _listed(said)]
    return blocks


def _answer(answer: Answer) -> list[str]:
    title = [f"## {text(answer.question.title)}", text(answer.question.asks)]
    if answer.figure is None:
        return [*title, text(answer.question.without)]
    image = f"![{text(answer.question.title)}]({answer.question.name}.png)"
    rows = table(answer.rows) if answer.rows is not None else ""
    return [*title, text(" ".join(answer.words[:MOST_ROWS])), image, rows]


def _foreign(evidence: Evidence) -> list[str]:
    theirs = foreign.alarms(evidence.run)
    return [] if theirs is None else [f"## {foreign.TITLE}", table(theirs)]


def _unjudged(evidence: Evidence) -> list[str]:
    told = dict.fromkeys(
        f"{one.rule}: {one.verdict.replace('_', ' ')}, {one.reason}" for one in evidence.replay.unjudged
    )
    silent = [rule for rule in evidence.replay.rules if not evidence.replay.verdict_counts.get(rule.name)]
    lines = [*told, *(f"{rule.name}: not applicable, table {rule.table} has no rows" for rule in silent)]
    return ["## What could not be judged", _listed(lines) or "Every rule could judge every update."]


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {text(line)}" for line in lines)


def table(rows: Rows) -> str:
    """Return the first rows as a Markdown table, with a line on those left out."""
    shown = rows.first(MOST_ROWS).narrow
    lines = [[text(name) for name in shown.columns], ["---"] * len(shown.columns)]
    lines += [[text(spelled(cell)) for cell in row] for row in shown.cells]
    left = len(rows.cells) - len(shown.cells)
    more = f"\n\n{left:,} more rows are in report.json." if left else ""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + more
