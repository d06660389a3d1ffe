"""Recall, causes, delays and false alarms of a detector on labelled runs, as the fault bench reports them.

A fault is found by the first alarm of any rule that begins with it or later, net of the twin: without the rules that
the same training without the fault raises at that time too. The cause is right if the first alarm after the onset that
is shown under no other is of a rule that the label lists. False alarms are those of sound runs that are shown under no
other; sound runs, faults and their twins are what the labels say.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

from esper_analyze.replay.labels import LabelledFault, Labels

_Z = 1.959964
"""Quantile of the normal distribution for a 95 % interval."""


@dataclass(frozen=True, slots=True)
class AlarmSpan:
    """A rule in alarm from update ``start`` to ``end`` (None: open); ``verdict`` is its worst.

    ``leading``: it is not shown under another alarm, as its consequence.
    """

    rule: str
    start: int
    end: int | None
    verdict: str
    leading: bool = True

    def lasts_until(self, update: int) -> bool:
        """Return whether it had not ended before ``update``."""
        return self.end is None or self.end >= update


@dataclass(frozen=True)
class LabelledAlarms:
    """The alarms of one run in the order of their starts, with its labels; ``twin``: those of its twin."""

    run: str
    labels: Labels
    updates: int
    alarms: tuple[AlarmSpan, ...]
    twin: LabelledAlarms | None = None

    @cached_property
    def leading(self) -> tuple[AlarmSpan, ...]:
        """The alarms that are shown under no other."""
        return tuple(alarm for alarm in self.alarms if alarm.leading)

    @property
    def has_critical(self) -> bool:
        """Whether any alarm is critical."""
        return any(alarm.verdict == "critical" for alarm in self.alarms)


@dataclass(frozen=True)
class JudgedFault:
    """One labelled fault and the alarms of its run."""

    run: LabelledAlarms
    fault: LabelledFault

    def after_onset(self, *, net: bool) -> list[AlarmSpan]:
        """Return the alarms that began with the fault; ``net``: without rules that the twin raises too."""
        twin = self.run.twin if net else None
        shared = {alarm.rule for alarm in twin.alarms if alarm.lasts_until(self.fault.onset)} if twin else set()
        return [alarm for alarm in self.run.alarms if self.fault.covers(alarm.start) and alarm.rule not in shared]

    @cached_property
    def found(self) -> AlarmSpan | None:
        """The first alarm after the onset that the twin does not have."""
        return next(iter(self.after_onset(net=True)), None)

    @property
    def delay(self) -> int | None:
        """Updates from the onset to that alarm."""
        return None if self.found is None else self.found.start - self.fault.onset

    @property
    def named(self) -> bool:
        """Whether the first leading alarm after the onset is of a rule that names the fault."""
        first = next((alarm for alarm in self.run.leading if self.fault.covers(alarm.start)), None)
        return first is not None and first.rule in self.fault.rules


@dataclass(frozen=True, slots=True)
class Share:
    """``hits`` of so many; ``low`` and ``high`` bound the share with 95 % confidence (Wilson 1927)."""

    hits: int
    of: int
    low: float
    high: float

    @property
    def words(self) -> str:
        """The share with its interval in words, in percent."""
        percent = 100 * self.hits / self.of if self.of else 0.0
        return f"{self.hits} of {self.of}: {percent:.0f} % ({100 * self.low:.0f}–{100 * self.high:.0f})"


def share(outcomes: Iterable[object]) -> Share:
    """Return how many of ``outcomes`` are true."""
    hits = [bool(outcome) for outcome in outcomes]
    return Share(sum(hits), len(hits), *wilson(sum(hits), len(hits)))


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); (0, 1) of nothing."""
    if not of:
        return 0.0, 1.0
    p = hits / of
    middle, half = p + _Z * _Z / (2 * of), _Z * math.sqrt(p * (1 - p) / of + _Z * _Z / (4 * of * of))
    return max(middle - half, 0.0) / (1 + _Z * _Z / of), min((middle + half) / (1 + _Z * _Z / of), 1.0)


