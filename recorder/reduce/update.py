"""Measurements of one update on the host: one array per quantity, its last axis the minibatches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recorder.capture.batch import LOSSES, Measurements
from recorder.capture.parameters import Piece
from recorder.capture.snapshot_batch import SnapshotBatch
from recorder.capture.update_buffer import Minibatch
from recorder.measure import Numbers
from recorder.reduce.norms import Flags, GradientNorms, gradient_norms

Cells = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MinibatchNumbers:
    """M minibatches: measured arrays, and facts known on the host without measuring.

    ``…_known`` arrays are True where a number exists; NaN where a number exists is a measured NaN.
    """

    count: int
    epoch: npt.NDArray[np.int64]
    ratio: Numbers  # [ratios.FIELDS, 1 + H, M]
    heads: Numbers  # [entropy.HEAD_FIELDS, H, M]
    joint: Numbers | None  # [entropy.JOINT_FIELDS, M]
    losses: dict[str, Numbers]  # by name, each [M]
    sources: tuple[str, ...]
    nonfinite: Numbers  # counts [sources, M]
    clip_range: float | None  # of the last minibatch
    clip_known: bool
    entropy_known: bool
    choices_known: tuple[bool, ...]  # by head
    joint_choices_known: bool
    unsized: bool  # the valid actions of some categorical head are unknown
    steps: npt.NDArray[np.int64]
    step_samples: Numbers  # [M] samples behind the gradients at each minibatch: those accumulated since the last step
    pre_clip: Numbers
    pre_clip_known: Flags
    post_clip: Numbers
    post_clip_known: Flags
    clip_norm: float | None
    clipped_once: bool  # at most one clip call a step, so with one bound
    norms: GradientNorms | None
    as_clipped: bool | None  # the optimizer took gradients as the clip left them wherever measured; None: nowhere


def minibatch_numbers(
    minibatches: Sequence[Minibatch],
    measurements: Sequence[Measurements],
    snapshots: Sequence[SnapshotBatch],
    arrays: Mapping[str, Numbers],
    pieces: Sequence[Piece],
) -> MinibatchNumbers:
    """Return the numbers of ``minibatches`` (at least one) from the ``arrays`` sent by ``UpdateBuffer.tensors``."""
    parts = _merged_parts(len(minibatches), measurements, arrays)
    pre, pre_known = _sparse(minibatches, "pre_clip", arrays)
    post, post_known = _sparse(minibatches, "post_clip", arrays)
    norms = gradient_norms(snapshots, arrays, pieces)
    _fill_from_norms(minibatches, norms, pre, pre_known)
    as_clipped = _fill_from_clip(minibatches, norms, pre, post, post_known)
    losses = common_losses(measurements)
    bounds = [minibatch.clip_norm for minibatch in minibatches if minibatch.clip_norm is not None]
    return MinibatchNumbers(
        count=len(minibatches),
        epoch=np.array([minibatch.epoch for minibatch in minibatches], np.int64),
        ratio=parts["ratio"],
        heads=parts["heads"],
        joint=parts.get("joint"),
        losses={name: row for name, row in zip(losses, parts["losses"], strict=True) if name in LOSSES},
        sources=all_sources(measurements),
        nonfinite=parts["nonfinite"],
        clip_range=minibatches[-1].clip_range,
        clip_known=all(minibatch.clip_range is not None for minibatch in minibatches),
        entropy_known=all(measurement.entropy_known for measurement in measurements),
        choices_known=tuple(
            all(flags) for flags in zip(*(measurement.choices_known for measurement in measurements), strict=True)
        ),
        joint_choices_known=all(measurement.joint_choices_known for measurement in measurements),
        unsized=any(measurement.unsized for measurement in measurements),
        steps=np.array([minibatch.steps for minibatch in minibatches], np.int64),
        step_samples=_accumulated(minibatches, parts["ratio"][0, 0]),
        pre_clip=pre,
        pre_clip_known=pre_known,
        post_clip=post,
        post_clip_known=post_known,
        clip_norm=bounds[-1] if bounds else None,
        clipped_once=all(minibatch.clips <= 1 for minibatch in minibatches),
        norms=norms,
        as_clipped=as_clipped,
    )


def _accumulated(minibatches: Sequence[Minibatch], samples: Numbers) -> Numbers:
    """Return the samples behind the gradients at each minibatch: its own and those accumulated before it.

    Accumulation ends at a step, or where gradients were measured for a step that a loss scaler skipped.
    """
    totals, since = samples.copy(), 0.0
    for index, minibatch in enumerate(minibatches):
        totals[index] = since = since + samples[index]
        if minibatch.steps or minibatch.snapshots:
            since = 0.0
    return totals


def _merged_parts(
    count: int, measurements: Sequence[Measurements], arrays: Mapping[str, Numbers]
) -> dict[str, Numbers]:
    """Merge all measurements, with the minibatches in their original order."""
    cut = [_unpacked(measurement, arrays[f"packed {number}"]) for number, measurement in enumerate(measurements)]
    if len(measurements) == 1:
        return cut[0]
    common = [name for name in cut[0] if all(name in part for part in cut)]
    parts: dict[str, Numbers] = {}
    for measurement, part in zip(measurements, cut, strict=True):
        for name in common:
            rows = _rows_in_order(name, measurement, part[name], measurements)
            merged = parts.setdefault(name, np.full((*rows.shape[:-1], count), np.nan))
            merged[..., list(measurement.minibatches)] = rows
    return parts


def _rows_in_order(
    name: str, measurement: Measurements, rows: Numbers, measurements: Sequence[Measurements]
) -> Numbers:
    """Return the rows of a part that all measurements share: common losses, and counts for all sources."""
    if name == "losses":
        return np.array([rows[measurement.losses.index(loss)] for loss in common_losses(measurements)]).reshape(
            -1, rows.shape[-1]
        )
    if name == "nonfinite":
        nothing = np.zeros(rows.shape[-1])
        sources = all_sources(measurements)
        return np.array(
            [
                rows[measurement.sources.index(source)] if source in measurement.sources else nothing
                for source in sources
            ]
        )
    return rows


def common_losses(measurements: Sequence[Measurements]) -> tuple[str, ...]:
    """Return the losses that every minibatch has: an update's loss is null if any minibatch lacks it."""
    return tuple(
        name for name in measurements[0].losses if all(name in measurement.losses for measurement in measurements)
    )


