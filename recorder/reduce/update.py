"""What was measured in one update, arrived on the host: one array a quantity, its last axis the minibatches."""

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
    """M minibatches: measured arrays, and what is known on the host without measuring.

    ``known`` arrays say where a number exists; NaN in a number that exists is a measured NaN.
    """

    count: int
    epoch: npt.NDArray[np.int64]
    ratio: Numbers  # [ratios.FIELDS, 1 + H, M]
    heads: Numbers  # [entropy.HEAD_FIELDS, H, M]
    joint: Numbers | None  # [entropy.JOINT_FIELDS, M]
    losses: dict[str, Numbers]  # those given, each [M]
    sources: tuple[str, ...]
    nonfinite: Numbers  # counts [sources, M]
    clip_range: float | None  # of the last minibatch
    clip_known: bool
    entropy_known: bool
    choices_known: tuple[bool, ...]  # by head
    joint_choices_known: bool
    unsized: bool  # categorical heads, and nobody knows the valid actions of all of them
    steps: npt.NDArray[np.int64]
    step_samples: Numbers  # [M] samples behind the gradients at each minibatch: those accumulated since the last step
    pre_clip: Numbers
    pre_clip_known: Flags
    post_clip: Numbers
    post_clip_known: Flags
    clip_norm: float | None
    clipped_whole: bool  # never by several clip calls a step, each with a bound of its own
    norms: GradientNorms | None
    as_clipped: bool | None  # the optimizer took gradients as the clip left them, wherever both were measured


def minibatch_numbers(
    minibatches: Sequence[Minibatch],
    measurements: Sequence[Measurements],
    looks: Sequence[SnapshotBatch],
    arrays: Mapping[str, Numbers],
    pieces: Sequence[Piece],
) -> MinibatchNumbers:
    """Return the minibatches with the numbers that ``InnerLoop.tensors`` sent; there must be at least one."""
    parts = _parts(len(minibatches), measurements, arrays)
    pre, pre_known = _sparse(minibatches, "pre_clip", arrays)
    post, post_known = _sparse(minibatches, "post_clip", arrays)
    norms = gradient_norms(looks, arrays, pieces)
    _follow_from_norms(minibatches, norms, pre, pre_known)
    as_clipped = _follow_from_clip(minibatches, norms, pre, post, post_known)
    losses = common_losses(measurements)
    bounds = [one.clip_norm for one in minibatches if one.clip_norm is not None]
    return MinibatchNumbers(
        count=len(minibatches),
        epoch=np.array([one.epoch for one in minibatches], np.int64),
        ratio=parts["ratio"],
        heads=parts["heads"],
        joint=parts.get("joint"),
        losses={name: row for name, row in zip(losses, parts["losses"], strict=True) if name in LOSSES},
        sources=all_sources(measurements),
        nonfinite=parts["nonfinite"],
        clip_range=minibatches[-1].clip_range,
        clip_known=all(one.clip_range is not None for one in minibatches),
        entropy_known=all(found.entropy_known for found in measurements),
        choices_known=tuple(all(known) for known in zip(*(found.choices_known for found in measurements), strict=True)),
        joint_choices_known=all(found.joint_choices_known for found in measurements),
        unsized=any(found.unsized for found in measurements),
        steps=np.array([one.steps for one in minibatches], np.int64),
        step_samples=_accumulated(minibatches, parts["ratio"][0, 0]),
        pre_clip=pre,
        pre_clip_known=pre_known,
        post_clip=post,
        post_clip_known=post_known,
        clip_norm=bounds[-1] if bounds else None,
        clipped_whole=all(one.clips <= 1 for one in minibatches),
        norms=norms,
        as_clipped=as_clipped,
    )


def _accumulated(minibatches: Sequence[Minibatch], samples: Numbers) -> Numbers:
    """Return the samples of each minibatch, with those before it whose gradients it adds to.

    Gradients end where a step was taken, or where they were measured for one that was not (left out by a loss scaler).
    """
    found, since = samples.copy(), 0.0
    for place, one in enumerate(minibatches):
        found[place] = since = since + samples[place]
        if one.steps or one.seen:
            since = 0.0
    return found


