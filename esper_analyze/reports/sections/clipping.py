"""Gradient clipping: how often it was active, and how much of the gradient norm remains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.rules import shaded_in
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import bounds, finish, incidents_behind, line, scale
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import FIRST, SECOND, THIRD
from esper_analyze.runs.series import Series, all_series
from esper_analyze.wording import many, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

_COLUMNS = (
    "grad_norm_pre_clip",
    "grad_norm_pre_clip_max",
    "grad_norm_post_clip",
    "max_grad_norm",
    "clip_active_fraction",
    "clip_scale_mean",
)


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """Columns of ``updates`` by name, bounds on the share that clips, and incidents to shade."""

    columns: dict[str, Series]
    limits: tuple[float | None, float | None]
    incidents: tuple[Incident, ...]


def frame(evidence: Evidence) -> ClipFrame | None:
    """Return whole-model gradient norms and clip activity, None when neither was recorded."""
    columns = all_series(evidence.run, "updates", _COLUMNS)
    if all(columns[name].empty for name in ("grad_norm_pre_clip", "grad_norm_post_clip", "clip_active_fraction")):
        return None
    return ClipFrame(columns, evidence.bounds("clipping_always"), tuple(evidence.replay.single_incidents))


def layout(data: ClipFrame) -> Layout:  # noqa: ARG001
    """Norms, share of clipped steps, and remaining share of the norm."""
    return Layout((150, 90, 90))


def draw(data: ClipFrame, axes: Sequence[Axes]) -> None:
    """Draw norms before and after the clip, the share of steps that clipped and the factor they were scaled by."""
    columns = data.columns
    line(axes[0], columns["grad_norm_pre_clip_max"], THIRD, "before, largest step", width=0.8)
    line(axes[0], columns["grad_norm_pre_clip"], FIRST, "before, mean")
    line(axes[0], columns["grad_norm_post_clip"], SECOND, "after, mean")
    line(axes[0], columns["max_grad_norm"], THIRD, "clip norm", width=0.8)
    scale(axes[0], columns["grad_norm_pre_clip_max"], columns["grad_norm_post_clip"], log=True)
    finish(axes[0], "Gradient norm of the whole model", legend=True)
    incidents_behind(axes[0], data.incidents, shaded_in("clipping.norm"))
    for panel, name, title in (
        (axes[1], "clip_active_fraction", "Share of optimizer steps that were clipped"),
        (axes[2], "clip_scale_mean", "Share of the gradient norm that remains after clipping, mean over the steps"),
    ):
        line(panel, columns[name])
        panel.set_ylim(-0.03, 1.03)
        finish(panel, title, last=panel is axes[2])
    incidents_behind(axes[1], data.incidents, shaded_in("clipping.share"))
    bounds(axes[1], *data.limits)


def words(data: ClipFrame) -> list[str]:
    """Say how often it clipped, to what norm, how much remains, and where norms were not finite."""
    share, left, most = (data.columns[name] for name in ("clip_active_fraction", "clip_scale_mean", "max_grad_norm"))
    norm = data.columns["grad_norm_pre_clip_max"]
    sentences = []
    if share.finite.any():
        mean = share.value[share.finite].mean()
        to = "" if most.last is None else f", to a norm of {number(most.last)}"
        remaining = (
            f"; on average {left.value[left.finite].mean():.0%} of its length is left" if left.finite.any() else ""
        )
        sentences.append(f"On average {mean:.0%} of the optimizer steps were clipped{to}{remaining}.")
    elif most.empty:
        sentences.append("No clip call was recorded: the norms are those that the optimizer received.")
    if len(np.unique(most.value[most.finite])) > 1:
        sentences.append("The clip norm changed during the run.")
    if norm.finite.any():
        index = norm.largest
        sentences.append(
            f"The largest norm before clipping was {number(norm.value[index])}, at update {norm.update[index]}."
        )
    broken = data.columns["grad_norm_pre_clip"].nonfinite | norm.nonfinite
    if broken.any():
        first, count = norm.update[broken][0], many(int(broken.sum()), "update")
        sentences.append(f"It was NaN or infinite at {count}, first at {first}: clipping does not repair that.")
    return sentences


SECTION = Section(
    name="clipping",
    title="Gradient clipping",
    asks="How large are gradients before and after clipping, and how often does it clip?",
    without="No gradient was recorded: the loop calls neither torch.nn.utils.clip_grad_norm_ nor rec.gradients().",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
