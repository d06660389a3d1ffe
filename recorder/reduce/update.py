"""What was measured in one update, arrived on the host, cut back into minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recorder.inner_loop import Flags, Minibatch
from recorder.measure import entropy, ratios
from recorder.minibatch import LOSSES, Measurements

Numbers = npt.NDArray[np.float64]
Cells = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One minibatch: named arrays, and what is known on the host without measuring."""

    ratio: dict[str, Numbers]  # ratios.FIELDS, each [1 + H]
    heads: dict[str, Numbers]  # entropy.HEAD_FIELDS, each [H]
    joint: dict[str, float] | None  # entropy.JOINT_FIELDS
    losses: tuple[float | None, ...]
    nonfinite: dict[str, int]
    epoch: int
    samples: int
    clip_known: bool
    entropy_known: bool
    choices_known: bool
    joint_choices_known: bool
    steps: int
    pre_clip: float | None
    post_clip: float | None
    clip_norm: float | None
    norms: Numbers | None
    seen: Flags | None
    missing: Flags | None


def cut(minibatches: list[Minibatch], measurements: list[Measurements], arrays: dict[str, Numbers]) -> list[Step]:
    """Return the minibatches with the numbers that ``InnerLoop.tensors`` sent."""
    rows = {name: iter(arrays.get(name, ())) for name in ("pre_clip", "post_clip", "norms")}
    steps = []
    for minibatch, (found, parts) in zip(minibatches, _columns(measurements, arrays), strict=True):
        losses = dict(zip(found.losses, parts["losses"].tolist(), strict=True))
        counts = zip(found.sources, parts["nonfinite"].tolist(), strict=True)
        steps.append(
            Step(
                ratio=dict(zip(ratios.FIELDS, parts["ratio"], strict=True)),
                heads=dict(zip(entropy.HEAD_FIELDS, parts["heads"], strict=True)),
                joint=_named(entropy.JOINT_FIELDS, parts.get("joint")),
                losses=tuple(losses.get(name) for name in LOSSES),
                nonfinite={name: int(number) for name, number in counts if number},
                epoch=minibatch.epoch,
                samples=minibatch.samples,
                clip_known=minibatch.clip_range is not None,
                entropy_known=found.entropy_known,
                choices_known=found.choices_known,
                joint_choices_known=found.joint_choices_known,
                steps=minibatch.steps,
                pre_clip=float(next(rows["pre_clip"])) if minibatch.pre_clip else None,
                post_clip=float(next(rows["post_clip"])) if minibatch.post_clip else None,
                clip_norm=minibatch.clip_norm,
                norms=next(rows["norms"]) if minibatch.norms is not None else None,
                seen=minibatch.seen,
                missing=minibatch.missing,
            )
        )
    return steps


def _columns(
    measurements: list[Measurements], arrays: dict[str, Numbers]
) -> Iterator[tuple[Measurements, dict[str, Numbers]]]:
    """Yield each minibatch's named arrays, in the order the minibatches came."""
    for place, found in enumerate(measurements):
        packed = arrays[f"packed {place}"]
        for m in range(found.count):
            column, parts, start = packed[:, m], {}, 0
            for name, shape in found.layout:
                size = int(np.prod(shape))
                parts[name] = column[start : start + size].reshape(shape)
                start += size
            yield found, parts


def _named(fields: tuple[str, ...], values: Numbers | None) -> dict[str, float] | None:
    return None if values is None else {name: float(value) for name, value in zip(fields, values, strict=True)}


def weighted_mean(values: Numbers, weights: Numbers) -> float | None:
    """Return Σ w·x / Σ w over entries of positive weight; None when there is none."""
    counted = weights > 0
    if not counted.any():
        return None
    return float((values[counted] * weights[counted]).sum() / weights[counted].sum())


def known_mean(values: list[float | None]) -> float | None:
    """Return the plain mean of the entries that are there; None when none is."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
