"""The page of a comparison: the answer first, then figures, settings, and the method."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from esper_analyze import reports
from esper_analyze.comparison.figures import Overlay
from esper_analyze.comparison.settings import SettingDifference
from esper_analyze.comparison.side_by_side import SideBySide
from esper_analyze.comparison.words import READING, caveats, divergence_table, headline, sentences, undiverged
from esper_analyze.reports.render import html
from esper_analyze.reports.render.figure import Drawn
from esper_analyze.wording import many

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_LINES = (
    "A gap in a line: not measured. A cross on the upper edge: NaN or ±Inf. A dashed line: the run diverges from that "
    "update on. A band: the range of the runs without their own line, darker the middle half of them."
)
Answered = tuple[Overlay, Drawn, list[str]]
"""A figure's data, the figure and its sentences."""


def page(comparison: SideBySide, answers: Sequence[Answered]) -> str:
    """Return the page as one self-contained HTML document."""
    sections = [
        ("divergences", "Where they diverge", _divergences(comparison)),
        *((overlay.topic, overlay.title, _figure(overlay, drawn, words)) for overlay, drawn, words in answers),
        ("settings", "How their settings differ", settings(comparison)),
        ("runs", "The runs", [_runs(comparison)]),
        ("method", "How runs are compared", [html.paragraphs(READING), html.paragraphs([_LINES])]),
    ]
    body = "".join(html.section(name, title, *content) for name, title, content in sections)
    links = "".join(f'<li><a href="#{name}">{html.text(title)}</a></li>' for name, title, _ in sections)
    style = resources.files(reports).joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.text(headline(comparison), 160)}</title><style>{style}</style></head>"
        '<body><div class="page"><nav aria-label="Contents"><ol>'
        f'<li><a href="#story">Answer</a></li>{links}</ol></nav>'
        f"<main>{_head(comparison)}{_story(comparison)}{body}<footer>Written by esper-analyze.</footer></main>"
        "</div></body></html>\n"
    )


def _head(comparison: SideBySide) -> str:
    title = " and ".join(comparison.labels) if len(comparison.labels) == 2 else many(len(comparison.labels), "run")
    line = f"{many(len(comparison.metrics), 'metric')} compared over {many(len(comparison.updates), 'update')}"
    return f"<header><h1>{html.text(title)}</h1><p>{html.text(line)}</p></header>"


def _story(comparison: SideBySide) -> str:
    notes = "".join(f'<p class="caveat">{html.text(note)}</p>' for note in caveats(comparison))
    unsure = bool(comparison.pending or comparison.too_short) and comparison.first_difference is not None
    kind = "warning" if comparison.divergences or comparison.end_differences or unsure else "ok"
    word = (
        "diverged"
        if comparison.divergences
        else "different"
        if comparison.end_differences
        else "cannot tell"
        if unsure
        else "together"
    )
    return (
        f'<div class="story {kind}" id="story"><span class="chip {kind}">{word}</span>'
        f"<h2>{html.text(headline(comparison))}</h2>{html.paragraphs(sentences(comparison))}{notes}</div>"
    )


def _divergences(comparison: SideBySide) -> list[str]:
    titles, rows = divergence_table(comparison)
    quiet = [metric.name for metric in undiverged(comparison)]
    parts = [html.table(titles, [[html.text(cell) for cell in row] for row in rows])] if rows else []
    if quiet:
        parts.append(html.paragraphs([f"No divergence in: {', '.join(quiet)}."]))
    return parts


def _figure(overlay: Overlay, drawn: Drawn, words: Sequence[str]) -> list[str]:
    label = html.text(f"{overlay.title}: {' '.join(words)}", 300)
    return [
        f'<p class="asks">{html.text(overlay.asks)}</p>',
        html.paragraphs([" ".join(words)]),
        f'<figure role="img" aria-label="{label}">{drawn.svg}</figure>',
    ]


def settings(comparison: SideBySide) -> list[str]:
    """Return the differing settings: a column for each of two runs, a row for each value of more runs."""
    if not comparison.settings:
        return ["<p>All of them have the same settings in run.json.</p>"]
    first = [setting for setting in comparison.settings if not setting[0].startswith("thresholds.")]
    rest = [setting for setting in comparison.settings if setting[0].startswith("thresholds.")]
    parts = [_settings(comparison, first)] if first else ["<p>No setting of the training differs.</p>"]
    if rest:
        title = f"{many(len(rest), 'threshold')} of the detector differ{'s' if len(rest) == 1 else ''}"
        parts.append(f"<details><summary>{title}</summary>{_settings(comparison, rest)}</details>")
    return parts


def _settings(comparison: SideBySide, chosen: Sequence[SettingDifference]) -> str:
    if len(comparison.labels) == 2:
        rows = [[html.text(cell) for cell in (name, *values)] for name, values in chosen]
        return html.table(("setting", *comparison.labels), rows)
    rows = []
    for name, values in chosen:
        for index, value in enumerate(dict.fromkeys(values)):
            who = [label for label, of_run in zip(comparison.labels, values, strict=True) if of_run == value]
            rows.append([html.text("" if index else name), html.text(value, 120), html.text(", ".join(who))])
    return html.table(("setting", "value", "runs"), rows)


def _runs(comparison: SideBySide) -> str:
    rows = []
    for run, (label, info) in enumerate(zip(comparison.labels, comparison.infos, strict=True)):
        cells = (
            label,
            info.get("name"),
            info.get("algorithm"),
            info.get("framework"),
            f"{comparison.rows[run].sum():,}",
        )
        rows.append([html.text("–" if cell is None else cell) for cell in cells])
    return html.table(("run", "name", "algorithm", "framework", "updates"), rows)
