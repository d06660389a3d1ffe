"""Which samples made a ratio explode or collapse: the worst of one update, of the joint action and of each head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from esper_analyze.errors import UsageError
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import finish, line, magnitude, scale
from esper_analyze.reports.render.rows import SectionTable
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import FIRST, THIRD, VERDICTS
from esper_analyze.runs.series import Series, queried, series_of
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, number

if TYPE_CHECKING:
    import polars
    from matplotlib.axes import Axes

JOINT = ""
"""The head that stands for the joint action, as the table has it."""
_COLUMNS = (
    "rank",
    "env",
    "step",
    "index",
    "epoch",
    "minibatch",
    "log_ratio",
    "joint_log_ratio",
    "log_prob",
    "old_log_prob",
    "action",
    "advantage",
)
_FOLDED = ("head", "env", "step", "log_ratio", "old_log_prob", "log_prob", "action", "advantage", "among")
_BRIEF = tuple(
    zip(_FOLDED, ("head", "env", "step", "log r", "old log p", "new", "action", "adv.", "times"), strict=True)
)
_PAGE_ROWS, _PAGE_HEAD_ROWS, _PAGE_HEADS = 8, 3, 5
_HALF = 0.5
_SUMMARY = """
    select update, max(bad) as bad, max(nonfinite) as nonfinite,
        max(abs(log_ratio)) filter (isfinite(log_ratio)) as worst
    from transitions group by update order by update
"""


@dataclass(frozen=True, slots=True)
class TransitionFrame:
    """Largest |log r| of each update that has rows, and the rows of one of them by head, the joint action first.

    ``asked`` says whether that update was asked for; if not it is the worst one.
    """

    worst: Series
    update: int
    asked: bool
    bad: int | None
    nonfinite: int | None
    heads: dict[str, polars.DataFrame]


def frame(evidence: Evidence, update: int | None = None) -> TransitionFrame | None:
    """Return the worst samples of ``update`` (default: the worst update), None when there never were any.

    Raises ``UsageError`` when that update has none.
    """
    if not evidence.run.row_sources("transitions"):
        return None
    connection = evidence.run.connection()
    summary = queried(connection, _SUMMARY)
    chosen = _worst(summary) if update is None else update
    of_chosen = summary.filter(summary["update"] == chosen)
    if of_chosen.is_empty():
        raise UsageError(f"update {chosen} has no transitions", hint=_there_are(summary["update"].to_list()))
    query = f"select head, {', '.join(_COLUMNS)} from transitions where update = $update order by head, rank, place"
    parts = queried(connection, query, {"update": chosen}).partition_by("head", as_dict=True, maintain_order=True)
    heads = {str(key[0]): part.drop("head") for key, part in parts.items()}
    _, bad, nonfinite, _ = of_chosen.row(0)
    return TransitionFrame(series_of(summary, "worst"), chosen, update is not None, bad, nonfinite, heads)


def _worst(summary: polars.DataFrame) -> int:
    """Return the first update with something non-finite, else the one with the largest |log r|."""
    broken = summary.filter((summary["nonfinite"] > 0).fill_null(value=False))
    rows = broken if len(broken) else summary.sort("worst", descending=True, nulls_last=True, maintain_order=True)
    return int(rows["update"][0])


def _there_are(updates: Sequence[int]) -> str:
    shown = ", ".join(map(str, updates[:12]))
    return f"there are some of update {shown}" + (f" and {len(updates) - 12:,} more" if len(updates) > 12 else "")


def layout(data: TransitionFrame) -> Layout:  # noqa: ARG001
    """Three panels side by side."""
    return Layout((170,), columns=3)


def draw(data: TransitionFrame, axes: Sequence[Axes]) -> None:
    """Draw the worst |log r| of each update, and of one update log r by minibatch and by advantage."""
    rows = next(iter(data.heads.values()))
    line(axes[0], data.worst, FIRST)
    scale(axes[0], data.worst, log=True)
    axes[0].axvline(data.update, color=THIRD, linewidth=0.8, linestyle=(0, (1, 2)))
    finish(axes[0], "Largest |log r|, nats", last=True)
    for panel, column, what in ((axes[1], "minibatch", "minibatch"), (axes[2], "advantage", "advantage")):
        _scatter(panel, rows, column)
        finish(panel, f"log r in update {data.update}" if column == "minibatch" else "the same", last=True)
        panel.set_xlabel(what)
    axes[2].xaxis.set_major_formatter(magnitude)


def _scatter(axes: Axes, rows: polars.DataFrame, column: str) -> None:
    measured = rows.drop_nulls([column, "log_ratio"])
    across, ratio = measured[column].to_numpy().astype(np.float64), measured["log_ratio"].to_numpy()
    finite = np.isfinite(ratio) & np.isfinite(across)
    axes.plot(across[finite], ratio[finite], ".", color=FIRST, markersize=4, alpha=0.6)
    edge = np.isfinite(across) & ~np.isfinite(ratio)
    where = axes.get_xaxis_transform()
    axes.plot(across[edge], np.ones(int(edge.sum())), "x", color=VERDICTS["critical"], transform=where, clip_on=False)
    axes.axhline(0, color=THIRD, linewidth=0.6)
    if not finite.any():
        axes.text(0.5, 0.5, "not given", transform=axes.transAxes, ha="center", va="center")


def words(data: TransitionFrame) -> list[str]:
    """Say how many samples it was, which is the worst, and what the worst have in common."""
    broken = f", {data.nonfinite:,} of them NaN or infinite" if data.nonfinite else ""
    sentences = [
        f"A ratio exploded or collapsed in {many(len(data.worst.update), 'update')}; this is update {data.update}"
        f"{'' if data.asked else ', the worst'}: there {many(data.bad or 0, 'sample')} of the inner loop went beyond "
        f"the bounds{broken}."
    ]
    for head, rows in data.heads.items():
        sentences += _common(head, rows)
    return sentences


def _common(head: str, rows: polars.DataFrame) -> list[str]:
    """Say what more than half of a head's worst samples share."""
    name, count = ("the joint action" if head == JOINT else f"head {cleaned(head, 40)}"), len(rows)
    first = rows.row(0, named=True)
    where = ", ".join(f"{what} {first[what]}" for what in ("env", "step", "epoch") if first[what] is not None)
    sentence = f"Of {name} the worst is log r {number(first['log_ratio'])} ({where or 'place not given'})"
    shared = [part for what in ("env", "epoch", "action") if (part := _most(rows, what))]
    sentence += f"; of the {count:,} worst {' and '.join(shared)}" if shared and count > 1 else ""
    return [f"{sentence}.", *_before_any_step(head, rows)]


