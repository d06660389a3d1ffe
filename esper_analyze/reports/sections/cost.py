"""Cost of recording: time in the training thread and dropped rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import finish, from_zero, line, scale
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.runs.series import Series, all_series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = ("recorder_ms", "recorder_fraction", "dropped_rows")


@dataclass(frozen=True, slots=True)
class CostFrame:
    """Time the recorder took in the training thread, and rows it lost, by update."""

    milliseconds: Series
    fraction: Series
    dropped: Series


def frame(evidence: Evidence) -> CostFrame | None:
    """Return the recorder's own cost, None when it was not recorded."""
    columns = all_series(evidence.run, "updates", _COLUMNS)
    if columns["recorder_ms"].empty:
        return None
    return CostFrame(*(columns[name] for name in _COLUMNS))


def layout(data: CostFrame) -> Layout:  # noqa: ARG001
    """Two panels."""
    return Layout((100, 100))


def draw(data: CostFrame, axes: Sequence[Axes]) -> None:
    """Draw time and share per update."""
    line(axes[0], data.milliseconds)
    scale(axes[0], data.milliseconds)
    finish(axes[0], "Recorder's time in the training thread, ms per update")
    from_zero(axes[0], data.milliseconds)
    line(axes[1], data.fraction)
    scale(axes[1], data.fraction)
    from_zero(axes[1], data.fraction)
    finish(axes[1], "Its share of the update's time", last=True)


def words(data: CostFrame) -> list[str]:
    """Say the typical cost and the number of dropped rows."""
    cost, share = data.milliseconds, data.fraction
    sentences = []
    if cost.finite.any():
        typical = np.median(cost.value[cost.finite])
        part = f", {np.median(share.value[share.finite]):.2%} of the update" if share.finite.any() else ""
        sentences.append(f"Typically {typical:.3g} ms per update{part}.")
    lost = data.dropped.value[data.dropped.finite].sum()
    sentences.append(
        f"{lost:,.0f} rows were dropped while recording." if lost else "No row was dropped while recording."
    )
    return sentences


SECTION = Section(
    name="cost",
    title="Cost of recording",
    asks="What did recording cost the training?",
    without="The recorder's own cost was not recorded. Recorder always records it, so this run has another writer.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
