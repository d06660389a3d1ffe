"""The frames of one batch for the rules: with all subjects so far, and joined columns of other tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from esper_analyze.detector.rule import CONDITIONS, Rule
from esper_analyze.detector.signals import RUN, Batch, Bools, Frame, Signal
from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.schema.tables import BY_NAME

PARAMETERS_CHANGED = ("groups", "parameters_changed")
"""Table and column that say where a subject's parameters changed, so that its earlier values are no baseline."""
NO_SUBJECT = "\0"
"""A subject that no table has."""


class Frames:
    """The frames of one batch for the rules; rules with the same subjects share one."""

    def __init__(self, batch: Batch, wanted: Mapping[str, tuple[str, ...]]) -> None:
        self.update = batch.update
        self._batch = batch
        self._wanted = wanted
        self._changes = changes(batch)
        self._aligned: dict[tuple[str, tuple[str, ...]], Frame] = {}

    def subjects(self, table: str) -> tuple[str, ...]:
        """Return the subjects with rows in the batch."""
        frame = self._batch.frames.get(table)
        return () if frame is None else frame.subjects

    def aligned(self, table: str, subjects: tuple[str, ...]) -> Frame:
        """Return the frame of ``table`` with exactly ``subjects`` in that order."""
        frame = self._batch.frames.get(table)
        if frame is not None and frame.subjects == subjects:
            return frame
        frame_ = self._aligned.get((table, subjects))
        if frame_ is None:
            frame_ = self._empty(table, subjects) if frame is None else frame.aligned(subjects)
            self._aligned[table, subjects] = frame_
        return frame_

    def beside(self, frame: Frame, rule: Rule) -> Frame:
        """Return ``frame`` with the columns of other tables, and of conditions, that ``rule`` reads."""
        for table, columns in rule.joined.items():
            names = joined_subjects(rule.table, frame.subjects, table)
            frame = frame.beside(table, self._batch.frames.get(table), columns, names)
        return frame

    def parameters_changed(self, table: str, subjects: tuple[str, ...]) -> Bools | None:
        """Return where [n, k] the parameters of groups or heads changed; None if none did."""
        if table not in (PARAMETERS_CHANGED[0], "heads") or self._changes is None:
            return None
        groups = subjects if table == PARAMETERS_CHANGED[0] else joined_subjects(table, subjects, PARAMETERS_CHANGED[0])
        flags = self.aligned(PARAMETERS_CHANGED[0], groups)[PARAMETERS_CHANGED[1]].equals(1.0)
        return flags if np.count_nonzero(flags) else None

    def _empty(self, table: str, subjects: tuple[str, ...]) -> Frame:
        shape = (len(self._batch.update), len(subjects))
        values, null = np.full(shape, np.nan), np.ones(shape, bool)
        return Frame(
            subjects, np.zeros(shape, bool), {name: Signal(name, values, null) for name in self._wanted[table]}
        )


def changes(batch: Batch) -> Bools | None:
    """Return where [n, groups] the parameters of a group changed; None if none did."""
    frame = batch.frames.get(PARAMETERS_CHANGED[0])
    if frame is None:
        return None
    flags = frame[PARAMETERS_CHANGED[1]].equals(1.0)
    return flags if np.count_nonzero(flags) else None


@lru_cache(maxsize=256)
def joined_subjects(table: str, subjects: tuple[str, ...], other: str) -> tuple[str, ...]:
    """Return the subject of table ``other`` that is joined to each of the ``subjects`` of ``table``."""
    if other == CONDITIONS or BY_NAME[other].subject is None:
        return (RUN,)
    if (table, other) == ("groups", "heads"):
        return tuple(name.removeprefix(HEAD_GROUP) if name.startswith(HEAD_GROUP) else NO_SUBJECT for name in subjects)
    if (table, other) == ("heads", "groups"):
        return tuple(HEAD_GROUP + name for name in subjects)
    return subjects