def _most(rows: polars.DataFrame, column: str) -> str:
    values = rows[column].drop_nulls().to_list()
    if not values:
        return ""
    value, often = Counter(values).most_common(1)[0]
    alone = len(set(values)) == 1
    return f"{'all' if alone else f'{often:,}'} are of {column} {value}" if often > _HALF * len(rows) else ""


def _before_any_step(head: str, rows: polars.DataFrame) -> list[str]:
    early = rows.filter((rows["minibatch"] == 0) & ((rows["log_ratio"].abs() > 1e-3) | ~rows["log_ratio"].is_finite()))
    if head != JOINT or early.is_empty():
        return []
    return [
        f"{many(len(early), 'sample')} of them stood out in the very first minibatch, before any step: rollout and "
        "update disagree about the old policy."
    ]


def _labelled(head: str) -> str:
    return "(joint)" if head == JOINT else head


def rows(data: TransitionFrame) -> SectionTable:
    """Return every recorded sample of the update, the joint action before the heads, the worst of each first."""
    columns = ("update", "head", *_COLUMNS)
    cells = [
        (data.update, _labelled(head), *cells)
        for head, samples in data.heads.items()
        for cells in samples.select(_COLUMNS).iter_rows()
    ]
    return SectionTable(columns, tuple(cells))


def listed(data: TransitionFrame) -> SectionTable:
    """Return the first few of each: a transition once, with how often it was among the worst."""
    cells: list[tuple[Any, ...]] = []
    for head, samples in list(data.heads.items())[: _PAGE_HEADS + 1]:
        cells += _folded(head, samples, _PAGE_ROWS if head == JOINT else _PAGE_HEAD_ROWS)
    return SectionTable(_FOLDED, tuple(cells), _BRIEF)


def _folded(head: str, samples: polars.DataFrame, most: int) -> list[tuple[Any, ...]]:
    """Return ``most`` different transitions in their order; those without an index are all different."""
    distinct: dict[Any, list[Any]] = {}
    for index, row in enumerate(samples.iter_rows(named=True)):
        key = index if row["index"] is None else (row["rank"], row["index"], "at")
        distinct.setdefault(key, []).append(row)
    worst = list(distinct.values())[:most]
    return [(_labelled(head), *(same[0][name] for name in _FOLDED[1:-1]), len(same)) for same in worst]


SECTION = Section(
    name="transitions",
    title="Worst transitions",
    asks="Which samples made a ratio explode or collapse, and what have they in common?",
    without="No ratio exploded or collapsed far enough for single samples to be kept; then the 100 worst are, with "
    "env, step and advantage where rec.minibatch(index=…, env=…, step=…, advantages=…) hands them over.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
    rows=rows,
    listed=listed,
    itemised=True,
)
