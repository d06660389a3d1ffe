"""Whether every head is learning, and where a gradient is zero, whether that is expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import Bools
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import area, finish, from_zero, incidents_behind, line, scale
from esper_analyze.reports.render.section import Layout, Question
from esper_analyze.reports.render.style import BAND, MUTED, VERDICTS
from esper_analyze.reports.sections import head_table
from esper_analyze.runs.series import Series, rows_by_subject, series_of
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, number

if TYPE_CHECKING:
    import polars
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

MOST_DRAWN = 10
"""Heads drawn; every head has its sentence."""
_NUMBERS = ("entropy_norm", "grad_norm", "learnable_fraction")
_WORDS = ("kind", "grad_state", "zero_explained")
_RULES = ("head_entropy_collapse", "mask_collapse", "gradient_missing", "entropy_collapse")
_OF_GROUP = ("gradient_explosion", "gradient_vanishing")
"""Rules that judge the gradient of a head as the group ``head:NAME``."""
_MARKS = 150
"""Most marks for zero gradients in one panel."""
_EXPECTED = {
    "masked": "masked, expected",
    "irrelevant": "never relevant to the action taken, expected",
    "frozen": "frozen, expected",
}


@dataclass(frozen=True, slots=True)
class HeadFrame:
    """One head: its numbers over updates, its last state in words, and when something was unexplained.

    ``ended``: the first update since which its parameters are gone, or its gradient is not measured any more while
    that of others is; None: it is measured to the end.
    ``bad`` are the updates with an unexplained zero or missing gradient, ``nonfinite`` those with a NaN or ±Inf one,
    ``expected`` those with one that is explained; ``zeros`` counts both by explanation.
    """

    name: str
    entropy_norm: Series
    grad_norm: Series
    learnable: Series
    kind: str | None
    grad_state: str | None
    zero_explained: str | None
    ended: int | None
    bad: np.ndarray[tuple[int], np.dtype[np.int64]]
    nonfinite: np.ndarray[tuple[int], np.dtype[np.int64]]
    expected: np.ndarray[tuple[int], np.dtype[np.int64]]
    zeros: dict[str, int]
    incidents: tuple[Incident, ...]

    @property
    def sentence(self) -> str:
        """Say in one sentence whether the head learns, and why not if not; of one that ended, only that it did."""
        if self.ended is not None:
            return f"{cleaned(self.name, 40)}: {self.ending}"
        return f"{cleaned(self.name, 40)}: gradient {self._gradient()}{self._learnable()}: {self._state()}"

    @property
    def ending(self) -> str:
        """Say since when the head is gone or not measured, empty while it is measured."""
        if self.ended is None:
            return ""
        if self.grad_state == "removed":
            return f"removed, the model has none of its parameters from update {self.ended:,} on"
        return f"its gradient is not measured from update {self.ended:,} on"

    @property
    def last_norm(self) -> float | None:
        """The last gradient norm, None where the head's past has ended."""
        return None if self.ended is not None else self.grad_norm.last

    def _gradient(self) -> str:
        last = self.last_norm
        if self.grad_state == "missing":
            return "missing"
        if last is None:
            return "not measured"
        return f"{last:.3f}" if 1e-3 <= abs(last) < 1e4 or last == 0 else number(last)

    def _learnable(self) -> str:
        last = self.learnable.last
        if last is None:
            return ""
        return f" ({100 * last:.0f} % learnable)" if 0 <= last <= 1 else f" (learnable fraction {number(last)})"

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
    parts = rows_by_subject(evidence.run, "heads", [*_NUMBERS, *_WORDS])
    if not parts:
        return None
    incidents: dict[str, list[Incident]] = {}
    for incident in evidence.replay.single_incidents:
        if incident.rule in _RULES:
            incidents.setdefault(incident.subject, []).append(incident)
        elif incident.rule in _OF_GROUP and incident.subject.startswith("head:"):
            incidents.setdefault(incident.subject.removeprefix("head:"), []).append(incident)
    latest = max(map(_last_measured, parts.values()))
    heads = [_head(name, rows, incidents.get(name, ()), latest) for name, rows in parts.items()]
    return tuple(sorted(heads, key=lambda head: not (len(head.bad) or len(head.nonfinite) or head.incidents)))


