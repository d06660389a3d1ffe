"""Guards: conditions under which a rule can produce no new finding, so that its evaluation can be deferred.

Results do not depend on how updates are cut into batches, so a rule may evaluate several single updates later, at
once. A guard says when that delays no finding. It never decides a verdict: the rule's judge does, on every update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.signals import Bools, Floats, Frame, Ints, Signal

LASTING = 64
"""Bound on the updates that a guard covers, and so on those that are deferred."""

Side = Floats | float
"""A number, or one for each subject, that a column must stay on the same side of (on it, if it is there)."""
FREE = None
"""A column whose cells may change in any way, null and non-finite included."""

_LARGEST = float(np.finfo(np.float64).max)
BROKEN, NULL = _LARGEST, -_LARGEST
"""Codes of a non-finite cell and of a null cell; no box contains the first."""
_INSIDE = 1e308
"""Bound on the numbers in a box; updates with larger ones are evaluated at once."""


@dataclass(frozen=True, slots=True)
class DeferralGuard:
    """A rule's promise about the next ``updates``.

    As long as every cell is null where it is null now and finite elsewhere, and each column stays on the same side of
    each of its ``sides`` in every subject, the rule's verdicts and reasons stay what they are. Every column the rule
    reads must be named; ``()`` asks for no more than the same nulls and finite numbers, ``FREE`` for nothing.
    """

    updates: int
    sides: Mapping[str, Sequence[Side] | None]


def same(signal: Signal) -> tuple[Side]:
    """Return the side that keeps ``signal`` at its last values: for choices, and for numbers compared with others."""
    return (signal.values[-1],)


def until(streak: Ints, *lengths: int) -> int:
    """Return how many more hits leave a ``streak`` [k] on the same side of each of ``lengths``.

    A streak of 0 has just been reset or never began; where sides are kept it stays so.
    """
    if not np.count_nonzero(streak):
        return LASTING
    left = [length - count - 1 for count in streak.tolist() if count for length in lengths if count < length]
    return min(left, default=LASTING)


def before(number: Ints, counted: Bools, last: int) -> int:
    """Return how many more updates keep a tally ``number`` [k] on the same side of ``last``, where ``counted``."""
    left = [last - count - 1 for count, on in zip(number.tolist(), counted.tolist(), strict=True) if on]
    return min((distance for distance in left if distance >= 0), default=LASTING)


def steady(flags: Bools, length: int) -> bool:
    """Whether a window's last ``length`` flags [longest − 1, k] are all alike, so that one more like them adds none."""
    if length > len(flags):
        return False
    if not np.count_nonzero(flags):
        return True
    hits = np.add.reduce(flags[len(flags) - length :], axis=0, dtype=np.int64)
    return not np.count_nonzero((hits != 0) & (hits != length))


def coded(values: Floats, null: Bools, *, all_finite: bool) -> Floats:
    """Return cells as codes: numbers, ``NULL`` or ``BROKEN``."""
    if all_finite:
        return values
    codes = np.where(np.isfinite(values), values, BROKEN)
    np.copyto(codes, NULL, where=null)
    return codes


def box(guard: DeferralGuard, names: Sequence[str], frame: Frame) -> tuple[Floats, Floats] | None:
    """Return the least and the largest codes, [columns, k], that keep ``guard`` after the one update of ``frame``.

    None when a cell it watches is not finite now.
    """
    k = len(frame.subjects)
    least, most = np.full((len(names), k), -_INSIDE), np.full((len(names), k), _INSIDE)
    for i, name in enumerate(names):
        sides = guard.sides[name]
        if sides is None:
            least[i], most[i] = NULL, BROKEN
            continue
        signal = frame[name]
        for side in sides:
            _narrow(least[i], most[i], signal.values[-1], side)
        if not signal.all_finite:
            if np.count_nonzero(signal.nonfinite):
                return None
            np.copyto(least[i], NULL, where=signal.null[-1])
            np.copyto(most[i], NULL, where=signal.null[-1])
    return least, most


def _narrow(least: Floats, most: Floats, values: Floats, side: Side) -> None:
    """Narrow the box of ``values`` [k] to their side of ``side`` (a number, [k] or [1, k]); no number is beside NaN."""
    if isinstance(side, np.ndarray) and side.ndim > 1:
        side = side[-1]
    np.maximum(least, np.where(values > side, np.nextafter(side, np.inf), -_INSIDE), out=least)
    np.minimum(most, np.where(values < side, np.nextafter(side, -np.inf), _INSIDE), out=most)
    on = values == side
    if np.count_nonzero(on):
        np.copyto(least, side, where=on)
        np.copyto(most, side, where=on)
