"""Whether every head is learning, and where a gradient is zero, whether that is expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import Bools
from esper_analyze.reports.draw import finish, from_zero, incidents_behind, line, scale
from esper_analyze.reports.evidence import Evidence
from esper_analyze.reports.question import Layout, Question
from esper_analyze.reports.series import Series, rows_of, series_of
from esper_analyze.reports.words import many, number
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    import polars
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

MOST_DRAWN = 10
"""Heads drawn; every head has its sentence."""
_NUMBERS = ("entropy_norm", "grad_norm", "learnable_fraction")
_WORDS = ("kind", "grad_state", "zero_explained")
_RULES = ("head_entropy_collapse", "mask_collapse", "gradient_missing", "entropy_collapse")
_EXPECTED = {
    "masked": "masked, expected",
    "irrelevant": "never relevant to the action taken, expected",
    "frozen": "frozen, expected",
}


@dataclass(frozen=True, slots=True)
class HeadFrame:
    """One head: its numbers over updates, its last state in words, and when something was unexplained.

    ``bad`` are the updates with an unexplained zero or missing gradient, ``nonfinite`` those with a NaN or ±Inf one.
    """

    name: str
    entropy_norm: Series
    grad_norm: Series
    learnable: Series
    kind: str | None
    grad_state: str | None
    zero_explained: str | None
    bad: np.ndarray[tuple[int], np.dtype[np.int64]]
    nonfinite: np.ndarray[tuple[int], np.dtype[np.int64]]
    incidents: tuple[Incident, ...]

    @property
    def sentence(self) -> str:
        """Say in one sentence whether the head learns, and why not if not."""
        return f"{cleaned(self.name, 40)}: gradient {self._gradient()}{self._learnable()}: {self._state()}"

    def _gradient(self) -> str:
        last = self.grad_norm.last
        if self.grad_state == "missing":
            return "missing"
        if last is None:
            return "not measured"
        return f"{last:.3f}" if np.isfinite(last) else number(last)

    def _learnable(self) -> str:
        last = self.learnable.last
        if last is None:
            return ""
        return f" ({100 * last:.0f} % learnable)" if np.isfinite(last) else f" (learnable fraction {number(last)})"

    def _state(self) -> str:
        if len(self.bad):
            return f"unexplained zero or missing gradient at {_at(self.bad)}: a bug report"
        if len(self.nonfinite):
            return f"NaN or infinite gradient at {_at(self.nonfinite)}"
        if self.zero_explained in _EXPECTED:
            return _EXPECTED[str(self.zero_explained)]
        collapse = next((i for i in self.incidents if i.rule == "head_entropy_collapse"), None)
        if collapse is not None:
            until = "to the end" if collapse.ended == "open" else f"to {collapse.end}"
            return f"its entropy collapsed while it had a choice, update {collapse.start} {until}"
        return "learning" if self.zero_explained == "not_zero" else "nothing to judge it by"


def _at(updates: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    if len(updates) == 1:
        return f"update {updates[0]}"
    return f"{many(len(updates), 'update')}, first {updates[0]}"


def frame(evidence: Evidence) -> tuple[HeadFrame, ...] | None:
    """Return every head, the troubled ones first, None when no head was recorded."""
    rows = rows_of(evidence.run, "heads", [*_NUMBERS, *_WORDS])
    if rows.is_empty():
        return None
    parts = rows.partition_by("head", as_dict=True, maintain_order=True)
    incidents: dict[str, list[Incident]] = {}
    for incident in evidence.replay.incidents:
        if incident.rule in _RULES:
            incidents.setdefault(incident.subject, []).append(incident)
    heads = [_head(str(key[0]), part, incidents.get(str(key[0]), ())) for key, part in parts.items()]
    return tuple(sorted(heads, key=lambda head: not (len(head.bad) or len(head.nonfinite) or head.incidents)))


def _head(name: str, rows: polars.DataFrame, incidents: Iterable[Incident]) -> HeadFrame:
    entropy, gradient, learnable = (series_of(rows, column) for column in _NUMBERS)
    update = gradient.update
    broken = gradient.nonfinite | _equals(rows, "grad_state", "nonfinite")
    return HeadFrame(
        name=name,
        entropy_norm=entropy,
        grad_norm=gradient,
        learnable=learnable,
        **{column: _last_word(rows, column) for column in _WORDS},
        bad=update[_equals(rows, "zero_explained", "unexplained")],
        nonfinite=update[broken],
        incidents=tuple(incidents),
    )


def _equals(rows: polars.DataFrame, column: str, word: str) -> Bools:
    same: Bools = (rows[column] == word).fill_null(value=False).to_numpy()
    return same


def _last_word(rows: polars.DataFrame, column: str) -> str | None:
    said = rows[column].drop_nulls()
    return str(said[-1]) if len(said) else None


def layout(data: tuple[HeadFrame, ...]) -> Layout:
    """One row a head: entropy, gradient, learnable fraction."""
    return Layout((96,) * min(len(data), MOST_DRAWN), columns=3)


def draw(data: tuple[HeadFrame, ...], axes: Sequence[Axes]) -> None:
    """Draw a row of three panels for each of the first heads."""
    drawn = data[:MOST_DRAWN]
    for row, head in enumerate(drawn):
        entropy, gradient, learnable = axes[3 * row : 3 * row + 3]
        name, last = cleaned(head.name, 24), row == len(drawn) - 1
        line(entropy, head.entropy_norm)
        entropy.set_ylim(-0.03, 1.03)
        _title(entropy, f"{name}: entropy", head.entropy_norm, "never had a choice", last=last)
        line(gradient, head.grad_norm)
        scale(gradient, head.grad_norm)
        from_zero(gradient, head.grad_norm)
        _title(gradient, "gradient norm", head.grad_norm, "not measured", last=last)
        line(learnable, head.learnable)
        learnable.set_ylim(-0.03, 1.03)
        _title(learnable, "learnable fraction", head.learnable, "no masks", last=last)
        for axis in (entropy, gradient, learnable):
            incidents_behind(axis, head.incidents, _RULES)


def _title(axes: Axes, title: str, series: Series, empty: str, *, last: bool) -> None:
    if series.empty:
        axes.text(0.5, 0.5, empty, transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])
    finish(axes, title, last=last)


def words(data: tuple[HeadFrame, ...]) -> list[str]:
    """Say one sentence per head."""
    said = [head.sentence + "." for head in data]
    if len(data) > MOST_DRAWN:
        said.append(f"{len(data) - MOST_DRAWN} of {len(data)} heads are not drawn; troubled ones come first.")
    return said


QUESTION = Question(
    name="heads",
    title="Heads",
    asks="Is every head learning, and where a gradient is zero, is that expected?",
    without="No head was recorded.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
