"""The page of a comparison: the answer first, then figures, settings, and how it was judged."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from esper_analyze import reports
from esper_analyze.comparison.settings import Difference
from esper_analyze.comparison.side_by_side import SideBySide
from esper_analyze.comparison.words import READING, caveats, headline, partings, sentences, silent
from esper_analyze.reports.render import html
from esper_analyze.reports.render.figure import Drawn
from esper_analyze.reports.render.section import Question
from esper_analyze.wording import many

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_LINES = (
    "A gap in a line: nothing was measured there. A cross on the upper edge: NaN or ±Inf was measured. Dashed: from "
    "there on the run parts. A band: from the least to the greatest of the runs without a line of their own, stronger "
    "the middle half of them."
)
Answered = tuple[Question, Drawn, list[str]]
"""A figure with its question and its words."""


def page(found: SideBySide, answers: Sequence[Answered]) -> str:
    """Return the whole page as one HTML document that loads nothing."""
    sections = [
        ("partings", "Where they part", _partings(found)),
        *((question.name, question.title, _figure(question, drawn, words)) for question, drawn, words in answers),
        ("settings", "How their settings differ", settings(found)),
        ("runs", "The runs", [_runs(found)]),
        ("judged", "How it is judged", [html.paragraphs(READING), html.paragraphs([_LINES])]),
    ]
    body = "".join(html.section(name, title, *content) for name, title, content in sections)
    links = "".join(f'<li><a href="#{name}">{html.text(title)}</a></li>' for name, title, _ in sections)
    style = resources.files(reports).joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.text(headline(found), 160)}</title><style>{style}</style></head>"
        '<body><div class="page"><nav aria-label="Contents"><ol>'
        f'<li><a href="#story">Answer</a></li>{links}</ol></nav>'
        f"<main>{_head(found)}{_story(found)}{body}<footer>Written by esper-analyze.</footer></main>"
        "</div></body></html>\n"
    )


def _head(found: SideBySide) -> str:
    title = " and ".join(found.labels) if len(found.labels) == 2 else many(len(found.labels), "run")
    line = f"{many(len(found.metrics), 'metric')} compared over {many(len(found.updates), 'update')}"
    return f"<header><h1>{html.text(title)}</h1><p>{html.text(line)}</p></header>"


def _story(found: SideBySide) -> str:
    told = "".join(f'<p class="caveat">{html.text(one)}</p>' for one in caveats(found))
    unsure = bool(found.pending or found.too_short) and found.first_difference is not None
    kind = "warning" if found.leavings or found.ends_apart or unsure else "ok"
    word = "part" if found.leavings else "different" if found.ends_apart else "cannot tell" if unsure else "together"
    return (
        f'<div class="story {kind}" id="story"><span class="chip {kind}">{word}</span>'
        f"<h2>{html.text(headline(found))}</h2>{html.paragraphs(sentences(found))}{told}</div>"
    )


def _partings(found: SideBySide) -> list[str]:
    titles, rows = partings(found)
    quiet = [one.name for one in silent(found)]
    parts = [html.table(titles, [[html.text(cell) for cell in row] for row in rows])] if rows else []
    if quiet:
        parts.append(html.paragraphs([f"No parting in: {', '.join(quiet)}."]))
    return parts


def _figure(question: Question, drawn: Drawn, words: Sequence[str]) -> list[str]:
    label = html.text(f"{question.title}: {' '.join(words)}", 300)
    return [
        f'<p class="asks">{html.text(question.asks)}</p>',
        html.paragraphs([" ".join(words)]),
        f'<figure role="img" aria-label="{label}">{drawn.svg}</figure>',
    ]


def settings(found: SideBySide) -> list[str]:
    """Return the differing settings: a column a run for two, a row for each value of many."""
    if not found.settings:
        return ["<p>run.json says the same of all of them, but for their names.</p>"]
    first = [one for one in found.settings if not one[0].startswith("thresholds.")]
    rest = [one for one in found.settings if one[0].startswith("thresholds.")]
    parts = [_settings(found, first)] if first else ["<p>No setting of the training differs.</p>"]
    if rest:
        title = f"{many(len(rest), 'threshold')} of the detector differ{'s' if len(rest) == 1 else ''}"
        parts.append(f"<details><summary>{title}</summary>{_settings(found, rest)}</details>")
    return parts


def _settings(found: SideBySide, chosen: Sequence[Difference]) -> str:
    if len(found.labels) == 2:
        rows = [[html.text(cell) for cell in (name, *values)] for name, values in chosen]
        return html.table(("setting", *found.labels), rows)
    rows = []
    for name, values in chosen:
        for place, value in enumerate(dict.fromkeys(values)):
            who = [label for label, own in zip(found.labels, values, strict=True) if own == value]
            rows.append([html.text("" if place else name), html.text(value, 120), html.text(", ".join(who))])
    return html.table(("setting", "value", "runs"), rows)


def _runs(found: SideBySide) -> str:
    rows = []
    for run, (label, info) in enumerate(zip(found.labels, found.infos, strict=True)):
        told = (label, info.get("name"), info.get("algorithm"), info.get("framework"), f"{found.rows[run].sum():,}")
        rows.append([html.text("–" if one is None else one) for one in told])
    return html.table(("run", "name", "algorithm", "framework", "updates"), rows)
