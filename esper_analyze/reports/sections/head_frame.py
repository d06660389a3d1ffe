"""One head of the policy over a whole run: its numbers, its last state, and the sentence that tells both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from esper_analyze.runs.series import Series
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, number

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident

EXPECTED = {
    "masked": "masked, expected",
    "irrelevant": "never relevant to the action taken, expected",
    "frozen": "frozen, expected",
}
"""Why a zero gradient is expected, in words, by ``zero_explained``."""
_TROUBLES = {
    "std_nonpositive": "its standard deviation is not positive",
    "std_runaway": "its standard deviation runs away",
    "std_collapse": "its standard deviation collapsed",
    "head_entropy_collapse": "its entropy collapsed while it had a choice",
}
"""What is wrong with the policy of a head, in words, by rule."""


@dataclass(frozen=True, slots=True)
class HeadFrame:
    """One head: its numbers over updates, its last state in words, and when something was unexplained.

    ``ended``: the first update since which its parameters are gone, or its gradient is not measured any more while
    that of others is; None: it is measured to the end.
    ``last_row`` holds the cells of its last update; ``alarms`` every incident on it or on the group of its parameters,
    ``incidents`` those of rules on heads and their gradients.
    ``bad`` are the updates with an unexplained zero or missing gradient, ``nonfinite`` those with a NaN or ±Inf one,
    ``expected`` those with one that is explained; ``std`` is the mean standard deviation of a Gaussian head,
    ``std_range`` the smallest and the largest; ``zeros`` counts both by explanation.
    """

    name: str
    entropy_norm: Series
    grad_norm: Series
    learnable: Series
    std: Series
    std_range: tuple[Series, Series]
    kind: str | None
    grad_state: str | None
    zero_explained: str | None
    ended: int | None
    bad: np.ndarray[tuple[int], np.dtype[np.int64]]
    nonfinite: np.ndarray[tuple[int], np.dtype[np.int64]]
    expected: np.ndarray[tuple[int], np.dtype[np.int64]]
    zeros: dict[str, int]
    incidents: tuple[Incident, ...]
    alarms: tuple[Incident, ...]
    last_row: Mapping[str, Any]

    @property
    def sentence(self) -> str:
        """Say in one sentence whether the head learns, and why not if not; of one that ended, only that it did."""
        if self.ended is not None:
            return f"{cleaned(self.name, 40)}: {self.ending}"
        numbers = f"{self._gradient()}{self._learnable()}{self._deviation()}"
        return f"{cleaned(self.name, 40)}: gradient {numbers}: {self._state()}"

    @property
    def ending(self) -> str:
        """Say since when the head is gone or not measured, empty while it is measured."""
        if self.ended is None:
            return ""
        if self.grad_state == "removed":
            return f"removed, the model has none of its parameters from update {self.ended:,} on"
        return f"its gradient is not measured from update {self.ended:,} on"

    @property
    def last_norm(self) -> float | None:
        """The last gradient norm, None where the head's past has ended."""
        return None if self.ended is not None else self.grad_norm.last

    def _gradient(self) -> str:
        last = self.last_norm
        if self.grad_state == "missing":
            return "missing"
        if last is None:
            return "not measured"
        return f"{last:.3f}" if 1e-3 <= abs(last) < 1e4 or last == 0 else number(last)

    def _learnable(self) -> str:
        last = self.learnable.last
        if last is None:
            return ""
        return f" ({100 * last:.0f} % learnable)" if 0 <= last <= 1 else f" (learnable fraction {number(last)})"

    def _deviation(self) -> str:
        """Say the first and last mean standard deviation of a Gaussian head, and the dimension that is not positive."""
        first, last = self.std.first, self.std.last
        if first is None or last is None:
            return ""
        smallest = self.std_range[0].last
        broken = smallest is not None and not smallest > 0
        dimension = self.last_row.get("std_min_dimension")
        of = f", {number(smallest)} in dimension {dimension}" if broken and dimension is not None else ""
        return f", std {number(first)} → {number(last)}{of}"

    def _state(self) -> str:
        if len(self.bad):
            cause = "" if self.grad_state == "missing" else ", or its policy has become deterministic"
            return f"unexplained zero or missing gradient at {_at(self.bad)}: it is cut off from the loss{cause}"
        if len(self.nonfinite):
            return f"NaN or infinite gradient at {_at(self.nonfinite)}"
        if self.zero_explained in EXPECTED:
            return EXPECTED[str(self.zero_explained)]
        trouble = next((i for i in self.incidents if i.rule in _TROUBLES), None)
        if trouble is not None:
            until = "to the end" if trouble.ended == "open" else f"to {trouble.end}"
            return f"{_TROUBLES[trouble.rule]}, update {trouble.start} {until}"
        return "learning" if self.zero_explained == "not_zero" else "nothing to judge it by"


def _at(updates: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    if len(updates) == 1:
        return f"update {updates[0]}"
    return f"{many(len(updates), 'update')}, first {updates[0]}"
