"""Deferred evaluation: single updates are kept until a rule's guard requires that the rule evaluates them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import BROKEN, LASTING, NULL, DeferralGuard, box, coded
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.signals import Batch, Bools, Floats, Frame, Ints, Sheet, indices_of

SOON = 3
"""Bound on updates: a guard that broke sooner cost more than it saved."""
PATIENCE = 8
"""How often a rule is then evaluated before it is asked for a guard again."""
_KEPT = 4 * LASTING
"""Bound on the updates kept before those that every rule has evaluated are dropped."""

JoinedSubjects = Callable[[str, tuple[str, ...], str], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Span:
    """Indices of one rule's ``cells`` [columns, k] in the sheet, and which of them exist."""

    subjects: tuple[str, ...]
    cells: Ints
    exists: Bools


class _Boxes:
    """The boxes of all guards over sheets of one layout, concatenated, so that one comparison tests them all."""

    def __init__(self, rules: Sequence[Rule], sheet: Sheet, joined_subjects: JoinedSubjects) -> None:
        self.spans = [_span(rule, sheet, joined_subjects) for rule in rules]
        sizes = [0 if span is None else span.cells.size for span in self.spans]
        self._edges = np.cumsum([0, *sizes]).tolist()
        self._cells = np.concatenate([np.zeros(0, np.int64), *(span.cells.ravel() for span in self.spans if span)])
        self._owner = np.repeat(np.arange(len(rules)), sizes)
        self._least, self._most = np.full(len(self._cells), NULL), np.full(len(self._cells), BROKEN)

    def broken(self, sheet: Sheet) -> Ints:
        """Return the rules with a cell of the sheet's one update outside its box; a rule may occur several times."""
        now = coded(sheet.values[0], sheet.null[0], all_finite=sheet.all_finite)[self._cells]
        out = (now < self._least) | (now > self._most)
        owners: Ints = self._owner[out]
        return owners

    def put(self, order: int, span: _Span, least: Floats, most: Floats) -> None:
        """Set the box of the rule at ``order``, [columns, k]."""
        cells = slice(self._edges[order], self._edges[order + 1])
        self._least[cells] = np.where(span.exists, least, NULL).ravel()
        self._most[cells] = np.where(span.exists, most, BROKEN).ravel()


class Deferral:
    """Keeps the last updates, and how many of them each rule has yet to evaluate."""

    def __init__(self, rules: Sequence[Rule], joined_subjects: JoinedSubjects) -> None:
        self._rules = rules
        self._joined_subjects = joined_subjects
        self._names = [(*rule.columns, *rule.columns_beside) for rule in rules]
        self.forget()

    def forget(self) -> None:
        """Reset: no updates, no guards."""
        self._past: list[Batch] = []
        self._boxes: _Boxes | None = None
        self._now = 0
        self._judged = [0] * len(self._rules)
        self._left = np.zeros(len(self._rules), np.int64)
        self._guarded = np.zeros(len(self._rules), bool)
        self._rest = [0] * len(self._rules)

    def follows(self, batch: Batch) -> bool:
        """Whether ``batch`` is one update with rows of the same subjects as the last one."""
        if not self._past or batch.sheet is None or len(batch.update) != 1:
            return False
        last = self._past[-1].sheet
        return last is not None and last.tables == batch.sheet.tables

    def take(self, batch: Batch) -> list[int]:
        """Keep ``batch``, which follows the last one or is the first; return the indices of the rules that are due."""
        self._past.append(batch)
        self._now += 1
        self._left -= 1
        if self._boxes is not None and batch.sheet is not None:
            self._left[self._boxes.broken(batch.sheet)] = -1
        if len(self._past) > _KEPT:
            del self._past[: -LASTING - 1]
        return np.flatnonzero(self._left < 0).tolist()

    def updates(self, order: int) -> int:
        """Return how many updates the rule at ``order`` has not evaluated."""
        return self._now - self._judged[order]

    def last(self, updates: int) -> Batch:
        """Return the last ``updates`` as one batch."""
        if updates == 1:
            return self._past[-1]
        parts = self._past[-updates:]
        sheets = [part.sheet for part in parts if part.sheet is not None]
        values = np.concatenate([sheet.values for sheet in sheets])
        all_finite = all(sheet.all_finite for sheet in sheets)
        null = np.concatenate([sheet.null for sheet in sheets])
        sheet = Sheet(sheets[0].tables, values, null, all_finite)
        return Batch(np.concatenate([part.update for part in parts]), sheet.frames(), sheet)

    def judged(self, order: int) -> bool:
        """Record that the rule at ``order`` has evaluated all updates; return whether to ask it for a guard."""
        deferred = self._now - self._judged[order]
        self._judged[order] = self._now
        if self._guarded[order]:
            self._guarded[order] = False
            self._rest[order] = PATIENCE if deferred <= SOON else 0
        self._left[order] = 0
        if self._rest[order]:
            self._rest[order] -= 1
            return False
        return True

    def defer(self, order: int, guard: DeferralGuard, frame: Frame) -> None:
        """Defer the rule at ``order`` while ``guard`` holds, given the ``frame`` of the last update it judged."""
        sheet = self._past[-1].sheet
        if guard.updates < 1 or sheet is None:
            return
        if self._boxes is None:
            self._boxes = _Boxes(self._rules, sheet, self._joined_subjects)
        span = self._boxes.spans[order]
        if span is None or span.subjects != frame.subjects:
            return
        bounds = box(guard, self._names[order], frame)
        if bounds is not None:
            self._boxes.put(order, span, *bounds)
            self._guarded[order] = True
            self.rest(order, guard.updates)

    def rest(self, order: int, updates: int = LASTING) -> None:
        """Defer the rule at ``order`` for so many ``updates``: its guard allows it, or it has no subjects."""
        self._left[order] = min(updates, LASTING)


def _span(rule: Rule, sheet: Sheet, joined_subjects: JoinedSubjects) -> _Span | None:
    """Return the indices of the cells of ``rule``; None if its table has no rows."""
    start, starts = 0, {}
    for table, subjects, columns in sheet.tables:
        starts[table] = start, subjects, columns
        start += len(subjects) * len(columns)
    if rule.table not in starts:
        return None
    subjects = starts[rule.table][1]
    rows = [_cells(starts[rule.table], name, subjects) for name in rule.columns]
    for table, names in rule.joined.items():
        speakers = joined_subjects(rule.table, subjects, table)
        speakers = speakers * len(subjects) if len(speakers) == 1 else speakers
        rows += [_cells(starts.get(table, (0, (), ())), name, speakers) for name in names]
    cells = np.array(rows, np.int64).reshape(len(rows), len(subjects))
    return _Span(subjects, np.maximum(cells, 0), cells >= 0)


def _cells(table: tuple[int, tuple[str, ...], tuple[str, ...]], name: str, speakers: tuple[str, ...]) -> list[int]:
    """Return the index in the sheet of column ``name`` of each of ``speakers``, −1 where it does not exist."""
    start, subjects, columns = table
    subject_index, column_index = indices_of(subjects), indices_of(columns)
    if name not in column_index:
        return [-1] * len(speakers)
    return [
        start + subject_index[who] * len(columns) + column_index[name] if who in subject_index else -1
        for who in speakers
    ]
