"""Incidents: one fault from its first to its last update, with its peak, and the incident that caused it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np

from esper_analyze.detector.detector import Outcome, RuleVerdicts
from esper_analyze.detector.findings import Finding, FindingKey, known_value
from esper_analyze.detector.rule import Limits, Rule
from esper_analyze.detector.signals import Bools, Floats, Ints
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import BY_WORD, NONFINITE, Judgement, Verdict
from esper_analyze.schema.constants import HEAD_GROUP

CLEARED = "cleared"
"""``Incident.ended`` of one that is over."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One fault that one rule found on one metric of one subject.

    ``start`` and ``end`` are its first and last update in alarm, ``onset`` the first update of the streak that led to
    the alarm; ``ended`` is "cleared" or "open", in an excerpt of the run also "cleared later". An alarm that returns
    before it has cleared (``Limits.clear_after``) is the same incident. ``peak`` is the worst value (non-finite is
    worse than any number), ``peak_verdict`` the worst verdict, ``count`` the updates in alarm. Updates that could not
    be judged neither end an incident nor count.
    ``cause`` is the index, in ``IncidentTracker.incidents()``, of the incident that this one is shown under.
    ``statistic`` names the quantity of ``peak``, ``threshold`` and ``now``. ``threshold`` is the bound of the worst
    verdict when it was first crossed (None for a non-finite value); ``now`` is the value at ``now_update``, the last
    update that could be judged.

    Incidents that begin in one update because a value is not finite are merged into one, over all rules and subjects:
    ``parts`` are the single incidents, empty if there is only one. The merged incident has the name of the first in the
    order of the rules, lasts from the first to the last update of any, and is open while one is.
    """

    rule: str
    subject: str
    metric: str
    onset: int
    start: int
    end: int
    ended: str
    peak: float
    peak_update: int
    peak_verdict: str
    count: int
    cause: int | None = None
    statistic: str = ""
    threshold: float | None = None
    now: float | None = None
    now_update: int | None = None
    parts: tuple[Incident, ...] = ()

    @property
    def key(self) -> FindingKey:
        """Rule, subject and metric."""
        return self.rule, self.subject, self.metric

    @property
    def lasting(self) -> bool:
        """Whether it is in alarm at the last update of the run, or of the excerpt of it."""
        return self.ended != CLEARED

    @property
    def how_it_ended(self) -> str:
        """How it ended: cleared, still open, or better at the last judged update but not long enough to clear."""
        if self.ended != "open":
            return self.ended
        quiet = self.now_update is not None and self.now_update > self.end
        return "better, not cleared yet" if quiet else "still open"

    @property
    def seen_by(self) -> tuple[str, ...]:
        """The rules that report this incident, the one it is named after first."""
        return tuple(dict.fromkeys([self.rule, *(part.rule for part in self.parts)]))


def unmerged(incidents: Iterable[Incident]) -> list[Incident]:
    """Return the incidents per rule and subject, with merged ones split into their parts."""
    return [part for incident in incidents for part in incident.parts or (incident,)]


def open_between(incidents: Sequence[Incident], first: int, last: int) -> list[Incident]:
    """Return the incidents in alarm at some update from ``first`` to ``last``, whole; causes outside become None."""
    inside = [index for index, item in enumerate(incidents) if item.start <= last and item.end >= first]
    moved = {index: position for position, index in enumerate(inside)}

    def shown(item: Incident) -> Incident:
        later = item.ended == CLEARED and item.end > last
        parts = tuple(map(shown, (part for part in item.parts if part.start <= last and part.end >= first)))
        cause = None if item.cause is None else moved.get(item.cause)
        return replace(item, ended="cleared later" if later else item.ended, cause=cause, parts=parts)

    return [shown(incidents[index]) for index in inside]


@dataclass(frozen=True, slots=True)
class ActiveAlarm:
    """One alarm as findings tell it: the last one in alarm, and the first that set its worst verdict.

    ``cleared`` is the update of the finding that ended it, None while it is active.
    """

    start: int
    last: Finding
    worst: Finding
    cleared: int | None = None


@dataclass(slots=True)
class ActiveAlarms:
    """The active alarms by rule, subject and metric, followed from findings in the order of their updates."""

    active: dict[FindingKey, ActiveAlarm] = field(default_factory=dict)

    def take(self, finding: Finding) -> ActiveAlarm | None:
        """Add the next finding and return the alarm that it ends. What could not be judged ends none."""
        verdict, now = BY_WORD[finding.verdict], self.active.get(finding.key)
        if verdict >= Verdict.WARNING:
            start, worst = (finding.update, finding) if now is None else (now.start, now.worst)
            worst = finding if verdict > BY_WORD[worst.verdict] else worst
            self.active[finding.key] = ActiveAlarm(start, finding, worst)
        elif verdict >= Verdict.OK and now is not None:
            return replace(self.active.pop(finding.key), cleared=finding.update)
        return None


@dataclass(slots=True)
class _Open:
    start: int
    end: int
    peak: float
    peak_update: int
    threshold: float
    worst: int
    count: int
    nonfinite: bool
    """Whether it began because a value was not finite."""


class IncidentTracker:
    """Collects incidents from outcomes in order; only updates in alarm are handled in Python."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self._thresholds = thresholds
        self._open: dict[FindingKey, _Open] = {}
        self._ended: list[tuple[FindingKey, _Open, str]] = []
        self._now: dict[FindingKey, tuple[float | None, int]] = {}
        self._rules: dict[str, Rule] = {}
        self._order: dict[str, int] = {}

    def take(self, outcome: Outcome) -> None:
        """Add the verdicts of the next updates."""
        for order, judged in enumerate(outcome.judged):
            self._rules[judged.rule.name] = judged.rule
            self._order[judged.rule.name] = order
            for judgement in judged.judgements:
                self._take_one(outcome.update, judged, judgement)

    def _take_one(self, update: Ints, judged: RuleVerdicts, judgement: Judgement) -> None:
        standing = judgement.standing
        bounded, alarm = standing >= Verdict.OK, standing >= Verdict.WARNING
        ringing = np.logical_or.reduce(alarm, axis=0)
        for k, subject in enumerate(judged.subjects):
            key = (judged.rule.name, subject, judgement.metric)
            if not ringing[k] and key not in self._now:
                continue
            rows = np.flatnonzero(bounded[:, k])
            if len(rows):
                self._now[key] = known_value(judgement, int(rows[-1]), k), int(update[rows[-1]])
            self._follow(key, update, judgement, rows, alarm[rows, k], k)

    def _follow(self, key: FindingKey, update: Ints, judgement: Judgement, rows: Ints, states: Bools, k: int) -> None:
        """Follow one subject through its judged ``rows``; ``states`` says in which of them it is in alarm."""
        edges = np.flatnonzero(np.diff(states)) + 1
        for part in np.split(np.arange(len(rows)), edges):
            if not len(part):
                continue
            if states[part[0]]:
                here = rows[part]
                here = here[judgement.code[here, k] >= Verdict.WARNING]
                self._alarm(key, update[here], judgement, here, k)
            elif key in self._open:
                self._ended.append((key, self._open.pop(key), CLEARED))

    def _alarm(self, key: FindingKey, update: Ints, judgement: Judgement, here: Ints, k: int) -> None:
        if not len(update):
            return
        value, code = judgement.value[here, k], judgement.code[here, k]
        index = worst_of(value, higher=self._rules[key[0]].higher_is_worse)
        peak, peak_update = float(value[index]), int(update[index])
        first_worst = int(np.argmax(code))
        bound, worst = float(judgement.threshold[here[first_worst], k]), int(code[first_worst])
        now = self._open.get(key)
        if now is None:
            reason = judgement.reasons[judgement.reason[here[0], k]]
            nonfinite = self._rules[key[0]].finiteness or reason == NONFINITE
            span = int(update[0]), int(update[-1])
            self._open[key] = _Open(*span, peak, peak_update, bound, worst, len(update), nonfinite)
            return
        both = np.array([now.peak, peak])
        if worst_of(both, higher=self._rules[key[0]].higher_is_worse) == 1:
            now.peak, now.peak_update = peak, peak_update
        if worst > now.worst:
            now.worst, now.threshold = worst, bound
        now.end, now.count = int(update[-1]), now.count + len(update)

    def incidents(self) -> list[Incident]:
        """Return all incidents so far, by start, causes before what they cause."""
        return joined_incidents([self], self._order)

    def _incident(self, key: FindingKey, state: _Open, ended: str) -> Incident:
        now, now_update = self._now[key]
        return Incident(
            *key,
            state.start if state.nonfinite else self._onset(key[0], state.start),
            state.start,
            state.end,
            ended,
            state.peak,
            state.peak_update,
            Verdict(state.worst).word,
            state.count,
            statistic=self._rules[key[0]].statistic(key[2]).name,
            threshold=None if math.isnan(state.threshold) else state.threshold,
            now=now,
            now_update=now_update,
        )

    def _onset(self, name: str, start: int) -> int:
        rule = self._rules[name]
        return onset(rule, rule.limits() if self._thresholds is None else self._thresholds[name], start)