def _parts(count: int, measurements: Sequence[Measurements], arrays: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """Put the minibatches of all measurements back in the order in which they came."""
    cut = [_cut(found, arrays[f"packed {number}"]) for number, found in enumerate(measurements)]
    if len(measurements) == 1:
        return cut[0]
    common = [name for name in cut[0] if all(name in part for part in cut)]
    parts: dict[str, Numbers] = {}
    for found, part in zip(measurements, cut, strict=True):
        for name in common:
            rows = _rows_in_order(name, found, part[name], measurements)
            whole = parts.setdefault(name, np.full((*rows.shape[:-1], count), np.nan))
            whole[..., list(found.places)] = rows
    return parts


def _rows_in_order(name: str, found: Measurements, rows: Numbers, measurements: Sequence[Measurements]) -> Numbers:
    """Return the rows of a part that all measurements can give: losses that all have, counts of all sources."""
    if name == "losses":
        return np.array([rows[found.losses.index(loss)] for loss in common_losses(measurements)]).reshape(
            -1, rows.shape[-1]
        )
    if name == "nonfinite":
        nothing = np.zeros(rows.shape[-1])
        sources = all_sources(measurements)
        return np.array([rows[found.sources.index(one)] if one in found.sources else nothing for one in sources])
    return rows


def common_losses(measurements: Sequence[Measurements]) -> tuple[str, ...]:
    """Return the losses that every minibatch has: an update's loss is null when some lack it."""
    return tuple(name for name in measurements[0].losses if all(name in found.losses for found in measurements))


def all_sources(measurements: Sequence[Measurements]) -> tuple[str, ...]:
    """Return whatever was looked at for NaN and Inf in some minibatch."""
    return tuple(dict.fromkeys(name for found in measurements for name in found.sources))


def _cut(found: Measurements, packed: Numbers) -> dict[str, Numbers]:
    parts, start = {}, 0
    for name, shape in found.layout:
        size = math.prod(shape)
        parts[name] = packed[start : start + size].reshape(*shape, packed.shape[1])
        start += size
    return parts


def _sparse(minibatches: Sequence[Minibatch], name: str, arrays: Mapping[str, Numbers]) -> tuple[Numbers, Flags]:
    known = np.array([bool(getattr(one, name)) for one in minibatches], bool)
    values = np.full(len(minibatches), np.nan)
    if name in arrays:
        values[known] = arrays[name]
    return values, known


AGREES = 1e-4
"""Relative difference up to which a measured post-clip norm counts as what the clip left."""


def _follow_from_clip(
    minibatches: Sequence[Minibatch], norms: GradientNorms | None, pre: Numbers, post: Numbers, known: Flags
) -> bool | None:
    """Fill the post-clip norms that were not measured from the clip's own coefficient min(1, max_norm / norm).

    Return whether all that were measured agree with it; None when none can be compared.
    """
    places = [place for place, one in enumerate(minibatches) if one.as_clipped]
    if norms is None or not places:
        return None
    row_of = {place: row for row, place in enumerate(norms.steps)}
    rows, at = [row_of[place] for place in places], np.array(places)
    bound = np.array([minibatches[place].clip_norm for place in places], np.float64)
    coefficient = np.minimum(bound / (pre[at] + 1e-6), 1.0)
    tensors = norms.norms[rows][:, : norms.norms.shape[1] - norms.ranges]
    left = np.sqrt(np.square(tensors * coefficient[:, None]).sum(axis=1))
    both = known[at]
    agree = np.isclose(post[at][both], left[both], rtol=AGREES, atol=1e-12, equal_nan=True)
    post[at[~both]], known[at] = left[~both], True
    return bool(agree.all()) if len(agree) else None


def _follow_from_norms(
    minibatches: Sequence[Minibatch], norms: GradientNorms | None, pre: Numbers, known: Flags
) -> None:
    """Fill the pre-clip norms that no clip call returned."""
    if norms is None:
        return
    for row, place in enumerate(norms.steps):
        if minibatches[place].pre_from_norms and norms.there[row].any():
            whole = slice(0, norms.norms.shape[1] - norms.ranges)
            pre[place], known[place] = np.sqrt(np.square(norms.norms[row, whole]).sum()), True


@dataclass(frozen=True, slots=True)
class Summary:
    """Fields × rows over all minibatches, as plain lists: ``at(numbers, field, row)`` reads one.

    Minibatches in which a row counts no sample are left out of that row; ``weighted`` weighs by samples.
    """

    count: list[float]
    mean: list[list[float]]
    weighted: list[list[float]]
    total: list[list[float]]
    largest: list[list[float]]
    smallest: list[list[float]]


def summary(numbers: Numbers, counts: Numbers) -> Summary:
    """Return the reductions of ``numbers`` [F, R, M] with ``counts`` [R, M] of samples."""
    held, high, low, steps = numbers, numbers, numbers, numbers.shape[-1]
    if not counts.min(initial=1.0) > 0:
        counted = counts > 0
        steps = counted.sum(axis=-1)
        held = np.where(counted, numbers, 0.0)
        high, low = np.where(counted, numbers, -np.inf), np.where(counted, numbers, np.inf)
    samples = counts.sum(axis=-1)
    return Summary(
        samples.tolist(),
        (held.sum(axis=-1) / steps).tolist(),
        ((held * counts).sum(axis=-1) / samples).tolist(),
        held.sum(axis=-1).tolist(),
        high.max(axis=-1, initial=-np.inf).tolist(),
        low.min(axis=-1, initial=np.inf).tolist(),
    )
