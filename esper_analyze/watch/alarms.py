"""Open incidents, built from the live detector's findings as they arrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from esper_analyze.detector.findings import Finding, FindingKey
from esper_analyze.detector.incidents import (
    ActiveAlarm,
    ActiveAlarms,
    Incident,
    merge_nonfinite,
    onset,
    with_causes,
)
from esper_analyze.detector.rule import Limits, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import ThresholdError, Thresholds
from esper_analyze.detector.verdict import BY_WORD, NONFINITE, Verdict
from esper_analyze.replay.recorded_rules import restated_since
from esper_analyze.reports.narrative.primary_incident import primary_incident
from esper_analyze.schema import BY_NAME, Kind

MOST_KEPT = 1_000
"""Ended incidents that are kept, because they may be the cause of an open one."""
_BUILT_IN = {rule.name: rule for rule in RULES}
_RULE_ORDER = {name: index for index, name in enumerate(_BUILT_IN)}


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """An open incident as it is shown. ``cause`` is the rule it is shown under, ``depth`` the level of nesting.

    ``statistic`` names the judged number, ``value`` is its value at ``value_update``, where it crossed ``threshold``.
    ``worst`` and ``now`` are set where the recording has that number at every update: the worst since ``worst_since``,
    the start or the first update in the window. ``said`` is the text of a judged text column, which has no ``value``.
    ``seen_by`` are the rules that see the same NaN, or the one rule alone, and ``about`` rule, subject and metric of
    each.
    """

    verdict: str
    rule: str
    title: str
    subject: str
    metric: str
    start: int
    value: float | None
    threshold: float | None
    baseline: float | None
    look_first: str
    statistic: str = ""
    value_update: int | None = None
    worst: float | None = None
    worst_update: int | None = None
    worst_since: int | None = None
    now: float | None = None
    now_update: int | None = None
    said: str | None = None
    seen_by: tuple[str, ...] = ()
    about: tuple[FindingKey, ...] = ()
    cause: str | None = None
    cause_update: int | None = None
    depth: int = 0


@dataclass(slots=True)
class Alarms:
    """Active and past alarms, updated with findings in order."""

    limits: dict[str, Limits] = field(default_factory=dict)
    restated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    now: ActiveAlarms = field(default_factory=ActiveAlarms)
    past: list[ActiveAlarm] = field(default_factory=list)
    worst_ended: ActiveAlarm | None = None
    ended: int = 0
    ended_nonfinite: set[int] = field(default_factory=set)

    @classmethod
    def judged_with(cls, info: Mapping[str, object]) -> Alarms:
        """Return no alarms yet, with the limits of run.json; values that cannot be read become the defaults."""
        thresholds = info.get("thresholds")
        limits = dict(Thresholds.defaults(RULES).by_rule)
        for name, values in thresholds.items() if isinstance(thresholds, Mapping) else ():
            if name in limits:
                try:
                    limits[name] = Thresholds.defaults(RULES).merged({name: values}, recorded=True)[name]
                except ThresholdError:
                    continue
        return cls(limits, restated_since(info, RULES))

    def take(self, row: Mapping[str, Any]) -> None:
        """Add one row of table ``findings``."""
        columns = ("update", "rule", "subject", "metric", "value", "threshold", "baseline", "reason")
        verdict = row["verdict"] if row["verdict"] in BY_WORD else Verdict.NO_DATA.word
        finding = Finding(**{name: row[name] for name in columns}, verdict=verdict, previous=None)
        ended = self.now.take(finding)
        if ended is not None:
            self._end(ended)

    def _end(self, alarm: ActiveAlarm) -> None:
        self.past.append(alarm)
        self.worst_ended = min(filter(None, (self.worst_ended, alarm)), key=_gravity)
        if _began_nonfinite(alarm):
            self.ended_nonfinite.add(alarm.start)
        else:
            self.ended += 1
        if len(self.past) > 2 * MOST_KEPT:
            del self.past[:-MOST_KEPT]

    @property
    def number_ended(self) -> int:
        """Number of ended incidents; several rules that see the same NaN count once."""
        still = {alarm.start for alarm in self.now.active.values() if _began_nonfinite(alarm)}
        return self.ended + len(self.ended_nonfinite - still)

    def begin_anew(self, update: int) -> None:
        """End all active alarms: from ``update`` on a new detector judges, without their state."""
        for alarm in self.now.active.values():
            self._end(replace(alarm, cleared=update))
        self.now.active.clear()

    def worst_incident(self, last_update: int) -> OpenIncident | None:
        """Return the worst incident of all, ended or open, the first of several; None without any."""
        alarms = [*filter(None, (self.worst_ended,)), *self.now.active.values()]
        if not alarms:
            return None
        worst = min(alarms, key=_gravity)
        return replace(self._shown(worst, self._incident(worst, last_update), None, 0), verdict=worst.worst.verdict)

    def open_incidents(self, last_update: int) -> list[OpenIncident]:
        """Return the open incidents, the primary one first, then the worst; each consequence below its cause."""
        active = self.now.active
        alarms_by_start = (*self.past[-MOST_KEPT:], *active.values()) if active else ()
        listed = sorted(
            alarms_by_start, key=lambda item: (item.start, _RULE_ORDER.get(item.last.rule, len(_RULE_ORDER)))
        )
        rules = {alarm.last.rule: rule_named(alarm.last.rule) for alarm in listed}
        single = [self._incident(item, last_update) for item in listed]
        of = {(*item.key, item.start): alarm for item, alarm in zip(single, listed, strict=True)}
        nonfinite = {index for index, alarm in enumerate(listed) if _began_nonfinite(alarm)}
        incidents = with_causes(merge_nonfinite(single, nonfinite), rules)
        alarms = {index: of[(*item.key, item.start)] for index, item in enumerate(incidents) if item.ended == "open"}
        shown: list[OpenIncident] = []
        below: dict[int | None, list[int]] = {}
        for index in alarms:
            below.setdefault(incidents[index].cause, []).append(index)

        def show(index: int, depth: int) -> None:
            cause = incidents[index].cause
            shown.append(
                self._shown(alarms[index], incidents[index], None if cause is None else incidents[cause], depth)
            )
            for item in below.get(index, ()):
                show(item, depth + 1)

        roots = [index for index in alarms if incidents[index].cause not in alarms]
        first = self._first(incidents, sorted(alarms), rules) if alarms else None
        for index in sorted(
            roots, key=lambda item: (item != first, -BY_WORD[incidents[item].peak_verdict], incidents[item].start)
        ):
            show(index, 0)
        return shown

    @staticmethod
    def _first(incidents: list[Incident], indices: list[int], rules: Mapping[str, Rule]) -> int:
        """Return the index of the primary open incident, or of the open one that it is shown under."""
        order = {chosen: number for number, chosen in enumerate(indices)}
        several = [replace(incidents[chosen], cause=order.get(incidents[chosen].cause or 0)) for chosen in indices]
        chosen = indices[primary_incident(several, rules.values())]
        while incidents[chosen].cause in order:
            chosen = int(incidents[chosen].cause or 0)
        return chosen

    def _shown(self, alarm: ActiveAlarm, incident: Incident, because: Incident | None, depth: int) -> OpenIncident:
        first_finding, rule = alarm.worst, rule_named(alarm.last.rule)
        numbers = {name: getattr(first_finding, name) for name in ("value", "threshold", "baseline")}
        restated = self.restated.get(rule.name, ())
        if _in_words(rule, first_finding.metric):
            numbers = dict.fromkeys(numbers)
        elif "value" in restated or ("threshold" in restated and not _beyond(first_finding, rule)):
            numbers |= {"threshold": None, "baseline": None}
        verdict = incident.peak_verdict if incident.parts else alarm.last.verdict
        return OpenIncident(
            *(
                verdict,
                first_finding.rule,
                rule.title,
                first_finding.subject,
                first_finding.metric,
                alarm.start,
            ),
            **numbers,
            look_first=rule.look_first,
            statistic=first_finding.metric if "value" in restated else rule.statistic(first_finding.metric).name,
            value_update=first_finding.update,
            seen_by=incident.seen_by,
            about=tuple(part.key for part in incident.parts or (incident,)),
            cause=None if because is None else because.rule,
            cause_update=None if because is None else because.start,
            depth=depth,
        )

    def _incident(self, alarm: ActiveAlarm, last_update: int) -> Incident:
        """Return an alarm as an incident, the input of the detector's search for causes; its peak is not known live."""
        last_finding, limits = alarm.last, self.limits.get(alarm.last.rule, Limits())
        end = last_update if alarm.cleared is None else max(alarm.start, alarm.cleared - limits.clear_after)
        first = alarm.start if _began_nonfinite(alarm) else onset(rule_named(last_finding.rule), limits, alarm.start)
        word, peak = "open" if alarm.cleared is None else "cleared", last_finding.value or 0.0
        fields = (last_finding.rule, last_finding.subject, last_finding.metric, first, alarm.start, end, word)
        return Incident(*fields, peak, last_finding.update, alarm.worst.verdict, 1)


