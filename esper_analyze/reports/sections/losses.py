"""What the losses did, and where something in them was not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.detector.rules import shaded_in
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import finish, incidents_behind, line, scale
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.runs.series import Series, all_series
from esper_analyze.wording import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

_LOSSES = (
    ("policy_loss", "Policy loss"),
    ("value_loss", "Value loss"),
    ("entropy_loss", "Entropy loss, before its coefficient"),
    ("total_loss", "Total loss, as it was differentiated"),
)
_COUNTS = ("nan_grad_count", "inf_grad_count", "nonfinite_minibatches")


@dataclass(frozen=True, slots=True)
class LossFrame:
    """Columns of ``updates`` by name, incidents to shade."""

    columns: dict[str, Series]
    incidents: tuple[Incident, ...]


def frame(evidence: Evidence) -> LossFrame | None:
    """Return the losses, None when none was recorded."""
    columns = all_series(evidence.run, "updates", [*(name for name, _ in _LOSSES), *_COUNTS])
    if all(columns[name].empty for name, _ in _LOSSES):
        return None
    return LossFrame(columns, tuple(evidence.replay.single_incidents))


def layout(data: LossFrame) -> Layout:
    """One panel a loss that was handed over."""
    return Layout((110,) * len(_shown(data)))


def _shown(data: LossFrame) -> list[tuple[str, str]]:
    return [(name, title) for name, title in _LOSSES if not data.columns[name].empty]


def draw(data: LossFrame, axes: Sequence[Axes]) -> None:
    """Draw each loss."""
    shown = _shown(data)
    for index, (name, title) in enumerate(shown):
        line(axes[index], data.columns[name])
        scale(axes[index], data.columns[name])
        finish(axes[index], title + _count_words(data.columns[name]), last=index == len(shown) - 1)
        incidents_behind(axes[index], data.incidents, shaded_in("losses.loss"))


def _count_words(series: Series) -> str:
    count = int(series.nonfinite.sum())
    return f" ({many(count, 'update')} NaN or infinite)" if count else ""


def words(data: LossFrame) -> list[str]:
    """Say what was non-finite."""
    sentences = []
    for name, _ in _LOSSES:
        broken = data.columns[name].nonfinite
        if broken.any():
            first = data.columns[name].update[broken][0]
            sentences.append(f"{name} was NaN or infinite at {many(int(broken.sum()), 'update')}, first at {first}.")
    for name, what in (
        ("nonfinite_minibatches", "Minibatches with a NaN or infinite log-prob, value, entropy or loss"),
        ("nan_grad_count", "Gradient elements that were NaN"),
        ("inf_grad_count", "Gradient elements that were infinite"),
    ):
        series = data.columns[name]
        bad = series.finite & (series.value > 0)
        if bad.any():
            sentences.append(f"{what}: {series.value[bad].sum():,.0f}, first at update {series.update[bad][0]}.")
    if not sentences:
        sentences.append("Every loss handed over was finite.")
    return sentences


SECTION = Section(
    name="losses",
    title="Losses",
    asks="What did the losses do, and was everything in them finite?",
    without="No loss was handed over: rec.minibatch(policy_loss=…, value_loss=…, entropy_loss=…, loss=…) records them.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
