"""Conditions of the complete training that several rules share: evaluated once an update, before any rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from esper_analyze.detector.deferral_guards import FREE, Side, same
from esper_analyze.detector.rule import CONDITIONS, Condition, Memory, Rule
from esper_analyze.detector.signals import RUN, Batch, Columns, Frame, Signal, indices_of

TABLE = "updates"
"""The table that conditions are evaluated on."""


def held(frame: Frame, *conditions: Condition) -> dict[str, Sequence[Side] | None]:
    """Return the sides on which ``conditions`` stay what they are at the last update of a rule's ``frame``."""
    return {condition.key: same(frame[condition.key]) for condition in conditions}


def free(*conditions: Condition) -> dict[str, Sequence[Side] | None]:
    """Return ``conditions`` that may change in any way."""
    return {condition.key: FREE for condition in conditions}


class SharedConditions:
    """The conditions that ``rules`` name, each once, and their memory."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._conditions = {condition.name: condition for rule in rules for condition in rule.conditions}
        self._names = tuple(self._conditions)
        self._memory: dict[str, Memory] = {
            name: {part: first(1) for part, first in condition.memory.items()}
            for name, condition in self._conditions.items()
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of table ``updates`` that they read."""
        return tuple(dict.fromkeys(name for one in self._conditions.values() for name in one.columns))

    def joined(self, batch: Batch) -> Batch:
        """Return the next updates with the conditions as a table of their own."""
        n = len(batch.update)
        if not n or not self._names:
            return batch
        frame = batch.frames.get(TABLE)
        frame = self._empty(n) if frame is None else frame
        holds = [one.evaluate(frame, self._memory[name]) for name, one in self._conditions.items()]
        values = np.concatenate(holds, axis=1, dtype=np.float64)
        null = np.broadcast_to(np.False_, (n, 1, len(self._names)))
        columns = Columns(indices_of(self._names), values[:, None, :], null, all_finite=True)
        present = np.broadcast_to(np.True_, (n, 1))
        frames = {**batch.frames, CONDITIONS: Frame((RUN,), present, columns)}
        sheet = None if batch.sheet is None else batch.sheet.extended(CONDITIONS, self._names, values)
        return Batch(batch.update, frames, sheet)

    def _empty(self, n: int) -> Frame:
        values, null = np.full((n, 1), np.nan), np.ones((n, 1), bool)
        return Frame((RUN,), ~null, {name: Signal(name, values, null) for name in self.columns})

    def state_dict(self) -> dict[str, Any]:
        """Return all carried state as plain data."""
        return {name: {part: array.tolist() for part, array in memory.items()} for name, memory in self._memory.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from ``state_dict``; conditions that it does not contain start fresh.

        Raises ``ValueError`` when the memory of a condition has another shape than when the state was saved.
        """
        for name, memory in self._memory.items():
            for part, blank in memory.items() if name in state else ():
                saved = np.array(state[name].get(part, ()), blank.dtype)
                if saved.size != blank.size:
                    raise ValueError(f"saved state of condition {name} does not fit: {part!r} must hold {blank.shape}")
                memory[part] = saved.reshape(blank.shape)
