"""Whether the agent got better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.rules import shaded_in
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import area, finish, incidents_behind, line, scale
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import BAND, FIRST
from esper_analyze.runs.series import Series, series_of
from esper_analyze.wording import many, number

_LEAST_KNOWN = 10
_SCATTERS = 6.0
"""A fall by fewer times the median change between neighbours is scatter."""
_SHARE = 0.2
"""A fall by a smaller share of the best level is not told."""

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident


@dataclass(frozen=True, slots=True)
class ReturnFrame:
    """Episode returns and lengths by update; updates without a finished episode have no point."""

    mean: Series
    least: Series
    most: Series
    length: Series
    episodes: int
    incidents: tuple[Incident, ...]


def frame(evidence: Evidence) -> ReturnFrame | None:
    """Return mean, least and most return of the episodes that ended in each update, None without episodes."""
    import polars

    rows = evidence.run.frame("episodes", ["update", "episode_return", "length"])
    if rows.is_empty():
        return None
    returns = polars.col("episode_return")
    by_update = (
        rows.group_by("update")
        .agg(
            mean=returns.mean(),
            least=returns.min(),
            most=returns.max(),
            length=polars.col("length").mean(),
        )
        .sort("update")
    )
    mean, least, most, length = (series_of(by_update, name) for name in ("mean", "least", "most", "length"))
    return ReturnFrame(mean, least, most, length, rows.height, tuple(evidence.replay.single_incidents))


def layout(data: ReturnFrame) -> Layout:
    """Give returns their axes, and lengths where they are known."""
    return Layout((170,) if data.length.empty else (170, 90))


def draw(data: ReturnFrame, axes: Sequence[Axes]) -> None:
    """Draw returns with their spread, and lengths below."""
    area(axes[0], data.least, data.most, BAND, "least to most")
    line(axes[0], data.mean, FIRST, "mean")
    scale(axes[0], data.mean)
    finish(axes[0], "Return of the episodes that ended in each update", last=len(axes) == 1, legend=True)
    incidents_behind(axes[0], data.incidents, shaded_in("returns.return"))
    if len(axes) > 1:
        line(axes[1], data.length)
        scale(axes[1], data.length)
        finish(axes[1], "Mean episode length, steps", last=True)


def words(data: ReturnFrame) -> list[str]:
    """Say where the returns began and ended."""
    numbers = data.mean.value[data.mean.finite]
    if not len(numbers):
        return [f"{many(data.episodes, 'episode')}, none with a finite return."]
    part = max(1, len(numbers) // 10)
    begin, end = numbers[:part].mean(), numbers[-part:].mean()
    return [
        f"{many(data.episodes, 'episode')}. Mean return over the first tenth of the updates {begin:.4g}, "
        f"over the last tenth {end:.4g}.{fall_of(data.mean)}"
    ]


def fall_of(mean: Series) -> str:
    """Say how far mean returns fell from their best level to the last one, empty when by no more than their scatter.

    A level is the median of three updates, so that one lucky update is none; scatter is that between neighbours.
    """
    value, update = mean.value[mean.finite], mean.update[mean.finite]
    if len(value) < _LEAST_KNOWN:
        return ""
    level = np.median(np.lib.stride_tricks.sliding_window_view(value, 3), axis=1)
    best, last = float(level.max()), float(value[-1])
    if best - last <= max(_SCATTERS * float(np.median(np.abs(np.diff(value)))), _SHARE * abs(best)):
        return ""
    at = int(update[int(level.argmax()) + 1])
    return f" The best level was {number(best)}, about update {at:,}; at the end it was {number(last)}."


SECTION = Section(
    name="returns",
    title="Episode returns",
    asks="Did the agent get better?",
    without="No finished episode was recorded: rec.episode() records one.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
