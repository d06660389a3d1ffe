"""Whether gradients agree with each other: from update to update, between minibatches, of actor and critic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import finish, line, scale
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import FIRST, SECOND, THIRD
from esper_analyze.runs.series import Series, queried, series_of
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    import duckdb
    from matplotlib.axes import Axes

_PANELS = (
    ("cosine_previous_update", "Cosine to the update before: near −1, steps undo each other"),
    ("cosine_minibatches", "Cosine between minibatches: near 0, they agree on nothing"),
    ("cosine_actor_critic", "Cosine of actor's and critic's gradient: below 0, they pull apart"),
    ("noise_scale", "Gradient noise scale, samples: the batch beyond which more samples help little"),
)
_FIRST_GROUPS = ("all", "actor", "critic", "shared", "lstm")
_COLOURS = (FIRST, SECOND, THIRD)
_OPPOSED = 0.0


@dataclass(frozen=True, slots=True)
class DirectionFrame:
    """Column → group → series; columns that were measured somewhere, at most three groups of each.

    ``batch`` is the usual number of samples in a minibatch, None when unknown.
    """

    columns: dict[str, dict[str, Series]]
    batch: float | None


def frame(evidence: Evidence) -> DirectionFrame | None:
    """Return directions and noise scale, None when they were never measured."""
    connection = evidence.run.connection()
    every_column = {column: _groups(connection, column) for column, _ in _PANELS}
    columns = {column: groups for column, groups in every_column.items() if groups}
    if not columns:
        return None
    batch = queried(connection, "select quantile_disc(samples, 0.5) from steps where samples > 0").item()
    return DirectionFrame(columns, None if batch is None else float(batch))


def _groups(connection: duckdb.DuckDBPyConnection, column: str) -> dict[str, Series]:
    """Return the series of the first groups that have ``column``, the whole model before its parts."""
    names = queried(
        connection,
        f'select "group", min(seq) as seq from groups where {column} is not null group by "group" order by seq',
    )["group"].to_list()
    names.sort(key=lambda name: _FIRST_GROUPS.index(name) if name in _FIRST_GROUPS else len(_FIRST_GROUPS))
    by_group = {}
    for name in names[: len(_COLOURS)]:
        query = f'select update, {column} from groups where "group" = $name order by update, seq'
        rows = queried(connection, query, {"name": name}).unique(subset="update", keep="last", maintain_order=True)
        by_group[str(name)] = series_of(rows, column)
    return by_group


def layout(data: DirectionFrame) -> Layout:
    """One panel a measurement."""
    return Layout((110,) * len(data.columns))


def draw(data: DirectionFrame, axes: Sequence[Axes]) -> None:
    """Draw each measurement of the chosen groups."""
    titles = dict(_PANELS)
    for index, (column, groups) in enumerate(data.columns.items()):
        panel = axes[index]
        for colour, (name, series) in zip(_COLOURS, groups.items(), strict=False):
            line(panel, series, colour, name, width=1.1)
        if column == "noise_scale":
            scale(panel, *groups.values(), log=True)
            if data.batch is not None:
                panel.axhline(data.batch, color=THIRD, linewidth=0.8, linestyle=(0, (1, 2)))
        else:
            panel.set_ylim(-1.05, 1.05)
            panel.axhline(0, color=THIRD, linewidth=0.6)
        finish(panel, titles[column], last=index == len(data.columns) - 1, legend=True)


def words(data: DirectionFrame) -> list[str]:
    """Say what is usual, and where directions were opposed for more than half of the run."""
    sentences = []
    for column, what in (
        ("cosine_previous_update", "From one sampled update to the next the cosine is usually"),
        ("cosine_minibatches", "Between minibatches it is usually"),
    ):
        usual = _usual(data.columns.get(column, {}))
        if usual:
            sentences.append(f"{what} {', '.join(f'{value:.2f} ({name})' for name, value in usual.items())}.")
    sentences += _opposed(data.columns.get("cosine_actor_critic"))
    noise = _usual(data.columns.get("noise_scale", {}))
    if noise:
        scales = ", ".join(f"{value:,.3g} ({name})" for name, value in noise.items())
        against = "" if data.batch is None else f"; minibatches hold {data.batch:,.0f} (dotted)"
        sentences.append(f"The noise scale, where it can be estimated, is usually {scales} samples{against}.")
    broken = {name for groups in data.columns.values() for name, series in groups.items() if series.nonfinite.any()}
    if broken:
        sentences.append(f"Some were NaN or infinite, of {', '.join(cleaned(name, 40) for name in sorted(broken))}.")
    return sentences


def _usual(groups: dict[str, Series]) -> dict[str, float]:
    numbers = {name: series.value[series.finite] for name, series in groups.items()}
    return {cleaned(name, 40): float(np.median(values)) for name, values in numbers.items() if len(values)}


def _opposed(groups: dict[str, Series] | None) -> list[str]:
    if groups is None:
        return ["Actor and critic were not differentiated apart: Recorder(..., separate_backward=True) does."]
    sentences = []
    for name, series in groups.items():
        numbers = series.value[series.finite]
        against = int((numbers < _OPPOSED).sum())
        if len(numbers):
            of = many(len(numbers), "sampled update")
            sentences.append(f"Actor and critic pulled apart on {cleaned(name, 40)} in {against:,} of {of}.")
    return sentences


SECTION = Section(
    name="direction",
    title="Gradient direction and noise",
    asks="Do gradients agree from update to update, between minibatches, and of actor and critic?",
    without="No direction was measured. It is, together with the layers, on updates sampled within overhead_budget, or "
    "on every one with overhead_budget=None.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
