"""Whether the value function predicts the returns, and what the advantages look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.rules import shaded_in
from esper_analyze.detector.rules.value_collapse import bound_of_phase
from esper_analyze.detector.signals import RUN, Frame, Ints, Signal
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import area, finish, incidents_behind, line, scale
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import BAND, FIRST, SECOND, THIRD, VERDICTS
from esper_analyze.runs.series import Series, all_series
from esper_analyze.wording import many, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

_COLUMNS = (
    "explained_variance",
    "progress",
    "ev_low_variance",
    "value_mean",
    "value_min",
    "value_max",
    "return_mean",
    "return_min",
    "return_max",
    "advantage_std",
    "advantage_min",
    "advantage_max",
)
_LOWEST_EV = -1.5


@dataclass(frozen=True, slots=True)
class ValueFrame:
    """Columns of ``updates``, the explained-variance bound in effect at each update, incidents to shade."""

    columns: dict[str, Series]
    bound: Series
    incidents: tuple[Incident, ...]


def frame(evidence: Evidence) -> ValueFrame | None:
    """Return value, return and advantage columns, None when no rollout was handed over."""
    columns = all_series(evidence.run, "updates", _COLUMNS)
    if all(columns[name].empty for name in ("value_mean", "return_mean", "advantage_std")):
        return None
    return ValueFrame(columns, phase_bound(evidence, columns["progress"]), tuple(evidence.replay.single_incidents))


def phase_bound(evidence: Evidence, progress: Series) -> Series:
    """Return the warning bound on explained variance at each update, as the rule itself computes it."""
    signal = Signal("progress", progress.value[:, None], progress.null[:, None])
    present = np.ones(signal.null.shape, bool)
    frame = Frame((RUN,), present, {"progress": signal})
    limits = evidence.replay.thresholds["value_collapse"]
    bound = bound_of_phase(frame, {"updates": np.zeros(1, np.int64)}, limits)[:, 0]  # type: ignore[arg-type]
    return Series(progress.update, bound, np.isnan(bound))


def layout(data: ValueFrame) -> Layout:  # noqa: ARG001
    """Three panels under each other."""
    return Layout((160, 160, 140))


def draw(data: ValueFrame, axes: Sequence[Axes]) -> None:
    """Draw explained variance with its bound, values against returns, and advantages."""
    columns = data.columns
    _draw_explained(data, axes[0])
    area(axes[1], columns["return_min"], columns["return_max"], BAND, "returns, min to max")
    line(axes[1], columns["return_mean"], SECOND, "mean return")
    line(axes[1], columns["value_mean"], FIRST, "mean value")
    scale(axes[1], columns["return_mean"], columns["value_mean"])
    finish(axes[1], "Values predicted, and the returns they should predict", legend=True)
    incidents_behind(axes[1], data.incidents, shaded_in("value.error"))
    area(axes[2], columns["advantage_min"], columns["advantage_max"], BAND, "min to max")
    line(axes[2], columns["advantage_std"], FIRST, "standard deviation")
    scale(axes[2], columns["advantage_std"])
    finish(axes[2], "Advantages before normalisation", last=True, legend=True)
    incidents_behind(axes[2], data.incidents, shaded_in("value.advantages"))


def _draw_explained(data: ValueFrame, axes: Axes) -> None:
    explained = data.columns["explained_variance"]
    below = explained.finite & (explained.value < _LOWEST_EV)
    line(axes, Series(explained.update, explained.value, explained.null | below), FIRST, "explained variance")
    if below.any():
        axes.plot(
            explained.update[below],
            np.full(int(below.sum()), _LOWEST_EV),
            "v",
            color=FIRST,
            markersize=4,
            markerfacecolor="none",
            label=f"below {_LOWEST_EV:g} ({int(below.sum())})",
            clip_on=False,
        )
    steps = _steps(data.bound)
    axes.step(
        data.bound.update[steps],
        data.bound.value[steps],
        where="post",
        color=VERDICTS["warning"],
        linestyle=(0, (4, 3)),
        linewidth=1.0,
        label="bound",
    )
    axes.axhline(0, color=THIRD, linewidth=0.6)
    axes.set_ylim(_LOWEST_EV if below.any() else min(-0.6, axes.get_ylim()[0]), 1.05)
    finish(axes, "Explained variance of the returns, before each update", legend=True)
    incidents_behind(axes, data.incidents, shaded_in("value.explained"))


def _steps(series: Series) -> Ints:
    """Positions at which a piecewise constant series begins, changes and ends."""
    changes = np.flatnonzero(np.diff(series.value)) + 1
    return np.unique(np.concatenate([[0], changes, [len(series.value) - 1]]))


def words(data: ValueFrame) -> list[str]:
    """Say how explained variance ended and where it says nothing."""
    explained, low = data.columns["explained_variance"], data.columns["ev_low_variance"]
    sentences = []
    if explained.last is not None:
        sentences.append(f"Explained variance ended at {number(explained.last)}.")
    undefined = int((explained.null & ~data.columns["return_mean"].null).sum())
    if undefined:
        sentences.append(f"It is empty, a gap, at {many(undefined, 'update')}: returns without variance, or no values.")
    weak = int((low.value == 1.0).sum())
    if weak:
        sentences.append(f"At {many(weak, 'update')} the returns hardly vary, so it says nothing and is not judged.")
    return sentences


SECTION = Section(
    name="value",
    title="Value and advantage",
    asks="Does the value function predict the returns, and what do the advantages look like?",
    without="No rollout values were handed over, so there is no explained variance, return or advantage: "
    "rec.update(values=…, returns=…, advantages=…) records them.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
