"""Gradient norms of one update, on the host: snapshots merged, non-finite elements counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recorder.capture.parameters import Piece
from recorder.capture.snapshot_batch import SnapshotBatch
from recorder.measure import Numbers
from recorder.measure.gradients import nonfinite_elements
from recorder.transfer import Arrays

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GradientNorms:
    """Piece norms [S, P] at the measured optimizer steps; the last ``ranges`` pieces are row ranges."""

    norms: Numbers
    measured: Flags
    missing: Flags
    ranges: int
    steps: Sequence[int]  # minibatch of each row
    elements: Numbers | None  # NaN and Inf elements over all steps; None if not all could be counted

    @property
    def present(self) -> Flags:
        """Boolean [S, P]: there was a gradient."""
        return self.measured & ~self.missing


def gradient_norms(batches: Sequence[SnapshotBatch], arrays: Arrays, pieces: Sequence[Piece]) -> GradientNorms | None:
    """Return the merged norms of all snapshots: actor and critic may be clipped by separate calls.

    None if no gradient was measured.
    """
    steps = sorted({minibatch for batch in batches for minibatch in batch.minibatches})
    if not steps:
        return None
    shape = (len(steps), len(pieces))
    norms, measured, missing = np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, bool)
    elements: list[Numbers | None] = []
    for batch in batches:
        rows = np.searchsorted(steps, batch.minibatches)[:, None]
        tensors = np.array(batch.like.plan.tensors)
        with_gradient = tensors if batch.like.present is None else tensors[np.array(batch.like.present, np.int64)]
        measured[rows, tensors] = True
        missing[rows, tensors] = True
        missing[rows, with_gradient] = False
        if batch.norms is not None:
            scale = (_ONE if batch.scale is None else arrays[batch.scale])[:, None]
            batch_norms = np.array(arrays[batch.norms], np.float64)
            counts = None if batch.elements is None else arrays[batch.elements]
            elements.append(_nonfinite_counts(batch, batch_norms, counts))
            norms[rows, with_gradient] = batch_norms / scale
            _fill_row_ranges(batch, rows[:, 0], arrays, pieces, norms, scale)
    tensor_of_piece = [piece.tensor for piece in pieces]
    counted = [counts for counts in elements if counts is not None]
    return GradientNorms(
        norms,
        measured[:, tensor_of_piece],
        missing[:, tensor_of_piece],
        sum(piece.rows is not None for piece in pieces),
        steps,
        np.add.reduce(counted) if counted and len(counted) == len(elements) else None,
    )


_ONE = np.ones(1)


def _nonfinite_counts(batch: SnapshotBatch, norms: Numbers, elements: Numbers | None) -> Numbers | None:
    """Return counts of NaN and Inf, read from the copied gradients where the norms show that there are some.

    On a device this waits, but only here, after the update, and only because something is not finite.
    """
    if batch.flat is None:
        return elements
    counts = np.zeros(2)
    for row in np.flatnonzero(~np.isfinite(norms).all(axis=1)):
        counts += nonfinite_elements([batch.flat[row]]).cpu().numpy()
    return counts


def _fill_row_ranges(
    batch: SnapshotBatch,
    rows: npt.NDArray[np.int64],
    arrays: Arrays,
    pieces: Sequence[Piece],
    norms: Numbers,
    scale: Numbers,
) -> None:
    """Fill the norms of row ranges from the norms of single rows."""
    if not batch.like.plan.cut:
        return
    present = set(range(len(batch.like.plan.tensors)) if batch.like.present is None else batch.like.present)
    cut = [batch.like.plan.tensors[position] for position in batch.like.plan.cut if position in present]
    squares = {
        tensor: np.square(arrays[rows_of_tensor] / scale)
        for tensor, rows_of_tensor in zip(cut, batch.rows, strict=True)
    }
    for index, piece in enumerate(pieces):
        if piece.rows is not None and piece.tensor in squares:
            norms[rows, index] = np.sqrt(sum(squares[piece.tensor][:, a:b].sum(axis=1) for a, b in piece.rows))
