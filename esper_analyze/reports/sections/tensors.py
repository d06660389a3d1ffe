"""Which tensors contain NaN or Inf: the numerical stability report of the update in which it first happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import Bools, Floats
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import magnitude
from esper_analyze.reports.render.rows import Mark, SectionTable
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import FIRST, INK, SECOND, VERDICTS
from esper_analyze.runs.series import queried
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, number, tail

if TYPE_CHECKING:
    import polars
    from matplotlib.axes import Axes

MOST_DRAWN = 40
"""Tensors drawn, non-finite ones first."""
_NAMED = 4


@dataclass(frozen=True, slots=True)
class TensorFrame:
    """One report: the rows of its update in the network's order; ``reports`` is how many were taken."""

    update: int
    reports: int
    rows: polars.DataFrame


def frame(evidence: Evidence) -> TensorFrame | None:
    """Return the first report triggered by a non-finite value, else the last requested one; None without any."""
    if not evidence.run.row_sources("tensors"):
        return None
    connection = evidence.run.connection()
    reports = queried(
        connection, "select update, min(cause = 'asked') as asked from tensors group by update order by update"
    )
    broken = reports.filter(~reports["asked"])
    update = int(broken["update"][0] if len(broken) else reports["update"][-1])
    query = "select * exclude (rank, seq, update) from tensors where update = $update order by rank, seq"
    rows = queried(connection, query, {"update": update}).unique(subset="tensor", keep="last", maintain_order=True)
    return TensorFrame(update, len(reports), rows)


def _bad(data: TensorFrame) -> Bools:
    rows = data.rows
    bad: Bools = (
        rows["weight_nonfinite"].fill_null(value=False) | rows["grad_nonfinite"].fill_null(value=False)
    ).to_numpy()
    return bad


def _shown(data: TensorFrame) -> polars.DataFrame:
    """Return the rows drawn, in the network's order."""
    chosen = np.sort(np.argsort(~_bad(data), kind="stable")[:MOST_DRAWN])
    rows: polars.DataFrame = data.rows[chosen.tolist()]
    return rows


def layout(data: TensorFrame) -> Layout:
    """One line for each tensor, weights at the left, gradients at the right."""
    return Layout((15 * min(len(data.rows), MOST_DRAWN) + 10,), columns=2, left=210)


def draw(data: TensorFrame, axes: Sequence[Axes]) -> None:
    """Draw the largest weight and the largest gradient of each tensor, a cross at the edge where it is not finite."""
    shown = _shown(data)
    for panel, column, colour, title in (
        (axes[0], "weight_abs_max", FIRST, f"Largest |weight| after update {data.update}"),
        (axes[1], "grad_abs_max", SECOND, "Largest |gradient| in it"),
    ):
        _dots(panel, shown[column].cast(float).to_numpy(), shown[column].is_null().to_numpy(), colour)
        panel.set_title(title, color=INK)
        panel.set_ylim(len(shown) - 0.4, -0.6)
        panel.set_yticks(range(len(shown)), [tail(name) for name in shown["tensor"]] if panel is axes[0] else [])


def _dots(axes: Axes, value: Floats, null: Bools, colour: str) -> None:
    row = np.arange(len(value))
    finite = ~null & np.isfinite(value)
    axes.plot(value[finite], row[finite], "o", color=colour, markersize=4)
    if (value[finite] > 0).any():
        axes.set_xscale("symlog", linthresh=float(value[finite & (value > 0)].min()))
    axes.xaxis.set_major_formatter(magnitude)
    broken = row[~null & ~finite]
    edge = axes.get_yaxis_transform()
    axes.plot(np.full(len(broken), 0.985), broken, "x", color=VERDICTS["critical"], transform=edge, markersize=6)


def words(data: TensorFrame) -> list[str]:
    """Name the tensors that were not finite, and say whether the losses were."""
    rows = data.rows
    why = "because a value was not finite" if rows["cause"][0] == "nonfinite" else "on request"
    sentences = [f"Taken at update {data.update} {why}; {many(data.reports, 'report')} in total."]
    for column, what in (("weight_nonfinite", "weights"), ("grad_nonfinite", "gradients")):
        named = rows.filter(rows[column].fill_null(value=False))["tensor"].to_list()
        if named:
            sentences.append(_named(named, len(rows), what))
    if len(sentences) == 1:
        weights, gradients = (len(rows) - rows[name].null_count() for name in ("weight_nonfinite", "grad_nonfinite"))
        of = many(len(rows), "tensor")
        sentences.append(f"Nothing was NaN or infinite in weights of {weights} and gradients of {gradients} of {of}.")
    norm, losses = rows["grad_norm_pre_clip"][0], rows["loss_finite"][0]
    if norm is not None:
        sentences.append(f"The largest norm of the whole gradient before clipping was {number(norm)}.")
    if losses is not None:
        sentences.append(
            "All losses were finite." if losses else "A loss was not finite: the gradient came from there."
        )
    return sentences


def _named(names: Sequence[str], of: int, what: str) -> str:
    count = f"All {of}" if len(names) == of else f"{len(names)} of {many(of, 'tensor')}"
    shown = ", ".join(cleaned(name, 60) for name in names[:_NAMED]) + (" …" if len(names) > _NAMED else "")
    return f"NaN or infinite {what}: {count[0].lower()}{count[1:]} ({shown})."


def rows(data: TensorFrame) -> SectionTable:
    """Return every tensor of the report."""
    columns = ("tensor", "weights", "gradient", "weight_abs_max", "grad_abs_max", "grad_norm_max", "elements")
    cells = tuple(
        (
            row["tensor"],
            _state(row["weight_nonfinite"]),
            _state(row["grad_nonfinite"]),
            row["weight_abs_max"],
            row["grad_abs_max"],
            row["grad_norm_max"],
            row["elements"],
        )
        for row in data.rows.iter_rows(named=True)
    )
    return SectionTable(columns, cells)


def _state(broken: bool | None) -> Mark:
    if broken is None:
        return Mark("no_data", "none", "–")
    return Mark("critical", "NaN", "✕") if broken else Mark("ok", "finite", "●")


def listed(data: TensorFrame) -> SectionTable:
    """Return the tensors that are not finite."""
    return rows(data).having("critical")


SECTION = Section(
    name="tensors",
    title="Numerical stability",
    asks="When a value was not finite, which tensors contained it?",
    without="Nothing was NaN or infinite, and no report was requested: rec.stability_report() takes one.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
    rows=rows,
    listed=listed,
)
