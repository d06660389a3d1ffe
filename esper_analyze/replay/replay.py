"""Replay a recorded run through the detector, with the recorded thresholds or others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from esper_analyze.detector.conditions.applicability import FORMER_REASONS, FORMER_VERDICTS
from esper_analyze.detector.detector import Detector, Outcome, RuleVerdicts
from esper_analyze.detector.escalation import LevelChange
from esper_analyze.detector.findings import Finding, in_effect
from esper_analyze.detector.incidents import Incident, IncidentTracker, open_between, unmerged
from esper_analyze.detector.rule import VERDICT, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Batch
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Verdict, is_all_ok
from esper_analyze.errors import DamagedError
from esper_analyze.replay.batches import read_batches
from esper_analyze.replay.recorded_rules import foreign_rules, restated_since, stored_thresholds
from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema.tables import LEVELS
from esper_analyze.schema.tables.events import CONTINUED, RESUMED_FRESH

Item = TypeVar("Item")
_SIDES = ("replay", "recorded")
Restated = Mapping[str, tuple[str, ...]]
"""Rule → the fields of its findings that an earlier revision computed differently, see ``restated_since``."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """In how many updates a rule could not judge a subject, and why."""

    rule: str
    subject: str
    metric: str
    verdict: str
    reason: str
    count: int


@dataclass(slots=True)
class Replay:
    """The detector's results over a complete run."""

    thresholds: Thresholds
    rules: tuple[Rule, ...] = RULES
    updates: int = 0
    findings: list[Finding] = field(default_factory=list)
    levels: list[LevelChange] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    verdict_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    unjudged: list[Unjudged] = field(default_factory=list)

    @property
    def single_incidents(self) -> list[Incident]:
        """The incidents per rule and subject, unmerged: a NaN that several rules report counts several times."""
        return unmerged(self.incidents)

    def between(self, first: int, last: int, updates: int) -> Replay:
        """Return the findings in effect and the incidents open at some update from ``first`` to ``last``.

        ``updates``: how many there are. Counts of verdicts, and what could not be judged, stay those of the whole run.
        """
        findings = in_effect(self.findings, first, last)
        return replace(self, updates=updates, findings=findings, incidents=open_between(self.incidents, first, last))


@dataclass(frozen=True, slots=True)
class Difference:
    """A finding or level change that only one side has: ``only`` is "replay" or "recorded"."""

    only: str
    update: int
    text: str


def replay(
    run: RecordedRun,
    thresholds: Thresholds | None = None,
    *,
    rules: Sequence[Rule] = RULES,
    progress: Callable[[int], None] | None = None,
    observe: Callable[[Outcome], None] | None = None,
) -> Replay:
    """Replay ``run`` through the detector, streaming shard by shard; several ranks are merged first.

    Replay ``run.only(rank)`` for one rank's own detector. ``thresholds`` default to those stored in the run; ``rules``
    without stored thresholds use their defaults. ``progress`` is called with the last update processed, ``observe``
    with each batch's outcome.
    """
    run = merged_run(run)
    chosen = stored_thresholds(run, rules) if thresholds is None else thresholds.completed(rules)
    level = run.info.get("level", "NORMAL")
    if level not in LEVELS:
        raise DamagedError(f"{run.path}: run.json names the level {level!r}; levels are {', '.join(LEVELS)}")
    detector = Detector(chosen, level=level, rules=rules)
    result = Replay(chosen, tuple(rules))
    tracker, unjudged = IncidentTracker(chosen), _UnjudgedCounter()
    for batch in between(read_batches(run, detector.wanted), fresh := fresh_starts(run)):
        if len(batch.update) and int(batch.update[0]) in fresh:
            detector = Detector(chosen, level=level, rules=rules)
        outcome = detector.process(batch)
        result.updates += len(batch.update)
        result.findings += outcome.findings
        result.levels += outcome.levels
        tracker.take(outcome)
        for judged in outcome.judged:
            _count(result.verdict_counts.setdefault(judged.rule.name, {}), judged)
            unjudged.take(judged)
        if observe is not None:
            observe(outcome)
        if progress is not None:
            progress(int(batch.update[-1]))
    result.incidents = tracker.incidents()
    result.unjudged = unjudged.listed()
    return result


def merged_run(run: RecordedRun) -> RecordedRun:
    """Return ``run`` with its ranks merged if it has several, else ``run``."""
    if run.merged is not None or len(run.ranks) < 2:
        return run
    from esper_analyze.runs.merge_ranks import merge_ranks

    return merge_ranks(run)


def fresh_starts(run: RecordedRun) -> list[int]:
    """Return the updates at which a resumed recording began with a fresh detector, without the earlier state."""
    rows = run.frame("losses_of_data", ["update", "kind"]).to_dicts()
    return sorted({row["update"] for row in rows if row["kind"] == RESUMED_FRESH})


def continued(run: RecordedRun) -> bool:
    """Whether the live detector began with the state of another recording's detector."""
    return CONTINUED in run.frame("losses_of_data", ["kind"])["kind"].to_list()


def between(batches: Iterable[Batch], edges: Sequence[int]) -> Iterator[Batch]:
    """Yield batches, split so that each update in ``edges`` begins a batch."""
    for batch in batches:
        offsets = [0, *np.searchsorted(batch.update, edges).tolist(), len(batch.update)]
        for start, stop in pairwise(offsets):
            if stop > start:
                yield batch if stop - start == len(batch.update) else batch.part(start, stop)


