"""What the losses did, and what clipping left of the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.reports.draw import finish, incidents_behind, line, scale
from esper_analyze.reports.evidence import Evidence
from esper_analyze.reports.question import Layout, Question
from esper_analyze.reports.series import Series, all_series
from esper_analyze.reports.style import FIRST, SECOND, THIRD
from esper_analyze.reports.words import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

_COLUMNS = (
    "policy_loss",
    "value_loss",
    "grad_norm_pre_clip",
    "grad_norm_pre_clip_max",
    "grad_norm_post_clip",
    "max_grad_norm",
    "clip_active_fraction",
    "nan_grad_count",
    "inf_grad_count",
    "tensors_nonfinite",
    "nonfinite_minibatches",
)
_GRADIENT_RULES = ("numerical_instability", "gradient_explosion", "frozen_update", "clipping_always")


@dataclass(frozen=True, slots=True)
class LossFrame:
    """Columns of ``updates`` by name, incidents to shade."""

    columns: dict[str, Series]
    incidents: tuple[Incident, ...]


def frame(evidence: Evidence) -> LossFrame | None:
    """Return losses and whole-model gradient norms, None when neither was recorded."""
    columns = all_series(evidence.run, "updates", _COLUMNS)
    if all(columns[name].empty for name in ("policy_loss", "value_loss", "grad_norm_pre_clip")):
        return None
    return LossFrame(columns, tuple(evidence.replay.incidents))


def layout(data: LossFrame) -> Layout:  # noqa: ARG001
    """Four panels under each other."""
    return Layout((110, 110, 150, 90))


def draw(data: LossFrame, axes: Sequence[Axes]) -> None:
    """Draw both losses, gradient norms before and after clipping, and how often it clipped."""
    columns = data.columns
    for place, (name, title) in enumerate((("policy_loss", "Policy loss"), ("value_loss", "Value loss"))):
        line(axes[place], columns[name])
        scale(axes[place], columns[name])
        finish(axes[place], title + _count_words(columns[name]))
        incidents_behind(axes[place], data.incidents, ("numerical_instability",))
    line(axes[2], columns["grad_norm_pre_clip_max"], THIRD, "before clipping, largest step", width=0.8)
    line(axes[2], columns["grad_norm_pre_clip"], FIRST, "before clipping, mean")
    line(axes[2], columns["grad_norm_post_clip"], SECOND, "after clipping, mean")
    line(axes[2], columns["max_grad_norm"], THIRD, "clip norm", width=0.8)
    scale(axes[2], columns["grad_norm_pre_clip_max"], columns["grad_norm_post_clip"], log=True)
    finish(axes[2], "Gradient norm", legend=True)
    incidents_behind(axes[2], data.incidents, _GRADIENT_RULES)
    line(axes[3], columns["clip_active_fraction"])
    axes[3].set_ylim(-0.03, 1.03)
    finish(axes[3], "Share of optimizer steps that were clipped", last=True)


def _count_words(series: Series) -> str:
    count = int(series.nonfinite.sum())
    return f" ({many(count, 'update')} NaN or infinite)" if count else ""


def words(data: LossFrame) -> list[str]:
    """Say what was non-finite."""
    said = []
    for name in ("policy_loss", "value_loss", "grad_norm_pre_clip"):
        broken = data.columns[name].nonfinite
        if broken.any():
            first = data.columns[name].update[broken][0]
            said.append(f"{name} was NaN or infinite at {many(int(broken.sum()), 'update')}, first at {first}.")
    for name, what in (
        ("nonfinite_minibatches", "Minibatches with a NaN or infinite log-prob, value, entropy or loss"),
        ("nan_grad_count", "Gradient elements that were NaN"),
        ("inf_grad_count", "Gradient elements that were infinite"),
    ):
        series = data.columns[name]
        bad = series.finite & (series.value > 0)
        if bad.any():
            said.append(f"{what}: {series.value[bad].sum():,.0f}, first at update {series.update[bad][0]}.")
    clipped = data.columns["clip_active_fraction"]
    if not said and clipped.finite.any():
        mean = clipped.value[clipped.finite].mean()
        said.append(f"On average {mean:.0%} of the optimizer steps were clipped.")
    return said


QUESTION = Question(
    name="losses",
    title="Losses and gradient norms",
    asks="What did the losses do, and what did clipping leave of the gradient?",
    without="Neither losses nor gradients were recorded.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
