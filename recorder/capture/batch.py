"""Minibatches measured together when the update ends, so that each operation is paid for once.

A minibatch's inputs are captured as they come, without measuring. Captures of one shape become a ``CaptureBatch`` and
are measured together. Nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import torch
from torch import Tensor

from recorder.measure import entropy as entropies
from recorder.measure import ratios
from recorder.measure.estimates import rounding
from recorder.measure.gaussian import STD_FIELDS, std_statistics
from recorder.measure.joined import PIECE, joined
from recorder.measure.losses import EXPECTED, sums_and_count, surrogate_terms

_BY_SAMPLE = (
    "log_prob",
    "old_log_prob",
    "joint_log_ratio",
    "entropy",
    "joint_entropy",
    "valid_actions",
    "relevant",
    "counted",
    "values",
    "actions",
    "advantages",
    "returns",
    "old_values",
    "index",
    "env",
    "step",
)
"""Fields of a batch whose last axis is the samples."""
Loss = Literal["policy_loss", "value_loss", "entropy_loss", "total_loss"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


@dataclass(frozen=True, slots=True)
class CaptureBatch:
    """M minibatches of N samples each; H heads. A field that was not passed is None."""

    heads: tuple[str, ...]
    log_prob: Tensor  # [H, M, N]
    old_log_prob: Tensor  # [H, M, N]
    joint_log_ratio: Tensor | None = None  # [M, N]
    entropy: Tensor | None = None  # [H, M, N]
    joint_entropy: Tensor | None = None  # [M, N]
    valid_actions: Tensor | None = None  # [H, M, N], 0 for a head that is not categorical
    all_categorical: bool = True
    unsized: tuple[str, ...] = ()  # categorical heads whose valid actions are unknown
    relevant: Tensor | None = None  # boolean [H, M, N]
    counted: Tensor | None = None  # boolean [M, N], False on padding
    values: Tensor | None = None  # [M, N]
    clip_range: float | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)  # each [M]
    std: Mapping[str, Tensor] = field(default_factory=dict)  # by head [M, N, dimensions], or [M, 1, dimensions]
    losses_recomputed: bool = False  # from the other fields, by an adapter: they are not the loop's own
    actions: Tensor | None = None  # [H, M, N]
    advantages: Tensor | None = None  # [M, N]
    returns: Tensor | None = None  # [M, N], targets of the value loss
    old_values: Tensor | None = None  # [M, N], stored at collection
    index: Tensor | None = None  # [M, N], position in the rollout
    env: Tensor | None = None  # [M, N]
    step: Tensor | None = None  # [M, N]

    @property
    def raw_advantages(self) -> Tensor | None:
        """Returns minus the values stored at collection [M, N]; None if either was not passed."""
        return None if self.returns is None or self.old_values is None else self.returns - self.old_values

    @property
    def rounding(self) -> Tensor | float:
        """The differences of returns and stored values in each minibatch that are their rounding [M]."""
        if self.returns is None or self.old_values is None:
            return 0.0
        return rounding(self.returns, self.old_values)


class Capture(Protocol):
    """The inputs of one minibatch, not measured yet."""

    @property
    def samples(self) -> int:
        """Number of samples, without padding where the host knows where it lies."""

    @property
    def clip_range(self) -> float | None:
        """Ratio clip range in effect."""

    def shape(self) -> tuple[object, ...]:
        """Return the key that captures must share to be measured together; its first entry is their class."""

    @staticmethod
    def together(captures: Sequence[Capture]) -> CaptureBatch:
        """Return captures of one shape as a batch."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts(Generic[T]):
    """The statistics of M minibatches: as tensors, as shapes without M, or as arrays on the host."""

    ratio: T  # [ratios.FIELDS, 1 + H, M]
    heads: T  # [entropy.HEAD_FIELDS and gaussian.STD_FIELDS, H, M]
    losses: T  # [losses, M]
    nonfinite: T  # counts [sources, M]
    joint: T | None  # [entropy.JOINT_FIELDS, M]; None: no joint entropy

    @staticmethod
    def of(listed: Sequence[T]) -> Parts[T]:
        """Return the parts that ``listed`` has returned, or what was made of each."""
        ratio, heads, losses, nonfinite, *joint = listed
        return Parts(ratio, heads, losses, nonfinite, joint[0] if joint else None)

    def listed(self) -> list[T]:
        """Return the parts there are, in order."""
        parts = [self.ratio, self.heads, self.losses, self.nonfinite]
        return parts if self.joint is None else [*parts, self.joint]