RecallFigure = int | float | Share | None


@dataclass(frozen=True, slots=True)
class Recall:
    """The figures of one detector; None where there is nothing to take it of.

    Weights and macro averages are over faults: macro is the mean over the names of faults of their recall.
    Faults whose label says nothing of harm are left out of what is said of harm.
    """

    runs: int
    neither_sound_nor_changed: int
    recall: Share
    recall_net: Share
    recall_net_of_harm: Share
    recall_net_macro: float | None
    recall_net_of_harm_macro: float | None
    recall_net_by_harm: float | None
    cause_named_first: Share
    hard_at_once: Share
    delay_of_others_median: float | None
    delay_of_others_p90: float | None
    delay_median: float | None
    delay_p90: float | None
    sound_updates: int
    false_incidents: int
    false_per_1000: float | None
    false_per_1000_with_consequences: float | None
    false_per_1000_once_a_run: float | None
    sound_with_an_alarm: Share
    sound_with_a_critical: Share
    changed_with_a_critical: Share

    def items(self) -> list[tuple[str, RecallFigure]]:
        """Return each figure with its name."""
        return [(item.name, getattr(self, item.name)) for item in fields(self)]


TITLES: Mapping[str, str] = {
    "runs": "trainings",
    "neither_sound_nor_changed": "neither sound nor changed",
    "recall": "recall",
    "recall_net": "recall, net of the twin",
    "recall_net_of_harm": "recall, net, of faults that did harm",
    "recall_net_macro": "recall, net, macro over kinds",
    "recall_net_of_harm_macro": "recall, net, of harm, macro over kinds",
    "recall_net_by_harm": "recall, net, weighted by harm",
    "cause_named_first": "cause named first",
    "hard_at_once": "hard faults in the very update",
    "delay_of_others_median": "delay of the others, median",
    "delay_of_others_p90": "delay of the others, 90 %",
    "delay_median": "delay of all found, median",
    "delay_p90": "delay of all found, 90 %",
    "sound_updates": "sound updates",
    "false_incidents": "false incidents",
    "false_per_1000": "false incidents per 1,000 sound updates",
    "false_per_1000_with_consequences": "false incidents per 1,000 sound updates, with consequences",
    "false_per_1000_once_a_run": "false incidents per 1,000 sound updates, each rule once a training",
    "sound_with_an_alarm": "sound trainings with an alarm",
    "sound_with_a_critical": "sound trainings with a critical",
    "changed_with_a_critical": "hard negatives with a critical",
}
"""The figures in words."""


def recall(runs: Sequence[LabelledAlarms]) -> Recall:
    """Return the figures of one detector on ``runs``."""
    faults = judged_faults(runs)
    harmful = [each for each in faults if each.fault.did_harm]
    late = [each.delay for each in faults if each.delay is not None and not each.fault.hard]
    every = [each.delay for each in faults if each.delay is not None]
    sound = [run for run in runs if run.labels.sound]
    updates = sum(run.updates for run in sound)

    def rate(count: int) -> float | None:
        return 1000 * count / updates if updates else None

    false = sum(len(run.leading) for run in sound)
    return Recall(
        runs=len(runs),
        neither_sound_nor_changed=sum(_neither(run.labels) for run in runs),
        recall=share(each.after_onset(net=False) for each in faults),
        recall_net=share(each.found for each in faults),
        recall_net_of_harm=share(each.found for each in harmful),
        recall_net_macro=_macro(faults),
        recall_net_of_harm_macro=_macro(harmful),
        recall_net_by_harm=_weighted(faults),
        cause_named_first=share(each.named for each in faults if each.found),
        hard_at_once=share(each.delay == 0 for each in faults if each.fault.hard),
        delay_of_others_median=statistics.median(late) if late else None,
        delay_of_others_p90=_p90(late),
        delay_median=statistics.median(every) if every else None,
        delay_p90=_p90(every),
        sound_updates=updates,
        false_incidents=false,
        false_per_1000=rate(false),
        false_per_1000_with_consequences=rate(sum(len(run.alarms) for run in sound)),
        false_per_1000_once_a_run=rate(sum(len({alarm.rule for alarm in run.leading}) for run in sound)),
        sound_with_an_alarm=share(bool(run.alarms) for run in sound),
        sound_with_a_critical=share(run.has_critical for run in sound),
        changed_with_a_critical=share(run.has_critical for run in runs if run.labels.change and run.labels.healthy),
    )


