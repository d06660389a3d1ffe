"""Rows of ``tensors``: which weights and gradients are not finite, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esper_analyze.storage.block import Block, nullable
from recorder.capture.parameters import ParameterMap
from recorder.capture.snapshot_batch import SnapshotBatch
from recorder.reduce.norms import GradientNorms


def stability_rows(
    parameters: ParameterMap,
    norms: GradientNorms | None,
    looks: Sequence[SnapshotBatch],
    row: Mapping[str, Any],
    *,
    cause: str,
) -> Block:
    """Return the rows of ``tensors`` for an update whose numbers have arrived; ``row`` is its ``updates`` row.

    Weights are looked at now: this waits for the device, and is done only because something is wrong or was asked.
    """
    count = len(parameters.parameters)
    largest = torch.stack([_largest(parameter) for parameter in parameters.parameters])
    weights = largest.cpu().numpy()
    filled = np.array([parameter.numel() > 0 for parameter in parameters.parameters])
    seen: Any = np.zeros(count, bool)
    broken: Any = np.zeros(count, bool)
    norm: Any = np.full(count, np.nan)
    if norms is not None:
        there, found = norms.there[:, :count], norms.norms[:, :count]
        seen = there.any(axis=0)
        broken = (there & ~np.isfinite(found)).any(axis=0)
        norm = np.where(there, found, -np.inf).max(axis=0)
    gradients, kept = _largest_gradients(looks, count)
    losses = [row.get(name) for name in ("policy_loss", "value_loss", "entropy_loss", "total_loss")]
    known = [loss for loss in losses if loss is not None]
    return Block(
        count,
        {
            "update": row["update"],
            "tensor": parameters.names,
            "cause": cause,
            "elements": np.array([parameter.numel() for parameter in parameters.parameters]),
            "weight_nonfinite": nullable(~np.isfinite(weights), filled),
            "weight_abs_max": nullable(weights, filled),
            "grad_nonfinite": nullable(broken, seen),
            "grad_abs_max": nullable(gradients, kept),
            "grad_norm_max": nullable(norm, seen),
            "grad_norm_pre_clip": row.get("grad_norm_pre_clip_max"),
            "loss_finite": bool(np.isfinite(known).all()) if known else None,
        },
    )


def _largest(parameter: Tensor) -> Tensor:
    """Return the largest |w|; 0 of a parameter without elements."""
    return (
        parameter.detach().abs().amax().double() if parameter.numel() else parameter.new_zeros((), dtype=torch.float64)
    )


def _largest_gradients(looks: Sequence[SnapshotBatch], count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the largest |g| of each tensor over the steps whose gradients were kept, and where there are any."""
    largest, kept = np.zeros(count), np.zeros(count, bool)
    for look in looks:
        if look.flat is None:
            continue
        for position, start, stop in look.like.spans:
            if start == stop:
                continue
            tensor = look.like.plan.places[position]
            size = float(look.flat[:, start:stop].abs().amax())
            largest[tensor] = max(largest[tensor], size) if np.isfinite(size) else size
            kept[tensor] = True
    return largest, kept