def all_sources(measurements: Sequence[Measurements]) -> tuple[str, ...]:
    """Return the names of tensors checked for NaN and Inf in any minibatch."""
    return tuple(dict.fromkeys(name for measurement in measurements for name in measurement.sources))


def _unpacked(measurement: Measurements, packed: Numbers) -> dict[str, Numbers]:
    parts, start = {}, 0
    for name, shape in measurement.layout:
        size = math.prod(shape)
        parts[name] = packed[start : start + size].reshape(*shape, packed.shape[1])
        start += size
    return parts


def _sparse(minibatches: Sequence[Minibatch], name: str, arrays: Mapping[str, Numbers]) -> tuple[Numbers, Flags]:
    measured = np.array([bool(getattr(minibatch, name)) for minibatch in minibatches], bool)
    values = np.full(len(minibatches), np.nan)
    if name in arrays:
        values[measured] = arrays[name]
    return values, measured


AGREEMENT = 1e-4
"""Relative difference up to which a measured post-clip norm agrees with the clip."""


def _fill_from_clip(
    minibatches: Sequence[Minibatch], norms: GradientNorms | None, pre: Numbers, post: Numbers, measured: Flags
) -> bool | None:
    """Fill unmeasured post-clip norms from the clip's own coefficient min(1, max_norm / norm).

    Return whether all measured post-clip norms agree with it; None if none can be compared.
    """
    indices = [index for index, minibatch in enumerate(minibatches) if minibatch.as_clipped]
    if norms is None or not indices:
        return None
    row_of = {index: row for row, index in enumerate(norms.steps)}
    rows, at = [row_of[index] for index in indices], np.array(indices)
    bound = np.array([minibatches[index].clip_norm for index in indices], np.float64)
    coefficient = np.minimum(bound / (pre[at] + 1e-6), 1.0)
    tensors = norms.norms[rows][:, : norms.norms.shape[1] - norms.ranges]
    left = np.sqrt(np.square(tensors * coefficient[:, None]).sum(axis=1))
    both = measured[at]
    agree = np.isclose(post[at][both], left[both], rtol=AGREEMENT, atol=1e-12, equal_nan=True)
    post[at[~both]], measured[at] = left[~both], True
    return bool(agree.all()) if len(agree) else None


def _fill_from_norms(
    minibatches: Sequence[Minibatch], norms: GradientNorms | None, pre: Numbers, measured: Flags
) -> None:
    """Fill the pre-clip norms that no clip call returned from the tensors' norms."""
    if norms is None:
        return
    for row, index in enumerate(norms.steps):
        if minibatches[index].pre_from_norms and norms.present[row].any():
            tensors = slice(0, norms.norms.shape[1] - norms.ranges)
            pre[index], measured[index] = np.sqrt(np.square(norms.norms[row, tensors]).sum()), True


@dataclass(frozen=True, slots=True)
class Summary:
    """Reductions [fields][rows] over all minibatches, as plain lists; ``count`` [rows] of samples.

    Minibatches without a counted sample are left out of a row; ``weighted``: mean weighted by samples.
    """

    count: list[float]
    mean: list[list[float]]
    weighted: list[list[float]]
    total: list[list[float]]
    largest: list[list[float]]
    smallest: list[list[float]]


def summary(numbers: Numbers, counts: Numbers) -> Summary:
    """Return the reductions of ``numbers`` [F, R, M] with ``counts`` [R, M] of samples."""
    values, high, low, steps = numbers, numbers, numbers, numbers.shape[-1]
    if not counts.min(initial=1.0) > 0:
        counted = counts > 0
        steps = counted.sum(axis=-1)
        values = np.where(counted, numbers, 0.0)
        high, low = np.where(counted, numbers, -np.inf), np.where(counted, numbers, np.inf)
    samples = counts.sum(axis=-1)
    return Summary(
        samples.tolist(),
        (values.sum(axis=-1) / steps).tolist(),
        ((values * counts).sum(axis=-1) / samples).tolist(),
        values.sum(axis=-1).tolist(),
        high.max(axis=-1, initial=-np.inf).tolist(),
        low.min(axis=-1, initial=np.inf).tolist(),
    )
