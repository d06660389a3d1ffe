"""The seed modules of a growing network: which pass the quality gate, and why others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esper_analyze.detector.rules import rules_over
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import bounds, finish, incidents_behind, line, scale
from esper_analyze.reports.render.rows import SectionTable
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import BAND, FIRST, GRID, PAPER, SECOND, THIRD, VERDICTS
from esper_analyze.reports.sections.slot_findings import SlotIncident, slot_incidents
from esper_analyze.reports.sections.slot_history import (
    HEALTH_GATE,
    Lane,
    SlotLocation,
    read_lanes,
    read_locations,
    read_panels,
)
from esper_analyze.runs.series import Series, all_series
from esper_analyze.schema.tables.slots import LOW_RATIO
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LANES = 24
"""Slots in the overview, those with incidents first."""
MOST_DRAWN = 4
"""Slots with their own panels: those with incidents or stopped by the gate, else two healthy ones."""
MOST_SENTENCES = 12
_STAGES = {
    "germinated": BAND,
    "training": FIRST,
    "blending": SECOND,
    "fossilised": THIRD,
    "fossilized": THIRD,
    "empty": GRID,
}
_MARKS = (
    ("exploding", "^", "critical", -0.14),
    ("low", "v", "warning", 0.14),
    ("cut", "o", "critical", 0.0),
    ("broken", "X", "critical", 0.0),
)
_MARKED = {"exploding": "exploding", "low": "low ratio", "cut": "disconnected", "broken": "NaN"}
_MOST_STAGES = 5
_BRIEF = ("place", "gate", "ratio", "health", "stage", "trouble")
_TICKS = 16
"""Height of the overview's tick labels, pixels."""


@dataclass(frozen=True, slots=True)
class SlotFrame:
    """Slots (those with incidents first), lanes and panels of the first, incidents, and updates without a choice.

    ``forced`` is the number of updates in which no head had a choice, of the ``updates`` that recorded it.
    """

    locations: tuple[SlotLocation, ...]
    lanes: dict[str, Lane]
    panels: dict[str, dict[str, Series]]
    incidents: tuple[SlotIncident, ...]
    forced: int
    updates: int


def frame(evidence: Evidence) -> SlotFrame | None:
    """Return the history of each slot, None when no slot was recorded."""
    if not evidence.run.row_sources("slots"):
        return None
    connection = evidence.run.connection()
    locations = read_locations(connection)
    incidents = slot_incidents(evidence, connection)
    worst = {incident.slot: order for order, incident in reversed(list(enumerate(incidents)))}
    locations.sort(key=lambda location: (worst.get(location.name, len(worst)), location.severity, not location.seeded))
    names = [location.name for location in locations]
    seeded = [location for location in locations if location.seeded]
    bad = [
        location
        for location in seeded
        if location.name in worst or location.gate.verdict in ("critical", "warning", "no_data")
    ]
    drawn = [location.name for location in bad[:MOST_DRAWN] or seeded[:2]]
    choice = all_series(evidence.run, "updates", ["choice_fraction"])["choice_fraction"]
    return SlotFrame(
        tuple(locations),
        read_lanes(connection, names[:MOST_LANES]),
        read_panels(connection, drawn),
        tuple(incidents),
        int((choice.finite & (choice.value == 0.0)).sum()),
        int(choice.finite.sum()),
    )


def layout(data: SlotFrame) -> Layout:
    """All slots above, then a row of three panels for each of the first."""
    return Layout((17 * len(data.lanes) + 6 + _TICKS, *(96,) * len(data.panels)), columns=3, left=132)


def draw(data: SlotFrame, axes: Sequence[Axes]) -> None:
    """Draw stages and incidents of all slots over the full width, then ratio, gradients, health of the first."""
    _draw_lanes(data, _whole_row(axes[:3]), last=len(axes) == 3)
    for row, (name, columns) in enumerate(data.panels.items(), start=1):
        ratio, norms, health = axes[3 * row : 3 * row + 3]
        last = row == len(data.panels)
        line(ratio, columns["normalized_ratio"])
        scale(ratio, columns["normalized_ratio"])
        finish(ratio, f"{cleaned(name, 20)}: ratio", last=last)
        bounds(ratio, LOW_RATIO, None)
        line(norms, columns["seed_norm"], FIRST, "seed")
        line(norms, columns["host_norm"], SECOND, "host")
        scale(norms, columns["seed_norm"], columns["host_norm"])
        finish(norms, "gradient" if row == 1 else "gradient norm", last=last, legend=row == 1)
        line(health, columns["health"], FIRST, "health")
        line(health, columns["alpha"], THIRD, "alpha")
        health.set_ylim(-0.05, 1.05)
        finish(health, "" if row == 1 else "health, alpha", last=last, legend=row == 1)
        health.axhline(HEALTH_GATE, color=VERDICTS["warning"], linewidth=1.0, linestyle=(0, (4, 3)), zorder=1.5)
        incidents = [slot_incident.incident for slot_incident in data.incidents if slot_incident.slot == name]
        for panel in (ratio, norms, health):
            incidents_behind(panel, incidents, tuple({slot_incident.rule for slot_incident in incidents}))


def _whole_row(axes: Sequence[Axes]) -> Axes:
    """Return the first of a row's axes, as wide as the row; the others are not shown."""
    first, last = axes[0].get_position(), axes[-1].get_position()
    ticks = _TICKS * first.height / axes[0].bbox.height
    axes[0].set_position((first.x0, first.y0 + ticks, last.x1 - first.x0, first.height - ticks))
    for other in axes[1:]:
        other.set_visible(False)
    return axes[0]


