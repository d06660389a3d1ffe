"""The backtest's figure: recall and delay against false alarms, a point for each setting."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from esper_analyze.replay.scores import ALL_RULES, Score
from esper_analyze.reports.render.style import FIRST, INK, MUTED, PAPER, SECOND, THIRD, VERDICTS, house_style, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (FIRST, VERDICTS["critical"], VERDICTS["ok"], SECOND, VERDICTS["warning"], VERDICTS["no_data"])
_MARKERS = "oD^vPs"
_LETTER, _LINE = 5.6, 12.0
"""Size in pixels of a letter and a line of a label, on the large side."""
_OFFSETS = ((8, 4), (8, -13), (-8, 4), (-8, -13), (8, 17), (8, -27), (-8, 17), (-8, -27), (8, 30), (8, -40))
"""Where a label may stand from its point, in pixels; negative x: to the left of it."""
_MOST_NAMED = 4
MOST_LABELS = 60
"""Points labelled in one drawing; the table names all."""
_WIDE = 30.0
"""False alarms so many times the least one ask for an axis that is logarithmic beyond it."""

Box = tuple[float, float, float, float]
Value = Callable[[Score], float | None]


def tradeoff_png(scores: Sequence[Score]) -> bytes:
    """Return the figure as PNG."""
    sink = io.BytesIO()
    with house_style():
        tradeoff(scores).savefig(sink, format="png", dpi=144)
    return sink.getvalue()


def tradeoff(scores: Sequence[Score]) -> Figure:
    """Return the figure, complete."""
    with house_style():
        figure, (recall, delay) = sheet((260, 260))
        series = _series(scores)
        _draw(recall, series, lambda score: score.recall)
        _draw(delay, series, lambda score: score.median_delay)
        recall.set_ylim(-0.1, 1.15)
        recall.set_title("Recall: share of labelled faults found", color=INK)
        delay.set_title("Median delay of the faults found, updates", color=INK)
        delay.set_xlabel("false alarms per 1,000 healthy updates")
        longest = max([score.median_delay for score in scores if score.median_delay], default=1.0)
        delay.set_ylim(-0.1 * longest, 1.15 * longest)
        _scale(recall, [score.per_1000 for score in scores if score.per_1000 is not None])
        _label(recall, scores, lambda score: score.recall)
        _label(delay, scores, lambda score: score.median_delay)
        if len(series) > 1:
            recall.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderpad=0.1, columnspacing=1.2)
        figure.draw_without_rendering()
        return figure


def _series(scores: Sequence[Score]) -> Mapping[str, list[Score]]:
    """Return scores by rule, named with the thresholds that are set; where none is, rules are one series."""
    by_name: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        name = score.rule if score.values or score.rule == ALL_RULES else "each rule"
        fields = "/".join(field for field, _ in score.values)
        by_name[f"{name}: {fields}" if fields and name != ALL_RULES else name].append(score)
    return by_name


def _draw(axes: Axes, series: Mapping[str, list[Score]], value: Value) -> None:
    """Draw the points of each series, joined where one threshold is moved."""
    for index, (name, scores) in enumerate(series.items()):
        points = [point for score in scores if (point := _point(score, value)) is not None]
        together = scores[0].rule == ALL_RULES
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=THIRD if together else _COLOURS[index % len(_COLOURS)],
            marker="X" if together else _MARKERS[index % len(_MARKERS)],
            markersize=6,
            linestyle="-" if len(scores[0].values) == 1 else "none",
            linewidth=0.8,
            label=name,
        )


def _point(score: Score, value: Value) -> tuple[float, float] | None:
    y = value(score)
    return None if score.per_1000 is None or y is None else (score.per_1000, y)


def _scale(axes: Axes, rates: Sequence[float]) -> None:
    """Let x begin at 0; where rates spread widely it is logarithmic beyond the least of them."""
    from matplotlib.ticker import FuncFormatter

    above = [rate for rate in rates if rate > 0]
    most = max(above, default=1.0)
    if above and most > _WIDE * min(above):
        axes.set_xscale("symlog", linthresh=min(above), linscale=0.4)
        axes.set_xlim(-0.3 * min(above), 3.0 * most)
    else:
        axes.set_xlim(-0.04 * most, 1.25 * most)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _position: f"{x:g}"))


def _label(axes: Axes, scores: Sequence[Score], value: Value) -> None:
    """Name each point by its setting, or by its rule where nothing is set; points in one place share a label."""
    names: dict[tuple[float, float], list[str]] = defaultdict(list)
    for score in scores:
        point = _point(score, value)
        if point is not None:
            names[point].append("/".join(f"{cell:g}" for _, cell in score.values) or score.rule)
    occupied: list[Box] = []
    for point in names:
        x, y = axes.transData.transform(point)
        occupied.append((x - 4, y - 4, x + 4, y + 4))
    frame = axes.get_window_extent()
    for point, named in list(names.items())[:MOST_LABELS]:
        _put_label(axes, point, _shortened(named), occupied, (frame.x0, frame.y0, frame.x1, frame.y1))


def _shortened(named: Sequence[str]) -> str:
    shown = " · ".join(list(dict.fromkeys(named))[:_MOST_NAMED])
    more = len(set(named)) - _MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _put_label(axes: Axes, point: tuple[float, float], text: str, occupied: list[Box], frame: Box) -> None:
    """Write ``text`` in the first place beside ``point`` that is free; without one it is left to the table."""
    x, y = axes.transData.transform(point)
    width = _LETTER * len(text)
    for right, up in _OFFSETS:
        left = x + right if right > 0 else x + right - width
        box = (left, y + up, left + width, y + up + _LINE)
        inside = box[0] >= frame[0] and box[2] <= frame[2] and box[1] >= frame[1] and box[3] <= frame[3]
        if inside and not any(_overlap(box, other) for other in occupied):
            occupied.append(box)
            axes.annotate(
                text,
                point,
                xytext=(right, up + 2),
                textcoords="offset points",
                ha="left" if right > 0 else "right",
                fontsize=9.5,
                color=MUTED,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.4, "alpha": 0.7},
            )
            return


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