def joined_incidents(trackers: Sequence[IncidentTracker], order: Mapping[str, int]) -> list[Incident]:
    """Return the incidents of rules that were followed by several trackers, as one that follows all would.

    ``order`` maps each rule to its place in the order of the rules.
    """
    entries = [
        (tracker, *entry)
        for tracker in trackers
        for entry in (*tracker._ended, *((key, state, "open") for key, state in tracker._open.items()))
    ]
    entries.sort(key=lambda entry: (entry[2].start, order[entry[1][0]], entry[1]))
    nonfinite = {index for index, (_, _, state, _) in enumerate(entries) if state.nonfinite}
    rules = {name: rule for tracker in trackers for name, rule in tracker._rules.items()}
    listed = [tracker._incident(key, state, ended) for tracker, key, state, ended in entries]
    return with_causes(merge_nonfinite(listed, nonfinite), rules)


def onset(rule: Rule, limits: Limits, start: int) -> int:
    """Return the first update of the streak that led to an alarm of ``rule`` at ``start``."""
    if rule.confirmed_by is None:
        return start
    return max(start - int(getattr(limits, rule.confirmed_by)) + 1, 0)


def merge_nonfinite(listed: Sequence[Incident], nonfinite: Container[int]) -> list[Incident]:
    """Return the incidents, with those at the indices ``nonfinite`` that began in the same update merged."""
    together: dict[int, list[Incident]] = {}
    for index, incident in enumerate(listed):
        if index in nonfinite:
            together.setdefault(incident.start, []).append(incident)
    result = []
    for index, incident in enumerate(listed):
        several = together.get(incident.start, []) if index in nonfinite else []
        if len(several) < 2:
            result.append(incident)
        elif incident is several[0]:
            ended = "open" if any(part.ended == "open" for part in several) else CLEARED
            end, count = max(part.end for part in several), max(part.count for part in several)
            result.append(replace(incident, end=end, ended=ended, count=count, parts=tuple(several)))
    return result


