"""The HTML page: narrative first, then the figures, each under the question it answers."""

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
from esper_analyze.reports.render.rows import SectionTable, markup
from esper_analyze.reports.render.section import Section
from esper_analyze.reports.sections import identity as identities
from esper_analyze.reports.story_html import findings_part, story_part
from esper_analyze.reports.tables import incident_table, threshold_table, unjudged_table, verdict_table

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_LAST = {
    "unrecorded": "Not recorded in this run",
    "unjudged": "What could not be judged",
    "run": "The run",
    "verdicts": "Verdicts by rule",
    "thresholds": "Thresholds used",
    "reading": "How to read the figures",
}
MOST_LISTED = 200
"""Sentences shown in a list, such as one for each head."""
MOST_ROWS = 24
"""Rows shown in a table under a figure; report.json has all."""
_READING = (
    "A gap in a line: not measured. A cross on the upper edge: NaN; a triangle on an edge: +Inf or −Inf. Zero is drawn "
    "as zero, on a logarithmic axis at its own position. Shaded: an incident was open. Dashed: the detector's bounds. "
    "Where a pixel covers several updates, the strong line is their mean, and the thin one goes through the first, "
    "least, greatest and last of them, so that no spike is lost. The primary incident is, of the cluster in which most "
    "rules became critical, the earliest that can have caused it (declared as its cause, or begun at most "
    f"{NEAR} updates before), not the worst one."
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One section of the report: figure (None when nothing was recorded), sentences, table, and special markup."""

    section: Section
    figure: Drawn | None
    words: tuple[str, ...]
    rows: SectionTable | None = None
    markup: str = ""


def page(evidence: Evidence, answers: Sequence[Answer], story: stories.Story) -> str:
    """Return the page as one self-contained HTML document."""
    identity = identities.frame(evidence.run)
    titles = {
        "incidents": "Incidents",
        "foreign": foreign.TITLE,
        **{a.section.name: a.section.title for a in answers if a.figure},
        **_LAST,
    }
    linkable = titles | {f"rule-{name}": "what to do, and why" for name in {i.rule for i in evidence.replay.incidents}}
    theirs = foreign.alarms(evidence.run)
    content = {
        "incidents": [incident_table(evidence), findings_part(evidence, linkable)],
        **({} if theirs is None else {"foreign": [markup(theirs, MOST_ROWS)]}),
        **{answer.section.name: _answer(answer, answer.figure) for answer in answers if answer.figure},
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
        f"<main>{_head(identity)}{story_part(story, linkable)}{body}{_foot(identity)}</main></div></body></html>\n"
    )


def _head(identity: identities.Identity) -> str:
    identity_facts = dict(identity.facts)
    line = f"{identity.subtitle} · {identity_facts['updates']} updates · {identity_facts['ended']}"
    return f"<header><h1>{html.text(identity.name)}</h1><p>{html.text(line)}</p></header>"


def _answer(answer: Answer, drawn: Drawn) -> list[str]:
    asks = f'<p class="asks">{html.text(answer.section.asks)}</p>'
    label = html.text(f"{answer.section.title}: {' '.join(answer.words)}", 300)
    figure = f'<figure role="img" aria-label="{label}">{drawn.svg}</figure>'
    if answer.markup:
        return [asks, answer.markup, figure, _folded("In words", _listed(answer.words))]
    table = "" if answer.rows is None else markup(answer.rows, MOST_ROWS)
    itemised = answer.section.itemised
    return [asks, _listed(answer.words) if itemised else html.paragraphs([" ".join(answer.words)]), figure, table]


def _listed(words: Sequence[str]) -> str:
    more = len(words) - MOST_LISTED
    rest = [f"{more:,} more are in report.json."] if more > 0 else []
    return html.bullets([*words[:MOST_LISTED], *rest])


def _unrecorded(answers: Sequence[Answer]) -> str:
    """Name every section without recorded data, and how to record it."""
    silent = [answer.section for answer in answers if answer.figure is None]
    items = "".join(
        f"<li><strong>{html.text(unanswered.title)}</strong>: {html.text(unanswered.without)}</li>"
        for unanswered in silent
    )
    return f"<ul>{items}</ul>" if silent else "<p>Data was recorded for every figure of this page.</p>"


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
    identity_facts = dict(identity.facts)
    return (
        f"<footer>Written by esper-analyze from run {html.text(identity_facts.get('run id', identity.name))}.</footer>"
    )
