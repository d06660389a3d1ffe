"""What was measured in one update, arrived on the host: one array a quantity, its last axis the minibatches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recorder.batch import LOSSES, Measurements
from recorder.inner_loop import Looks, Minibatch
from recorder.measure import entropy, ratios

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Cells = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Inner:
    """M minibatches: measured arrays, and what is known on the host without measuring.

    ``known`` arrays say where a number exists; NaN in a number that exists is a measured NaN.
    """

    count: int
    epoch: npt.NDArray[np.int64]
    ratio: dict[str, Numbers]  # ratios.FIELDS, each [1 + H, M]
    heads: dict[str, Numbers]  # entropy.HEAD_FIELDS, each [H, M]
    joint: dict[str, Numbers] | None  # entropy.JOINT_FIELDS, each [M]
    losses: dict[str, Numbers]  # those given, each [M]
    nonfinite: dict[str, Numbers]  # counts by source, each [M]
    clip_known: bool
    entropy_known: bool
    choices_known: bool
    joint_choices_known: bool
    steps: npt.NDArray[np.int64]
    pre_clip: Numbers
    pre_clip_known: Flags
    post_clip: Numbers
    post_clip_known: Flags
    clip_norm: float | None
    norms: GradientNorms | None = field(default=None)


@dataclass(frozen=True, slots=True)
class GradientNorms:
    """Piece norms [S, P] of the optimizer steps at which gradients were seen; the last ``ranges`` are row ranges."""

    norms: Numbers
    seen: Flags
    missing: Flags
    ranges: int


def inner(
    minibatches: Sequence[Minibatch],
    measurements: Sequence[Measurements],
    looks: Sequence[Looks],
    arrays: Mapping[str, Numbers],
    pieces: Sequence[tuple[int, tuple[int, int] | None]],
) -> Inner:
    """Return the minibatches with the numbers that ``InnerLoop.tensors`` sent; there must be at least one.

    ``pieces``: tensor and row range of each piece of the model.
    """
    count = len(minibatches)
    parts = _parts(count, measurements, arrays)
    pre, pre_known = _sparse(minibatches, "pre_clip", arrays)
    post, post_known = _sparse(minibatches, "post_clip", arrays)
    first = measurements[0]
    bounds = [one.clip_norm for one in minibatches if one.clip_norm is not None]
    return Inner(
        count=count,
        epoch=np.array([one.epoch for one in minibatches], np.int64),
        ratio=_named(ratios.FIELDS, parts["ratio"]),
        heads=_named(entropy.HEAD_FIELDS, parts["heads"]),
        joint=_named(entropy.JOINT_FIELDS, parts["joint"]) if "joint" in parts else None,
        losses={name: row for name, row in zip(first.losses, parts["losses"], strict=True) if name in LOSSES},
        nonfinite=_named(first.sources, parts["nonfinite"]),
        clip_known=minibatches[0].clip_range is not None,
        entropy_known=first.entropy_known,
        choices_known=first.choices_known,
        joint_choices_known=first.joint_choices_known,
        steps=np.array([one.steps for one in minibatches], np.int64),
        pre_clip=pre,
        pre_clip_known=pre_known,
        post_clip=post,
        post_clip_known=post_known,
        clip_norm=bounds[-1] if bounds else None,
        norms=_gradient_norms(looks, arrays, pieces),
    )


def _parts(count: int, measurements: Sequence[Measurements], arrays: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """Put the minibatches of all measurements back in the order in which they came."""
    parts: dict[str, Numbers] = {}
    for number, found in enumerate(measurements):
        packed, start, places = arrays[f"packed {number}"], 0, list(found.places)
        for name, shape in found.layout:
            size = int(np.prod(shape))
            whole = parts.setdefault(name, np.full((*shape, count), np.nan))
            whole[..., places] = packed[start : start + size].reshape(*shape, len(places))
            start += size
    return parts


def _named(names: Sequence[str], rows: Numbers) -> dict[str, Numbers]:
    return dict(zip(names, rows, strict=True))


def _sparse(minibatches: Sequence[Minibatch], name: str, arrays: Mapping[str, Numbers]) -> tuple[Numbers, Flags]:
    known = np.array([bool(getattr(one, name)) for one in minibatches], bool)
    values = np.full(len(minibatches), np.nan)
    if name in arrays:
        values[known] = arrays[name]
    return values, known


def _gradient_norms(
    looks: Sequence[Looks], arrays: Mapping[str, Numbers], pieces: Sequence[tuple[int, tuple[int, int] | None]]
) -> GradientNorms | None:
    """Join the looks at a minibatch's gradients: actor and critic may be clipped by calls of their own."""
    steps = sorted({place for look in looks for place in look.places})
    if not steps:
        return None
    row_of = {place: row for row, place in enumerate(steps)}
    shape = (len(steps), len(pieces))
    norms, seen, missing = np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, bool)
    for look in looks:
        rows = np.array([row_of[place] for place in look.places])
        tensors = np.array(look.like.plan.places)
        positions = np.arange(len(tensors)) if look.like.present is None else np.array(look.like.present, np.int64)
        seen[np.ix_(rows, tensors)] = True
        missing[np.ix_(rows, tensors)] = True
        missing[np.ix_(rows, tensors[positions])] = False
        if len(positions):
            norms[np.ix_(rows, tensors[positions])] = arrays[f"norms {look.name}"]
        _cut(look, rows, arrays, pieces, norms)
    whole = [tensor for tensor, _ in pieces]
    return GradientNorms(norms, seen[:, whole], missing[:, whole], sum(span is not None for _, span in pieces))


def _cut(
    look: Looks,
    rows: npt.NDArray[np.int64],
    arrays: Mapping[str, Numbers],
    pieces: Sequence[tuple[int, tuple[int, int] | None]],
    norms: Numbers,
) -> None:
    """Fill the norms of row ranges from the norms of single rows."""
    present = set(range(len(look.like.plan.places)) if look.like.present is None else look.like.present)
    cut = [look.like.plan.places[position] for position in look.like.plan.cut if position in present]
    squares = {tensor: np.square(arrays[f"rows {look.name} {k}"]) for k, tensor in enumerate(cut)}
    for place, (tensor, span) in enumerate(pieces):
        if span is not None and tensor in squares:
            norms[rows, place] = np.sqrt(squares[tensor][:, span[0] : span[1]].sum(axis=1))


def weighted_mean(values: Numbers, weights: Numbers) -> float | None:
    """Return Σ w·x / Σ w over entries of positive weight; None when there is none."""
    total = float(weights.sum())
    if not total > 0:
        return None
    if weights.min() > 0:
        return float(values @ weights) / total
    counted = weights > 0
    return float(values[counted] @ weights[counted]) / total