def _last_measured(rows: polars.DataFrame) -> int:
    """Return the last update at which the state of the gradient is known, −1 where there is none."""
    known = rows["update"].to_numpy()[rows["grad_state"].is_not_null().to_numpy()]
    return int(known[-1]) if len(known) else -1


def _ended(rows: polars.DataFrame, latest: int) -> int | None:
    """Return the first update of the stretch at the end in which the head is gone, or not measured as others are."""
    last, update = _last_measured(rows), rows["update"].to_numpy()
    if last < 0:
        return None
    there = rows["grad_state"].is_not_null().to_numpy() & ~_equals(rows, "grad_state", "removed")
    after = update[update > update[there][-1]] if there.any() else update
    gone = _equals(rows, "grad_state", "removed")[update == last].any()
    return int(after[0]) if len(after) and (gone or last < latest) else None


def _head(name: str, rows: polars.DataFrame, incidents: Iterable[Incident], latest: int) -> HeadFrame:
    entropy, gradient, learnable = (series_of(rows, column) for column in _NUMBERS)
    update = gradient.update
    broken = gradient.nonfinite | _equals(rows, "grad_state", "nonfinite")
    return HeadFrame(
        name=name,
        entropy_norm=entropy,
        grad_norm=gradient,
        learnable=learnable,
        **{column: _last_word(rows, column) for column in _WORDS},
        ended=_ended(rows, latest),
        bad=update[_equals(rows, "zero_explained", "unexplained")],
        nonfinite=update[broken],
        expected=update[_expected(rows)],
        zeros=_zeros(rows),
        incidents=tuple(incidents),
    )


def _equals(rows: polars.DataFrame, column: str, word: str) -> Bools:
    same: Bools = (rows[column] == word).fill_null(value=False).to_numpy()
    return same


def _expected(rows: polars.DataFrame) -> Bools:
    said: Bools = rows["zero_explained"].is_in(list(_EXPECTED)).fill_null(value=False).to_numpy()
    return said


def _zeros(rows: polars.DataFrame) -> dict[str, int]:
    """Count the updates with a zero or missing gradient by explanation, the most frequent first."""
    counted = rows["zero_explained"].drop_nulls().value_counts(sort=True)
    return {str(word): int(count) for word, count in counted.iter_rows() if word != "not_zero"}


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
        _shade_learnable(entropy, head.learnable)
        line(entropy, head.entropy_norm)
        entropy.set_ylim(-0.03, 1.03)
        choice = bool(np.any(head.learnable.value[head.learnable.finite] > 0)) or head.learnable.empty
        without = "not measured" if choice else "never had a choice"
        _title(entropy, f"{name}: entropy", head.entropy_norm, without, last=last)
        line(gradient, head.grad_norm)
        scale(gradient, head.grad_norm)
        from_zero(gradient, head.grad_norm)
        _mark_zeros(gradient, head)
        _title(gradient, "gradient norm", head.grad_norm, "not measured", last=last)
        line(learnable, head.learnable)
        learnable.set_ylim(-0.03, 1.03)
        _title(learnable, "learnable fraction", head.learnable, "no masks", last=last)
        for axis in (entropy, gradient, learnable):
            incidents_behind(axis, head.incidents, (*_RULES, *_OF_GROUP))


def _shade_learnable(axes: Axes, learnable: Series) -> None:
    """Fill the share of steps at which the head had a choice: entropy is over those only."""
    zero = Series(learnable.update, np.where(learnable.finite, 0.0, np.nan), learnable.null)
    if not learnable.empty:
        area(axes, zero, learnable, BAND, strength=0.35)


def _mark_zeros(axes: Axes, head: HeadFrame) -> None:
    """Mark zero and missing gradients on the lower edge: grey where explained, a cross where not."""
    whole = int(head.grad_norm.update[-1] - head.grad_norm.update[0]) + 1
    for update, marker, colour, high in (
        (head.expected, "|", MUTED, 0.04),
        (head.bad, "x", VERDICTS["critical"], 0.06),
    ):
        if not len(update):
            continue
        pixel = update // max(1, whole // _MARKS)
        where = update[np.unique(pixel, return_index=True)[1]]
        place = axes.get_xaxis_transform()
        axes.plot(where, np.full(len(where), high), marker, color=colour, markersize=5, transform=place, zorder=4)


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
    table=head_table.table,
    markup=head_table.markup,
)
