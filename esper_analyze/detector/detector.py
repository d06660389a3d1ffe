"""The detector: batches of updates in; verdicts, findings, level changes and filled columns out.

The recorder runs it live with one update a batch, replay runs it over whole shards; it cannot tell which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from esper_analyze.detector.deferral import PutOff
from esper_analyze.detector.deferral_guards import Guard
from esper_analyze.detector.escalation import NORMAL, Escalation, LevelChange
from esper_analyze.detector.findings import Announcer, Finding
from esper_analyze.detector.hysteresis import Hold
from esper_analyze.detector.rule import Limits, Memory, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Batch, Bools, Floats, Frame, Ints
from esper_analyze.detector.subjects import AFRESH, Frames, changes, namesakes
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Judgement, Verdict, is_all_ok


@dataclass(frozen=True, slots=True)
class Judged:
    """One rule's verdicts over a batch: subjects, and one judgement per metric (none before the first subject)."""

    rule: Rule
    subjects: tuple[str, ...]
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the detector says of one batch.

    ``judged`` is empty where the detector may put updates off: not every rule has looked at the batch then. ``filled``
    maps (table, column) to subjects and values [n, k], NaN where nothing is to be filled.
    """

    update: Ints
    judged: tuple[Judged, ...]
    findings: tuple[Finding, ...]
    levels: tuple[LevelChange, ...]
    filled: Mapping[tuple[str, str], tuple[tuple[str, ...], Floats]]


_Filled = dict[tuple[str, str], tuple[tuple[str, ...], Floats]]
_Found = tuple[int, int, int, Finding]
"""A finding after its update and the places of its rule and its subject, by which findings are listed."""
_ABSENT, _NO_REASON = np.int8(Verdict.ABSENT), np.int8(0)


class _RuleState:
    """Carried state of one rule: its subjects, which of them have been seen, its memory, what it said."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.subjects: tuple[str, ...] = ()
        self.seen: Bools = np.zeros(0, bool)
        self.memory: Memory = {name: first(0) for name, first in rule.memory.items()}
        self.announcers: dict[str, Announcer] = {}
        self.holds: dict[str, Hold] = {}
        self._frame: Frame | None = None

    def admit(self, subjects: Sequence[str]) -> None:
        """Make room for subjects not met before, in order of appearance."""
        if subjects == self.subjects:
            return
        new = [name for name in subjects if name not in self.subjects]
        if not new:
            return
        self.subjects += tuple(new)
        self.seen = np.concatenate([self.seen, np.zeros(len(new), bool)])
        for name, first in self.rule.memory.items():
            self.memory[name] = np.concatenate([self.memory[name], first(len(new))], axis=-1)

    def judge(self, frames: Frames, limits: Limits) -> Judged:
        self.admit(frames.subjects(self.rule.table))
        if not self.subjects:
            return Judged(self.rule, (), ())
        frame = frames.aligned(self.rule.table, self.subjects)
        if self.rule.beside:
            frame = frames.beside(frame, self.rule)
        self._frame = frame
        afresh = frames.afresh(self.rule.table, self.subjects)
        judgements = self._met(frame.present, self._judge(frame, afresh, limits))
        for judgement in judgements:
            hold = self.holds.get(judgement.metric)
            if hold is None:
                hold = self.holds[judgement.metric] = Hold(limits.clear_after)
            if hold.busy or not is_all_ok(judgement.code):
                judgement.held = hold.stand(judgement.code)
        return Judged(self.rule, self.subjects, tuple(judgements))

    def _judge(self, frame: Frame, afresh: Bools | None, limits: Limits) -> list[Judgement]:
        """Judge ``frame``; a subject's memory is blank again from where ``afresh`` [n, k] says so."""
        if afresh is None:
            return self.rule.judge(frame, self.memory, limits)
        parts: list[list[Judgement]] = []
        filled: dict[str, list[Floats]] = {column: [] for column in self.rule.fills}
        edges = [0, *np.flatnonzero(afresh.any(axis=1)).tolist(), len(afresh)]
        for start, stop in pairwise(edges):
            if start == stop:
                continue
            for name, first in self.rule.memory.items():
                self.memory[name] = np.where(afresh[start], first(len(self.subjects)), self.memory[name])
            parts.append(self.rule.judge(frame.rows(start, stop), self.memory, limits))
            for column, values in filled.items():
                values.append(self.memory.pop(column))
        self.memory |= {column: np.concatenate(values) for column, values in filled.items()}
        return [Judgement.joined(ones) for ones in zip(*parts, strict=True)]

    def guard(self, judged: Judged, limits: Limits) -> tuple[Guard, Frame] | None:
        """Return the rule's promise after what it has just judged, and the last update of that, if it gives one."""
        rule, frame = self.rule, self._frame
        if rule.guard is None or rule.fills or frame is None or not all(map(_settled, judged.judgements)):
            return None
        if len(frame.present) > 1:
            frame = frame.last((*rule.columns, *rule.columns_beside))
        guard = rule.guard(frame, self.memory, limits)
        return None if guard is None else (guard, frame)

    def _met(self, present: Bools, judgements: list[Judgement]) -> list[Judgement]:
        """Take back what was said of subjects before their first row."""
        if np.count_nonzero(self.seen) == len(self.seen):
            return judgements
        met = np.logical_or.accumulate(np.concatenate([self.seen[None, :], present]), axis=0)[1:]
        if len(met):
            self.seen = met[-1].copy()
        if met.all():
            return judgements
        return [
            replace(one, code=np.where(met, one.code, _ABSENT), reason=np.where(met, one.reason, _NO_REASON))
            for one in judgements
        ]

    def findings(self, update: Ints, judged: Judged) -> list[tuple[int, int, Finding]]:
        found = []
        for judgement in judged.judgements:
            announcer = self.announcers.get(judgement.metric)
            if announcer is None:
                announcer = self.announcers[judgement.metric] = Announcer()
            found += announcer.findings(self.rule.name, update, judged.subjects, judgement)
        return found


