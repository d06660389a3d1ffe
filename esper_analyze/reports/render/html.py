"""HTML out of untrusted text: every word from a run goes through ``text``."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from esper_analyze.terminal import cleaned

_LONGEST_CELL = 600


def text(value: object, longest: int = _LONGEST_CELL) -> str:
    """Return ``value`` as harmless text: control characters gone, cut, and all of ``< > & " '`` escaped."""
    return html.escape(cleaned(value, longest), quote=True)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """Return a table; titles are escaped here, cells are HTML already."""
    named = [text(title) for title in titles]
    head = "".join(f'<th scope="col">{title}</th>' for title in named)
    body = "".join(
        "<tr>"
        + "".join(f'<td data-label="{title}">{cell}</td>' for title, cell in zip(named, row, strict=True))
        + "</tr>"
        for row in rows
    )
    name = f' class="{kind}"' if kind else ""
    return f'<div class="wide"><table{name}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return (what, value) pairs as a description list."""
    return (
        "<dl>" + "".join(f"<div><dt>{text(what)}</dt><dd>{text(value)}</dd></div>" for what, value in pairs) + "</dl>"
    )


def paragraphs(sentences: Iterable[str]) -> str:
    """Return each sentence as a paragraph."""
    return "".join(f"<p>{text(sentence, 2_000)}</p>" for sentence in sentences if sentence)


def bullets(sentences: Iterable[str]) -> str:
    """Return each sentence as an item of a list."""
    return "<ul>" + "".join(f"<li>{text(sentence, 2_000)}</li>" for sentence in sentences) + "</ul>"


def chip(verdict: str, label: str = "") -> str:
    """Return a verdict as a word with its colour; ``label`` is another word for it."""
    return f'<span class="chip {text(verdict)}">{text(label or verdict.replace("_", " "))}</span>'


def section(name: str, title: str, *content: str) -> str:
    """Return a section of the page that the table of contents can point to."""
    return f'<section id="{text(name)}"><h2>{text(title)}</h2>{"".join(content)}</section>'
