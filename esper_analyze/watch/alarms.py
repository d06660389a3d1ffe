"""Troubles that are open, made from the live detector's findings as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from esper_analyze.detector.findings import Finding
from esper_analyze.detector.incidents import Incident, merge_nonfinite, onset, with_causes
from esper_analyze.detector.rule import Limits, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import ThresholdError, Thresholds
from esper_analyze.detector.verdict import BY_WORD, NONFINITE, Verdict
from esper_analyze.replay.recorded_rules import restated_since
from esper_analyze.reports.narrative.primary_incident import primary_incident
from esper_analyze.schema import BY_NAME, Kind

MOST_KEPT = 1_000
"""Incidents that have ended and are kept: they may be the cause of an open one."""
_Key = tuple[str, str, str]
_OWN = {rule.name: rule for rule in RULES}
_PLACE = {name: place for place, name in enumerate(_OWN)}


@dataclass(frozen=True, slots=True)
class Ringing:
    """One trouble: its last finding, the one that made it as bad as it was, when it began and ended (None: open)."""

    finding: Finding
    start: int
    worst: str
    alarm: Finding
    ended: int | None = None


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """An open trouble as it is shown. ``cause`` names what it is shown under, ``depth`` how far below.

    ``statistic`` names what was judged, ``value`` is what it was at ``value_update``, where it crossed ``threshold``.
    ``worst`` and ``now`` are known where the recording holds that number at every update: the worst since
    ``worst_since``, the beginning or the first update that is looked back on. ``said`` is what stood in a judged column
    of words, which has no ``value``. ``seen_by`` are the rules that see the same NaN, or the one rule alone, and
    ``about`` rule, subject and metric of each.
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
    about: tuple[_Key, ...] = ()
    cause: str | None = None
    cause_update: int | None = None
    depth: int = 0