def _settled(judgement: Judgement) -> bool:
    """Whether what stands is what was last judged: no hold is about to let go."""
    held = judgement.held
    return held is None or held[-1].tobytes() == judgement.code[-1].tobytes()


class Detector:
    """All rules over the updates of one rank, in order.

    ``level`` is the base telemetry level that escalation starts from and returns to; ``wanted`` the columns the rules
    read, by table. With ``put_off``, rules whose guard says that there is no news look at updates that come one by one
    later, several at once: findings, levels and filled columns are the same at the same updates, at a fraction of the
    cost, but single verdicts are not told.
    """

    def __init__(
        self,
        thresholds: Thresholds | None = None,
        *,
        level: str = NORMAL,
        rules: Sequence[Rule] = RULES,
        put_off: bool = False,
    ) -> None:
        self.rules = tuple(rules)
        self.thresholds = thresholds or Thresholds.defaults(self.rules)
        self.escalation = Escalation(level)
        self.wanted = _wanted(self.rules)
        self._states = [_RuleState(rule) for rule in self.rules]
        self._limits = [self.thresholds[rule.name] for rule in self.rules]
        self._put_off = PutOff(self.rules, namesakes) if put_off else None
        self._late: list[_Found] = []
        self._last_update = -1

    def process(self, batch: Batch) -> Outcome:
        """Judge the next updates. Raises ``ValueError`` when they do not follow those already seen."""
        updates = batch.update.tolist()
        if updates and (updates[0] <= self._last_update or (len(updates) > 1 and np.diff(batch.update).min() <= 0)):
            raise ValueError(f"updates must increase: got {updates[0]} after {self._last_update}")
        filled: _Filled = {}
        look = self._look_at_all if self._put_off is None else self._look_where_due
        judged, found = look(batch, filled)
        found.sort(key=itemgetter(0, 1, 2))
        triggers = [(one[3], self._limits[one[1]].escalate) for one in found if one[3].alarm]
        levels = self.escalation.advance(updates, triggers)
        if updates:
            self._last_update = updates[-1]
        return Outcome(batch.update, tuple(judged), tuple([one[3] for one in found]), tuple(levels), filled)

    def _look_at_all(self, batch: Batch, filled: _Filled) -> tuple[list[Judged], list[_Found]]:
        """Let every rule judge every update of ``batch``."""
        frames = Frames(batch, self.wanted)
        judged, found = [], []
        for order in range(len(self._states)):
            result, news = self._look(order, frames, filled)
            judged.append(result)
            found += news
        return judged, found

    def _look_where_due(self, batch: Batch, filled: _Filled) -> tuple[list[Judged], list[_Found]]:
        """Let those rules that may not put ``batch`` off judge it, and before it what they have put off."""
        waiting = self._put_off
        assert waiting is not None
        if not waiting.follows(batch) or changes(batch) is not None:
            self._catch_up()
        found, self._late = self._late, []
        frames: dict[int, Frames] = {}
        for order in waiting.take(batch):
            number = waiting.updates(order)
            if number not in frames:
                frames[number] = Frames(waiting.last(number), self.wanted)
            result, news = self._look(order, frames[number], filled)
            found += news
            if not result.subjects:
                waiting.looked(order)
                waiting.rest(order)
            elif waiting.looked(order):
                given = self._states[order].guard(result, self._limits[order])
                if given is not None:
                    waiting.spare(order, *given)
        return [], found

    def _look(self, order: int, frames: Frames, filled: _Filled) -> tuple[Judged, list[_Found]]:
        """Let the rule at ``order`` judge ``frames``; what it fills goes to ``filled``."""
        state = self._states[order]
        result = state.judge(frames, self._limits[order])
        found = [(finding.update, order, k, finding) for _, k, finding in state.findings(frames.update, result)]
        for column in state.rule.fills if result.subjects else ():
            filled[state.rule.table, column] = (result.subjects, state.memory.pop(column))
        return result, found

    def _catch_up(self) -> None:
        """Judge all that was put off. There can be no findings; ones that come all the same are given, late."""
        if self._put_off is None:
            return
        for order in range(len(self._states)):
            number = self._put_off.updates(order)
            if number:
                self._late += self._look(order, Frames(self._put_off.last(number), self.wanted), {})[1]
        self._put_off.forget()

    def state_dict(self) -> dict[str, Any]:
        """Return all carried state as plain data, to be saved with a checkpoint."""
        self._catch_up()
        return {
            "last_update": self._last_update,
            "escalation": self.escalation.state_dict(),
            "rules": {
                state.rule.name: {
                    "subjects": list(state.subjects),
                    "seen": state.seen.tolist(),
                    "memory": {name: array.tolist() for name, array in state.memory.items()},
                    "announcers": {name: said.state_dict() for name, said in state.announcers.items()},
                    "holds": {name: hold.last.tolist() for name, hold in state.holds.items()},
                }
                for state in self._states
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state that ``state_dict`` gave; rules it does not know start afresh.

        Raises ``ValueError`` when a rule has another memory now than when the state was saved.
        """
        if self._put_off is not None:
            self._put_off.forget()
        self._last_update = int(state["last_update"])
        self.escalation.load_state_dict(state["escalation"])
        for mine in self._states:
            theirs = state["rules"].get(mine.rule.name)
            if theirs is None:
                continue
            mine.subjects = tuple(theirs["subjects"])
            mine.seen = np.array(theirs["seen"], bool)
            for name, first in mine.rule.memory.items():
                mine.memory[name] = _restored(mine.rule, name, theirs["memory"].get(name), first(len(mine.subjects)))
            for metric, said in theirs["announcers"].items():
                mine.announcers.setdefault(metric, Announcer()).load_state_dict(said)
            for metric, last in theirs["holds"].items():
                mine.holds[metric] = Hold(self.thresholds[mine.rule.name].clear_after)
                mine.holds[metric].resume(last)


def _wanted(rules: Iterable[Rule]) -> dict[str, tuple[str, ...]]:
    """Return the columns that ``rules`` read, by table."""
    wanted: dict[str, dict[str, None]] = {}
    for rule in rules:
        for table, columns in ((rule.table, rule.columns), *rule.beside.items()):
            wanted.setdefault(table, {}).update(dict.fromkeys(columns))
    if wanted.keys() & {AFRESH[0], "heads"}:
        wanted.setdefault(AFRESH[0], {})[AFRESH[1]] = None
    return {table: tuple(columns) for table, columns in wanted.items()}


def _restored(rule: Rule, name: str, saved: object, blank: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return carried state ``name`` as an array like ``blank``."""
    if saved is None or (array := np.array(saved, blank.dtype)).size != blank.size:
        raise ValueError(f"saved state of rule {rule.name} does not fit: {name!r} must hold {blank.shape} numbers")
    return array.reshape(blank.shape)
