"""What became of the seeds in a growing network: through the gate or not, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import bounds, finish, incidents_behind, line, scale
from esper_analyze.reports.render.rows import Rows
from esper_analyze.reports.render.section import Layout, Question
from esper_analyze.reports.render.style import BAND, FIRST, GRID, PAPER, SECOND, THIRD, VERDICTS
from esper_analyze.reports.sections.slot_findings import Trouble, trouble_of
from esper_analyze.reports.sections.slot_history import HEALTH_GATE, Lane, Place, read_lanes, read_panels, read_places
from esper_analyze.runs.series import Series, all_series
from esper_analyze.schema.tables.slots import LOW_RATIO
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LANES = 24
"""Places in the overview, troubled ones first."""
MOST_DRAWN = 4
"""Places with panels of their own: those in trouble or stopped by the gate, and of sound ones two."""
MOST_TOLD = 12
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
"""Pixels that the overview's own tick labels take."""


@dataclass(frozen=True, slots=True)
class SlotFrame:
    """Places (troubled ones first), lanes and panels of the first of them, their trouble, and updates without choice.

    ``forced`` is the number of updates in which no head had a choice, of ``updates`` that say.
    """

    places: tuple[Place, ...]
    lanes: dict[str, Lane]
    panels: dict[str, dict[str, Series]]
    trouble: tuple[Trouble, ...]
    forced: int
    updates: int


def frame(evidence: Evidence) -> SlotFrame | None:
    """Return what became of each place, None when no slot was looked at."""
    if not evidence.run.parts("slots"):
        return None
    connection = evidence.run.connection()
    places = read_places(connection)
    trouble = trouble_of(evidence, connection)
    worst = {one.place: order for order, one in reversed(list(enumerate(trouble)))}
    places.sort(key=lambda place: (worst.get(place.name, len(worst)), _rank(place), not place.seeded))
    names = [place.name for place in places]
    seeded = [place for place in places if place.seeded]
    bad = [place for place in seeded if place.name in worst or place.gate.verdict in ("critical", "warning", "no_data")]
    drawn = [place.name for place in bad[:MOST_DRAWN] or seeded[:2]]
    choice = all_series(evidence.run, "updates", ["choice_fraction"])["choice_fraction"]
    return SlotFrame(
        tuple(places),
        read_lanes(connection, names[:MOST_LANES]),
        read_panels(connection, drawn),
        tuple(trouble),
        int((choice.finite & (choice.value == 0.0)).sum()),
        int(choice.finite.sum()),
    )


def _rank(place: Place) -> int:
    return ("critical", "warning", "no_data", "ok", "not_applicable").index(place.gate.verdict)


def layout(data: SlotFrame) -> Layout:
    """All places above, then a row of three panels for each of the first."""
    return Layout((17 * len(data.lanes) + 6 + _TICKS, *(96,) * len(data.panels)), columns=3, left=132)


def draw(data: SlotFrame, axes: Sequence[Axes]) -> None:
    """Draw stages and trouble of all places over the whole width, then ratio, gradients, health of the first."""
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
        incidents = [one.incident for one in data.trouble if one.place == name]
        for panel in (ratio, norms, health):
            incidents_behind(panel, incidents, tuple({one.rule for one in incidents}))


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
        for stage in dict.fromkeys(stay.stage for stay in lane.stays):
            bars = [(stay.start - 0.5, stay.end - stay.start + 1) for stay in lane.stays if stay.stage == stage]
            axes.broken_barh(bars, (row - 0.32, 0.64), color=_STAGES.get(stage.lower(), THIRD), linewidth=0)
        for kind, marker, verdict, aside in _MARKS:
            at = getattr(lane, kind)
            axes.plot(at, [row + aside] * len(at), **_marker(marker, verdict))
    axes.set_ylim(len(data.lanes) - 0.4, -0.6)
    axes.set_yticks(range(len(data.lanes)), [cleaned(name, 20) for name in data.lanes])
    axes.grid(visible=False, axis="y")
    finish(axes, "Seeds in slots", last=last)
    axes.tick_params(labelbottom=True)
    if not any(place.seeded for place in data.places):
        axes.text(0.5, 0.5, "no slot ever held a seed", transform=axes.transAxes, ha="center", va="center")
    _legend(data, axes)


def _marker(marker: str, verdict: str) -> dict[str, Any]:
    look = {"linestyle": "none", "marker": marker, "markersize": 6, "color": VERDICTS[verdict], "zorder": 4}
    return look | {"markeredgecolor": PAPER, "markeredgewidth": 0.6}


def _legend(data: SlotFrame, axes: Axes) -> None:
    """Name the stages that occur, in order of a seed's life, and the marks."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    stages = {stay.stage for lane in data.lanes.values() for stay in lane.stays}
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
    """Say whether there was anything to learn, which seeds were in trouble and why, and how the gate stands."""
    said = _forced(data)
    said += [one.sentence for one in data.trouble[:MOST_TOLD]]
    if len(data.trouble) > MOST_TOLD:
        said.append(f"{len(data.trouble) - MOST_TOLD:,} more incidents on slots are in the table above.")
    judged = [place for place in data.places if place.update is not None]
    passing = sum(place.gate.verdict == "ok" for place in judged)
    empty = sum(not place.seeded for place in data.places)
    if judged:
        said.append(
            f"Of {many(len(judged), 'place')} with a seed to train, {passing} pass the gate (ratio at least "
            f"{LOW_RATIO:g} and health at least {HEALTH_GATE:g}) at the last update they trained in."
        )
    if empty:
        said.append(f"{empty} of {many(len(data.places), 'place')} never held a seed.")
    if len(data.places) > MOST_LANES:
        said.append(f"{MOST_LANES} of {len(data.places)} places are drawn, those in trouble first.")
    return said


def _forced(data: SlotFrame) -> list[str]:
    if not data.forced:
        return []
    where = "any update" if data.forced == data.updates else f"{data.forced:,} of {many(data.updates, 'update')}"
    return [
        f"Nothing to learn here: no head had a choice in {where}, every step was forced, as when only WAIT is allowed. "
        "Zero gradients and zero entropy of the heads are expected there, and nothing warns of them."
    ]


def rows(data: SlotFrame) -> Rows:
    """Return every place that ever held a seed, those in trouble first."""
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
    cells = tuple(_row(place, data.trouble) for place in data.places if place.seeded)
    return Rows(columns, cells, tuple((name, name) for name in _BRIEF))


def _row(place: Place, trouble: Sequence[Trouble]) -> tuple[object, ...]:
    said = "; ".join(one.brief for one in trouble if one.place == place.name)
    return (
        place.name,
        place.gate,
        place.ratio,
        place.health,
        place.stage,
        place.blueprint,
        place.alpha,
        place.cause,
        place.exploding,
        place.vanishing,
        place.update,
        said or None,
    )


def table(data: SlotFrame) -> Rows | None:
    """Return the gate's table, None when no slot ever held a seed."""
    found = rows(data)
    return found if found.cells else None


QUESTION = Question(
    name="slots",
    title="Seeds and slots",
    asks="Which seeds pass the quality gate, and what is wrong with those that do not?",
    without="No slot was looked at: rec.slot(env, slot, seed=…, host=…, stage=…) after a backward records host and "
    "seeds of a growing network.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
    table=table,
)
