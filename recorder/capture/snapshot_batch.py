"""Snapshots of the same gradients in one update, stacked so that each operation is paid for once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from recorder.capture.gradient_snapshot import CopiedRow, GradientSnapshot, LargeDetail


@dataclass(frozen=True, slots=True)
class SnapshotBatch:
    """Snapshots of the same gradients, stacked; the transfer names them ``norms {name}`` and ``rows {name} {k}``.

    ``flat`` [snapshots, elements] keeps the gradients until the update's measurements have arrived: if something
    turns out not to be finite, it is counted from them.
    """

    name: str
    like: GradientSnapshot
    minibatches: tuple[int, ...]  # of each snapshot
    flat: Tensor | None
    large: tuple[LargeDetail | None, ...]  # detail of each snapshot of a large model


@dataclass(frozen=True, slots=True)
class BatchTensors:
    """A batch of snapshots, and the tensors to transfer for it by name."""

    batch: SnapshotBatch
    tensors: dict[str, Tensor]


def snapshot_batches(by_minibatch: Sequence[Sequence[GradientSnapshot]]) -> Iterator[BatchTensors]:
    """Yield the snapshots of an update that may be stacked; ``by_minibatch`` has those of each minibatch."""
    alike: dict[tuple[object, ...], list[tuple[int, GradientSnapshot]]] = {}
    for minibatch, snapshots in enumerate(by_minibatch):
        for snapshot in snapshots:
            key = (snapshot.plan, snapshot.present, snapshot.flat is None, snapshot.scale is None)
            alike.setdefault(key, []).append((minibatch, snapshot))
    for number, members in enumerate(alike.values()):
        copies = [snapshot.flat for _, snapshot in members if snapshot.flat is not None]
        flat = _joined(copies) if copies else None
        batch = SnapshotBatch(
            str(number),
            members[0][1],
            tuple(minibatch for minibatch, _ in members),
            flat,
            tuple(o.detail for _, o in members),
        )
        yield BatchTensors(batch, _tensors(batch, [snapshot for _, snapshot in members]))


def _joined(rows: Sequence[CopiedRow]) -> Tensor:
    """Return the rows [n, elements]; without a copy if they are consecutive in one block."""
    first = rows[0]
    if all(row.block is first.block and row.index == first.index + n for n, row in enumerate(rows)):
        return first.block[first.index : first.index + len(rows)]
    return torch.stack([row.block[row.index] for row in rows])


def _tensors(batch: SnapshotBatch, snapshots: Sequence[GradientSnapshot]) -> dict[str, Tensor]:
    name, like, flat = batch.name, batch.like, batch.flat
    tensors: dict[str, Tensor] = {}
    norms = [snapshot.norms for snapshot in snapshots if snapshot.norms is not None]
    if norms:
        tensors[f"norms {name}"] = stacked(norms)
    elif flat is not None:
        spans = [vector_norm(flat[:, a:b], dim=1, dtype=torch.float64) for _, a, b in like.spans]
        tensors[f"norms {name}"] = torch.stack(spans, dim=1)
    rows = _row_norms(like, flat) if flat is not None else _rows(snapshots)
    tensors |= {f"rows {name} {k}": row for k, row in enumerate(rows)}
    for what in ("elements", "scale"):
        cells = [cell.reshape(-1) for snapshot in snapshots if (cell := getattr(snapshot, what)) is not None]
        if cells:
            together = torch.stack(cells)
            tensors[f"{what} {name}"] = together.sum(0) if what == "elements" else together[:, 0]
    return tensors


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