def _count(counts: dict[str, int], judged: RuleVerdicts) -> None:
    for judgement in judged.judgements:
        if is_all_ok(judgement.code):
            counts[Verdict.OK.word] = counts.get(Verdict.OK.word, 0) + judgement.code.size
            continue
        for code, number in enumerate(np.bincount(judgement.code.ravel(), minlength=len(Verdict)).tolist()):
            if number and code != Verdict.ABSENT:
                word = Verdict(code).word
                counts[word] = counts.get(word, 0) + number


class _UnjudgedCounter:
    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str, str, str]] = Counter()

    def take(self, judged: RuleVerdicts) -> None:
        for judgement in judged.judgements:
            if is_all_ok(judgement.code):
                continue
            for verdict in (Verdict.NOT_APPLICABLE, Verdict.NO_DATA):
                where = judgement.code == verdict
                if not where.any():
                    continue
                for k in np.flatnonzero(where.any(axis=0)):
                    for reason, number in zip(
                        *np.unique(judgement.reason[where[:, k], k], return_counts=True), strict=True
                    ):
                        why = judgement.reasons[int(reason)]
                        key = (judged.rule.name, judged.subjects[k], judgement.metric, verdict.word, why)
                        self.counts[key] += int(number)

    def listed(self) -> list[Unjudged]:
        return [Unjudged(*key, number) for key, number in self.counts.items()]


def recorded(run: RecordedRun) -> tuple[list[Finding], list[LevelChange]]:
    """Return the findings and level changes that were recorded live, of all ranks of ``run``.

    Findings of another tool's detector in an imported run are left out: replay cannot reproduce them.
    """
    foreign = foreign_rules(run)
    return (
        [Finding(**row) for row in _rows(run, "findings", Finding) if row["rule"] not in foreign],
        [LevelChange(**row) for row in _rows(run, "levels", LevelChange)],
    )


def _rows(run: RecordedRun, table: str, kind: type) -> list[dict[str, Any]]:
    return run.frame(table, [item.name for item in fields(kind)]).to_dicts()


def differences(
    replayed: Replay, live: tuple[list[Finding], list[LevelChange]], restated: Restated = MappingProxyType({})
) -> list[Difference]:
    """Return findings and level changes that only replay or only the recording has; numbers are compared bitwise.

    ``restated`` names, by rule, fields that an earlier revision computed differently; they are not compared. Where that
    is the verdict itself nothing of the rule is, and no level change if the rule has findings: one may follow from it.
    """
    apart = {name for name, what in restated.items() if VERDICT in what}
    ours, theirs = ([one for one in side if one.rule not in apart] for side in (replayed.findings, live[0]))
    findings = unshared(ours, theirs, lambda finding: finding_key(finding, restated))
    alike = len(ours) == len(replayed.findings) and len(theirs) == len(live[0])
    levels: tuple[list[LevelChange], list[LevelChange]] = unshared(replayed.levels, live[1]) if alike else ([], [])
    listed = [
        Difference(only, finding.update, finding_text(finding))
        for only, side in zip(_SIDES, findings, strict=True)
        for finding in side
    ]
    listed += [
        Difference(only, change.update, level_text(change))
        for only, side in zip(_SIDES, levels, strict=True)
        for change in side
    ]
    return sorted(listed, key=lambda difference: (difference.update, difference.only, difference.text))


def verified(run: RecordedRun, result: Replay) -> list[Difference]:
    """Return how ``result``, a replay of ``run``, differs from the recording; several ranks are replayed one by one.

    Several ranks are judged by themselves while they train, so each is compared with its own replay.
    """
    restated = restated_since(run.info, result.rules)
    if len(run.ranks) < 2:
        return differences(result, recorded(run), restated)
    listed = []
    for rank in run.ranks:
        rank_run = run.only(rank)
        replayed = replay(rank_run, result.thresholds, rules=result.rules)
        apart = differences(replayed, recorded(rank_run), restated)
        listed += [replace(difference, text=f"rank {rank}: {difference.text}") for difference in apart]
    return listed


def finding_key(finding: Finding, restated: Restated = MappingProxyType({})) -> tuple[object, ...]:
    """Return the identity of a finding: its fields, numbers by their exact bits, without those in ``restated``."""
    compared = [name for name in ("value", "threshold", "baseline") if name not in restated.get(finding.rule, ())]
    numbers = tuple(None if x is None else float(x).hex() for x in (getattr(finding, name) for name in compared))
    reason = FORMER_REASONS.get(finding.reason or "", finding.reason)
    verdict = FORMER_VERDICTS.get((finding.rule, finding.verdict, reason or ""), (finding.verdict, reason))
    return (finding.update, finding.rule, finding.subject, finding.metric, finding.previous, *verdict, *numbers)


def unshared(
    ours: Iterable[Item], theirs: Iterable[Item], key: Callable[[Item], object] = lambda item: item
) -> tuple[list[Item], list[Item]]:
    """Return what only the first and what only the second side has; items with the same key are the same."""
    first, second = ({key(item): item for item in side} for side in (ours, theirs))
    return [first[k] for k in first if k not in second], [second[k] for k in second if k not in first]


def finding_text(finding: Finding) -> str:
    """Return a finding as one line of text, without its update."""
    value = "" if finding.value is None else f" at {finding.value:.6g}"
    return f"{finding.rule} on {finding.subject} ({finding.metric}): {finding.verdict}{value}"


def level_text(change: LevelChange) -> str:
    """Return a change of level as one line of text, without its update."""
    cause = f" because of {change.rule} on {change.subject}" if change.rule else ""
    return f"level {change.previous} to {change.level}{cause}"