def judged_faults(runs: Iterable[LabelledAlarms]) -> list[JudgedFault]:
    """Return every labelled fault of ``runs``."""
    return [JudgedFault(run, fault) for run in runs for fault in run.labels.faults]


def _neither(labels: Labels) -> bool:
    return not (labels.faults or labels.change or labels.healthy)


def _p90(delays: Sequence[int]) -> float | None:
    return statistics.quantiles(delays, n=10)[-1] if len(delays) > 1 else None


def _macro(faults: Sequence[JudgedFault]) -> float | None:
    by_name: dict[str, list[bool]] = defaultdict(list)
    for each in faults:
        by_name[each.fault.name].append(each.found is not None)
    return statistics.fmean(statistics.fmean(hits) for hits in by_name.values()) if by_name else None


def _weighted(faults: Sequence[JudgedFault]) -> float | None:
    known = [(each.fault.harm or 0.0, each) for each in faults]
    harm = sum(weight for weight, _ in known)
    return sum(weight for weight, each in known if each.found) / harm if harm else None


@dataclass(frozen=True, slots=True)
class FaultKind:
    """The faults of one name: how many were found and named, by which rule first, and in which runs none was."""

    name: str
    faults: int
    harmful: int
    found: int
    named: int
    found_first_by: Mapping[str, int]
    missed: tuple[str, ...]


def fault_kinds(runs: Sequence[LabelledAlarms]) -> list[FaultKind]:
    """Return the faults of ``runs`` by name."""
    by_name: dict[str, list[JudgedFault]] = defaultdict(list)
    for each in judged_faults(runs):
        by_name[each.fault.name].append(each)
    return [_kind(name, faults) for name, faults in sorted(by_name.items())]


def _kind(name: str, faults: Sequence[JudgedFault]) -> FaultKind:
    first = Counter(each.found.rule if each.found else "nothing" for each in faults)
    return FaultKind(
        name,
        len(faults),
        sum(each.fault.did_harm for each in faults),
        sum(each.found is not None for each in faults),
        sum(each.named for each in faults),
        dict(first.most_common()),
        tuple(each.run.run for each in faults if each.found is None),
    )


@dataclass(frozen=True, slots=True)
class RunGroup:
    """The runs of which a label's group is ``value``: recall net of the twin, and false alarms of the sound ones."""

    group: str
    value: str
    recall_net: Share
    sound_updates: int
    false_incidents: int
    false_per_1000: float | None


def run_groups(runs: Sequence[LabelledAlarms]) -> list[RunGroup]:
    """Return the figures by each group that labels name."""
    members: dict[str, dict[str, list[LabelledAlarms]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for group, value in run.labels.groups.items():
            members[group][value].append(run)
    listed = []
    for group, values in members.items():
        for value, of_value in sorted(values.items()):
            figures = recall(of_value)
            false = figures.sound_updates, figures.false_incidents, figures.false_per_1000
            listed.append(RunGroup(group, value, figures.recall_net, *false))
    return listed


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """How often a rule alarmed sound runs with one verdict, shown under no other alarm, and in which runs."""

    rule: str
    verdict: str
    times: int
    runs: tuple[str, ...]


def false_alarms(runs: Sequence[LabelledAlarms]) -> list[FalseAlarms]:
    """Return which rules alarmed sound runs, the most frequent first."""
    where: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run in runs:
        for alarm in run.leading if run.labels.sound else ():
            where[alarm.rule, alarm.verdict].append(run.run)
    ordered = sorted(where.items(), key=lambda entry: -len(entry[1]))
    return [FalseAlarms(rule, verdict, len(names), tuple(sorted(set(names)))) for (rule, verdict), names in ordered]