def with_causes(listed: Sequence[Incident], rules: Mapping[str, Rule]) -> list[Incident]:
    """Return the incidents, which are in order of their start, each with the index of its cause."""
    causes = _Causes(listed, rules)
    return [replace(incident, cause=causes.of(incident)) for incident in listed]


class _Causes:
    """Finds the cause of an incident by bisection, because a long run has many thousand incidents.

    The cause of an incident on one head or slot is on the same head or slot, or on the complete model.
    """

    def __init__(self, listed: Sequence[Incident], rules: Mapping[str, Rule]) -> None:
        self._rules = rules
        self._indices: dict[tuple[str, str | None], list[int]] = {}
        for index, incident in enumerate(listed):
            name, part = incident.rule, _part(rules[incident.rule], incident.subject)
            for key in {(name, part), (name, _ANY)}:
                self._indices.setdefault(key, []).append(index)
        self._starts = {key: [listed[index].start for index in indices] for key, indices in self._indices.items()}
        self._latest_end = {
            key: list(accumulate((listed[index].end for index in indices), max))
            for key, indices in self._indices.items()
        }

    def of(self, incident: Incident) -> int | None:
        """Return the first incident, in the order of the rule's causes, that was open between onset and start."""
        rule = self._rules[incident.rule]
        part = _part(rule, incident.subject)
        parts = (_ANY,) if part is None else (None, part)
        for name in rule.causes:
            candidates = [index for about in parts if (index := self._first((name, about), incident)) is not None]
            if candidates:
                return min(candidates)
        return None

    def _first(self, key: tuple[str, str | None], incident: Incident) -> int | None:
        if key not in self._indices:
            return None
        first = bisect_left(self._latest_end[key], incident.onset)
        return self._indices[key][first] if first < bisect_right(self._starts[key], incident.start) else None


_ANY = "\0any"


def _part(rule: Rule, subject: str) -> str | None:
    """Return the head or slot that an incident concerns, None for the complete model."""
    if rule.table in ("heads", "slots"):
        return subject
    return subject.removeprefix(HEAD_GROUP) if subject.startswith(HEAD_GROUP) else None


def worst_of(values: Floats, *, higher: bool) -> int:
    """Return the index of the worst value, the first of equals; NaN and ±Inf are worse than every number."""
    broken = np.flatnonzero(~np.isfinite(values))
    if len(broken):
        return int(broken[0])
    return int(np.argmax(values) if higher else np.argmin(values))
