"""Compare a replay under other thresholds or rules with the live findings: alarms that are new, gone or moved."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from esper_analyze.detector.escalation import LevelChange
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.incidents import ActiveAlarms
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import BY_WORD
from esper_analyze.replay.recorded_rules import judged_live, restated_since
from esper_analyze.replay.replay import Replay, Restated, recorded, replay, unshared
from esper_analyze.runs.run import RecordedRun

CHANGES = (
    "same",
    "new",
    "gone",
    "earlier",
    "later",
    "worse",
    "milder",
    "longer",
    "shorter",
    "split",
    "joined",
    "not live",
)
"""How an alarm differs from the live one.

"split": live it was part of another alarm. "joined": now it is part of another alarm. "not live": its rule did not
run when the run was recorded.
"""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm from ``start`` to ``end``, the update before it cleared; ``end`` is None if it did not clear."""

    rule: str
    subject: str
    metric: str
    verdict: str
    start: int
    end: int | None

    @property
    def key(self) -> tuple[str, str, str]:
        """Rule, subject and metric of the alarm."""
        return self.rule, self.subject, self.metric


@dataclass(frozen=True, slots=True)
class AlarmChange:
    """One alarm in the recording (``live``) and in the replay (``now``); None where it does not exist."""

    what: str
    live: Alarm | None
    now: Alarm | None

    @property
    def about(self) -> Alarm:
        """The alarm now, or the live one if it is gone."""
        either = self.now or self.live
        if either is None:
            raise ValueError("a change without an alarm")
        return either


@dataclass(frozen=True, slots=True)
class WhatIf:
    """How a replay differs from the recording.

    ``thresholds`` are (rule.field, live, now); ``not_live`` names rules that did not judge live. Two findings are equal
    if update, verdict and value are: a changed threshold alone does not make a finding new.
    """

    thresholds: tuple[tuple[str, object, object], ...]
    alarms: tuple[AlarmChange, ...]
    findings_now: tuple[Finding, ...]
    findings_live: tuple[Finding, ...]
    levels_now: tuple[LevelChange, ...]
    levels_live: tuple[LevelChange, ...]
    not_live: tuple[str, ...]


def what_if(run: RecordedRun, result: Replay, stored: Thresholds) -> WhatIf:
    """Compare ``result``, a replay of ``run``, with what was recorded live under the thresholds ``stored``."""
    findings, levels = recorded(run)
    if len(run.ranks) > 1:  # live, each rank was judged by itself
        base = replay(run, stored, rules=result.rules)
        findings, levels = base.findings, base.levels
    restated = restated_since(run.info, result.rules)
    judging = {rule.name for rule in judged_live(run, result.rules)}
    not_live = tuple(rule.name for rule in result.rules if rule.name not in judging)
    changes = alarm_changes(alarms_of(findings), alarms_of(result.findings))
    marked = [replace(entry, what="not live") if entry.about.rule in not_live else entry for entry in changes]
    findings_now, findings_live = unshared(result.findings, findings, lambda finding: _key(finding, restated))
    levels_now, levels_live = unshared(result.levels, levels)
    return WhatIf(
        tuple(changed_thresholds(stored.as_dict(), result.thresholds.as_dict())),
        tuple(marked),
        tuple(findings_now),
        tuple(findings_live),
        tuple(levels_now),
        tuple(levels_live),
        not_live,
    )


def changed_thresholds(
    stored: Mapping[str, Mapping[str, object]], used: Mapping[str, Mapping[str, object]]
) -> Iterable[tuple[str, object, object]]:
    """Yield each threshold that differs, by rule and name, with the stored value and the one used."""
    for rule, limits in used.items():
        for name, value in limits.items():
            was = stored.get(rule, {}).get(name, value)
            if was != value:
                yield f"{rule}.{name}", was, value


def alarms_of(findings: Iterable[Finding]) -> list[Alarm]:
    """Return the alarms in ``findings`` (which are in order of updates), sorted by start."""
    followed = ActiveAlarms()
    cleared = [alarm for finding in findings if (alarm := followed.take(finding)) is not None]
    alarms = [
        Alarm(*alarm.last.key, alarm.worst.verdict, alarm.start, None if alarm.cleared is None else alarm.cleared - 1)
        for alarm in (*cleared, *followed.active.values())
    ]
    return sorted(alarms, key=lambda alarm: (alarm.start, alarm.key))


def alarm_changes(live: Sequence[Alarm], now: Sequence[Alarm]) -> list[AlarmChange]:
    """Return one change per alarm, in order of updates.

    A live and a new alarm with the same key are paired if they start together or else, nearest start first, if they
    overlap.
    """
    sides: dict[tuple[str, str, str], tuple[list[Alarm], list[Alarm]]] = defaultdict(lambda: ([], []))
    for side, alarms in enumerate((live, now)):
        for alarm in alarms:
            sides[alarm.key][side].append(alarm)
    changes = [change for before, after in sides.values() for change in _paired_changes(before, after)]
    changes.sort(key=lambda change: (min(side.start for side in (change.live, change.now) if side), change.about.key))
    return changes


class _Alarms:
    """The alarms with one key on one side: disjoint and in order, so that overlaps are found by bisection."""

    def __init__(self, alarms: Sequence[Alarm]) -> None:
        self.alarms = alarms
        self.starts = [alarm.start for alarm in alarms]
        self.ends = [_until(alarm) for alarm in alarms]

    def overlapping(self, other: Alarm) -> Sequence[Alarm]:
        """Return the alarms that overlap ``other``."""
        return self.alarms[bisect_left(self.ends, other.start) : bisect_right(self.starts, _until(other))]


def _paired_changes(live: Sequence[Alarm], now: Sequence[Alarm]) -> list[AlarmChange]:
    """Return one change for each pair of alarms and for each unpaired alarm."""
    before, after = _Alarms(live), _Alarms(now)
    at = {alarm.start: alarm for alarm in now}
    pairs = {was: at[was.start] for was in live if was.start in at}
    paired = set(pairs.values())
    for was in live:
        free = [alarm for alarm in after.overlapping(was) if alarm not in paired]
        if was not in pairs and free:
            pairs[was] = min(free, key=lambda alarm, start=was.start: abs(alarm.start - start))  # type: ignore[misc]
            paired.add(pairs[was])
    changes = [AlarmChange(_kind(was, alarm), was, alarm) for was, alarm in pairs.items()]
    for was in live:
        if was not in pairs:
            into = after.overlapping(was)
            changes.append(AlarmChange("joined", was, into[0]) if into else AlarmChange("gone", was, None))
    for alarm in now:
        if alarm not in paired:
            out_of = before.overlapping(alarm)
            changes.append(AlarmChange("split", out_of[0], alarm) if out_of else AlarmChange("new", None, alarm))
    return changes


def _kind(live: Alarm, now: Alarm) -> str:
    """Return the first difference of two alarms: start, then worst verdict, then end."""
    if now.start != live.start:
        return "earlier" if now.start < live.start else "later"
    if now.verdict != live.verdict:
        return "worse" if BY_WORD[now.verdict] > BY_WORD[live.verdict] else "milder"
    if now.end != live.end:
        return "longer" if _until(now) > _until(live) else "shorter"
    return "same"


def _until(alarm: Alarm) -> float:
    return math.inf if alarm.end is None else alarm.end


def _key(finding: Finding, restated: Restated) -> tuple[object, ...]:
    value = None if finding.value is None or "value" in restated.get(finding.rule, ()) else float(finding.value).hex()
    return finding.update, finding.rule, finding.subject, finding.metric, finding.verdict, finding.reason, value
