"""Gradient drift: whether a group's gradient norm left its baseline, and where its level changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import finish, from_zero, line, scale
from esper_analyze.reports.render.rows import Cell, Mark, SectionTable
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import FIRST, INK, SECOND
from esper_analyze.reports.sections.change_points import ChangePoint, change_points, levels_of
from esper_analyze.runs.series import Series, by_subject
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.findings import Finding

MOST_DRAWN = 6
"""Groups drawn, those that drifted first."""
_RULE = "gradient_drift"
_METRIC = "grad_norm"
_MOST_CHANGES = 4
_NOTHING = Series(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool))


@dataclass(frozen=True, slots=True)
class GroupDrift:
    """One metric of one group: its values, the detector's baseline, and the drift it judged.

    ``findings``: one for each time that the group drifted, of any metric.
    """

    name: str
    metric: str
    value: Series
    baseline: Series
    drift: Series
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class DriftFrame:
    """Every metric and group judged, the gradient norms that are drawn (those that drifted first), and the bound.

    ``changes``: change points of the norm by group, found after the run; None: too short to tell.
    """

    judged: tuple[GroupDrift, ...]
    groups: tuple[GroupDrift, ...]
    limit: float | None
    changes: dict[str, tuple[ChangePoint, ...] | None]


def frame(evidence: Evidence) -> DriftFrame | None:
    """Return each group's norm, baseline and drift, None when no group was recorded."""
    values = by_subject(evidence.run, "groups", list(evidence.drift))
    judged = {
        (metric, name): GroupDrift(
            name,
            metric,
            values[name][metric] if name in values else _NOTHING,
            trace.baseline,
            trace.value,
            tuple(one for one in evidence.replay.findings if _drifted(one) and one.subject == name),
        )
        for metric, traces in evidence.drift.items()
        for name, trace in traces.items()
    }
    norms = [judged[_METRIC, name] for name in values if (_METRIC, name) in judged]
    groups = sorted((norm for norm in norms if not norm.value.empty), key=lambda norm: not norm.findings)
    if not groups:
        return None
    changes = {group.name: change_points(group.value) for group in groups}
    return DriftFrame(tuple(judged.values()), tuple(groups), evidence.bound(_RULE, "info"), changes)


def _drifted(finding: Finding) -> bool:
    return finding.rule == _RULE and finding.verdict == "info"


def layout(data: DriftFrame) -> Layout:
    """One row for each group: value with baseline, drift with bands."""
    return Layout((104,) * min(len(data.groups), MOST_DRAWN), columns=2)


def draw(data: DriftFrame, axes: Sequence[Axes]) -> None:
    """Draw a row of two panels for each of the first groups."""
    drawn = data.groups[:MOST_DRAWN]
    for row, group in enumerate(drawn):
        value, drift = axes[2 * row : 2 * row + 2]
        last = row == len(drawn) - 1
        line(value, group.value, FIRST, "norm")
        line(value, group.baseline, SECOND, "baseline")
        scale(value, group.value)
        from_zero(value, group.value, group.baseline)
        _mark_changes(value, group, data.changes[group.name])
        finish(value, f"{cleaned(group.name, 24)}: gradient norm", last=last, legend=row == 0)
        line(drift, group.drift, FIRST)
        scale(drift, group.drift)
        _band(drift, data.limit)
        finish(drift, "drift from the baseline", last=last)
        drift.set_xlim(value.get_xlim())


def _mark_changes(axes: Axes, group: GroupDrift, changes: tuple[ChangePoint, ...] | None) -> None:
    if not changes:
        return
    update, level = levels_of(changes, int(group.value.update[0]), int(group.value.update[-1]))
    axes.plot(update, level, color=INK, linewidth=1.0, linestyle=(0, (1, 1.5)), label="level")
    for change in changes:
        axes.plot([change.update], [0.04], marker="^", color=INK, markersize=5, transform=axes.get_xaxis_transform())


def _band(axes: Axes, limit: float | None) -> None:
    """Mark the bound of the detector, with room above it."""
    if limit is None:
        return
    top = max(axes.get_ylim()[1], 1.3 * limit)
    if axes.get_yscale() == "linear":
        axes.set_ylim(0, top)
    else:
        axes.set_ylim(top=top)
    axes.axhline(limit, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))


