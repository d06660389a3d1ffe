"""The page: narrative first, then the figures, each under the question it answers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

from esper_analyze import reports
from esper_analyze.reports import (
    clipping,
    cost,
    direction,
    drift,
    escalation,
    heads,
    html,
    layers,
    losses,
    lstm,
    policy,
    ranks,
    returns,
    slots,
    tensors,
    transitions,
    value,
)
from esper_analyze.reports import identity as identities
from esper_analyze.reports import story as stories
from esper_analyze.reports.evidence import Evidence
from esper_analyze.reports.figure import Drawn
from esper_analyze.reports.question import Question
from esper_analyze.reports.rows import markup
from esper_analyze.reports.tables import incident_table, threshold_table, unjudged_table, verdict_table

QUESTIONS: tuple[Question, ...] = (
    escalation.QUESTION,
    policy.QUESTION,
    transitions.QUESTION,
    heads.QUESTION,
    value.QUESTION,
    drift.QUESTION,
    layers.QUESTION,
    direction.QUESTION,
    clipping.QUESTION,
    tensors.QUESTION,
    lstm.QUESTION,
    slots.QUESTION,
    losses.QUESTION,
    returns.QUESTION,
    ranks.QUESTION,
    cost.QUESTION,
)
"""Every figure of the page, in order."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_LISTED = ("heads", "layers", "slots", "transitions")
MOST_LISTED = 200
"""Sentences in a list, such as one a head."""
MOST_ROWS = 24
"""Rows of a table under a figure."""
_READING = (
    "A gap in a line: nothing was measured there. A cross on the upper edge: NaN was measured; a triangle on an edge: "
    "+Inf or −Inf. Zero is drawn as zero, on a logarithmic axis at a place of its own. Shaded: an incident was open. "
    "Dashed: the detector's bounds. Where a pixel holds several updates, the line is their mean and the band around it "
    "reaches from their least to their greatest value."
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One question answered: its frame, the figure (None when nothing was recorded) and words."""

    question: Question
    data: Any
    figure: Drawn | None
    words: tuple[str, ...]


def page(evidence: Evidence, answers: tuple[Answer, ...]) -> str:
    """Return the whole page as one HTML document that loads nothing."""
    identity, story = identities.frame(evidence.run), stories.frame(evidence)
    sections = [
        ("incidents", "Incidents", [incident_table(evidence)]),
        *((a.question.name, a.question.title, _answer(a, a.figure)) for a in answers if a.figure is not None),
        *_silent(answers),
        ("run", "The run", _run(identity)),
        ("unjudged", "What could not be judged", [unjudged_table(evidence)]),
        ("verdicts", "Verdicts by rule", [verdict_table(evidence)]),
        ("thresholds", "Thresholds used", [_folded("Every threshold", threshold_table(evidence))]),
        ("reading", "How to read the figures", [html.paragraphs([_READING])]),
    ]
    body = "".join(html.section(name, title, *content) for name, title, content in sections)
    links = "".join(f'<li><a href="#{name}">{html.text(title)}</a></li>' for name, title, _ in sections)
    style = resources.files(reports).joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.text(identity.name, 80)} · {html.text(story.headline)}</title><style>{style}</style></head>"
        f'<body><div class="page"><nav><ol><li><a href="#story">Verdict</a></li>{links}</ol></nav>'
        f"<main>{_head(identity)}{_story(story)}{body}{_foot(identity)}</main></div></body></html>\n"
    )


def _head(identity: identities.Identity) -> str:
    known = dict(identity.facts)
    line = f"{identity.subtitle} · {known['updates']} updates · {known['ended']}"
    return f"<header><h1>{html.text(identity.name)}</h1><p>{html.text(line)}</p></header>"


def _story(story: stories.Story) -> str:
    look = f"<p><strong>Look first at:</strong> {html.text(story.look_first)}</p>" if story.look_first else ""
    caveats = "".join(f'<p class="caveat">{html.text(caveat)}</p>' for caveat in story.caveats)
    return (
        f'<div class="story {story.verdict}" id="story">{html.chip(story.verdict)}<h2>{html.text(story.headline)}</h2>'
        f"<p>{html.text(story.paragraph, 4_000)}</p>{look}{caveats}</div>"
    )


def _answer(answer: Answer, drawn: Drawn) -> list[str]:
    asks = f'<p class="asks">{html.text(answer.question.asks)}</p>'
    label = html.text(f"{answer.question.title}: {' '.join(answer.words)}", 300)
    figure = f'<figure role="img" aria-label="{label}">{drawn.svg}</figure>'
    listed = None if answer.question.table is None else answer.question.table(answer.data)
    table = "" if listed is None else markup(listed, MOST_ROWS)
    if answer.question.name not in _LISTED:
        return [asks, html.paragraphs([" ".join(answer.words)]), figure, table]
    more = len(answer.words) - MOST_LISTED
    rest = [f"{more:,} more are in report.json."] if more > 0 else []
    return [asks, html.bullets([*answer.words[:MOST_LISTED], *rest]), figure, table]


def _silent(answers: tuple[Answer, ...]) -> list[tuple[str, str, list[str]]]:
    """Return one section for all questions about which nothing was recorded, and what records it; none without any."""
    silent = [answer.question for answer in answers if answer.figure is None]
    told = "".join(f"<li><strong>{html.text(one.title)}</strong>: {html.text(one.without)}</li>" for one in silent)
    return [("unrecorded", "Not recorded in this run", [f"<ul>{told}</ul>"])] if silent else []


def _run(identity: identities.Identity) -> list[str]:
    parts = [html.facts(identity.facts)]
    if identity.hyperparameters:
        parts.append("<h3>Hyperparameters as given</h3>" + html.facts(identity.hyperparameters))
    if identity.losses:
        rows = [[html.text(cell) for cell in row] for row in identity.losses]
        parts.append("<h3>Losses of data</h3>" + html.table(("update", "what", "where and why", "rows"), rows))
    else:
        parts.append("<p>No loss of data was recorded.</p>")
    return parts


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{html.text(title)}</summary>{content}</details>"


def _foot(identity: identities.Identity) -> str:
    known = dict(identity.facts)
    return f"<footer>Written by esper-analyze from run {html.text(known.get('run id', identity.name))}.</footer>"
