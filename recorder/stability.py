"""Rows of ``tensors``: non-finite weights and gradients, and their largest magnitudes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esper_analyze.schema.row_types import TensorsColumns, UpdatesRow
from esper_analyze.storage.block import Block, nullable
from recorder.capture.batch import LOSSES
from recorder.capture.parameters import ParameterMap
from recorder.capture.snapshot_batch import SnapshotBatch
from recorder.measure import Numbers
from recorder.reduce.norms import GradientNorms


def stability_rows(
    parameters: ParameterMap,
    norms: GradientNorms | None,
    batches: Sequence[SnapshotBatch],
    row: UpdatesRow,
    weights: Numbers | None,
    *,
    cause: str,
) -> Block:
    """Return the rows of ``tensors`` for an update whose measurements have arrived; ``row``: its ``updates`` row.

    ``weights``: the largest magnitude of each parameter [T]; None: they are read now, unless they are in another
    process. That waits for the device, and happens only after a failure or on request.
    """
    count = len(parameters.parameters)
    weights = largest_weights(parameters) if weights is None else weights
    filled = np.array([parameter.numel() > 0 for parameter in parameters.parameters]) & (weights is not None)
    weights = np.zeros(count) if weights is None else weights
    measured: Any = np.zeros(count, bool)
    broken: Any = np.zeros(count, bool)
    norm: Any = np.full(count, np.nan)
    if norms is not None:
        present, tensor_norms = norms.present[:, :count], norms.norms[:, :count]
        measured = present.any(axis=0)
        broken = (present & ~np.isfinite(tensor_norms)).any(axis=0)
        norm = np.where(present, tensor_norms, -np.inf).max(axis=0)
    gradients, copied = _largest_gradients(batches, count)
    losses = [row.get(name) for name in LOSSES]
    recorded = [loss for loss in losses if loss is not None]
    cells: TensorsColumns = {
        "update": row["update"],
        "tensor": parameters.names,
        "cause": cause,
        "elements": np.array([parameter.numel() for parameter in parameters.parameters]),
        "weight_nonfinite": nullable(~np.isfinite(weights), filled),
        "weight_abs_max": nullable(weights, filled),
        "grad_nonfinite": nullable(broken, measured),
        "grad_abs_max": nullable(gradients, copied),
        "grad_norm_max": nullable(norm, measured),
        "grad_norm_pre_clip": row.get("grad_norm_pre_clip_max"),
        "loss_finite": bool(np.isfinite(recorded).all()) if recorded else None,
    }
    return Block(count, cells)


def largest_weights(parameters: ParameterMap) -> Numbers | None:
    """Return the largest magnitude of each parameter [T], 0 for one without elements; None if they are not here."""
    if any(parameter.is_meta for parameter in parameters.parameters):
        return None
    numbers: Numbers = torch.stack([_largest(parameter) for parameter in parameters.parameters]).cpu().numpy()
    return numbers


def _largest(parameter: Tensor) -> Tensor:
    """Return the largest |w|; 0 for a parameter without elements."""
    return (
        parameter.detach().abs().amax().double() if parameter.numel() else parameter.new_zeros((), dtype=torch.float64)
    )


def _largest_gradients(
    batches: Sequence[SnapshotBatch], count: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the largest |g| of each tensor over the copied gradients, and where there are any (boolean)."""
    largest, copied = np.zeros(count), np.zeros(count, bool)
    for batch in batches:
        if batch.flat is None:
            continue
        for position, start, stop in batch.like.spans:
            if start == stop:
                continue
            tensor = batch.like.plan.tensors[position]
            size = float(batch.flat[:, start:stop].abs().amax())
            largest[tensor] = max(largest[tensor], size) if np.isfinite(size) else size
            copied[tensor] = True
    return largest, copied
