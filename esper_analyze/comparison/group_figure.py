"""Means of groups of runs over the updates, each with its 95 % confidence band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.comparison.groups import ComparedGroup, mean_curves
from esper_analyze.comparison.side_by_side import ComparedMetric, SideBySide
from esper_analyze.comparison.tenths import TITLES
from esper_analyze.reports.render.draw import area, finish, line, scale
from esper_analyze.reports.render.section import Drawing, Layout
from esper_analyze.reports.render.style import FIRST, SECOND, THIRD, VERDICTS
from esper_analyze.runs.series import Series
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (
    FIRST,
    VERDICTS["critical"],
    VERDICTS["ok"],
    SECOND,
    VERDICTS["warning"],
    VERDICTS["info"],
    VERDICTS["no_data"],
    THIRD,
)
_KEY_ROW, _GROUPS_A_ROW, _LONGEST = 20, 4, 28


@dataclass(frozen=True, slots=True)
class GroupFigure:
    """The groups to draw, and the metrics, in the order of the table."""

    comparison: SideBySide
    groups: tuple[ComparedGroup, ...]
    panels: tuple[ComparedMetric, ...]
    left_out: int

    title = "Groups of runs"
    asks = "Which group does better, and is it more than chance?"

    @property
    def drawing(self) -> Drawing:
        """How the figure is drawn."""
        return Drawing("groups", layout, draw)

    @property
    def words(self) -> list[str]:
        """What is drawn, and how many groups are not."""
        alone = [group.name for group in self.groups if len(group.runs) == 1]
        more = [f"{many(self.left_out, 'further group')} only in the table."] if self.left_out else []
        no_band = [f"Without a band, of one run: {', '.join(alone)}."] if alone else []
        drawn = "Lines: the mean of a group's runs at each update. Bands: its 95 % confidence interval (Student's t)."
        return [drawn, *no_band, *more]


def group_figure(comparison: SideBySide, groups: Sequence[ComparedGroup]) -> GroupFigure:
    """Return the figure of the first groups, as many as have a colour."""
    by_name = {metric.name: metric for metric in comparison.metrics}
    panels = tuple(by_name[column] for column in TITLES if column in by_name)
    shown = tuple(groups[: len(_COLOURS)])
    return GroupFigure(comparison, shown, panels, len(groups) - len(shown))


def layout(data: GroupFigure) -> Layout:
    """Give every metric a panel below the rows of the key."""
    key = _KEY_ROW * -(-len(data.groups) // _GROUPS_A_ROW)
    return Layout((key, *((150,) * len(data.panels))))


def draw(data: GroupFigure, axes: Sequence[Axes]) -> None:
    """Draw mean and band of each group, with the legend above."""
    for index, (metric, panel) in enumerate(zip(data.panels, axes[1:], strict=True)):
        numbers = np.where(metric.cells.finite, metric.cells.value, np.nan)
        means = []
        for group, colour in zip(data.groups, _COLOURS, strict=False):
            mean, low, high = (_series(data, values) for values in mean_curves(numbers[list(group.runs)]))
            area(panel, low, high, colour, strength=0.18)
            line(panel, mean, colour, cleaned(f"{group.name} ({many(len(group.runs), 'run')})", _LONGEST))
            means.append(mean)
        scale(panel, *means, log=metric.metric.log)
        finish(panel, metric.title, last=index == len(data.panels) - 1)
    axes[0].axis("off")
    handles, names = axes[1].get_legend_handles_labels()
    axes[0].legend(handles, names, loc="upper left", bbox_to_anchor=(0.0, 1.7), ncols=_GROUPS_A_ROW, borderpad=0.0)


def _series(data: GroupFigure, values: np.ndarray) -> Series:
    return Series(data.comparison.updates, values, np.isnan(values))
