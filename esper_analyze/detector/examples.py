"""Run a rule over one of its examples, update by update and in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.detector import Detector, RuleVerdicts
from esper_analyze.detector.rule import Example, Rule
from esper_analyze.detector.signals import Batch, Frame, Signal, batch_from_rows
from esper_analyze.detector.verdict import Judgement, Verdict
from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.schema.tables import BY_NAME

_SUBJECT = "example"
_SILENT = (Verdict.ABSENT, Verdict.OK, Verdict.NOT_APPLICABLE, Verdict.NO_DATA)
"""Verdicts below every bound, from least to most significant."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The verdict of the last update, the worst over metrics, and its reason; ``course`` has all verdicts.

    ``in_one_batch`` is the course when all updates are judged in one batch: it is the same for a rule that keeps its
    state in its memory.
    """

    verdict: str
    reason: str
    course: tuple[str, ...]
    in_one_batch: tuple[str, ...]


def length(example: Example) -> int:
    """Return how many updates an example has: the length of its lists, else ``updates``."""
    return next((len(cells) for cells in example.cells.values() if isinstance(cells, list)), example.updates)


def ending(rule: Rule, example: Example) -> Ending:
    """Return the verdicts of ``rule`` with its default thresholds on ``example``."""
    one_by_one, at_once = Detector(rules=[rule]), Detector(rules=[rule])
    batches = [_batch(rule, example, update, one_by_one.wanted) for update in range(length(example))]
    course, last = [], None
    for batch in batches:
        (last,) = one_by_one.process(batch).judged
        course.append(_worst(last, 0)[0])
    (together,) = at_once.process(_joined(batches)).judged
    verdict, reason = (Verdict.ABSENT, "") if last is None else _worst(last, 0)
    in_one_batch = tuple(_worst(together, i)[0].word for i in range(length(example)))
    return Ending(verdict.word, reason, tuple(verdict_.word for verdict_ in course), in_one_batch)


def _batch(rule: Rule, example: Example, update: int, wanted: Mapping[str, Sequence[str]]) -> Batch:
    """Return one update's rows: of the rule's table, and of other tables with a cell in the example."""
    rows = {}
    for table, columns in wanted.items():
        prefix = "" if table == rule.table else f"{table}."
        if prefix and not any(name.startswith(prefix) for name in example.cells):
            continue
        cells = {name: _cell(example.cells.get(prefix + name), update) for name in columns}
        subject = BY_NAME[table].subject
        named = f"{HEAD_GROUP}{_SUBJECT}" if table == rule.table == "groups" and "heads" in wanted else _SUBJECT
        rows[table] = [cells if subject is None else {**cells, subject: named}]
    return batch_from_rows(update, rows, wanted)


def _cell(cells: object, update: int) -> object:
    return cells[update] if isinstance(cells, list) else cells


def _joined(batches: Sequence[Batch]) -> Batch:
    frames = {}
    for table, first in batches[0].frames.items():
        parts = [batch.frames[table] for batch in batches]
        columns = {
            name: Signal(
                name,
                np.concatenate([part[name].values for part in parts]),
                np.concatenate([part[name].null for part in parts]),
            )
            for name in first.columns
        }
        frames[table] = Frame(first.subjects, np.concatenate([part.present for part in parts]), columns)
    return Batch(np.concatenate([batch.update for batch in batches]), frames)


def _worst(judged: RuleVerdicts, i: int) -> tuple[Verdict, str]:
    """Return the verdict at position ``i`` with its reason: the worst by bounds, else missing data before ok."""
    verdicts = [(Verdict(int(judgement.code[i, 0])), _reason(judgement, i)) for judgement in judged.judgements]
    return max(verdicts, key=lambda item: _rank(item[0]), default=(Verdict.ABSENT, ""))


def _rank(verdict: Verdict) -> int:
    return _SILENT.index(verdict) if verdict in _SILENT else len(_SILENT) + int(verdict)


def _reason(judgement: Judgement, i: int) -> str:
    return judgement.reasons[int(judgement.reason[i, 0])]