def words(data: DriftFrame) -> list[str]:
    """Say which groups drifted, or that none did, and where levels changed."""
    moved = [group for group in data.groups if group.findings]
    sentences = [
        f"{cleaned(group.name, 40)} drifted {times(len(group.findings))}, first at update {group.findings[0].update}."
        for group in moved
    ]
    if not any(bool(group.drift.finite.any()) for group in data.groups):
        return [f"None of {many(len(data.groups), 'group')} could be judged: too few finite norms for a baseline."]
    if not moved:
        sentences.append(f"Of {many(len(data.groups), 'group')} none drifted beyond the bound for long enough.")
    sentences += _changed(data)
    if len(data.groups) > MOST_DRAWN:
        sentences.append(f"{MOST_DRAWN} of {len(data.groups)} groups are drawn.")
    return sentences


def _changed(data: DriftFrame) -> list[str]:
    """Say where levels changed, as found after the run (▴ in the figure)."""
    moves = [
        f"{cleaned(name, 40)} {change.words}" for name, changes in data.changes.items() for change in changes or ()
    ]
    if moves:
        left = f"; {len(moves) - _MOST_CHANGES} more are in the table" if len(moves) > _MOST_CHANGES else ""
        return [f"Change points of the norm, found after the run (▴): {'; '.join(moves[:_MOST_CHANGES])}{left}."]
    short = sum(changes is None for changes in data.changes.values())
    if short == len(data.groups):
        return ["Too few updates, given the norms' autocorrelation, to find change points."]
    if short:
        judged = f"{len(data.groups) - short} of {many(len(data.groups), 'group')}"
        return [f"No change point was found in the norms of {judged}; the others have too few updates."]
    return ["No change point was found in any group's norm."]


def rows(data: DriftFrame) -> SectionTable:
    """Return each group and metric judged: value, baseline and drift at the end, and the largest drift."""
    columns = (
        "group",
        "state",
        "drift",
        "most_drift",
        "most_at",
        "value",
        "baseline",
        "metric",
        "alarms",
        "first_alarm",
    )
    brief = (
        ("group", "group"),
        ("metric", "metric"),
        ("state", "state"),
        ("drift", "drift"),
        ("most_drift", "most"),
        ("most_at", "at"),
        ("first_alarm", "alarm"),
    )
    return SectionTable(columns, tuple(_judged_row(group) for group in data.judged), brief).worst_first


def _judged_row(group: GroupDrift) -> tuple[Cell, ...]:
    drifted = [finding for finding in group.findings if finding.metric == group.metric]
    judged, most = bool(group.drift.finite.any()), group.drift.largest
    return (
        group.name,
        _state(drifted, judged=judged),
        group.drift.last,
        float(group.drift.value[most]) if judged else None,
        int(group.drift.update[most]) if judged else None,
        group.value.last,
        group.baseline.last,
        group.metric,
        len(drifted),
        drifted[0].update if drifted else None,
    )


def _state(drifted: Sequence[Finding], *, judged: bool) -> Mark:
    if not drifted:
        return Mark("ok", "steady", "●") if judged else Mark("no_data", "not judged", "–")
    return Mark("info", "drifted", "▲")


def listed(data: DriftFrame) -> SectionTable:
    """List every group with its largest drift and each change of its level."""
    columns = (
        "group",
        "verdict",
        "alarms",
        "first_alarm",
        "largest_drift",
        "at_update",
        "baseline",
        "change_points",
    )
    return SectionTable(columns, tuple(_row(group, data.changes[group.name]) for group in data.groups))


def _row(group: GroupDrift, changes: tuple[ChangePoint, ...] | None) -> tuple[Cell, ...]:
    judged = bool(group.drift.finite.any())
    index = group.drift.largest
    verdict = "info" if group.findings else "ok" if judged else "no_data"
    levels = "too short to tell" if changes is None else "; ".join(item.words for item in changes) or "none"
    return (
        cleaned(group.name, 60),
        Mark(verdict, verdict.replace("_", " ")),
        len(group.findings),
        group.findings[0].update if group.findings else None,
        float(group.drift.value[index]) if judged else None,
        int(group.drift.update[index]) if judged else None,
        float(group.baseline.value[index]) if judged else None,
        levels,
    )


SECTION = Section(
    name="drift",
    title="Gradient drift",
    asks="Did a group's gradient drift from its baseline, and did its level change?",
    without="No group's gradient was recorded for long enough to compute a baseline.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
    rows=rows,
    listed=listed,
    rules=(_RULE,),
)
