"""Whether every head is learning, and where a gradient is zero, whether that is expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.rules import rules_over, shaded_in
from esper_analyze.detector.signals import Bools
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import area, finish, from_zero, incidents_behind, line, scale
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import BAND, MUTED, VERDICTS
from esper_analyze.reports.sections import head_table
from esper_analyze.reports.sections.head_frame import EXPECTED, HeadFrame
from esper_analyze.runs.series import Series, rows_by_subject, series_of
from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    import polars
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

MOST_DRAWN = 10
"""Heads drawn; every head has its sentence."""
_NUMBERS = ("entropy_norm", "grad_norm", "learnable_fraction")
_STD = ("std_min", "std_mean", "std_max")
_WORDS = ("kind", "grad_state", "zero_explained")
_SHADED = shaded_in("heads.head")
_OF_GROUP = rules_over("groups")
"""Rules that judge the gradient of a head as the group ``head:NAME``."""
_MARKS = 150
"""Most marks for zero gradients in one panel."""


def frame(evidence: Evidence) -> tuple[HeadFrame, ...] | None:
    """Return every head, the troubled ones first, None when no head was recorded."""
    parts = rows_by_subject(evidence.run, "heads", [*_NUMBERS, *_STD, "std_min_dimension", *_WORDS])
    if not parts:
        return None
    alarms: dict[str, list[Incident]] = {}
    for incident in evidence.replay.single_incidents:
        alarms.setdefault(incident.subject, []).append(incident)
    latest = max(map(_last_measured, parts.values()))
    heads = [
        _head(name, rows, (*alarms.get(name, ()), *alarms.get(f"{HEAD_GROUP}{name}", ())), latest)
        for name, rows in parts.items()
    ]
    return tuple(sorted(heads, key=lambda head: not (len(head.bad) or len(head.nonfinite) or head.incidents)))


def _last_measured(rows: polars.DataFrame) -> int:
    """Return the last update at which the state of the gradient is known, −1 where there is none."""
    measured = rows["update"].to_numpy()[rows["grad_state"].is_not_null().to_numpy()]
    return int(measured[-1]) if len(measured) else -1


def _ended(rows: polars.DataFrame, latest: int) -> int | None:
    """Return the first update of the stretch at the end in which the head is gone, or not measured as others are."""
    last, update = _last_measured(rows), rows["update"].to_numpy()
    if last < 0:
        return None
    there = rows["grad_state"].is_not_null().to_numpy() & ~_equals(rows, "grad_state", "removed")
    after = update[update > update[there][-1]] if there.any() else update
    gone = _equals(rows, "grad_state", "removed")[update == last].any()
    return int(after[0]) if len(after) and (gone or last < latest) else None


def _head(name: str, rows: polars.DataFrame, alarms: Iterable[Incident], latest: int) -> HeadFrame:
    entropy, gradient, learnable = (series_of(rows, column) for column in _NUMBERS)
    update = gradient.update
    smallest, std, largest = (series_of(rows, column) for column in _STD)
    broken = gradient.nonfinite | _equals(rows, "grad_state", "nonfinite")
    return HeadFrame(
        name=name,
        entropy_norm=entropy,
        grad_norm=gradient,
        learnable=learnable,
        std=std,
        std_range=(smallest, largest),
        **{column: _last_word(rows, column) for column in _WORDS},
        ended=_ended(rows, latest),
        bad=update[_equals(rows, "zero_explained", "unexplained")],
        nonfinite=update[broken],
        expected=update[_expected(rows)],
        zeros=_zeros(rows),
        incidents=tuple(
            alarm for alarm in alarms if alarm.rule in _SHADED and (alarm.rule in _OF_GROUP) == (alarm.subject != name)
        ),
        alarms=tuple(alarms),
        last_row=rows.row(-1, named=True),
    )


def _equals(rows: polars.DataFrame, column: str, word: str) -> Bools:
    same: Bools = (rows[column] == word).fill_null(value=False).to_numpy()
    return same


def _expected(rows: polars.DataFrame) -> Bools:
    expected: Bools = rows["zero_explained"].is_in(list(EXPECTED)).fill_null(value=False).to_numpy()
    return expected


def _zeros(rows: polars.DataFrame) -> dict[str, int]:
    """Count the updates with a zero or missing gradient by explanation, the most frequent first."""
    counted = rows["zero_explained"].drop_nulls().value_counts(sort=True)
    return {str(word): int(count) for word, count in counted.iter_rows() if word != "not_zero"}


def _last_word(rows: polars.DataFrame, column: str) -> str | None:
    words = rows[column].drop_nulls()
    return str(words[-1]) if len(words) else None


def layout(data: tuple[HeadFrame, ...]) -> Layout:
    """One row a head: entropy or standard deviation, gradient, learnable fraction."""
    return Layout((96,) * min(len(data), MOST_DRAWN), columns=3)


def draw(data: tuple[HeadFrame, ...], axes: Sequence[Axes]) -> None:
    """Draw a row of three panels for each of the first heads."""
    drawn = data[:MOST_DRAWN]
    for row, head in enumerate(drawn):
        entropy, gradient, learnable = axes[3 * row : 3 * row + 3]
        name, last = cleaned(head.name, 24), row == len(drawn) - 1
        _draw_spread(entropy, head, name, last=last)
        line(gradient, head.grad_norm)
        scale(gradient, head.grad_norm)
        from_zero(gradient, head.grad_norm)
        _mark_zeros(gradient, head)
        _title(gradient, "gradient norm", head.grad_norm, "not measured", last=last)
        line(learnable, head.learnable)
        learnable.set_ylim(-0.03, 1.03)
        _title(learnable, "learnable fraction", head.learnable, "no masks", last=last)
        for axis in (entropy, gradient, learnable):
            incidents_behind(axis, head.incidents, _SHADED)


def _draw_spread(axes: Axes, head: HeadFrame, name: str, *, last: bool) -> None:
    """Draw how widely the head acts: its standard deviation from smallest to largest if it has one, else entropy."""
    if not head.std.empty:
        if not any(series.empty for series in head.std_range):
            area(axes, *head.std_range, BAND, strength=0.35)
        line(axes, head.std)
        scale(axes, head.std)
        _title(axes, f"{name}: std", head.std, "not measured", last=last)
        return
    _shade_learnable(axes, head.learnable)
    line(axes, head.entropy_norm)
    axes.set_ylim(-0.03, 1.03)
    choice = bool(np.any(head.learnable.value[head.learnable.finite] > 0)) or head.learnable.empty
    without = "not measured" if choice else "never had a choice"
    _title(axes, f"{name}: entropy", head.entropy_norm, without, last=last)


def _shade_learnable(axes: Axes, learnable: Series) -> None:
    """Fill the share of steps at which the head had a choice: entropy is over those only."""
    zero = Series(learnable.update, np.where(learnable.finite, 0.0, np.nan), learnable.null)
    if not learnable.empty:
        area(axes, zero, learnable, BAND, strength=0.35)


def _mark_zeros(axes: Axes, head: HeadFrame) -> None:
    """Mark zero and missing gradients on the lower edge: grey where explained, a cross where not."""
    span = int(head.grad_norm.update[-1] - head.grad_norm.update[0]) + 1
    for update, marker, colour, high in (
        (head.expected, "|", MUTED, 0.04),
        (head.bad, "x", VERDICTS["critical"], 0.06),
    ):
        if not len(update):
            continue
        pixel = update // max(1, span // _MARKS)
        where = update[np.unique(pixel, return_index=True)[1]]
        edge = axes.get_xaxis_transform()
        axes.plot(where, np.full(len(where), high), marker, color=colour, markersize=5, transform=edge, zorder=4)


def _title(axes: Axes, title: str, series: Series, empty: str, *, last: bool) -> None:
    if series.empty:
        axes.text(0.5, 0.5, empty, transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])
    finish(axes, title, last=last)


def words(data: tuple[HeadFrame, ...]) -> list[str]:
    """Say one sentence per head."""
    sentences = [head.sentence + "." for head in data]
    if len(data) > MOST_DRAWN:
        sentences.append(f"{len(data) - MOST_DRAWN} of {len(data)} heads are not drawn; troubled ones come first.")
    return sentences


SECTION = Section(
    name="heads",
    title="Heads",
    asks="Is every head learning, and where a gradient is zero, is that expected?",
    without="No head was recorded.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
    rows=head_table.rows,
    listed=head_table.listed,
    template="heads.html.j2",
    rules=rules_over("heads"),
)
