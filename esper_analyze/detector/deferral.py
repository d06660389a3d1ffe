"""Updates that come one by one, and which rules need not look at them yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import BROKEN, LASTING, NULL, Guard, box, coded
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.signals import Batch, Bools, Floats, Frame, Ints, Sheet, places_of

SOON = 3
"""Bound on updates: a guard that broke sooner was not worth its price."""
PATIENCE = 8
"""How often a rule then looks before it is asked for a guard again."""
_KEPT = 4 * LASTING
"""Bound on the updates kept before those that every rule has looked at are thrown away."""

Namesakes = Callable[[str, tuple[str, ...], str], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Span:
    """Where one rule's cells stand: ``cells`` [columns, k] of the sheet, and which of them there are at all."""

    subjects: tuple[str, ...]
    cells: Ints
    known: Bools


class _Boxes:
    """The boxes of all guards over sheets of one kind, one beside the other, so that one look at a sheet does."""

    def __init__(self, rules: Sequence[Rule], sheet: Sheet, namesakes: Namesakes) -> None:
        self.spans = [_span(rule, sheet, namesakes) for rule in rules]
        sizes = [0 if span is None else span.cells.size for span in self.spans]
        self._edges = np.cumsum([0, *sizes]).tolist()
        self._cells = np.concatenate([np.zeros(0, np.int64), *(span.cells.ravel() for span in self.spans if span)])
        self._owner = np.repeat(np.arange(len(rules)), sizes)
        self._least, self._most = np.full(len(self._cells), NULL), np.full(len(self._cells), BROKEN)

    def broken(self, sheet: Sheet) -> Ints:
        """Return the rules whose box a cell of the sheet's one update is outside of; some of them more than once."""
        now = coded(sheet.values[0], sheet.null[0], whole=sheet.whole)[self._cells]
        out = (now < self._least) | (now > self._most)
        owners: Ints = self._owner[out]
        return owners

    def put(self, order: int, span: _Span, least: Floats, most: Floats) -> None:
        """Set the box of the rule at ``order``, [columns, k]. Left alone when it broke: that rule looks anyway."""
        own = slice(self._edges[order], self._edges[order + 1])
        self._least[own] = np.where(span.known, least, NULL).ravel()
        self._most[own] = np.where(span.known, most, BROKEN).ravel()


class PutOff:
    """Keeps the last updates, and how many of them each rule has yet to look at."""

    def __init__(self, rules: Sequence[Rule], namesakes: Namesakes) -> None:
        self._rules = rules
        self._namesakes = namesakes
        self._names = [(*rule.columns, *rule.columns_beside) for rule in rules]
        self.forget()

    def forget(self) -> None:
        """Start anew: nothing kept, no guards."""
        self._past: list[Batch] = []
        self._boxes: _Boxes | None = None
        self._now = 0
        self._looked = [0] * len(self._rules)
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
        """Keep ``batch``, which follows the last one or comes first; return the rules that must look, by position."""
        self._past.append(batch)
        self._now += 1
        self._left -= 1
        if self._boxes is not None and batch.sheet is not None:
            self._left[self._boxes.broken(batch.sheet)] = -1
        if len(self._past) > _KEPT:
            del self._past[: -LASTING - 1]
        return np.flatnonzero(self._left < 0).tolist()

    def updates(self, order: int) -> int:
        """Return how many updates the rule at ``order`` has not looked at."""
        return self._now - self._looked[order]

    def last(self, updates: int) -> Batch:
        """Return the last ``updates`` as one batch."""
        if updates == 1:
            return self._past[-1]
        parts = self._past[-updates:]
        sheets = [part.sheet for part in parts if part.sheet is not None]
        values = np.concatenate([sheet.values for sheet in sheets])
        whole = all(sheet.whole for sheet in sheets)
        null = np.concatenate([sheet.null for sheet in sheets])
        sheet = Sheet(sheets[0].tables, values, null, whole)
        return Batch(np.concatenate([part.update for part in parts]), sheet.frames(), sheet)

    def looked(self, order: int) -> bool:
        """Note that the rule at ``order`` has looked at all updates; return whether to ask it for a guard."""
        held = self._now - self._looked[order]
        self._looked[order] = self._now
        if self._guarded[order]:
            self._guarded[order] = False
            self._rest[order] = PATIENCE if held <= SOON else 0
        self._left[order] = 0
        if self._rest[order]:
            self._rest[order] -= 1
            return False
        return True

    def spare(self, order: int, guard: Guard, frame: Frame) -> None:
        """Let the rule at ``order`` rest while ``guard`` holds, given the ``frame`` of the last update it judged."""
        sheet = self._past[-1].sheet
        if guard.updates < 1 or sheet is None:
            return
        if self._boxes is None:
            self._boxes = _Boxes(self._rules, sheet, self._namesakes)
        span = self._boxes.spans[order]
        if span is None or span.subjects != frame.subjects:
            return
        held = box(guard, self._names[order], frame)
        if held is not None:
            self._boxes.put(order, span, *held)
            self._guarded[order] = True
            self.rest(order, guard.updates)

    def rest(self, order: int, updates: int = LASTING) -> None:
        """Let the rule at ``order`` rest for so many ``updates``: its guard says so, or it has nothing to look at."""
        self._left[order] = min(updates, LASTING)


def _span(rule: Rule, sheet: Sheet, namesakes: Namesakes) -> _Span | None:
    """Return where the cells of ``rule`` stand, None where its table has no rows."""
    start, starts = 0, {}
    for table, subjects, columns in sheet.tables:
        starts[table] = start, subjects, columns
        start += len(subjects) * len(columns)
    if rule.table not in starts:
        return None
    subjects = starts[rule.table][1]
    rows = [_cells(starts[rule.table], name, subjects) for name in rule.columns]
    for table, names in rule.beside.items():
        speakers = namesakes(rule.table, subjects, table)
        speakers = speakers * len(subjects) if len(speakers) == 1 else speakers
        rows += [_cells(starts.get(table, (0, (), ())), name, speakers) for name in names]
    cells = np.array(rows, np.int64).reshape(len(rows), len(subjects))
    return _Span(subjects, np.maximum(cells, 0), cells >= 0)


def _cells(table: tuple[int, tuple[str, ...], tuple[str, ...]], name: str, speakers: tuple[str, ...]) -> list[int]:
    """Return where column ``name`` of each of ``speakers`` stands in a sheet, −1 where it does not."""
    start, subjects, columns = table
    found, place = places_of(subjects), places_of(columns)
    if name not in place:
        return [-1] * len(speakers)
    return [start + found[who] * len(columns) + place[name] if who in found else -1 for who in speakers]