@dataclass(frozen=True, slots=True)
class Measurements:
    """A measured batch: ``packed`` [cells, M] holds the parts of these ``shapes``, concatenated.

    ``minibatches``: their indices in the update.
    """

    packed: Tensor
    shapes: Parts[tuple[int, ...]]
    minibatches: tuple[int, ...]
    sources: tuple[str, ...]  # names of the counts ``nonfinite``
    losses: tuple[str, ...]  # names of the numbers ``losses``
    entropy_known: bool
    std_known: tuple[bool, ...]  # by head
    advantages_known: bool  # the raw ones
    used_known: bool  # and those that the loss uses
    choices_known: tuple[bool, ...]  # by head
    joint_choices_known: bool
    unsized: bool  # the joint entropy cannot be normalised: valid actions of some categorical head are unknown


def measure(batch: CaptureBatch, minibatches: Sequence[int]) -> Measurements:
    """Return the device scalars of a batch."""
    new, valid, entropy, total = batch.log_prob, batch.valid_actions, batch.entropy, batch.joint_entropy
    total = entropy if total is None else total
    expected = _expected_losses(batch)
    losses = _losses(batch, expected)
    sources, parts = _statistics(batch, losses)
    parts = replace(parts, heads=torch.cat([parts.heads, _std_statistics(batch)]))
    room = valid if batch.all_categorical and not batch.unsized else None
    return Measurements(
        packed=torch.cat([part.reshape(-1, new.shape[1]).double() for part in parts.listed()]),
        shapes=Parts.of([tuple(part.shape[:-1]) for part in parts.listed()]),
        minibatches=tuple(minibatches),
        sources=sources,
        losses=(*batch.losses, *expected),
        entropy_known=entropy is not None,
        std_known=tuple(name in batch.std for name in batch.heads),
        advantages_known=batch.raw_advantages is not None,
        used_known=batch.raw_advantages is not None and batch.advantages is not None,
        choices_known=tuple(
            valid is not None and entropy is not None and name not in batch.unsized for name in batch.heads
        ),
        joint_choices_known=room is not None and total is not None,
        unsized=bool(batch.unsized) and batch.all_categorical and total is not None,
    )


def _statistics(batch: CaptureBatch, losses: Tensor) -> tuple[tuple[str, ...], Parts[Tensor]]:
    """Return the names of the counts ``nonfinite``, and the statistics."""
    pieces = pieces_of(batch)
    if len(pieces) == 1:
        return _piece_statistics(batch, losses)
    measured = [_piece_statistics(piece, losses if piece is pieces[0] else losses[:0]) for piece in pieces]
    parts = [statistics for _, statistics in measured]
    counts, joint = parts[0].nonfinite, [part.joint for part in parts if part.joint is not None]
    rest = torch.stack([part.nonfinite for part in parts[1:]]).sum(0)
    return measured[0][0], Parts(
        joined([part.ratio for part in parts], ratios.FIELDS, ratios.JOINS),
        joined([part.heads for part in parts], entropies.HEAD_FIELDS, entropies.HEAD_JOINS),
        losses,
        counts + torch.cat([rest, torch.zeros_like(counts[len(rest) :])]),
        joined(joint, entropies.JOINT_FIELDS, entropies.JOINT_JOINS) if joint else None,
    )


def _std_statistics(batch: CaptureBatch) -> Tensor:
    """Return standard deviations as ``STD_FIELDS`` [fields, H, M]: NaN for heads that have none."""
    unknown = batch.log_prob.new_full((len(STD_FIELDS), batch.log_prob.shape[1]), torch.nan)
    return torch.stack(
        [std_statistics(batch.std[name], batch.counted) if name in batch.std else unknown for name in batch.heads], 1
    )


