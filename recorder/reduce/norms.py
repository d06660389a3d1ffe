"""Gradient norms of one update, arrived on the host: looks joined, broken elements counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recorder.capture.parameters import Piece
from recorder.capture.snapshot_batch import SnapshotBatch
from recorder.measure import Numbers
from recorder.measure.gradients import nonfinite_elements

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GradientNorms:
    """Piece norms [S, P] of the optimizer steps at which gradients were seen; the last ``ranges`` are row ranges."""

    norms: Numbers
    seen: Flags
    missing: Flags
    ranges: int
    steps: Sequence[int]  # minibatch of each row
    elements: Numbers | None  # NaN and Inf elements over all steps, None where not all could be counted

    @property
    def there(self) -> Flags:
        """Where there was a gradient."""
        return self.seen & ~self.missing


def gradient_norms(
    looks: Sequence[SnapshotBatch], arrays: Mapping[str, Numbers], pieces: Sequence[Piece]
) -> GradientNorms | None:
    """Join the looks at a minibatch's gradients: actor and critic may be clipped by calls of their own.

    None when no gradient was looked at.
    """
    steps = sorted({place for look in looks for place in look.places})
    if not steps:
        return None
    shape = (len(steps), len(pieces))
    norms, seen, missing = np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, bool)
    elements: list[Numbers | None] = []
    for look in looks:
        rows = np.searchsorted(steps, look.places)[:, None]
        tensors = np.array(look.like.plan.places)
        there = tensors if look.like.present is None else tensors[np.array(look.like.present, np.int64)]
        seen[rows, tensors] = True
        missing[rows, tensors] = True
        missing[rows, there] = False
        if len(there):
            scale = arrays.get(f"scale {look.name}", _ONE)[:, None]
            found = np.array(arrays[f"norms {look.name}"], np.float64)
            elements.append(_counted(look, found, arrays.get(f"elements {look.name}")))
            norms[rows, there] = found / scale
            _cut(look, rows[:, 0], arrays, pieces, norms, scale)
    whole = [piece.tensor for piece in pieces]
    counted = [counts for counts in elements if counts is not None]
    return GradientNorms(
        norms,
        seen[:, whole],
        missing[:, whole],
        sum(piece.rows is not None for piece in pieces),
        steps,
        np.add.reduce(counted) if counted and len(counted) == len(elements) else None,
    )


_ONE = np.ones(1)


def _counted(look: SnapshotBatch, norms: Numbers, elements: Numbers | None) -> Numbers | None:
    """Return counts of NaN and Inf: read from the copies of the gradients where the norms say that there are some.

    On a device this waits, but only here, after the update, and only because something is broken.
    """
    if look.flat is None:
        return elements
    counts = np.zeros(2)
    for row in np.flatnonzero(~np.isfinite(norms).all(axis=1)):
        counts += nonfinite_elements([look.flat[row]]).cpu().numpy()
    return counts


def _cut(
    look: SnapshotBatch,
    rows: npt.NDArray[np.int64],
    arrays: Mapping[str, Numbers],
    pieces: Sequence[Piece],
    norms: Numbers,
    scale: Numbers,
) -> None:
    """Fill the norms of row ranges from the norms of single rows."""
    if not look.like.plan.cut:
        return
    present = set(range(len(look.like.plan.places)) if look.like.present is None else look.like.present)
    cut = [look.like.plan.places[position] for position in look.like.plan.cut if position in present]
    squares = {tensor: np.square(arrays[f"rows {look.name} {k}"] / scale) for k, tensor in enumerate(cut)}
    for place, piece in enumerate(pieces):
        if piece.rows is not None and piece.tensor in squares:
            norms[rows, place] = np.sqrt(sum(squares[piece.tensor][:, a:b].sum(axis=1) for a, b in piece.rows))