def _draw_lanes(data: SlotFrame, axes: Axes, *, last: bool) -> None:
    for row, lane in enumerate(data.lanes.values()):
        for stage in dict.fromkeys(span.stage for span in lane.spans):
            bars = [(span.start - 0.5, span.end - span.start + 1) for span in lane.spans if span.stage == stage]
            axes.broken_barh(bars, (row - 0.32, 0.64), color=_STAGES.get(stage.lower(), THIRD), linewidth=0)
        for kind, marker, verdict, aside in _MARKS:
            at = getattr(lane, kind)
            axes.plot(at, [row + aside] * len(at), **_marker(marker, verdict))
    axes.set_ylim(len(data.lanes) - 0.4, -0.6)
    axes.set_yticks(range(len(data.lanes)), [cleaned(name, 20) for name in data.lanes])
    axes.grid(visible=False, axis="y")
    finish(axes, "Seed modules in slots", last=last)
    axes.tick_params(labelbottom=True)
    if not any(location.seeded for location in data.locations):
        axes.text(0.5, 0.5, "no slot ever held a seed module", transform=axes.transAxes, ha="center", va="center")
    _legend(data, axes)


def _marker(marker: str, verdict: str) -> dict[str, Any]:
    style = {"linestyle": "none", "marker": marker, "markersize": 6, "color": VERDICTS[verdict], "zorder": 4}
    return style | {"markeredgecolor": PAPER, "markeredgewidth": 0.6}


def _legend(data: SlotFrame, axes: Axes) -> None:
    """Name the stages that occur, in order of a seed module's life, and the marks."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    stages = {span.stage for lane in data.lanes.values() for span in lane.spans}
    order = sorted(stages, key=lambda stage: list(_STAGES).index(stage.lower()) if stage.lower() in _STAGES else -1)
    handles: list[Line2D | Patch] = [
        Patch(color=_STAGES.get(stage.lower(), THIRD), label=cleaned(stage, 12) or "no stage given")
        for stage in order[:_MOST_STAGES]
    ]
    for kind, marker, verdict, _ in _MARKS:
        if any(getattr(lane, kind) for lane in data.lanes.values()):
            handles.append(Line2D([], [], label=_MARKED[kind], **_marker(marker, verdict)))
    if handles:
        axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=9, columnspacing=0.9)


def words(data: SlotFrame) -> list[str]:
    """Say whether heads had a choice, which seed modules had incidents and why, and how many pass the gate."""
    sentences = _forced(data)
    sentences += [incident.sentence for incident in data.incidents[:MOST_SENTENCES]]
    if len(data.incidents) > MOST_SENTENCES:
        sentences.append(f"{len(data.incidents) - MOST_SENTENCES:,} more incidents on slots are in the table above.")
    judged = [location for location in data.locations if location.update is not None]
    passing = sum(location.gate.verdict == "ok" for location in judged)
    empty = sum(not location.seeded for location in data.locations)
    if judged:
        sentences.append(
            f"Of {many(len(judged), 'slot')} with a training seed module, {passing} pass the gate (ratio at least "
            f"{LOW_RATIO:g} and health at least {HEALTH_GATE:g}) at the last update they trained in."
        )
    if empty:
        sentences.append(f"{empty} of {many(len(data.locations), 'slot')} never held a seed module.")
    if len(data.locations) > MOST_LANES:
        sentences.append(f"{MOST_LANES} of {len(data.locations)} slots are drawn, those with incidents first.")
    return sentences


def _forced(data: SlotFrame) -> list[str]:
    if not data.forced:
        return []
    where = "any update" if data.forced == data.updates else f"{data.forced:,} of {many(data.updates, 'update')}"
    return [
        f"No head had a choice in {where}: every step was forced, as when only WAIT is allowed. Zero gradients and "
        "zero entropy of the heads are expected there and raise no warning."
    ]


def rows(data: SlotFrame) -> SectionTable:
    """Return every slot that ever held a seed module, those with incidents first."""
    columns = (
        "place",
        "gate",
        "ratio",
        "health",
        "stage",
        "blueprint",
        "alpha",
        "cause",
        "exploding_severity",
        "vanishing_severity",
        "judged_at",
        "trouble",
    )
    cells = tuple(_row(location, data.incidents) for location in data.locations if location.seeded)
    return SectionTable(columns, cells, tuple((name, name) for name in _BRIEF))


def _row(location: SlotLocation, incidents: Sequence[SlotIncident]) -> tuple[object, ...]:
    briefs = "; ".join(incident.brief for incident in incidents if incident.slot == location.name)
    return (
        location.name,
        location.gate,
        location.ratio,
        location.health,
        location.stage,
        location.blueprint,
        location.alpha,
        location.cause,
        location.exploding,
        location.vanishing,
        location.update,
        briefs or None,
    )


SECTION = Section(
    name="slots",
    title="Seed modules in slots",
    asks="Which seed modules pass the quality gate, and what is wrong with those that do not?",
    without="No slot was recorded: call rec.slot(env, slot, seed=…, host=…, stage=…) after a backward pass to record "
    "host and seed modules of a growing network.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
    rows=rows,
    listed=rows,
    rules=rules_over("slots"),
    itemised=True,
)
