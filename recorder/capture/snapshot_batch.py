"""Snapshots of the same gradients in one update, stacked so that each operation is paid for once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.linalg import vector_norm

from recorder.capture.gradient_snapshot import CopiedRow, GradientSnapshot, LargeDetail
from recorder.transfer import Handle, Outgoing


@dataclass(frozen=True, slots=True)
class SnapshotStack:
    """Snapshots of the same gradients, stacked and not measured further.

    ``flat`` [snapshots, elements] keeps the gradients until the update's measurements have arrived: if something
    turns out not to be finite, it is counted from them.
    """

    like: GradientSnapshot
    minibatches: tuple[int, ...]  # of each snapshot
    flat: Tensor | None
    large: tuple[LargeDetail | None, ...]  # detail of each snapshot of a large model
    norms: Tensor | None  # [snapshots, present]; None: measured from ``flat``, or no gradient
    rows: tuple[Tensor, ...]  # norms [snapshots, rows] of each cut parameter with a gradient; empty with ``flat``
    elements: Tensor | None  # counts [NaN, Inf] over all snapshots
    scale: Tensor | None  # loss scales [snapshots]

    def of_first(self, most: int) -> SnapshotStack:
        """Return the stack with the copies of the first ``most`` steps only; as it is if it has no copies."""
        if self.flat is None:
            return self
        scale = None if self.scale is None else self.scale[:most]
        return replace(self, minibatches=self.minibatches[:most], flat=self.flat[:most], scale=scale)

    def scheduled(self, outgoing: Outgoing) -> SnapshotBatch:
        """Measure what is left to measure, and schedule norms and counts."""
        flat, norms, rows = self.flat, self.norms, self.rows
        if flat is not None:
            spans = self.like.spans
            norms = torch.stack([vector_norm(flat[:, a:b], dim=1, dtype=torch.float64) for _, a, b in spans], dim=1)
            rows = tuple(_row_norms(self.like, flat))
        return SnapshotBatch(
            self.like,
            self.minibatches,
            flat,
            norms=None if norms is None else outgoing.add(norms),
            rows=tuple(outgoing.add(row) for row in rows),
            elements=None if self.elements is None else outgoing.add(self.elements),
            scale=None if self.scale is None else outgoing.add(self.scale),
        )


@dataclass(frozen=True, slots=True)
class SnapshotBatch:
    """A stack of snapshots, and the handles of what is transferred of it."""

    like: GradientSnapshot
    minibatches: tuple[int, ...]  # of each snapshot
    flat: Tensor | None
    norms: Handle | None  # [snapshots, present]; None: no gradient
    rows: tuple[Handle, ...]  # norms [snapshots, rows] of each cut parameter with a gradient
    elements: Handle | None  # counts [NaN, Inf] over all snapshots
    scale: Handle | None  # loss scales [snapshots]


def snapshot_stacks(by_minibatch: Sequence[Sequence[GradientSnapshot]]) -> list[SnapshotStack]:
    """Return the snapshots of an update, stacked as far as they are alike.

    ``by_minibatch`` has the snapshots of each minibatch.
    """
    alike: dict[tuple[object, ...], list[tuple[int, GradientSnapshot]]] = {}
    for minibatch, snapshots in enumerate(by_minibatch):
        for snapshot in snapshots:
            key = (snapshot.plan, snapshot.present, snapshot.flat is None, snapshot.scale is None)
            alike.setdefault(key, []).append((minibatch, snapshot))
    return [
        _stack([snapshot for _, snapshot in members], tuple(minibatch for minibatch, _ in members))
        for members in alike.values()
    ]


def _stack(snapshots: Sequence[GradientSnapshot], minibatches: tuple[int, ...]) -> SnapshotStack:
    like, copies = snapshots[0], [snapshot.flat for snapshot in snapshots if snapshot.flat is not None]
    norms = [snapshot.norms for snapshot in snapshots if snapshot.norms is not None]
    elements = [snapshot.elements for snapshot in snapshots if snapshot.elements is not None]
    scales = [snapshot.scale.reshape(-1) for snapshot in snapshots if snapshot.scale is not None]
    return SnapshotStack(
        like,
        minibatches,
        _joined(copies) if copies else None,
        tuple(snapshot.detail for snapshot in snapshots),
        norms=stacked(norms) if norms else None,
        rows=() if copies else tuple(_rows(snapshots)),
        elements=torch.stack(elements).sum(0) if elements else None,
        scale=torch.stack(scales)[:, 0] if scales else None,
    )


def _joined(rows: Sequence[CopiedRow]) -> Tensor:
    """Return the rows [n, elements]; without a copy if they are consecutive in one block."""
    first = rows[0]
    if all(row.block is first.block and row.index == first.index + n for n, row in enumerate(rows)):
        return first.block[first.index : first.index + len(rows)]
    return torch.stack([row.block[row.index] for row in rows])


def _rows(snapshots: Sequence[GradientSnapshot]) -> list[Tensor]:
    return [torch.stack(row) for row in zip(*(snapshot.rows for snapshot in snapshots), strict=True)]


def _row_norms(snapshot: GradientSnapshot, flat: Tensor) -> list[Tensor]:
    """Return the norms of the rows of each cut parameter, each [snapshots, rows]."""
    cut = set(snapshot.plan.cut)
    norms = []
    for position, start, stop in snapshot.spans:
        if position in cut:
            length = max(len(snapshot.plan.ours[position]), 1)
            rows = flat[:, start:stop].reshape(len(flat), length, -1)
            norms.append(vector_norm(rows, dim=2, dtype=torch.float64))
    return norms


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape stacked; in float64 if their dtypes differ."""
    if len({tensor.dtype for tensor in tensors}) > 1:
        tensors = [tensor.double() for tensor in tensors]
    return torch.stack(list(tensors))
