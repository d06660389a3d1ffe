"""The heads as a table: a sign for the state, a sparkline for each number, and why a gradient was zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.detector.rule import Sign
from esper_analyze.reports.render.rows import Cell, Mark, SectionTable
from esper_analyze.reports.render.sparkline import Sparkline, sparkline
from esper_analyze.reports.sections.head_state import SIGNS, brief, state_of, zeros_explained
from esper_analyze.reports.sections.signs import head_state
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    import numpy as np

    from esper_analyze.reports.sections.head_frame import HeadFrame

MOST_SHOWN = 24
"""Heads on sight, the troubled ones first; …"""
MOST_FOLDED = 200
"""… and in a folded table under them."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A number of a head over the run, None where it was never measured, and its last value in words."""

    line: Sparkline | None
    last: str


@dataclass(frozen=True, slots=True)
class HeadTrends:
    """A head as the page lists it."""

    name: str
    state: Sign
    grad_norm: Trend
    entropy: Trend
    learnable: Trend
    zeros: str


@dataclass(frozen=True, slots=True)
class HeadTable(SectionTable):
    """Every head, and the same heads with their numbers over the run."""

    heads: tuple[HeadTrends, ...] = ()
    signs: tuple[tuple[str, str, str, str], ...] = SIGNS

    @property
    def on_sight(self) -> tuple[HeadTrends, ...]:
        """The heads that the page shows at once."""
        return self.heads[:MOST_SHOWN]

    @property
    def folded(self) -> tuple[HeadTrends, ...]:
        """The heads that the page shows when asked to."""
        return self.heads[MOST_SHOWN:MOST_FOLDED]

    @property
    def not_on_sight(self) -> int:
        """How many heads are not shown at once."""
        return max(len(self.heads) - MOST_SHOWN, 0)

    @property
    def left_out(self) -> int:
        """How many heads the page does not show at all."""
        return max(len(self.heads) - MOST_FOLDED, 0)


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
    state = head_state(last, {alarm.rule: alarm.peak_verdict for alarm in head.alarms if alarm.lasting})
    return (
        head.name,
        Mark(state.verdict, state.word, state.sign),
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


def listed(data: Sequence[HeadFrame]) -> HeadTable:
    """List every head: its state, its last numbers, and why its gradient was zero."""
    columns = ("head", "sign", "state", "because", "grad_norm", "entropy_norm", "learnable_fraction", "zero_gradients")
    heads = tuple(map(_row, data))
    cells = []
    for head, row in zip(data, heads, strict=True):
        numbers = (head.last_norm, head.entropy_norm.last, head.learnable.last)
        mark = Mark(row.state.verdict, row.state.word)
        cells.append((cleaned(head.name, 60), row.state.sign, mark, row.state.because, *numbers, row.zeros))
    return HeadTable(columns, tuple(cells), heads=heads)


def _row(head: HeadFrame) -> HeadTrends:
    return HeadTrends(
        head.name,
        state_of(head),
        Trend(sparkline(head.grad_norm), brief(head.last_norm)),
        Trend(sparkline(head.entropy_norm, high=1.0), brief(head.entropy_norm.last)),
        Trend(sparkline(head.learnable, high=1.0), brief(head.learnable.last, share=True)),
        zeros_explained(head),
    )
