"""Incidents: one trouble from its first to its last update, with its peak, and the incident that caused it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from esper_analyze.detector.aligned import HEAD_GROUP
from esper_analyze.detector.detector import Judged, Outcome
from esper_analyze.detector.rule import Limits, Rule
from esper_analyze.detector.signals import Floats, Ints
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class Incident:
    """One trouble of one rule on one metric of one subject.

    ``start`` and ``end`` are its first and last update in alarm, ``onset`` the first one of the streak that made it
    an alarm; ``ended`` is "cleared" or "open". What comes back before it had cleared (``Limits.clear_after``) is the
    same trouble. ``peak`` is the worst value (non-finite beats all), ``peak_verdict`` the worst verdict, ``count`` the
    updates in alarm. Stretches that could not be judged neither end an incident nor count. ``cause`` is the position,
    in ``IncidentTracker.incidents()``, of the incident this one is shown under.
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


@dataclass(slots=True)
class _Open:
    start: int
    end: int
    peak: float
    peak_update: int
    worst: int
    count: int


_Key = tuple[str, str, str]


class IncidentTracker:
    """Collects incidents from outcomes in order; Python looks only at stretches in alarm."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self._thresholds = thresholds
        self._open: dict[_Key, _Open] = {}
        self._ended: list[tuple[_Key, _Open, str]] = []
        self._rules: dict[str, Rule] = {}
        self._order: dict[str, int] = {}

    def take(self, outcome: Outcome) -> None:
        """Take up the verdicts of the next updates."""
        for order, judged in enumerate(outcome.judged):
            self._rules[judged.rule.name] = judged.rule
            self._order[judged.rule.name] = order
            for judgement in judged.judgements:
                self._take_one(outcome.update, judged, judgement)

    def _take_one(self, update: Ints, judged: Judged, judgement: Judgement) -> None:
        standing = judgement.standing
        bounded, alarm = standing >= Verdict.OK, standing >= Verdict.WARNING
        ringing = np.logical_or.reduce(alarm, axis=0)
        for k, subject in enumerate(judged.subjects):
            key = (judged.rule.name, subject, judgement.metric)
            if not ringing[k] and key not in self._open:
                continue
            rows = np.flatnonzero(bounded[:, k])
            states = alarm[rows, k]
            edges = np.flatnonzero(np.diff(states)) + 1
            for part in np.split(np.arange(len(rows)), edges):
                if not len(part):
                    continue
                if states[part[0]]:
                    here = rows[part]
                    here = here[judgement.code[here, k] >= Verdict.WARNING]
                    self._alarm(key, update[here], judgement.value[here, k], judgement.code[here, k].astype(np.int64))
                elif key in self._open:
                    self._ended.append((key, self._open.pop(key), "cleared"))

    def _alarm(self, key: _Key, update: Ints, value: Floats, code: Ints) -> None:
        if not len(update):
            return
        place = _worst(value, higher=self._rules[key[0]].higher_is_worse)
        peak, peak_update = float(value[place]), int(update[place])
        now = self._open.get(key)
        if now is None:
            self._open[key] = _Open(int(update[0]), int(update[-1]), peak, peak_update, int(code.max()), len(update))
            return
        both = np.array([now.peak, peak])
        if _worst(both, higher=self._rules[key[0]].higher_is_worse) == 1:
            now.peak, now.peak_update = peak, peak_update
        now.end, now.worst, now.count = int(update[-1]), max(now.worst, int(code.max())), now.count + len(update)

    def incidents(self) -> list[Incident]:
        """Return all incidents so far, by start, causes before what they cause."""
        found = [*self._ended, *((key, one, "open") for key, one in self._open.items())]
        found.sort(key=lambda item: (item[1].start, self._order[item[0][0]], item[0]))
        listed = [
            Incident(
                *key,
                self._onset(key[0], one.start),
                one.start,
                one.end,
                ended,
                one.peak,
                one.peak_update,
                Verdict(one.worst).word,
                one.count,
            )
            for key, one, ended in found
        ]
        return with_causes(listed, self._rules)

    def _onset(self, name: str, start: int) -> int:
        rule = self._rules[name]
        return onset(rule, rule.limits() if self._thresholds is None else self._thresholds[name], start)


def onset(rule: Rule, limits: Limits, start: int) -> int:
    """Return the first update of the streak that made an alarm of ``rule`` at ``start``."""
    if rule.confirmed_by is None:
        return start
    return max(start - int(getattr(limits, rule.confirmed_by)) + 1, 0)


def with_causes(listed: Sequence[Incident], rules: Mapping[str, Rule]) -> list[Incident]:
    """Return the incidents, which are in order of their start, each with the one it is shown under."""
    causes = _Causes(listed, rules)
    return [replace(one, cause=causes.of(one)) for one in listed]


class _Causes:
    """Finds what an incident is shown under; each search halves, for a long run has many thousand incidents.

    What is about one head or slot is a consequence of what is about the same, or about the whole.
    """

    def __init__(self, listed: Sequence[Incident], rules: Mapping[str, Rule]) -> None:
        self._rules = rules
        self._places: dict[tuple[str, str | None], list[int]] = {}
        for place, incident in enumerate(listed):
            name, part = incident.rule, _part(rules[incident.rule], incident.subject)
            for key in {(name, part), (name, _ANY)}:
                self._places.setdefault(key, []).append(place)
        self._starts = {key: [listed[place].start for place in found] for key, found in self._places.items()}
        self._latest_end = {
            key: list(accumulate((listed[place].end for place in found), max)) for key, found in self._places.items()
        }

    def of(self, incident: Incident) -> int | None:
        """Return the first incident, in the order of the rule's causes, that was open between onset and start."""
        rule = self._rules[incident.rule]
        part = _part(rule, incident.subject)
        parts = (_ANY,) if part is None else (None, part)
        for name in rule.causes:
            found = [place for one in parts if (place := self._first((name, one), incident)) is not None]
            if found:
                return min(found)
        return None

    def _first(self, key: tuple[str, str | None], incident: Incident) -> int | None:
        if key not in self._places:
            return None
        first = bisect_left(self._latest_end[key], incident.onset)
        return self._places[key][first] if first < bisect_right(self._starts[key], incident.start) else None


_ANY = "\0any"


def _part(rule: Rule, subject: str) -> str | None:
    """Return the head or slot that an incident is about, None when it is about the whole."""
    if rule.table in ("heads", "slots"):
        return subject
    return subject.removeprefix(HEAD_GROUP) if subject.startswith(HEAD_GROUP) else None


def _worst(values: Floats, *, higher: bool) -> int:
    """Return the position of the worst value, the first of equals; NaN and ±Inf beat every number."""
    broken = np.flatnonzero(~np.isfinite(values))
    if len(broken):
        return int(broken[0])
    return int(np.argmax(values) if higher else np.argmin(values))
