"""A run at one moment: everything that is shown, computed once, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import numpy as np

from esper_analyze.detector.incidents import worst_of
from esper_analyze.replay.standing import Coverage
from esper_analyze.reports.sections.signs import State, head_state, recurrent_state
from esper_analyze.schema import BY_NAME
from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.watch.alarms import OpenIncident, rule_named
from esper_analyze.watch.attempt import GROWING
from esper_analyze.watch.follow import Follower
from esper_analyze.watch.writer import RUNNING

Trend = tuple[float | None, ...]
LATE = 10.0
"""So many usual updates without news, and at least ``LATE_SECONDS``, are called late."""
LATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Status:
    """How the run stands: a word, why, seconds since something was last written, and the usual time of an update."""

    state: str
    why: str
    silent_s: float | None
    usual_s: float | None

    @property
    def late(self) -> bool:
        """Whether a running training has been silent for unusually long."""
        if self.state != RUNNING or self.silent_s is None:
            return False
        return self.silent_s > max(LATE_SECONDS, LATE * (self.usual_s or 0.0))


@dataclass(frozen=True, slots=True)
class HeadRow:
    """One head at its last update, and its gradient norm over the last updates (None: not measured)."""

    name: str
    update: int
    state: State
    grad_norm: float | None
    entropy_norm: float | None
    learnable_fraction: float | None
    trend: Trend


@dataclass(frozen=True, slots=True)
class RecurrentRow:
    """The recurrent state of one phase at its last update, and the size of its cell state over the last updates."""

    phase: str
    update: int
    state: State
    c_rms: float | None
    h_rms: float | None
    h_saturation: float | None
    gates: tuple[float | None, float | None, float | None]
    trend: Trend


@dataclass(frozen=True, slots=True)
class Losses:
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
    losses: Losses
    cost: Cost
    trouble: str | None


def snapshot(seen: Follower) -> Snapshot:
    """Return what ``seen`` knows now."""
    info, kept, now = seen.info, seen.kept, seen.clock()
    updates = kept.rows("updates")
    last = updates[-1] if updates else {}
    open_now = [_followed(seen, _said(seen, one)) for one in kept.alarms.open_incidents(kept.last_update or 0)]
    planned, ended = info.get("total_updates"), kept.alarms.past[-1:]
    return Snapshot(
        path=str(seen.path),
        taken_at=now,
        status=_status(seen, now),
        name=str(info.get("name") or seen.path.resolve().name),
        trained_with=" ".join(str(info[key]) for key in ("framework", "algorithm") if info.get(key)),
        rank=seen.shown_rank,
        ranks=tuple((rank, writer.state) for rank, writer in sorted(seen.writers.items())),
        planned_ranks=info["ranks"] if isinstance(info.get("ranks"), int) else 1,
        attempts=len(seen.attempts),
        resumed_at=seen.attempts[-1].first_update if len(seen.attempts) > 1 else None,
        replaced=seen.replaced,
        update=kept.last_update,
        planned=planned if isinstance(planned, int) else None,
        update_status=last.get("status"),
        env_steps=last.get("env_steps"),
        episode_return=_last(kept.column("updates", "episode_return_mean")),
        level=last.get("level") or (None if info.get("level") is None else str(info["level"])),
        level_because=_because(seen, last.get("level")),
        grad_norm=last.get("grad_norm_pre_clip"),
        incidents=tuple(open_now),
        ended_incidents=kept.alarms.number_ended,
        without_choice=_without_choice(seen),
        judged=seen.coverage,
        last_ended=next(((one.worst, one.finding.rule, one.start, one.ended or 0) for one in ended), None),
        heads=tuple(_heads(seen, open_now)),
        recurrent=tuple(_recurrent(seen, open_now)),
        losses=_losses(seen),
        cost=_cost(seen),
        trouble=seen.trouble,
    )


def _said(seen: Follower, incident: OpenIncident) -> OpenIncident:
    """Return the incident with what stood in its column of words when it began, where that is still kept."""
    row = next((row for row in seen.kept.rows("updates") if row["update"] == incident.start), {})
    said = row.get(incident.metric)
    return replace(incident, said=said) if isinstance(said, str) else incident


def _followed(seen: Follower, one: OpenIncident) -> OpenIncident:
    """Return the incident with the worst and the last of what was judged, where the kept rows hold that number."""
    rule = rule_named(one.rule)
    column = rule.statistic(one.metric).column
    if one.value is None or column is None or column not in GROWING.get(rule.table, ()):
        return one
    subject = None if BY_NAME[rule.table].subject is None else one.subject
    rows = [row for row in seen.kept.rows(rule.table, subject) if row["update"] >= one.start]
    known = [(row["update"], float(row[column])) for row in rows if row.get(column) is not None]
    if not known:
        return one
    at, now = known[-1]
    since = known[0][0]
    if one.value_update is not None and one.value_update < since:
        known.insert(0, (one.value_update, one.value))
    worst_update, worst = known[worst_of(np.array([value for _, value in known]), higher=rule.higher_is_worse)]
    return replace(one, worst=worst, worst_update=worst_update, worst_since=since, now=now, now_update=at)


def _status(seen: Follower, now: float) -> Status:
    writer = seen.writers.get(seen.shown_rank)
    closed = None if writer is None or writer.state != seen.state else writer.closed_at
    touched = closed or seen.news_at or seen.touched
    times = seen.kept.column("updates", "wall_time")
    took = [later - one for one, later in pairwise(times) if one is not None and later is not None and later > one]
    silent = None if touched is None else max(0.0, now - touched)
    why = writer.why if writer is not None and writer.state == seen.state else ""
    return Status(seen.state, why, silent, median(took) if took else None)


def _because(seen: Follower, level: str | None) -> str | None:
    """Return why the level in effect is another than usual."""
    change, last = seen.kept.level, seen.kept.last_update
    if change is None or last is None or change["rule"] is None or change["level"] != level or change["until"] < last:
        return None
    return f"until update {change['until']}, because of {change['rule']} on {change['subject']}"


def _alarms_about(incidents: Sequence[OpenIncident], *subjects: str) -> dict[str, str]:
    """Return the rules in alarm about any of ``subjects``, with their verdicts."""
    return {rule: one.verdict for one in incidents for rule, subject, _ in one.about if subject in subjects}


def _heads(seen: Follower, incidents: Sequence[OpenIncident]) -> list[HeadRow]:
    found = []
    for name in seen.kept.subjects("heads"):
        rows = seen.kept.rows("heads", name)
        if not rows:
            continue
        last, alarms = rows[-1], _alarms_about(incidents, name, f"{HEAD_GROUP}{name}")
        numbers = (last["grad_norm"], last["entropy_norm"], last["learnable_fraction"])
        trend = tuple(row["grad_norm"] for row in rows)
        found.append(HeadRow(name, last["update"], head_state(last, alarms), *numbers, trend))
    return found


def _without_choice(seen: Follower) -> bool:
    """Whether, as far as is looked back, no head ever had more than one valid action."""
    rows = [row for name in seen.kept.subjects("heads") for row in seen.kept.rows("heads", name)]
    return bool(rows) and all(row["learnable_fraction"] == 0 for row in rows)


def _recurrent(seen: Follower, incidents: Sequence[OpenIncident]) -> list[RecurrentRow]:
    found = []
    for phase in seen.kept.subjects("lstm"):
        rows = seen.kept.rows("lstm", phase)
        if not rows:
            continue
        last = rows[-1]
        state = recurrent_state(last, _alarms_about(incidents, phase))
        gates = (last["forget_saturation"], last["input_saturation"], last["output_saturation"])
        numbers = (last["c_env_rms_max"], last["h_env_rms_max"], last["h_saturation"])
        trend = tuple(row["c_env_rms_max"] for row in rows)
        found.append(RecurrentRow(phase, last["update"], state, *numbers, gates, trend))
    return found


def _losses(seen: Follower) -> Losses:
    kept = seen.kept
    last = tuple((row["update"], row["kind"], row["detail"], row["rows"]) for row in kept.losses)
    misfits = sum(one.misfits for one in seen.attempts)
    return Losses(kept.lost_events, kept.lost_rows + misfits, last, tuple(dict.fromkeys(seen.file_troubles)))


def _cost(seen: Follower) -> Cost:
    took = {
        name: [value for value in seen.kept.column("updates", name) if value is not None]
        for name in ("recorder_ms", "recorder_fraction")
    }
    rows = seen.kept.rows("updates")
    last = rows[-1] if rows else {}
    middle = [median(values) if values else None for values in took.values()]
    return Cost(middle[0], middle[1], last.get("sampled_steps"), last.get("optimizer_steps"))


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)
