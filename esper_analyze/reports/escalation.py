"""When there was trouble, and when the recorder looked closer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import Ints
from esper_analyze.reports.draw import finish, merged
from esper_analyze.reports.evidence import Evidence
from esper_analyze.reports.question import Layout, Question
from esper_analyze.reports.series import PIXELS
from esper_analyze.reports.style import FIRST, VERDICTS
from esper_analyze.reports.words import times
from esper_analyze.schema.tables import LEVELS
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

MOST_LANES = 16
"""Rules drawn in the timeline, in the order in which they first fired."""
_MOST_MARKED = 500


@dataclass(frozen=True, slots=True)
class TimelineFrame:
    """Telemetry level from each change on, what triggered the rises, and incidents by rule.

    ``update`` and ``level`` (index into ``LEVELS``) begin at the first update and end at the last.
    """

    update: Ints
    level: Ints
    triggers: tuple[tuple[int, str, str], ...]
    lanes: dict[str, tuple[Incident, ...]]


def frame(evidence: Evidence) -> TimelineFrame | None:
    """Return the levels and incidents over the run, None when it has no update."""
    last = evidence.run.last_update
    if last is None:
        return None
    changes = evidence.replay.levels
    base = str(evidence.run.info.get("level", "NORMAL"))
    words = [base, *(change.level for change in changes)]
    update = [0, *(change.update for change in changes), last]
    level = [LEVELS.index(word) if word in LEVELS else 0 for word in [*words, words[-1]]]
    triggers = tuple((c.finding_update or c.update, c.rule, c.subject or "run") for c in changes if c.rule is not None)
    return TimelineFrame(np.array(update, np.int64), np.array(level, np.int64), triggers, _lanes(evidence))


def _lanes(evidence: Evidence) -> dict[str, tuple[Incident, ...]]:
    lanes: dict[str, list[Incident]] = {}
    for incident in sorted(evidence.replay.incidents, key=lambda incident: incident.start):
        if incident.peak_verdict in ("warning", "critical"):
            lanes.setdefault(incident.rule, []).append(incident)
    return {rule: tuple(found) for rule, found in lanes.items()}


def layout(data: TimelineFrame) -> Layout:
    """Lanes of incidents above the level."""
    lanes = min(len(data.lanes), MOST_LANES)
    return Layout((24 * lanes + 8, 84), left=166) if lanes else Layout((84,), left=166)


def draw(data: TimelineFrame, axes: Sequence[Axes]) -> None:
    """Draw incidents in one lane a rule, and the level under them."""
    if len(axes) > 1:
        _draw_lanes(data, axes[0])
    level = axes[-1]
    level.step(data.update, data.level, where="post", color=FIRST, linewidth=1.3)
    level.set_yticks(range(len(LEVELS)), LEVELS)
    level.set_ylim(-0.3, len(LEVELS) - 0.3)
    level.set_xlim(-0.5, max(float(data.update[-1]) + 0.5, 1.0))
    for update, _, _ in data.triggers[:_MOST_MARKED]:
        level.plot([update], [len(LEVELS) - 1], marker="v", color=VERDICTS["critical"], markersize=5, clip_on=False)
    finish(level, "Telemetry level, and (▾) the findings that raised it", last=True)


def _draw_lanes(data: TimelineFrame, axes: Axes) -> None:
    names = list(data.lanes)[:MOST_LANES]
    pixel = float(data.update[-1] + 1) / PIXELS
    for row, name in enumerate(names):
        for verdict in ("warning", "critical"):
            spans = [(i.start, i.end) for i in data.lanes[name] if i.peak_verdict == verdict]
            bars = [(start - 0.5, max(end - start + 1, 4 * pixel)) for start, end in merged(spans, pixel)]
            axes.broken_barh(bars, (row - 0.3, 0.6), color=VERDICTS[verdict], linewidth=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [cleaned(name, 26) for name in names])
    axes.grid(visible=False, axis="y")
    finish(axes, "Incidents by rule, in the order in which they began")


def words(data: TimelineFrame) -> list[str]:
    """Say how often and why the level rose."""
    if not data.triggers:
        return ["The telemetry level never rose."]
    rules = ", ".join(dict.fromkeys(rule for _, rule, _ in data.triggers))
    said = [f"The level rose {times(len(data.triggers))}, first after update {data.triggers[0][0]}; raised by {rules}."]
    if len(data.lanes) > MOST_LANES:
        said.append(f"{len(data.lanes) - MOST_LANES} further rules fired and are in the table only.")
    return said


QUESTION = Question(
    name="timeline",
    title="Timeline",
    asks="When was there trouble, and when did the recorder look closer?",
    without="The run has no complete update.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
