"""The detector: batches of updates in; verdicts, findings, level changes and filled columns out.

The recorder runs it live with one update per batch, replay over complete shards; results are the same. Rules compute
on whatever was recorded, so numpy does not warn within: overflow, division by zero and NaN are values, and judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from esper_analyze.detector.conditions.shared import TABLE, SharedConditions
from esper_analyze.detector.conditions.stand_ins import LOGGED
from esper_analyze.detector.deferral import Deferral
from esper_analyze.detector.deferral_guards import DeferralGuard
from esper_analyze.detector.escalation import NORMAL, Escalation, LevelChange
from esper_analyze.detector.findings import Announcer, Finding
from esper_analyze.detector.hysteresis import Hysteresis
from esper_analyze.detector.rule import Limits, Memory, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Batch, Bools, Floats, Frame, Ints
from esper_analyze.detector.subjects import PARAMETERS_CHANGED, Frames, changes, joined_subjects
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Judgement, Verdict, is_all_ok


@dataclass(frozen=True, slots=True)
class RuleVerdicts:
    """One rule's verdicts over a batch: subjects, and one judgement per metric (none before the first subject)."""

    rule: Rule
    subjects: tuple[str, ...]
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The detector's results for one batch.

    ``judged`` is empty if the detector defers updates, because then not every rule has evaluated the batch. ``filled``
    maps (table, column) to subjects and values [n, k], NaN where nothing is to be filled.
    """

    update: Ints
    judged: tuple[RuleVerdicts, ...]
    findings: tuple[Finding, ...]
    levels: tuple[LevelChange, ...]
    filled: Mapping[tuple[str, str], tuple[tuple[str, ...], Floats]]


_Filled = dict[tuple[str, str], tuple[tuple[str, ...], Floats]]
_Ordered = tuple[int, int, int, Finding]
"""A finding with its sort key before it: update, index of the rule, index of the subject."""
_ABSENT, _NO_REASON = np.int8(Verdict.ABSENT), np.int8(0)


class _RuleState:
    """Carried state of one rule: its subjects, which of them have had a row, its memory, its last verdicts."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.subjects: tuple[str, ...] = ()
        self.seen: Bools = np.zeros(0, bool)
        self.memory: Memory = {name: first(0) for name, first in rule.memory.items()}
        self.announcers: dict[str, Announcer] = {}
        self.hysteresis: dict[str, Hysteresis] = {}
        self._frame: Frame | None = None

    def admit(self, subjects: Sequence[str]) -> None:
        """Extend the state by new subjects, in order of appearance."""
        if subjects == self.subjects:
            return
        new = [name for name in subjects if name not in self.subjects]
        if not new:
            return
        self.subjects += tuple(new)
        self.seen = np.concatenate([self.seen, np.zeros(len(new), bool)])
        for name, first in self.rule.memory.items():
            self.memory[name] = np.concatenate([self.memory[name], first(len(new))], axis=-1)

    def judge(self, frames: Frames, limits: Limits) -> RuleVerdicts:
        self.admit(frames.subjects(self.rule.table))
        if not self.subjects:
            return RuleVerdicts(self.rule, (), ())
        frame = frames.aligned(self.rule.table, self.subjects)
        if self.rule.joined:
            frame = frames.beside(frame, self.rule)
        self._frame = frame
        parameters_changed = frames.parameters_changed(self.rule.table, self.subjects)
        judgements = self._met(frame.present, self._judge(frame, parameters_changed, limits))
        for judgement in judgements:
            of_metric = self.hysteresis.get(judgement.metric)
            if of_metric is None:
                of_metric = self.hysteresis[judgement.metric] = Hysteresis(limits.clear_after)
            if of_metric.busy or not is_all_ok(judgement.code):
                judgement.after_hysteresis = of_metric.apply(judgement.code)
        return RuleVerdicts(self.rule, self.subjects, tuple(judgements))

    def _judge(self, frame: Frame, parameters_changed: Bools | None, limits: Limits) -> list[Judgement]:
        """Judge ``frame``; a subject's memory is reset at updates where ``parameters_changed`` [n, k] is set."""
        if parameters_changed is None:
            return self.rule.judge(frame, self.memory, limits)
        parts: list[list[Judgement]] = []
        filled: dict[str, list[Floats]] = {column: [] for column in self.rule.fills}
        edges = [0, *np.flatnonzero(parameters_changed.any(axis=1)).tolist(), len(parameters_changed)]
        for start, stop in pairwise(edges):
            if start == stop:
                continue
            for name, first in self.rule.memory.items():
                self.memory[name] = np.where(parameters_changed[start], first(len(self.subjects)), self.memory[name])
            parts.append(self.rule.judge(frame.rows(start, stop), self.memory, limits))
            for column, values in filled.items():
                values.append(self.memory.pop(column))
        self.memory |= {column: np.concatenate(values) for column, values in filled.items()}
        return [Judgement.joined(ones) for ones in zip(*parts, strict=True)]

    def guard(self, judged: RuleVerdicts, limits: Limits) -> tuple[DeferralGuard, Frame] | None:
        """Return the rule's guard after the updates just judged, with the last update's frame; None without one."""
        rule, frame = self.rule, self._frame
        if rule.guard is None or rule.fills or frame is None or not all(map(_settled, judged.judgements)):
            return None
        if LOGGED in rule.conditions and np.count_nonzero(LOGGED.holds(frame)[-1:]):
            return None  # guards are of what is recorded, not of what stands in for it
        if len(frame.present) > 1:
            frame = frame.last((*rule.columns, *rule.columns_beside))
        guard = rule.guard(frame, self.memory, limits)
        return None if guard is None else (guard, frame)

    def _met(self, present: Bools, judgements: list[Judgement]) -> list[Judgement]:
        """Reset verdicts on subjects before their first row to ABSENT."""
        if np.count_nonzero(self.seen) == len(self.seen):
            return judgements
        met = np.logical_or.accumulate(np.concatenate([self.seen[None, :], present]), axis=0)[1:]
        if len(met):
            self.seen = met[-1].copy()
        if met.all():
            return judgements
        return [
            replace(
                judgement,
                code=np.where(met, judgement.code, _ABSENT),
                reason=np.where(met, judgement.reason, _NO_REASON),
            )
            for judgement in judgements
        ]

    def findings(self, update: Ints, judged: RuleVerdicts) -> list[tuple[int, int, Finding]]:
        numbered = []
        for judgement in judged.judgements:
            announcer = self.announcers.get(judgement.metric)
            if announcer is None:
                announcer = self.announcers[judgement.metric] = Announcer()
            numbered += announcer.findings(self.rule.name, update, judged.subjects, judgement)
        return numbered