@dataclass(slots=True)
class Alarms:
    """Takes findings in order."""

    limits: dict[str, Limits] = field(default_factory=dict)
    restated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    now: dict[_Key, Ringing] = field(default_factory=dict)
    past: list[Ringing] = field(default_factory=list)
    ended: int = 0
    ended_nonfinite: set[int] = field(default_factory=set)

    @classmethod
    def judged_with(cls, info: Mapping[str, object]) -> Alarms:
        """Return an empty memory that knows how long a streak had to be; what cannot be read is the default."""
        thresholds = info.get("thresholds")
        found = dict(Thresholds.defaults(RULES).by_rule)
        for name, values in thresholds.items() if isinstance(thresholds, Mapping) else ():
            if name in found:
                try:
                    found[name] = Thresholds.defaults(RULES).merged({name: values})[name]
                except ThresholdError:
                    continue
        return cls(found, restated_since(info, RULES))

    def take(self, row: Mapping[str, Any]) -> None:
        """Take up one row of table ``findings``."""
        columns = ("update", "rule", "subject", "metric", "verdict", "value", "threshold", "baseline", "reason")
        finding = Finding(**{name: row[name] for name in columns}, previous=None)
        code, key = BY_WORD.get(finding.verdict, Verdict.NO_DATA), (finding.rule, finding.subject, finding.metric)
        open_now = self.now.get(key)
        if code >= Verdict.WARNING:
            if open_now is None:
                self.now[key] = Ringing(finding, finding.update, code.word, finding)
            else:
                worse = code > BY_WORD[open_now.worst]
                worst, alarm = (code.word, finding) if worse else (open_now.worst, open_now.alarm)
                self.now[key] = Ringing(finding, open_now.start, worst, alarm)
        elif code >= Verdict.OK and open_now is not None:
            self._end(key, finding.update)

    def _end(self, key: _Key, update: int) -> None:
        alarm = self.now.pop(key)
        self.past.append(replace(alarm, ended=update))
        if _began_nonfinite(alarm):
            self.ended_nonfinite.add(alarm.start)
        else:
            self.ended += 1
        if len(self.past) > 2 * MOST_KEPT:
            del self.past[:-MOST_KEPT]

    @property
    def number_ended(self) -> int:
        """How many incidents have ended; what several rules see of one NaN is one."""
        still = {alarm.start for alarm in self.now.values() if _began_nonfinite(alarm)}
        return self.ended + len(self.ended_nonfinite - still)

    def begin_anew(self, update: int) -> None:
        """End what is open: from ``update`` on a detector judges that knows nothing of it."""
        for key in list(self.now):
            self._end(key, update)

    def open_incidents(self, last_update: int) -> list[OpenIncident]:
        """Return what is open now, the first cause first, then the worst; each consequence below its cause."""
        alarms_by_start = (*self.past[-MOST_KEPT:], *self.now.values()) if self.now else ()
        listed = sorted(alarms_by_start, key=lambda one: (one.start, _PLACE.get(one.finding.rule, len(_PLACE))))
        rules = {alarm.finding.rule: rule_named(alarm.finding.rule) for alarm in listed}
        single = [self._incident(one, last_update) for one in listed]
        of = {(*_key(one), one.start): alarm for one, alarm in zip(single, listed, strict=True)}
        nonfinite = {place for place, alarm in enumerate(listed) if _began_nonfinite(alarm)}
        found = with_causes(merge_nonfinite(single, nonfinite), rules)
        alarms = {place: of[(*_key(one), one.start)] for place, one in enumerate(found) if one.ended == "open"}
        shown: list[OpenIncident] = []
        below: dict[int | None, list[int]] = {}
        for place in alarms:
            below.setdefault(found[place].cause, []).append(place)

        def show(place: int, depth: int) -> None:
            cause = found[place].cause
            shown.append(self._shown(alarms[place], found[place], None if cause is None else found[cause], depth))
            for one in below.get(place, ()):
                show(one, depth + 1)

        roots = [place for place in alarms if found[place].cause not in alarms]
        first = self._first(found, sorted(alarms), rules) if alarms else None
        for place in sorted(roots, key=lambda one: (one != first, -BY_WORD[found[one].peak_verdict], found[one].start)):
            show(place, 0)
        return shown

    @staticmethod
    def _first(found: list[Incident], places: list[int], rules: Mapping[str, Rule]) -> int:
        """Return the position of the open incident that leads, or of the open one that it is shown under."""
        index = {place: number for number, place in enumerate(places)}
        several = [replace(found[place], cause=index.get(found[place].cause or 0)) for place in places]
        place = places[primary_incident(several, rules.values())]
        while found[place].cause in index:
            place = int(found[place].cause or 0)
        return place

    def _shown(self, alarm: Ringing, incident: Incident, because: Incident | None, depth: int) -> OpenIncident:
        said, rule = alarm.alarm, rule_named(alarm.finding.rule)
        numbers = {name: getattr(said, name) for name in ("value", "threshold", "baseline")}
        restated = self.restated.get(rule.name, ())
        if _in_words(rule, said.metric):
            numbers = dict.fromkeys(numbers)
        elif "value" in restated or ("threshold" in restated and not _beyond(said, rule)):
            numbers |= {"threshold": None, "baseline": None}
        verdict = incident.peak_verdict if incident.parts else alarm.finding.verdict
        return OpenIncident(
            *(
                verdict,
                said.rule,
                rule.title,
                said.subject,
                said.metric,
                alarm.start,
            ),
            **numbers,
            look_first=rule.look_first,
            statistic=said.metric if "value" in restated else rule.statistic(said.metric).name,
            value_update=said.update,
            seen_by=incident.seen_by,
            about=tuple(_key(one) for one in incident.parts or (incident,)),
            cause=None if because is None else because.rule,
            cause_update=None if because is None else because.start,
            depth=depth,
        )

    def _incident(self, alarm: Ringing, last_update: int) -> Incident:
        """Return an alarm as the detector's own search for causes takes it; its peak is not known live."""
        said, limits = alarm.finding, self.limits.get(alarm.finding.rule, Limits())
        end = last_update if alarm.ended is None else max(alarm.start, alarm.ended - limits.clear_after)
        first = alarm.start if _began_nonfinite(alarm) else onset(rule_named(said.rule), limits, alarm.start)
        word, peak = "open" if alarm.ended is None else "cleared", said.value or 0.0
        place = (said.rule, said.subject, said.metric, first, alarm.start, end, word)
        return Incident(*place, peak, said.update, alarm.worst, 1)


def _beyond(said: Finding, rule: Rule) -> bool:
    """Whether a recorded value is at or beyond the bound recorded with it."""
    if said.value is None or said.threshold is None:
        return False
    return said.value >= said.threshold if rule.higher_is_worse else said.value <= said.threshold


def _key(one: Incident) -> _Key:
    return one.rule, one.subject, one.metric


def _began_nonfinite(alarm: Ringing) -> bool:
    """Whether the trouble began because something was not finite."""
    began = alarm.alarm
    return rule_named(began.rule).finiteness or (began.update == alarm.start and began.reason == NONFINITE)


def rule_named(name: str) -> Rule:
    """Return a rule by its name; one of the user's own is known by its name alone."""
    return _OWN.get(name) or replace(
        RULES[0], name=name, title=name, look_first="", causes=(), confirmed_by=None, finiteness=False
    )


def _in_words(rule: Rule, metric: str) -> bool:
    """Whether a rule of the program judged a column of words: the value is then a number for them."""
    table = BY_NAME[rule.table]
    return rule.name in _OWN and metric in table.names and table.column(metric).kind in (Kind.TEXT, Kind.CHOICE)
