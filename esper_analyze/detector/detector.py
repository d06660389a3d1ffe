"""The detector: batches of updates in; verdicts, findings, level changes and filled columns out.

The recorder runs it live with one update a batch, replay runs it over whole shards; it cannot tell which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from esper_analyze.detector.escalation import NORMAL, Escalation, LevelChange
from esper_analyze.detector.findings import Announcer, Finding
from esper_analyze.detector.rule import Memory, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Batch, Bools, Floats, Frame, Ints, Signal
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """One rule's verdicts over a batch: subjects, and one judgement per metric."""

    rule: Rule
    subjects: tuple[str, ...]
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the detector says of one batch.

    ``filled`` maps (table, column) to subjects and values [n, k], NaN where nothing is to be filled.
    """

    update: Ints
    judged: tuple[Judged, ...]
    findings: tuple[Finding, ...]
    levels: tuple[LevelChange, ...]
    filled: Mapping[tuple[str, str], tuple[tuple[str, ...], Floats]]


class _RuleState:
    """Carried state of one rule: its subjects, which of them have been seen, its memory, what it said."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.subjects: tuple[str, ...] = ()
        self.seen: Bools = np.zeros(0, bool)
        self.memory: Memory = {name: first(0) for name, first in rule.memory.items()}
        self.announcers: dict[str, Announcer] = {}

    def admit(self, subjects: Sequence[str]) -> None:
        """Make room for subjects not met before, in order of appearance."""
        new = [name for name in subjects if name not in self.subjects]
        if not new:
            return
        self.subjects += tuple(new)
        self.seen = np.concatenate([self.seen, np.zeros(len(new), bool)])
        for name, first in self.rule.memory.items():
            self.memory[name] = np.concatenate([self.memory[name], first(len(new))], axis=-1)

    def judge(self, batch: Batch, limits: object) -> Judged:
        frame = batch.frames.get(self.rule.table)
        self.admit(frame.subjects if frame is not None else ())
        aligned = self._frame(batch, frame)
        judgements = self.rule.judge(aligned, self.memory, limits)
        met = np.logical_or.accumulate(np.concatenate([self.seen[None, :], aligned.present]), axis=0)[1:]
        if len(met):
            self.seen = met[-1].copy()
        for judgement in judgements:
            judgement.code[~met] = Verdict.ABSENT
            judgement.reason[~met] = 0
        return Judged(self.rule, self.subjects, tuple(judgements))

    def _frame(self, batch: Batch, frame: Frame | None) -> Frame:
        if frame is not None:
            return frame.aligned(self.subjects)
        shape = (len(batch.update), len(self.subjects))
        columns = {name: Signal(name, np.full(shape, np.nan), np.ones(shape, bool)) for name in self.rule.columns}
        return Frame(self.subjects, np.zeros(shape, bool), columns)

    def findings(self, update: Ints, judged: Judged) -> list[tuple[int, int, Finding]]:
        found = []
        for judgement in judged.judgements:
            announcer = self.announcers.setdefault(judgement.metric, Announcer())
            found += announcer.findings(self.rule.name, update, judged.subjects, judgement)
        return found


class Detector:
    """All rules over the updates of one rank, in order.

    ``level`` is the base telemetry level that escalation starts from and returns to.
    """

    def __init__(
        self, thresholds: Thresholds | None = None, *, level: str = NORMAL, rules: Sequence[Rule] = RULES
    ) -> None:
        self.rules = tuple(rules)
        self.thresholds = thresholds or Thresholds.defaults(self.rules)
        self.escalation = Escalation(level)
        self._states = [_RuleState(rule) for rule in self.rules]
        self._last_update = -1

    @property
    def wanted(self) -> dict[str, tuple[str, ...]]:
        """The columns the rules read, by table."""
        wanted: dict[str, dict[str, None]] = {}
        for rule in self.rules:
            wanted.setdefault(rule.table, {}).update(dict.fromkeys(rule.columns))
        return {table: tuple(columns) for table, columns in wanted.items()}

    def process(self, batch: Batch) -> Outcome:
        """Judge the next updates. Raises ``ValueError`` when they do not follow those already seen."""
        if len(batch.update) and (batch.update[0] <= self._last_update or (np.diff(batch.update) <= 0).any()):
            raise ValueError(f"updates must increase: got {batch.update[0]} after {self._last_update}")
        judged, numbered, filled = [], [], {}
        for order, state in enumerate(self._states):
            limits = self.thresholds[state.rule.name]
            result = state.judge(batch, limits)
            judged.append(result)
            for i, k, finding in state.findings(batch.update, result):
                numbered.append((i, order, k, finding, limits.escalate))
            for column in state.rule.fills:
                filled[state.rule.table, column] = (result.subjects, state.memory.pop(column))
        numbered.sort(key=lambda item: item[:3])
        findings = tuple(item[3] for item in numbered)
        triggers = [(item[3], item[4]) for item in numbered if item[3].alarm]
        levels = self.escalation.advance(batch.update.tolist(), triggers)
        if len(batch.update):
            self._last_update = int(batch.update[-1])
        return Outcome(batch.update, tuple(judged), findings, tuple(levels), filled)

    def state_dict(self) -> dict[str, Any]:
        """Return all carried state as plain data, to be saved with a checkpoint."""
        return {
            "last_update": self._last_update,
            "escalation": self.escalation.state_dict(),
            "rules": {
                state.rule.name: {
                    "subjects": list(state.subjects),
                    "seen": state.seen.tolist(),
                    "memory": {name: array.tolist() for name, array in state.memory.items()},
                    "announcers": {name: said.state_dict() for name, said in state.announcers.items()},
                }
                for state in self._states
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state that ``state_dict`` gave; rules it does not know start afresh.

        Raises ``ValueError`` when a rule has another memory now than when the state was saved.
        """
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


def _restored(rule: Rule, name: str, saved: object, blank: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return carried state ``name`` as an array like ``blank``."""
    if saved is None or (array := np.array(saved, blank.dtype)).size != blank.size:
        raise ValueError(f"saved state of rule {rule.name} does not fit: {name!r} must hold {blank.shape} numbers")
    return array.reshape(blank.shape)
