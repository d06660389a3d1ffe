"""The frames of one batch as the rules want them: with all subjects met so far, and columns of other tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from esper_analyze.detector.rule import Rule
from esper_analyze.detector.signals import RUN, Batch, Bools, Frame, Signal
from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.schema.tables import BY_NAME

AFRESH = ("groups", "parameters_changed")
"""Table and column that say where a subject has other parameters than before: what it was is no measure of it."""
NOBODY = "\0"
"""A subject no table has."""


class Frames:
    """The frames of one batch as the rules want them; rules that have met the same subjects share one."""

    def __init__(self, batch: Batch, wanted: Mapping[str, tuple[str, ...]]) -> None:
        self.update = batch.update
        self._batch = batch
        self._wanted = wanted
        self._changes = changes(batch)
        self._aligned: dict[tuple[str, tuple[str, ...]], Frame] = {}

    def subjects(self, table: str) -> tuple[str, ...]:
        """Return the subjects of which the batch has rows."""
        frame = self._batch.frames.get(table)
        return () if frame is None else frame.subjects

    def aligned(self, table: str, subjects: tuple[str, ...]) -> Frame:
        """Return the frame of ``table`` with exactly ``subjects`` in that order."""
        frame = self._batch.frames.get(table)
        if frame is not None and frame.subjects == subjects:
            return frame
        found = self._aligned.get((table, subjects))
        if found is None:
            found = self._empty(table, subjects) if frame is None else frame.aligned(subjects)
            self._aligned[table, subjects] = found
        return found

    def beside(self, frame: Frame, rule: Rule) -> Frame:
        """Return ``frame`` with the columns that ``rule`` reads of other tables."""
        for table, columns in rule.beside.items():
            names = namesakes(rule.table, frame.subjects, table)
            frame = frame.beside(table, self._batch.frames.get(table), columns, names)
        return frame

    def afresh(self, table: str, subjects: tuple[str, ...]) -> Bools | None:
        """Return where [n, k] groups or heads have other parameters than before; None where none has any."""
        if table not in (AFRESH[0], "heads") or self._changes is None:
            return None
        groups = subjects if table == AFRESH[0] else namesakes(table, subjects, AFRESH[0])
        flags = self.aligned(AFRESH[0], groups)[AFRESH[1]].equals(1.0)
        return flags if np.count_nonzero(flags) else None

    def _empty(self, table: str, subjects: tuple[str, ...]) -> Frame:
        shape = (len(self._batch.update), len(subjects))
        values, null = np.full(shape, np.nan), np.ones(shape, bool)
        return Frame(
            subjects, np.zeros(shape, bool), {name: Signal(name, values, null) for name in self._wanted[table]}
        )


def changes(batch: Batch) -> Bools | None:
    """Return where [n, groups] a group has other parameters than before; None where none has."""
    frame = batch.frames.get(AFRESH[0])
    if frame is None:
        return None
    flags = frame[AFRESH[1]].equals(1.0)
    return flags if np.count_nonzero(flags) else None


@lru_cache(maxsize=256)
def namesakes(table: str, subjects: tuple[str, ...], other: str) -> tuple[str, ...]:
    """Return the subject of ``other`` that speaks for each of the ``subjects`` of ``table``."""
    if BY_NAME[other].subject is None:
        return (RUN,)
    if (table, other) == ("groups", "heads"):
        return tuple(name.removeprefix(HEAD_GROUP) if name.startswith(HEAD_GROUP) else NOBODY for name in subjects)
    if (table, other) == ("heads", "groups"):
        return tuple(HEAD_GROUP + name for name in subjects)
    return subjects