def _settled(judgement: Judgement) -> bool:
    """Whether hysteresis changes no verdict of the last update, so that none is about to clear."""
    standing = judgement.after_hysteresis
    return standing is None or standing[-1].tobytes() == judgement.code[-1].tobytes()


class Detector:
    """All rules over the updates of one rank, in order.

    ``level`` is the base telemetry level that escalation starts from and returns to; ``wanted`` the columns the rules
    read, by table. With ``defer``, rules whose guard allows it evaluate single updates later, several at once:
    findings, levels and filled columns are the same at the same updates, at a fraction of the cost, but ``judged`` is
    empty.
    """

    def __init__(
        self,
        thresholds: Thresholds | None = None,
        *,
        level: str = NORMAL,
        rules: Sequence[Rule] = RULES,
        defer: bool = False,
    ) -> None:
        self.rules = tuple(rules)
        self.thresholds = thresholds or Thresholds.defaults(self.rules)
        self.escalation = Escalation(level)
        self._conditions = SharedConditions(self.rules)
        self.wanted = _wanted(self.rules, self._conditions.columns)
        self._states = [_RuleState(rule) for rule in self.rules]
        self._limits = [self.thresholds[rule.name] for rule in self.rules]
        self._deferral = Deferral(self.rules, joined_subjects) if defer else None
        self._late: list[_Ordered] = []
        self._last_update = -1

    @np.errstate(all="ignore")
    def process(self, batch: Batch) -> Outcome:
        """Judge the next updates. Raises ``ValueError`` unless they follow those already processed."""
        updates = batch.update.tolist()
        if updates and (updates[0] <= self._last_update or (len(updates) > 1 and np.diff(batch.update).min() <= 0)):
            raise ValueError(f"updates must increase: got {updates[0]} after {self._last_update}")
        batch = self._conditions.joined(batch)
        filled: _Filled = {}
        judge = self._judge_all if self._deferral is None else self._judge_due
        judged, ordered = judge(batch, filled)
        ordered.sort(key=itemgetter(0, 1, 2))
        triggers = [(finding, self._limits[order].escalate) for _, order, _, finding in ordered if finding.alarm]
        levels = self.escalation.advance(updates, triggers)
        if updates:
            self._last_update = updates[-1]
        return Outcome(batch.update, tuple(judged), tuple([finding for *_, finding in ordered]), tuple(levels), filled)

    def _judge_all(self, batch: Batch, filled: _Filled) -> tuple[list[RuleVerdicts], list[_Ordered]]:
        """Let every rule judge every update of ``batch``."""
        frames = Frames(batch, self.wanted)
        judged, ordered = [], []
        for order in range(len(self._states)):
            result, news = self._judge_rule(order, frames, filled)
            judged.append(result)
            ordered += news
        return judged, ordered

    def _judge_due(self, batch: Batch, filled: _Filled) -> tuple[list[RuleVerdicts], list[_Ordered]]:
        """Let the rules that are due judge ``batch``, together with their deferred updates before it."""
        deferral = self._deferral
        assert deferral is not None
        if not len(batch.update):
            return [], []
        if not deferral.follows(batch) or changes(batch) is not None:
            self._evaluate_deferred()
        ordered, self._late = self._late, []
        frames: dict[int, Frames] = {}
        for order in deferral.take(batch):
            number = deferral.updates(order)
            if number not in frames:
                frames[number] = Frames(deferral.last(number), self.wanted)
            result, news = self._judge_rule(order, frames[number], filled)
            ordered += news
            if not result.subjects:
                deferral.judged(order)
                deferral.rest(order)
            elif deferral.judged(order):
                promise = self._states[order].guard(result, self._limits[order])
                if promise is not None:
                    deferral.defer(order, *promise)
        return [], ordered

    def _judge_rule(self, order: int, frames: Frames, filled: _Filled) -> tuple[RuleVerdicts, list[_Ordered]]:
        """Let the rule at ``order`` judge ``frames``; the columns it fills are added to ``filled``."""
        state = self._states[order]
        result = state.judge(frames, self._limits[order])
        ordered = [(finding.update, order, k, finding) for _, k, finding in state.findings(frames.update, result)]
        for column in state.rule.fills if result.subjects else ():
            filled[state.rule.table, column] = (result.subjects, state.memory.pop(column))
        return result, ordered

    @np.errstate(all="ignore")
    def _evaluate_deferred(self) -> None:
        """Evaluate all deferred updates. None should produce findings; any that do are emitted late."""
        if self._deferral is None:
            return
        for order in range(len(self._states)):
            number = self._deferral.updates(order)
            if number:
                self._late += self._judge_rule(order, Frames(self._deferral.last(number), self.wanted), {})[1]
        self._deferral.forget()

    def state_dict(self) -> dict[str, Any]:
        """Return all carried state as plain data, to be saved with a checkpoint."""
        self._evaluate_deferred()
        return {
            "last_update": self._last_update,
            "escalation": self.escalation.state_dict(),
            "conditions": self._conditions.state_dict(),
            "rules": {
                state.rule.name: {
                    "subjects": list(state.subjects),
                    "seen": state.seen.tolist(),
                    "memory": {name: array.tolist() for name, array in state.memory.items()},
                    "announcers": {name: announcer.state_dict() for name, announcer in state.announcers.items()},
                    "holds": {name: of_metric.last.tolist() for name, of_metric in state.hysteresis.items()},
                }
                for state in self._states
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from ``state_dict``; rules that it does not contain start fresh.

        Raises ``ValueError`` when the memory of a rule has another shape than when the state was saved.
        """
        if self._deferral is not None:
            self._deferral.forget()
        self._last_update = int(state["last_update"])
        self.escalation.load_state_dict(state["escalation"])
        self._conditions.load_state_dict(state.get("conditions", {}))
        for mine in self._states:
            theirs = state["rules"].get(mine.rule.name)
            if theirs is None:
                continue
            mine.subjects = tuple(theirs["subjects"])
            mine.seen = np.array(theirs["seen"], bool)
            for name, first in mine.rule.memory.items():
                mine.memory[name] = _restored(mine.rule, name, theirs["memory"].get(name), first(len(mine.subjects)))
            for metric, saved in theirs["announcers"].items():
                mine.announcers.setdefault(metric, Announcer()).load_state_dict(saved)
            for metric, last in theirs["holds"].items():
                mine.hysteresis[metric] = Hysteresis(self.thresholds[mine.rule.name].clear_after)
                mine.hysteresis[metric].resume(last)


def _wanted(rules: Iterable[Rule], of_conditions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the columns that ``rules`` and their conditions read, by table."""
    wanted: dict[str, dict[str, None]] = {}
    for rule in rules:
        for table, columns in ((rule.table, rule.columns), *rule.beside.items()):
            wanted.setdefault(table, {}).update(dict.fromkeys(columns))
    if of_conditions:
        wanted.setdefault(TABLE, {}).update(dict.fromkeys(of_conditions))
    if wanted.keys() & {PARAMETERS_CHANGED[0], "heads"}:
        wanted.setdefault(PARAMETERS_CHANGED[0], {})[PARAMETERS_CHANGED[1]] = None
    return {table: tuple(columns) for table, columns in wanted.items()}


def _restored(rule: Rule, name: str, saved: object, blank: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return carried state ``name`` as an array like ``blank``."""
    if saved is None or (array := np.array(saved, blank.dtype)).size != blank.size:
        raise ValueError(f"saved state of rule {rule.name} does not fit: {name!r} must hold {blank.shape} numbers")
    return array.reshape(blank.shape)
