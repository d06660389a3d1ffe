"""The state of a run at one moment: everything shown, computed once, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import numpy as np

from esper_analyze.detector.incidents import worst_of
from esper_analyze.detector.rule import Sign
from esper_analyze.replay.standing import Coverage
from esper_analyze.reports.render.rows import Mark
from esper_analyze.reports.sections.signs import head_state, recurrent_state
from esper_analyze.reports.sections.slot_history import SlotLocation
from esper_analyze.schema import BY_NAME
from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.watch.alarms import OpenIncident, rule_named
from esper_analyze.watch.attempt import GROWING, RecentRow
from esper_analyze.watch.follow import Follower
from esper_analyze.watch.writer import RUNNING

Trend = tuple[float | None, ...]
CURVES = {
    "episode_return_mean": "return",
    "kl_k3": "KL (k3)",
    "entropy": "entropy",
    "explained_variance": "EV",
    "clip_fraction": "clipped",
}
"""Columns of table updates that are drawn, and their names."""
LATE = 10.0
"""A run is late after so many median update times, and at least ``LATE_SECONDS``, without new data."""
LATE_SECONDS = 30.0
LATE_UNKNOWN = 600.0
"""Seconds without new data after which a run is late whose time for an update is not known yet."""


@dataclass(frozen=True, slots=True)
class Status:
    """State of the run: a word, why, seconds since the last write, and the median time of an update.

    ``stalled_s``: seconds since the last row of a training whose process lives, as the process beside it noted; None
    of one that goes on, and without such a note. ``suspended``: it was stopped by SIGSTOP or Ctrl-Z.
    """

    state: str
    why: str
    silent_s: float | None
    usual_s: float | None
    stalled_s: float | None = None
    suspended: bool = False

    @property
    def late(self) -> bool:
        """Whether a running training has written nothing for unusually long."""
        if self.stalled_s is not None:
            return True
        if self.state != RUNNING or self.silent_s is None:
            return False
        return self.silent_s > (LATE_UNKNOWN if self.usual_s is None else max(LATE_SECONDS, LATE * self.usual_s))


@dataclass(frozen=True, slots=True)
class HeadRow:
    """One head at its last update, and its gradient norm over the last updates (None: not measured)."""

    name: str
    update: int
    state: Sign
    grad_norm: float | None
    entropy_norm: float | None
    learnable_fraction: float | None
    trend: Trend


@dataclass(frozen=True, slots=True)
class RecurrentRow:
    """The recurrent state of one phase at its last update, and the size of its cell state over the last updates."""

    phase: str
    update: int
    state: Sign
    c_rms: float | None
    h_rms: float | None
    h_saturation: float | None
    gates: tuple[float | None, float | None, float | None]
    trend: Trend


@dataclass(frozen=True, slots=True)
class SlotRow:
    """A slot as ``esper-analyze slots`` judges it, at the last update in the window in which its seed module trained.

    ``alarm`` is the rule of the worst open incident about it, None without one.
    """

    name: str
    update: int | None
    gate: Mark
    ratio: float | None
    health: float | None
    stage: str | None
    blueprint: str | None
    alarm: str | None


@dataclass(frozen=True, slots=True)
class LossSummary:
    """What was lost of the data: events and rows in all, the last ones in words, files that cannot be used."""

    events: int
    rows: int
    last: tuple[tuple[int, str, str | None, int | None], ...]
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """The recorder's own account: median milliseconds an update and share of its time over the last updates."""

    milliseconds: float | None
    fraction: float | None
    sampled_steps: int | None
    optimizer_steps: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a view shows of a run at ``taken_at`` (seconds of the epoch)."""

    path: str
    taken_at: float
    status: Status
    name: str
    trained_with: str
    rank: int
    ranks: tuple[tuple[int, str], ...]
    planned_ranks: int
    attempts: int
    resumed_at: int | None
    replaced: bool
    update: int | None
    planned: int | None
    update_status: str | None
    env_steps: int | None
    episode_return: float | None
    level: str | None
    level_because: str | None
    grad_norm: float | None
    incidents: tuple[OpenIncident, ...]
    ended_incidents: int
    judged: Coverage | None
    without_choice: bool
    last_ended: tuple[str, str, int, int] | None
    heads: tuple[HeadRow, ...]
    recurrent: tuple[RecurrentRow, ...]
    slots: tuple[SlotRow, ...]
    empty_slots: int
    losses: LossSummary
    cost: Cost
    trouble: str | None
    progress: float | None = None
    left_s: float | None = None
    curves: tuple[tuple[str, Trend], ...] = ()


def snapshot(follower: Follower) -> Snapshot:
    """Return what ``follower`` knows now."""
    info, window, now = follower.info, follower.recent, follower.clock()
    updates = window.rows("updates")
    last = updates[-1] if updates else {}
    open_now = [
        _with_worst_and_now(follower, _with_cell_text(follower, alarm))
        for alarm in window.alarms.open_incidents(window.last_update or 0)
    ]
    slots = _slots(follower)
    planned, ended = info.get("total_updates"), window.alarms.past[-1:]
    return Snapshot(
        path=str(follower.path),
        taken_at=now,
        status=_status(follower, now),
        name=str(info.get("name") or follower.path.resolve().name),
        trained_with=" ".join(str(info[key]) for key in ("framework", "algorithm") if info.get(key)),
        rank=follower.shown_rank,
        ranks=tuple((rank, writer.state) for rank, writer in sorted(follower.writers.items())),
        planned_ranks=info["ranks"] if isinstance(info.get("ranks"), int) else 1,
        attempts=len(follower.attempts),
        resumed_at=follower.attempts[-1].first_update if len(follower.attempts) > 1 else None,
        replaced=follower.replaced,
        update=window.last_update,
        planned=planned if isinstance(planned, int) else None,
        update_status=last.get("status"),
        env_steps=last.get("env_steps"),
        episode_return=_last(window.column("updates", "episode_return_mean")),
        level=last.get("level") or (None if info.get("level") is None else str(info["level"])),
        level_because=_because(follower, last.get("level")),
        grad_norm=last.get("grad_norm_pre_clip"),
        incidents=tuple(open_now),
        ended_incidents=window.alarms.number_ended,
        without_choice=_without_choice(follower),
        judged=follower.coverage,
        last_ended=next(
            ((alarm.worst.verdict, alarm.last.rule, alarm.start, alarm.cleared or 0) for alarm in ended), None
        ),
        heads=tuple(_heads(follower, open_now)),
        recurrent=tuple(_recurrent(follower, open_now)),
        slots=tuple(_slot_row(slot, open_now) for slot in _worst_first(slots, open_now) if slot.seeded),
        empty_slots=sum(not slot.seeded for slot in slots),
        losses=_losses(follower),
        cost=_cost(follower),
        trouble=follower.trouble,
        progress=last.get("progress"),
        left_s=_left(updates),
        curves=tuple(
            (title, tuple(window.column("updates", column)))
            for column, title in CURVES.items()
            if _last(window.column("updates", column)) is not None
        ),
    )


def _left(updates: Sequence[RecentRow]) -> float | None:
    """Return the seconds that are left at the pace of the window, None where the plan or the pace is unknown."""
    known = [row for row in updates if row.get("progress") is not None and row.get("wall_time") is not None]
    if len(known) < 2:
        return None
    took, done = (known[-1][name] - known[0][name] for name in ("wall_time", "progress"))
    if took <= 0 or done <= 0:
        return None
    return float(took / done * (1.0 - known[-1]["progress"]))


def _with_cell_text(follower: Follower, incident: OpenIncident) -> OpenIncident:
    """Return the incident with the text of its column when it began, where that row is still in the window."""
    row = next((row for row in follower.recent.rows("updates") if row["update"] == incident.start), {})
    text = row.get(incident.metric)
    return replace(incident, said=text) if isinstance(text, str) else incident


def _with_worst_and_now(follower: Follower, incident: OpenIncident) -> OpenIncident:
    """Return the incident with worst and last value of the judged number, where the window has it."""
    rule = rule_named(incident.rule)
    column = rule.statistic(incident.metric).column
    if incident.value is None or column is None or column not in GROWING.get(rule.table, ()):
        return incident
    subject = None if BY_NAME[rule.table].subject is None else incident.subject
    rows = [row for row in follower.recent.rows(rule.table, subject) if row["update"] >= incident.start]
    measured = [(row["update"], float(row[column])) for row in rows if row.get(column) is not None]
    if not measured:
        return incident
    at, now = measured[-1]
    since = measured[0][0]
    if incident.value_update is not None and incident.value_update < since:
        measured.insert(0, (incident.value_update, incident.value))
    worst_update, worst = measured[worst_of(np.array([value for _, value in measured]), higher=rule.higher_is_worse)]
    return replace(incident, worst=worst, worst_update=worst_update, worst_since=since, now=now, now_update=at)


def _status(follower: Follower, now: float) -> Status:
    writer = follower.writers.get(follower.shown_rank)
    closed = None if writer is None or writer.state != follower.state else writer.closed_at
    touched = closed or follower.news_at or follower.touched
    times = follower.recent.column("updates", "wall_time")
    took = [
        later - earlier
        for earlier, later in pairwise(times)
        if earlier is not None and later is not None and later > earlier
    ]
    silent = None if touched is None else max(0.0, now - touched)
    why = writer.why if writer is not None and writer.state == follower.state else ""
    since = None if writer is None else writer.stalled_since
    stalled = None if since is None else max(0.0, now - since)
    suspended = writer is not None and writer.suspended
    return Status(follower.state, why, silent, median(took) if took else None, stalled, suspended)


def _because(follower: Follower, level: str | None) -> str | None:
    """Return why the level is raised, None when it is not."""
    change, last = follower.recent.level, follower.recent.last_update
    if change is None or last is None or change["rule"] is None or change["level"] != level or change["until"] < last:
        return None
    return f"until update {change['until']}, because of {change['rule']} on {change['subject']}"


def _alarms_about(incidents: Sequence[OpenIncident], *subjects: str) -> dict[str, str]:
    """Return the rules in alarm about any of ``subjects``, with their verdicts."""
    return {
        rule: incident.verdict for incident in incidents for rule, subject, _ in incident.about if subject in subjects
    }


def _heads(follower: Follower, incidents: Sequence[OpenIncident]) -> list[HeadRow]:
    head_rows = []
    for name in follower.recent.subjects("heads"):
        rows = follower.recent.rows("heads", name)
        if not rows:
            continue
        last, alarms = rows[-1], _alarms_about(incidents, name, f"{HEAD_GROUP}{name}")
        numbers = (last["grad_norm"], last["entropy_norm"], last["learnable_fraction"])
        trend = tuple(row["grad_norm"] for row in rows)
        head_rows.append(HeadRow(name, last["update"], head_state(last, alarms), *numbers, trend))
    return head_rows


def _without_choice(follower: Follower) -> bool:
    """Whether within the window no head ever had more than one valid action."""
    rows = [row for name in follower.recent.subjects("heads") for row in follower.recent.rows("heads", name)]
    return bool(rows) and all(row["learnable_fraction"] == 0 for row in rows)


def _recurrent(follower: Follower, incidents: Sequence[OpenIncident]) -> list[RecurrentRow]:
    phase_rows = []
    for phase in follower.recent.subjects("lstm"):
        rows = follower.recent.rows("lstm", phase)
        if not rows:
            continue
        last = rows[-1]
        state = recurrent_state(last, _alarms_about(incidents, phase))
        gates = (last["forget_saturation"], last["input_saturation"], last["output_saturation"])
        numbers = (last["c_env_rms_max"], last["h_env_rms_max"], last["h_saturation"])
        trend = tuple(row["c_env_rms_max"] for row in rows)
        phase_rows.append(RecurrentRow(phase, last["update"], state, *numbers, gates, trend))
    return phase_rows


def _slots(follower: Follower) -> list[SlotLocation]:
    """Return every slot with a row in the window."""
    rows = {name: follower.recent.rows("slots", name) for name in follower.recent.subjects("slots")}
    return [SlotLocation.of_rows(name, of_slot) for name, of_slot in rows.items() if of_slot]


def _worst_first(slots: Sequence[SlotLocation], incidents: Sequence[OpenIncident]) -> list[SlotLocation]:
    """Return slots with a critical incident, with another one, and the others, each as the gate judges them."""

    def order(slot: SlotLocation) -> tuple[int, int]:
        alarm = _worst_about(slot.name, incidents)
        return 2 if alarm is None else int(alarm.verdict != "critical"), slot.severity

    return sorted(slots, key=order)


def _worst_about(slot: str, incidents: Sequence[OpenIncident]) -> OpenIncident | None:
    """Return the worst open incident about a slot, the first of several."""
    about = [
        incident
        for incident in incidents
        if any(subject == slot and rule_named(rule).table == "slots" for rule, subject, _ in incident.about)
    ]
    return min(about, key=lambda incident: incident.verdict != "critical", default=None)


def _slot_row(slot: SlotLocation, incidents: Sequence[OpenIncident]) -> SlotRow:
    alarm = _worst_about(slot.name, incidents)
    numbers = (slot.ratio, slot.health, slot.stage, slot.blueprint)
    return SlotRow(slot.name, slot.update, slot.gate, *numbers, None if alarm is None else alarm.rule)


def _losses(follower: Follower) -> LossSummary:
    window = follower.recent
    last = tuple((row["update"], row["kind"], row["detail"], row["rows"]) for row in window.losses)
    misfits = sum(attempt.misfits for attempt in follower.attempts)
    return LossSummary(
        window.lost_events, window.lost_rows + misfits, last, tuple(dict.fromkeys(follower.file_troubles))
    )


def _cost(follower: Follower) -> Cost:
    took = {
        name: [value for value in follower.recent.column("updates", name) if value is not None]
        for name in ("recorder_ms", "recorder_fraction")
    }
    rows = follower.recent.rows("updates")
    last = rows[-1] if rows else {}
    middle = [median(values) if values else None for values in took.values()]
    return Cost(middle[0], middle[1], last.get("sampled_steps"), last.get("optimizer_steps"))


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)
