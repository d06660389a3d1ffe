"""What other thresholds or rules would have said, held against what was said live: what is new, gone or moved."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from esper_analyze.detector.escalation import LevelChange
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import BY_WORD, Verdict
from esper_analyze.replay.recorded_rules import judged_live, restated_since
from esper_analyze.replay.replay import Replay, Restated, recorded, replay
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
judge when the run was recorded.
"""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One incident as findings tell it: alarm from ``start`` to the update before it cleared, None when it did not."""

    rule: str
    subject: str
    metric: str
    verdict: str
    start: int
    end: int | None

    @property
    def thing(self) -> tuple[str, str, str]:
        """What the alarm is about: rule, subject and metric."""
        return self.rule, self.subject, self.metric


@dataclass(frozen=True, slots=True)
class Change:
    """One alarm as it was live and as it is now; ``live`` or ``now`` is None where there is none."""

    what: str
    live: Alarm | None
    now: Alarm | None

    @property
    def about(self) -> Alarm:
        """The alarm now, or the live one that is gone."""
        either = self.now or self.live
        if either is None:
            raise ValueError("a change of nothing")
        return either


@dataclass(frozen=True, slots=True)
class WhatIf:
    """How a replay differs from the recording.

    ``thresholds`` are (rule.field, live, now); ``not_live`` names rules that did not judge live. Findings are the same
    when update, verdict and value are: a threshold that was moved makes no finding another one.
    """

    thresholds: tuple[tuple[str, object, object], ...]
    alarms: tuple[Change, ...]
    findings_now: tuple[Finding, ...]
    findings_live: tuple[Finding, ...]
    levels_now: tuple[LevelChange, ...]
    levels_live: tuple[LevelChange, ...]
    not_live: tuple[str, ...]


def what_if(run: RecordedRun, result: Replay, stored: Thresholds) -> WhatIf:
    """Hold ``result``, a replay of ``run``, against what was recorded live under the thresholds ``stored``."""
    findings, levels = recorded(run)
    if len(run.ranks) > 1:  # nobody judged the ranks together live
        base = replay(run, stored, rules=result.rules)
        findings, levels = base.findings, base.levels
    known = {rule.name for rule in judged_live(run, result.rules)}
    not_live = tuple(rule.name for rule in result.rules if rule.name not in known)
    changes = compared(alarms_of(findings), alarms_of(result.findings))
    marked = [replace(one, what="not live") if one.about.rule in not_live else one for one in changes]
    return WhatIf(
        tuple(_moved(stored.as_dict(), result.thresholds.as_dict())),
        tuple(marked),
        *_apart(result.findings, findings, restated_since(run.info, result.rules)),
        tuple(change for change in result.levels if change not in levels),
        tuple(change for change in levels if change not in result.levels),
        not_live,
    )


def _moved(
    stored: Mapping[str, Mapping[str, object]], used: Mapping[str, Mapping[str, object]]
) -> Iterable[tuple[str, object, object]]:
    for rule, limits in used.items():
        for name, value in limits.items():
            was = stored.get(rule, {}).get(name, value)
            if was != value:
                yield f"{rule}.{name}", was, value


def alarms_of(findings: Iterable[Finding]) -> list[Alarm]:
    """Return the alarms that ``findings``, in order of updates, begin and end; by start."""
    open_: dict[tuple[str, str, str], Alarm] = {}
    done: list[Alarm] = []
    for finding in findings:
        verdict, thing = BY_WORD[finding.verdict], (finding.rule, finding.subject, finding.metric)
        now = open_.get(thing)
        if verdict >= Verdict.WARNING:
            worst = finding.verdict if now is None else max(now.verdict, finding.verdict, key=BY_WORD.__getitem__)
            start = finding.update if now is None else now.start
            open_[thing] = Alarm(*thing, worst, start, None)
        elif verdict >= Verdict.OK and now is not None:
            done.append(replace(open_.pop(thing), end=finding.update - 1))
    return sorted([*done, *open_.values()], key=lambda alarm: (alarm.start, alarm.thing))


def compared(live: Sequence[Alarm], now: Sequence[Alarm]) -> list[Change]:
    """Return what became of every alarm, by update.

    Alarms about the same thing are one alarm when they start together or, the nearest start first, when both were on in
    the same update.
    """
    things: dict[tuple[str, str, str], tuple[list[Alarm], list[Alarm]]] = defaultdict(lambda: ([], []))
    for side, alarms in enumerate((live, now)):
        for alarm in alarms:
            things[alarm.thing][side].append(alarm)
    found = [change for was, there in things.values() for change in _matched(was, there)]
    found.sort(key=lambda change: (min(one.start for one in (change.live, change.now) if one), change.about.thing))
    return found


class _Row:
    """The alarms about one thing on one side: apart from each other and in order, so that a search halves."""

    def __init__(self, alarms: Sequence[Alarm]) -> None:
        self.alarms = alarms
        self.starts = [alarm.start for alarm in alarms]
        self.ends = [_until(alarm) for alarm in alarms]

    def meeting(self, other: Alarm) -> Sequence[Alarm]:
        """Return the alarms that were on in an update in which ``other`` was."""
        return self.alarms[bisect_left(self.ends, other.start) : bisect_right(self.starts, _until(other))]


def _matched(live: Sequence[Alarm], now: Sequence[Alarm]) -> list[Change]:
    """Return one change for each pair and for each alarm left alone."""
    before, after = _Row(live), _Row(now)
    at = {alarm.start: alarm for alarm in now}
    pairs = {was: at[was.start] for was in live if was.start in at}
    taken = set(pairs.values())
    for was in live:
        free = [alarm for alarm in after.meeting(was) if alarm not in taken]
        if was not in pairs and free:
            pairs[was] = min(free, key=lambda alarm, start=was.start: abs(alarm.start - start))  # type: ignore[misc]
            taken.add(pairs[was])
    changes = [Change(_kind(was, alarm), was, alarm) for was, alarm in pairs.items()]
    for was in live:
        if was not in pairs:
            into = after.meeting(was)
            changes.append(Change("joined", was, into[0]) if into else Change("gone", was, None))
    for alarm in now:
        if alarm not in taken:
            out_of = before.meeting(alarm)
            changes.append(Change("split", out_of[0], alarm) if out_of else Change("new", None, alarm))
    return changes


def _kind(live: Alarm, now: Alarm) -> str:
    """Return the first thing in which two alarms differ: start, then worst verdict, then end."""
    if now.start != live.start:
        return "earlier" if now.start < live.start else "later"
    if now.verdict != live.verdict:
        return "worse" if BY_WORD[now.verdict] > BY_WORD[live.verdict] else "milder"
    if now.end != live.end:
        return "longer" if _until(now) > _until(live) else "shorter"
    return "same"


def _until(alarm: Alarm) -> float:
    return math.inf if alarm.end is None else alarm.end


def _apart(
    now: Sequence[Finding], live: Sequence[Finding], restated: Restated
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    ours, theirs = ({_key(finding, restated): finding for finding in side} for side in (now, live))
    return (
        tuple(finding for key, finding in ours.items() if key not in theirs),
        tuple(finding for key, finding in theirs.items() if key not in ours),
    )


def _key(finding: Finding, restated: Restated) -> tuple[object, ...]:
    value = None if finding.value is None or "value" in restated.get(finding.rule, ()) else float(finding.value).hex()
    return finding.update, finding.rule, finding.subject, finding.metric, finding.verdict, finding.reason, value