def _gravity(alarm: ActiveAlarm) -> tuple[int, int, int]:
    """Return what is least for the worst alarm, the first of several."""
    return -BY_WORD[alarm.worst.verdict], alarm.start, _RULE_ORDER.get(alarm.last.rule, len(_RULE_ORDER))


def _beyond(finding: Finding, rule: Rule) -> bool:
    """Whether a recorded value is at or beyond the bound recorded with it."""
    if finding.value is None or finding.threshold is None:
        return False
    return finding.value >= finding.threshold if rule.higher_is_worse else finding.value <= finding.threshold


def _began_nonfinite(alarm: ActiveAlarm) -> bool:
    """Whether the alarm began because a value was not finite."""
    began = alarm.worst
    return rule_named(began.rule).finiteness or (began.update == alarm.start and began.reason == NONFINITE)


def rule_named(name: str) -> Rule:
    """Return a rule by its name; of a custom rule only the name is known."""
    return _BUILT_IN.get(name) or replace(
        RULES[0], name=name, title=name, look_first="", causes=(), confirmed_by=None, finiteness=False
    )


def _in_words(rule: Rule, metric: str) -> bool:
    """Whether a built-in rule judged a text column: the recorded value is then only a code."""
    table = BY_NAME[rule.table]
    return rule.name in _BUILT_IN and metric in table.names and table.column(metric).kind in (Kind.TEXT, Kind.CHOICE)
