"""The ranks of a distributed training: gradient norm, spread, time and last update of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import Bools, Floats, Ints
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import bounds, finish, from_zero, incidents_behind, line, scale
from esper_analyze.reports.render.rows import Mark, SectionTable
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import FIRST, SECOND, THIRD, VERDICTS
from esper_analyze.runs.series import Series, all_series, rows_of, series_of
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

RULE = "rank_desync"
MOST_DRAWN = 6
"""Ranks drawn: the first, and those whose gradient is farthest from the others'."""
_COLUMNS = ("grad_norm_pre_clip", "kl_k3", "return_mean", "rollout_s", "optimisation_s")
_COLOURS = (FIRST, SECOND, VERDICTS["ok"], VERDICTS["info"], VERDICTS["no_data"], THIRD)


@dataclass(frozen=True, slots=True)
class RankFrame:
    """Columns of ``updates`` by rank, the largest spread of synchronised metrics, its bounds, incidents of ``RULE``."""

    ranks: dict[int, dict[str, Series]]
    spread: Series
    limits: tuple[float | None, float | None]
    incidents: tuple[Incident, ...]
    missing: tuple[int, ...]


def frame(evidence: Evidence) -> RankFrame | None:
    """Return the ranks, None when there is only one."""
    run = replace(evidence.run, merged=None)
    if len(run.ranks) < 2:
        return None
    ranks = {rank: all_series(run.only(rank), "updates", _COLUMNS) for rank in run.ranks}
    incidents = tuple(incident for incident in evidence.replay.single_incidents if incident.rule == RULE)
    return RankFrame(ranks, _spread(evidence), evidence.bounds(RULE), incidents, tuple(run.missing_ranks))


def _spread(evidence: Evidence) -> Series:
    """Return the largest spread of any metric in each update."""
    import polars

    rows = rows_of(evidence.run, "ranks", ["spread"])
    widest = rows.group_by("update").agg(polars.col("spread").nan_max()).sort("update")
    return series_of(widest, "spread")