def pieces_of(batch: CaptureBatch) -> list[CaptureBatch]:
    """Return the batch cut into pieces of ``PIECE`` samples; the batch itself if its minibatches are no larger."""
    minibatches, samples = batch.log_prob.shape[1:]
    rows = {name: rows for name in _BY_SAMPLE if isinstance(rows := getattr(batch, name), Tensor)}
    if samples <= PIECE or any(row_tensor.shape[-1] != samples for row_tensor in rows.values()):
        return [batch]
    size = PIECE // minibatches
    cuts: dict[str, Any] = {name: torch.split(row_tensor, size, dim=-1) for name, row_tensor in rows.items()}
    return [
        replace(batch, **{name: parts[index] for name, parts in cuts.items()}) for index in range(-(-samples // size))
    ]


def _piece_statistics(batch: CaptureBatch, losses: Tensor) -> tuple[tuple[str, ...], Parts[Tensor]]:
    new, old = batch.log_prob, batch.old_log_prob
    valid, entropy, total = batch.valid_actions, batch.entropy, batch.joint_entropy
    if total is None and entropy is not None:
        total = entropy.sum(0)
    clamped, raw = ratios.log_ratios(batch.joint_log_ratio, new - old, batch.relevant)
    sources, nonfinite = _nonfinite(batch, losses)
    room = valid if batch.all_categorical and not batch.unsized else None
    return sources, Parts(
        ratios.ratio_statistics(
            clamped,
            raw,
            batch.clip_range,
            weight_of(batch),
            batch.raw_advantages,
            batch.advantages,
            0.0 if batch.advantages is None else batch.rounding,
        ),
        entropies.head_entropy(entropy, new, valid, batch.counted),
        losses,
        nonfinite,
        None if total is None else entropies.joint_entropy(total, room, batch.counted),
    )


def _losses(batch: CaptureBatch, expected: Mapping[str, Tensor]) -> Tensor:
    """Return the losses that were passed, then those ``expected``, [losses, M] in float64."""
    if not batch.losses:
        return batch.log_prob.new_zeros((0, batch.log_prob.shape[1]), dtype=torch.float64)
    device, losses = batch.log_prob.device, (*batch.losses.values(), *expected.values())
    return torch.stack([loss.to(device=device, dtype=torch.float64) for loss in losses])


def _expected_losses(batch: CaptureBatch) -> dict[str, Tensor]:
    """Return ``EXPECTED`` [M] by name, as far as the loop passed the loss and what it follows from."""
    policy = "policy_loss" in batch.losses and batch.advantages is not None and batch.clip_range is not None
    value = "value_loss" in batch.losses and batch.values is not None and batch.returns is not None
    if batch.losses_recomputed or not (policy or value):
        return {}
    sums = reduce(torch.add, (_expected_sums(piece, policy=policy, value=value) for piece in pieces_of(batch)))
    names = [name for name, there in zip(EXPECTED, (policy, policy, value), strict=True) if there]
    return dict(zip(names, sums[:-1] / sums[-1], strict=True))


def _expected_sums(batch: CaptureBatch, *, policy: bool, value: bool) -> Tensor:
    terms: list[Tensor] = []
    if policy and batch.advantages is not None and batch.clip_range is not None:
        _, raw = ratios.log_ratios(batch.joint_log_ratio, batch.log_prob - batch.old_log_prob, batch.relevant)
        terms += surrogate_terms(raw[0], batch.advantages, batch.clip_range)
    if value and batch.values is not None and batch.returns is not None:
        terms.append((batch.values.double() - batch.returns.double()).square())
    return sums_and_count(terms, batch.counted)


def weight_of(batch: CaptureBatch) -> Tensor | None:
    """Return boolean [1 + H, M, N]: the joint row counts every sample, a head those where it is relevant."""
    if batch.relevant is None:
        if batch.counted is None:
            return None
        return batch.counted.expand(1 + len(batch.heads), *batch.counted.shape)
    joint = torch.ones_like(batch.relevant[:1]) if batch.counted is None else batch.counted.unsqueeze(0)
    return torch.cat([joint, batch.relevant & joint])


def _nonfinite(batch: CaptureBatch, losses: Tensor) -> tuple[tuple[str, ...], Tensor]:
    """Return the names of the checked tensors and their NaN and ±Inf counts per minibatch [names, M], read later."""
    checked = {"log_prob": batch.log_prob, "old_log_prob": batch.old_log_prob, "entropy": batch.entropy}
    names, counts = [], []
    for what, tensor in checked.items():
        if tensor is not None:
            names += [f"{what}[{head}]" for head in batch.heads]
            counts.append(_nonfinite_count(tensor, batch.counted))
    if batch.values is not None:
        same = batch.counted is not None and batch.counted.shape == batch.values.shape
        names.append("values")
        counts.append(_nonfinite_count(batch.values, batch.counted if same else None).unsqueeze(0))
    names += list(batch.losses)
    counts.append((~losses[: len(batch.losses)].isfinite()).long())
    return tuple(names), torch.cat(counts)


def _nonfinite_count(tensor: Tensor, counted: Tensor | None) -> Tensor:
    broken = ~tensor.isfinite()
    return (broken if counted is None else broken & counted).sum(-1)


def as_float(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in float32, or float64 where the loop computes in it."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
