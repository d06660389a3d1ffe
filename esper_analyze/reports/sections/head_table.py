"""The heads as a table: a sign for the state, a sparkline for each number, and why a gradient was zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from esper_analyze.reports.render import html
from esper_analyze.reports.render.rows import Mark, SectionTable
from esper_analyze.reports.render.sparkline import sparkline
from esper_analyze.reports.sections.head_state import SIGNS, brief, state_of, zeros_explained
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    from esper_analyze.reports.sections.head_frame import HeadFrame

MOST_SHOWN = 24
"""Heads on sight, the troubled ones first; …"""
MOST_ROWS = 200
"""… and in a folded table under them."""
_FIGURE = (
    "In the figure, behind the entropy: the share of steps at which the masks left the head a choice (learnable). "
    "On the lower edge of the gradient: │ a zero that is explained, ✕ one that is not."
)
_TITLES = ("head", "state", "gradient norm", "entropy", "learnable", "zero gradients")


def table(data: Sequence[HeadFrame]) -> SectionTable:
    """List every head: its state, its last numbers, and why its gradient was zero."""
    columns = ("head", "sign", "state", "because", "grad_norm", "entropy_norm", "learnable_fraction", "zero_gradients")
    cells = []
    for head in data:
        state = state_of(head)
        numbers = (head.last_norm, head.entropy_norm.last, head.learnable.last)
        mark = Mark(state.verdict, state.word)
        cells.append((cleaned(head.name, 60), state.sign, mark, state.because, *numbers, zeros_explained(head)))
    return SectionTable(columns, tuple(cells))


def markup(data: Sequence[HeadFrame]) -> str:
    """Return the table of the page, and what the signs mean."""
    shown = html.table(_TITLES, [_row(head) for head in data[:MOST_SHOWN]], kind="heads")
    if len(data) > MOST_SHOWN:
        folded = html.table(_TITLES, [_row(head) for head in data[MOST_SHOWN:MOST_ROWS]], kind="heads")
        shown += f"<details><summary>{many(len(data) - MOST_SHOWN, 'more head')}</summary>{folded}</details>"
    left = len(data) - MOST_ROWS
    more = html.paragraphs([f"{many(left, 'more head')} in report.json."]) if left > 0 else ""
    signs = "".join(
        f'<li><span class="state">{_sign(sign, verdict or "not_applicable")}{word}</span>: {meaning}</li>'
        for sign, word, verdict, meaning in SIGNS
    )
    legend = f'<ul class="signs">{signs}</ul>{html.paragraphs([_FIGURE])}'
    return f"{shown}{more}<details><summary>What the signs mean</summary>{legend}</details>"


def _row(head: HeadFrame) -> list[str]:
    state = state_of(head)
    sign = _sign(state.sign, state.verdict)
    state_cell = f'<span class="state">{sign}{html.text(state.word)}</span> <small>{html.text(state.because)}</small>'
    return [
        f"<strong>{html.text(head.name, 40)}</strong>",
        state_cell,
        _cell(sparkline(head.grad_norm), brief(head.last_norm)),
        _cell(sparkline(head.entropy_norm, high=1.0), brief(head.entropy_norm.last)),
        _cell(sparkline(head.learnable, high=1.0), brief(head.learnable.last, share=True)),
        html.text(zeros_explained(head)),
    ]


def _sign(sign: str, verdict: str) -> str:
    return f'<span class="sign {verdict}">{sign}</span> '


def _cell(spark: str, last: str) -> str:
    return f'{spark}<span class="last">{html.text(last)}</span>' if last != "–" else spark
