"""The page: narrative first, then the figures, each under the question it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from esper_analyze import reports
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.narrative import foreign
from esper_analyze.reports.narrative import story as stories
from esper_analyze.reports.narrative.primary_incident import NEAR
from esper_analyze.reports.render import html
from esper_analyze.reports.render.figure import Drawn
from esper_analyze.reports.render.rows import Rows, markup
from esper_analyze.reports.render.section import Question
from esper_analyze.reports.sections import (
    clipping,
    cost,
    direction,
    drift,
    escalation,
    heads,
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
from esper_analyze.reports.sections import identity as identities
from esper_analyze.reports.story_html import findings_part, story_part
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
_LAST = {
    "unrecorded": "Not recorded in this run",
    "unjudged": "What could not be judged",
    "run": "The run",
    "verdicts": "Verdicts by rule",
    "thresholds": "Thresholds used",
    "reading": "How to read the figures",
}
_LISTED = ("layers", "slots", "transitions")
MOST_LISTED = 200
"""Sentences in a list, such as one a head."""
MOST_ROWS = 24
"""Rows of a table under a figure; report.json holds all."""
_READING = (
    "A gap in a line: nothing was measured there. A cross on the upper edge: NaN was measured; a triangle on an edge: "
    "+Inf or −Inf. Zero is drawn as zero, on a logarithmic axis at a place of its own. Shaded: an incident was open. "
    "Dashed: the detector's bounds. Where a pixel holds several updates, the strong line is their mean, and the thin "
    "one goes through the first, least, greatest and last of them, so that no spike is lost. Told first: of the "
    "trouble in which most rules became critical, the earliest incident that can have caused it (declared as its "
    f"cause, or begun at most {NEAR} updates before), not the worst one."
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One question answered: the figure (None when nothing was recorded), words, rows, and a table of its own."""

    question: Question
    figure: Drawn | None
    words: tuple[str, ...]
    rows: Rows | None = None
    markup: str = ""


def page(evidence: Evidence, answers: Sequence[Answer], story: stories.Story) -> str:
    """Return the whole page as one HTML document that loads nothing."""
    identity = identities.frame(evidence.run)
    titles = {
        "incidents": "Incidents",
        "foreign": foreign.TITLE,
        **{a.question.name: a.question.title for a in answers if a.figure},
        **_LAST,
    }
    known = titles | {f"rule-{name}": "what to do, and why" for name in {i.rule for i in evidence.replay.incidents}}
    theirs = foreign.alarms(evidence.run)
    content = {
        "incidents": [incident_table(evidence), findings_part(evidence, known)],
        **({} if theirs is None else {"foreign": [markup(theirs, MOST_ROWS)]}),
        **{answer.question.name: _answer(answer, answer.figure) for answer in answers if answer.figure},
        "unrecorded": [_unrecorded(answers)],
        "unjudged": [unjudged_table(evidence)],
        "run": _run(identity),
        "verdicts": [_folded("How often each rule gave each verdict", verdict_table(evidence))],
        "thresholds": [_folded("Every threshold", threshold_table(evidence))],
        "reading": [html.paragraphs([_READING])],
    }
    body = "".join(html.section(name, titles[name], *parts) for name, parts in content.items())
    links = "".join(f'<li><a href="#{name}">{html.text(titles[name])}</a></li>' for name in content)
    style = resources.files(reports).joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.text(identity.name, 80)} · {html.text(story.headline)}</title><style>{style}</style></head>"
        '<body><div class="page"><nav aria-label="Contents"><ol>'
        f'<li><a href="#story">Verdict</a></li>{links}</ol></nav>'
        f"<main>{_head(identity)}{story_part(story, known)}{body}{_foot(identity)}</main></div></body></html>\n"
    )


def _head(identity: identities.Identity) -> str:
    known = dict(identity.facts)
    line = f"{identity.subtitle} · {known['updates']} updates · {known['ended']}"
    return f"<header><h1>{html.text(identity.name)}</h1><p>{html.text(line)}</p></header>"


def _answer(answer: Answer, drawn: Drawn) -> list[str]:
    asks = f'<p class="asks">{html.text(answer.question.asks)}</p>'
    label = html.text(f"{answer.question.title}: {' '.join(answer.words)}", 300)
    figure = f'<figure role="img" aria-label="{label}">{drawn.svg}</figure>'
    if answer.markup:
        return [asks, answer.markup, figure, _folded("In words", _listed(answer.words))]
    table = "" if answer.rows is None else markup(answer.rows, MOST_ROWS)
    listed = answer.question.name in _LISTED
    return [asks, _listed(answer.words) if listed else html.paragraphs([" ".join(answer.words)]), figure, table]


def _listed(words: Sequence[str]) -> str:
    more = len(words) - MOST_LISTED
    rest = [f"{more:,} more are in report.json."] if more > 0 else []
    return html.bullets([*words[:MOST_LISTED], *rest])


def _unrecorded(answers: Sequence[Answer]) -> str:
    """Name every question about which nothing was recorded, and what records it."""
    silent = [answer.question for answer in answers if answer.figure is None]
    told = "".join(f"<li><strong>{html.text(one.title)}</strong>: {html.text(one.without)}</li>" for one in silent)
    return f"<ul>{told}</ul>" if silent else "<p>Something was recorded for every figure of this page.</p>"


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
    return f'<details class="more"><summary>{html.text(title)}</summary>{content}</details>'


def _foot(identity: identities.Identity) -> str:
    known = dict(identity.facts)
    return f"<footer>Written by esper-analyze from run {html.text(known.get('run id', identity.name))}.</footer>"
