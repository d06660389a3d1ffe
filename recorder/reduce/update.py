"""Measurements of one update on the host: one array per quantity, its last axis the minibatches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from recorder.capture.batch import LOSSES, Measurements, Parts
from recorder.capture.parameters import Piece
from recorder.capture.update_buffer import Minibatch, UpdateBuffer
from recorder.measure import Numbers
from recorder.measure.losses import EXPECTED
from recorder.reduce.norms import Flags, GradientNorms, gradient_norms
from recorder.transfer import Arrays, Handle


@dataclass(frozen=True, slots=True)
class MinibatchNumbers:
    """M minibatches: measured arrays, and facts known on the host without measuring.

    ``…_known`` arrays are True where a number exists; NaN where a number exists is a measured NaN.
    """

    count: int
    epoch: npt.NDArray[np.int64]
    ratio: Numbers  # [ratios.FIELDS, 1 + H, M]
    heads: Numbers  # [entropy.HEAD_FIELDS and gaussian.STD_FIELDS, H, M]
    joint: Numbers | None  # [entropy.JOINT_FIELDS, M]
    losses: dict[str, Numbers]  # those passed and those expected, by name, each [M]
    sources: tuple[str, ...]
    nonfinite: Numbers  # counts [sources, M]
    clip_range: float | None  # of the last minibatch
    clip_known: bool
    entropy_known: bool
    advantages_known: Flags  # [M]: the raw ones
    used_known: Flags  # [M]: and those that the loss uses
    std_known: tuple[bool, ...]  # by head
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


def minibatch_numbers(buffer: UpdateBuffer, arrays: Arrays, pieces: Sequence[Piece]) -> MinibatchNumbers:
    """Return the numbers of the minibatches (at least one) from the ``arrays`` of what ``buffer`` has scheduled."""
    minibatches, measurements = buffer.minibatches, buffer.measurements
    parts = _merged_parts(len(minibatches), measurements, [arrays[handle] for handle in buffer.packed])
    pre, pre_known = _sparse([minibatch.pre_clip for minibatch in minibatches], buffer.pre_clip, arrays)
    post, post_known = _sparse([minibatch.post_clip for minibatch in minibatches], buffer.post_clip, arrays)
    norms = gradient_norms(buffer.snapshots, arrays, pieces)
    _fill_from_norms(minibatches, norms, pre, pre_known)
    as_clipped = _fill_from_clip(minibatches, norms, pre, post, post_known)
    losses = common_losses(measurements)
    bounds = [minibatch.clip_norm for minibatch in minibatches if minibatch.clip_norm is not None]
    return MinibatchNumbers(
        count=len(minibatches),
        epoch=np.array([minibatch.epoch for minibatch in minibatches], np.int64),
        ratio=parts.ratio,
        heads=parts.heads,
        joint=parts.joint,
        losses={name: row for name, row in zip(losses, parts.losses, strict=True) if name in LOSSES + EXPECTED},
        sources=all_sources(measurements),
        nonfinite=parts.nonfinite,
        clip_range=minibatches[-1].clip_range,
        clip_known=all(minibatch.clip_range is not None for minibatch in minibatches),
        advantages_known=_flags(len(minibatches), measurements, lambda measured: measured.advantages_known),
        used_known=_flags(len(minibatches), measurements, lambda measured: measured.used_known),
        entropy_known=all(measurement.entropy_known for measurement in measurements),
        std_known=tuple(
            all(flags) for flags in zip(*(measurement.std_known for measurement in measurements), strict=True)
        ),
        choices_known=tuple(
            all(flags) for flags in zip(*(measurement.choices_known for measurement in measurements), strict=True)
        ),
        joint_choices_known=all(measurement.joint_choices_known for measurement in measurements),
        unsized=any(measurement.unsized for measurement in measurements),
        steps=np.array([minibatch.steps for minibatch in minibatches], np.int64),
        step_samples=_accumulated(minibatches, parts.ratio[0, 0]),
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
        if minibatch.steps or minibatch.measured:
            since = 0.0
    return totals


def _flags(count: int, measurements: Sequence[Measurements], flag: Callable[[Measurements], bool]) -> Flags:
    """Return a flag of each measurement by minibatch."""
    flags = np.zeros(count, bool)
    for measurement in measurements:
        flags[list(measurement.minibatches)] = flag(measurement)
    return flags


def _merged_parts(count: int, measurements: Sequence[Measurements], packed: Sequence[Numbers]) -> Parts[Numbers]:
    """Merge all measurements, with the minibatches in their original order."""
    cut = [_unpacked(measurement.shapes, array) for measurement, array in zip(measurements, packed, strict=True)]
    if len(measurements) == 1:
        return cut[0]

    def merged(parts: Sequence[Numbers]) -> Numbers:
        whole = np.full((*parts[0].shape[:-1], count), np.nan)
        for measurement, part in zip(measurements, parts, strict=True):
            whole[..., list(measurement.minibatches)] = part
        return whole

    of_measurement = list(zip(measurements, cut, strict=True))
    joint = [part.joint for part in cut if part.joint is not None]
    losses, sources = common_losses(measurements), all_sources(measurements)
    return Parts(
        merged([part.ratio for part in cut]),
        merged([part.heads for part in cut]),
        merged([_rows(measurement.losses, part.losses, losses) for measurement, part in of_measurement]),
        merged([_rows(measurement.sources, part.nonfinite, sources) for measurement, part in of_measurement]),
        merged(joint) if len(joint) == len(cut) else None,
    )


def _rows(names: Sequence[str], rows: Numbers, wanted: Sequence[str]) -> Numbers:
    """Return the ``rows`` called ``wanted``, in that order; zeros where there is none."""
    nothing = np.zeros(rows.shape[-1])
    return np.array([rows[names.index(name)] if name in names else nothing for name in wanted]).reshape(
        -1, rows.shape[-1]
    )


def common_losses(measurements: Sequence[Measurements]) -> tuple[str, ...]:
    """Return the losses that every minibatch has: an update's loss is null if any minibatch lacks it."""
    return tuple(
        name for name in measurements[0].losses if all(name in measurement.losses for measurement in measurements)
    )


def all_sources(measurements: Sequence[Measurements]) -> tuple[str, ...]:
    """Return the names of tensors checked for NaN and Inf in any minibatch."""
    return tuple(dict.fromkeys(name for measurement in measurements for name in measurement.sources))


def _unpacked(shapes: Parts[tuple[int, ...]], packed: Numbers) -> Parts[Numbers]:
    parts, start = [], 0
    for shape in shapes.listed():
        size = math.prod(shape)
        parts.append(packed[start : start + size].reshape(*shape, packed.shape[1]))
        start += size
    return Parts.of(parts)


def _sparse(norms: Sequence[Sequence[Tensor]], handle: Handle | None, arrays: Arrays) -> tuple[Numbers, Flags]:
    """Return the norm of each minibatch that has ``norms``, and where there is one."""
    measured = np.array([bool(of_minibatch) for of_minibatch in norms], bool)
    values = np.full(len(norms), np.nan)
    if handle is not None:
        values[measured] = arrays[handle]
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