def distance_to_others(data: RankFrame) -> dict[int, float]:
    """Return each rank's largest distance of its gradient norm from the ranks' median, as a share of the median.

    NaN and Inf are infinitely far. With two ranks both get the distance between them.
    """
    norms = {rank: columns["grad_norm_pre_clip"] for rank, columns in data.ranks.items()}
    updates = np.unique(np.concatenate([norm.update for norm in norms.values()]))
    table = np.stack([_aligned(norm, updates) for norm in norms.values()])
    size = np.where(np.isfinite(table), table, np.inf)
    usual = np.sort(size, axis=0)[(len(norms) - 1) // 2]
    measured = ~np.stack([_unknown(norm, updates) for norm in norms.values()]) & np.isfinite(usual)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.where(measured, np.abs(size - usual) / usual, 0.0)
    apart = np.where(np.isnan(apart), 0.0, apart)  # 0 / 0: both exactly zero
    most = apart.max(axis=1, initial=0.0)
    return dict(zip(norms, (np.full(2, most.max()) if len(norms) == 2 else most).tolist(), strict=True))


def _aligned(series: Series, updates: Ints) -> Floats:
    values = np.full(len(updates), np.nan)
    values[np.searchsorted(updates, series.update)] = series.value
    return values


def _unknown(series: Series, updates: Ints) -> Bools:
    null = np.ones(len(updates), bool)
    null[np.searchsorted(updates, series.update)] = series.null
    return null


def layout(data: RankFrame) -> Layout:  # noqa: ARG001
    """Gradient norm, spread, time."""
    return Layout((140, 100, 110))


def draw(data: RankFrame, axes: Sequence[Axes]) -> None:
    """Draw each rank's gradient norm and time, and the largest spread of synchronised metrics."""
    shown = _drawn(data)
    for colour, rank in zip(_COLOURS, shown, strict=False):
        columns = data.ranks[rank]
        line(axes[0], columns["grad_norm_pre_clip"], colour, f"rank {rank}", width=1.1)
        line(axes[2], time_of(columns), colour, f"rank {rank}", width=1.1)
    scale(axes[0], *(data.ranks[rank]["grad_norm_pre_clip"] for rank in shown))
    finish(axes[0], "Gradient norm before clipping (equal lines overlap)", legend=True)
    incidents_behind(axes[0], data.incidents, (RULE,))
    line(axes[1], data.spread)
    scale(axes[1], data.spread, log=True)
    from_zero(axes[1], data.spread, least=1e-3)
    finish(axes[1], "Largest relative difference between ranks in synchronised metrics")
    incidents_behind(axes[1], data.incidents, (RULE,))
    bounds(axes[1], *data.limits)
    times = [time_of(data.ranks[rank]) for rank in shown]
    scale(axes[2], *times)
    from_zero(axes[2], *times)
    finish(axes[2], "Time of rollout and optimisation, s per update", last=True)


def _drawn(data: RankFrame) -> list[int]:
    apart = distance_to_others(data)
    first, *others = data.ranks
    return [first, *sorted(others, key=lambda rank: (-apart[rank], rank))[: MOST_DRAWN - 1]]


def time_of(columns: dict[str, Series]) -> Series:
    """Return rollout plus optimisation time, s."""
    rollout, optimisation = columns["rollout_s"], columns["optimisation_s"]
    return Series(rollout.update, rollout.value + optimisation.value, rollout.null | optimisation.null)


def words(data: RankFrame) -> list[str]:
    """Say where ranks diverged and in what, which stopped early, and which is slowest."""
    sentences = [_divergence(data)]
    last = {rank: int(columns["kl_k3"].update[-1]) for rank, columns in data.ranks.items() if _any(columns)}
    end = max(last.values(), default=0)
    sentences += [
        f"Rank {rank} stopped at update {at}, the others came to {end}." for rank, at in last.items() if at < end
    ]
    sentences += [f"Rank {rank} recorded nothing at all." for rank in data.missing]
    slow = _slowest(data)
    if slow is not None:
        sentences.append(
            "Rank {} takes longest: {} times the fastest one's time; the others wait for it.".format(*slow)
        )
    if len(data.ranks) > MOST_DRAWN:
        sentences.append(
            f"{MOST_DRAWN} of {len(data.ranks)} ranks are drawn: the first, and those farthest from the rest."
        )
    return sentences


def _any(columns: dict[str, Series]) -> bool:
    return bool(len(columns["kl_k3"].update))


def _divergence(data: RankFrame) -> str:
    if not data.incidents:
        wide = data.spread
        most = wide.value[wide.largest] if wide.finite.any() else None
        same = "are bitwise equal" if most == 0 else f"never differ by more than {number(most)}"
        return f"{many(len(data.ranks), 'rank')} stayed in sync: synchronised metrics {same}."
    first = min(incident.onset for incident in data.incidents)
    metrics = list(dict.fromkeys(candidate.subject for candidate in data.incidents if candidate.onset == first))
    named = ", ".join(cleaned(name, 40) for name in metrics[:3]) + (" …" if len(metrics) > 3 else "")
    apart = distance_to_others(data)
    odd = max(apart, key=lambda rank: apart[rank])
    which = f" Rank {odd}'s gradient is farthest from the others'." if len(data.ranks) > 2 and apart[odd] else ""
    return f"The ranks diverged at update {first}: {named} differ.{which}"


def _slowest(data: RankFrame) -> tuple[int, str] | None:
    usual = {
        rank: float(np.median(took.value[took.finite]))
        for rank, columns in data.ranks.items()
        if (took := time_of(columns)).finite.any()
    }
    if len(usual) < 2 or min(usual.values()) <= 0:
        return None
    slow = max(usual, key=lambda rank: usual[rank])
    times = usual[slow] / min(usual.values())
    return (slow, f"{times:.3g}") if times > 1.2 else None


def rows(data: RankFrame) -> SectionTable:
    """Return each rank: last update, last gradient norm, distance from the others, time per update."""
    apart = distance_to_others(data)
    cells = []
    for rank, columns in data.ranks.items():
        norm, took = columns["grad_norm_pre_clip"], time_of(columns)
        usual = float(np.median(took.value[took.finite])) if took.finite.any() else None
        bad = data.limits[0] is not None and apart[rank] > data.limits[0]
        state = Mark("critical", "apart", "▲") if bad else Mark("ok", "in sync", "●")
        last = int(norm.update[-1]) if len(norm.update) else None
        cells.append((rank, state, last, norm.last, apart[rank], columns["return_mean"].last, usual))
    return SectionTable(("rank", "state", "last_update", "grad_norm", "apart", "return_mean", "seconds"), tuple(cells))


SECTION = Section(
    name="ranks",
    title="Ranks",
    asks="Do the ranks of a distributed training stay in sync?",
    without="Only one process recorded. To compare ranks, create a Recorder with the same directory in each of them.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
    rows=rows,
    listed=rows,
)
