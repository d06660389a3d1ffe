"""The heads as a table: a sign for the state, a sparkline for each number, and why a gradient was zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from esper_analyze.reports.render import html
from esper_analyze.reports.render.rows import Cell, Mark, SectionTable
from esper_analyze.reports.render.sparkline import sparkline
from esper_analyze.reports.sections.head_state import SIGNS, brief, state_of, zeros_explained
from esper_analyze.reports.sections.signs import head_state
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    import numpy as np

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


def rows(data: Sequence[HeadFrame]) -> SectionTable:
    """Return each head: gradient, learnable fraction and entropy at the end, its worst, and whether it learns."""
    columns = (
        "head",
        "state",
        "grad_norm",
        "learnable_fraction",
        "entropy_norm",
        "grad_state",
        "zero_explained",
        "least_entropy",
        "unexplained",
        "first_unexplained",
        "nonfinite",
        "first_nonfinite",
        "alarms",
    )
    brief = (
        ("head", "head"),
        ("state", "state"),
        ("grad_norm", "gradient"),
        ("learnable_fraction", "learnable"),
        ("entropy_norm", "entropy"),
        ("zero_explained", "zero"),
    )
    return SectionTable(columns, tuple(_cells(head) for head in data), brief).worst_first


def _cells(head: HeadFrame) -> tuple[Cell, ...]:
    last, entropy = head.last_row, head.entropy_norm
    state = head_state(last, {alarm.rule: alarm.peak_verdict for alarm in head.alarms if alarm.ended == "open"})
    return (
        head.name,
        Mark(state.verdict, str(state)),
        None if last["grad_state"] in (None, "removed") else head.grad_norm.last,
        head.learnable.last,
        entropy.last,
        last["grad_state"],
        last["zero_explained"],
        float(entropy.value[entropy.finite].min()) if entropy.finite.any() else None,
        *_counted(head.bad),
        *_counted(head.nonfinite),
        len(head.alarms),
    )


def _counted(updates: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[int, int | None]:
    return len(updates), int(updates[0]) if len(updates) else None


def listed(data: Sequence[HeadFrame]) -> SectionTable:
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
