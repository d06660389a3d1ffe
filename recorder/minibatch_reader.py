"""Reader of one minibatch's arguments: checks names and shapes, copies numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recorder import arguments
from recorder.capture.batch import LOSSES
from recorder.guard import ErrorGuard
from recorder.heads import Heads
from recorder.minibatch import BY_HEAD, MinibatchCapture, copied

NEEDED = ("log_prob", "old_log_prob")
"""Arguments required to record a minibatch."""
ROWS = ("joint_log_ratio", "joint_entropy", "values", "advantages", "returns", "old_values")
ORIGINS = ("index", "env", "step")
PER_HEAD = (*BY_HEAD, "masks", "relevant", "actions", "std")
_DISCRETE = ("categorical", "bernoulli")
_ONE_A_SAMPLE = (*ROWS, *ORIGINS, "valid")
_LOSSES = {"total_loss": "loss"}
SUM = "pass their sum over the dimensions, one number a sample (log_prob.sum(-1))"

MinibatchArguments = Mapping[str, Any]
"""Arguments of ``Recorder.minibatch`` by name; None: not passed."""


class DimensionsError(ValueError):
    """Log-probs were not summed over the dimensions of the action."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A minibatch with log-probs [..., A] and no other argument that tells the number of samples."""

    epoch: int
    elements: int
    width: int


@dataclass(slots=True)
class MinibatchReader:
    """Reads minibatches for one set of heads.

    ``matrices``: minibatches of the update in progress that may be N·A samples, or N samples of A dimensions;
    ``unsummed``: a rollout has shown them to be the latter.
    """

    heads: Heads
    guarded: ErrorGuard
    matrices: list[Matrix] = field(default_factory=list)
    unsummed: bool = False
    causal: bool = False  # whether a minibatch of the update in progress had causal masks
    losses_recomputed: bool = False  # whether an adapter computes the losses from what else it hands over

    def begin(self) -> None:
        """Begin an update."""
        self.causal = False
        self.matrices.clear()

    def read(self, passed: MinibatchArguments, epoch: int = 0) -> MinibatchCapture:
        """Return one minibatch, copied; optional arguments that cannot be used are left out and counted.

        Raises ``ValueError`` if the log-probs cannot be used.
        """
        self.causal = self.causal or passed.get("relevant") is not None
        try:
            capture = self._capture(passed)
        except Exception as error:
            self._refuse_unsummed(passed)
            if self.guarded.strict:
                raise
            capture = self._usable(passed, error)
        for name in PER_HEAD:
            self._count_unknown(name, passed.get(name))
        self._count_alone(passed)
        self._note_matrix(passed, capture, epoch)
        if "entropy" in capture.names and capture.valid_actions is None:
            self._warn_unsized(capture)
        return capture

    def _warn_unsized(self, capture: MinibatchCapture) -> None:
        unsized = [name for name in self.heads.categorical if name not in capture.masked and not self.heads.size(name)]
        if unsized:
            self.guarded.warn_once(
                "sizes",
                f"the number of actions of {', '.join(unsized)} is not known, so their entropy cannot be judged for "
                f"collapse: give sizes={{{unsized[0]!r}: …}} to Recorder, or masks= to minibatch(); where the actions "
                f"are continuous, kinds={{{unsized[0]!r}: 'gaussian'}}",
            )

    def _count_unknown(self, argument: str, value: Any) -> None:
        if isinstance(value, Mapping) and not value.keys() <= set(self.heads.names):
            for name in value:
                if name not in self.heads.names:
                    error = arguments.unknown(name, self.heads.names, "head")
                    self.guarded.refuse(f"minibatch({argument})", error)

    def _count_alone(self, passed: MinibatchArguments) -> None:
        """Count a loss if ``returns`` or ``old_values`` was passed without what each is used with."""
        there = {name for name in ("returns", "old_values", "values") if passed.get(name) is not None}
        if "old_values" in there and "returns" not in there:
            missing = "old_values without returns: both are needed for advantage_alignment"
            self.guarded.refuse("minibatch(old_values)", ValueError(missing))
        if there == {"returns"}:
            missing = "returns without old_values or values: they are recorded beside either"
            self.guarded.refuse("minibatch(returns)", ValueError(missing))

    def _usable(self, passed: MinibatchArguments, error: Exception) -> MinibatchCapture:
        """Return a minibatch of the usable arguments, each tested alone. Raises if the log-probs cannot be used."""
        needed = {name: passed[name] for name in NEEDED}
        try:
            capture = self._capture(needed)
        except Exception as needed_error:
            raise needed_error from error
        usable = dict(needed)
        for name in passed:
            if name not in NEEDED and passed[name] is not None:
                with self.guarded(f"minibatch({name})"):
                    self._capture(needed | {name: passed[name]})
                    usable[name] = passed[name]
        capture = self._capture(usable)
        capture.sized = all(name in usable or passed.get(name) is None for name in ("masks", "valid_actions"))
        return capture

    def _refuse_unsummed(self, passed: MinibatchArguments) -> None:
        """Raise ``DimensionsError`` if other arguments show that the last axis of log-probs is that of the action."""
        for name in NEEDED:
            for shape in _shapes(passed[name]):
                if len(shape) > 1 and shape[-1] > 1:
                    samples, elements = math.prod(shape[:-1]), math.prod(shape)
                    counts = self._sample_counts(passed)
                    witness = next((argument for argument, count in counts.items() if count == samples), None)
                    if witness and elements not in [
                        count for argument, count in counts.items() if argument not in BY_HEAD
                    ]:
                        raise DimensionsError(f"{name} of shape {shape} where {witness} has {samples} samples: {SUM}")

    def _sample_counts(self, passed: MinibatchArguments) -> dict[str, int]:
        """Return the number of samples by argument, as far as its shape determines it."""
        counts: dict[str, int] = {}
        for name in (*_ONE_A_SAMPLE, "relevant", *BY_HEAD):
            for shape in _shapes(passed.get(name)):
                if name not in BY_HEAD or len(shape) == 1 or shape[-1] == 1:
                    counts[name] = math.prod(shape)
        for shape in _shapes(passed.get("masks")):
            counts["masks"] = math.prod(shape[:-1])
        for shape in _shapes(passed.get("valid_actions")):
            counts["valid_actions"] = math.prod(shape) // len(self.heads.names)
        return counts

    def _note_matrix(self, passed: MinibatchArguments, capture: MinibatchCapture, epoch: int) -> None:
        """Keep the shape of log-probs [..., A] if no other recorded argument shows that they are N·A samples."""
        new = passed["log_prob"]
        first = new[self.heads.names[0]] if isinstance(new, Mapping) else new
        shape = first.shape if isinstance(first, Tensor) else np.shape(first)
        decided = capture.counted or capture.masked or capture.causal or capture.origins or capture.has_actions
        if len(shape) < 2 or shape[-1] < 2 or decided or capture.valid_actions is not None:
            return
        if any(name in ROWS for name in capture.names):
            return
        if self.unsummed:
            raise DimensionsError(f"log_prob of shape {tuple(shape)}, as in an update before: {SUM}")
        self.matrices.append(Matrix(epoch, capture.numbers.shape[1], int(shape[-1])))

    def judge_matrices(self, minibatches: int, rollout: int | None) -> None:
        """Decide at the end of an update whether its log-probs were summed; ``rollout``: samples collected, if known.

        Raises ``DimensionsError`` if each epoch has A log-probs for every sample of the rollout, or a minibatch has
        more than there are samples. An undecided case is logged once.
        """
        matrices, self.matrices = self.matrices, []
        if not matrices:
            return
        widths, epochs = {matrix.width for matrix in matrices}, {matrix.epoch for matrix in matrices}
        width, uniform = max(widths), len(matrices) == minibatches and len(widths) == 1
        shown = {epoch: sum(matrix.elements for matrix in matrices if matrix.epoch == epoch) for epoch in epochs}
        if rollout is not None and uniform:
            each = all(count == width * rollout for count in shown.values())
            more = any(rollout < matrix.elements <= width * rollout for matrix in matrices)
            if more or (each and (len(epochs) > 1 or width in self.heads.widths.values())):
                self.unsummed = True
                raise DimensionsError(f"{width} log-probs for each of the {rollout} samples of the rollout: {SUM}")
            if all(count <= rollout for count in shown.values()):
                return  # as many as a loop over time × environments passes
        self.guarded.warn_once(
            "matrix",
            f"log_prob of shape [..., {width}] is taken as one sample a number; where {width} are the dimensions of "
            f"one action, {SUM}",
        )

    def _capture(self, passed: MinibatchArguments) -> MinibatchCapture:
        names = self.heads.names
        numbers: list[Any] = []
        rows = [name for name in (*BY_HEAD, *ROWS) if passed.get(name) is not None]
        for name in rows:
            numbers += self._tensors(passed[name]) if name in BY_HEAD else (passed[name],)
        copies = copied(numbers)
        actions, masks, relevant = passed.get("actions"), passed.get("masks"), passed.get("relevant")
        placed = tuple(name for name in ORIGINS if passed.get(name) is not None)
        integers = [] if actions is None else self._actions(actions, copies)
        acted = bool(integers)
        integers += [passed[name] for name in placed]
        masks = {} if masks is None else arguments.by_head(masks, names)
        relevant = {} if relevant is None else arguments.by_head(relevant, names)
        masked = tuple(name for name in self.heads.categorical if name in masks)
        causal = tuple(name for name in names if name in relevant)
        flags = [relevant[name] for name in causal]
        counted = passed.get("valid")
        if counted is not None:
            flags.append(counted)
        together, widths = _masks([masks[name] for name in masked], copies)
        amounts = {name: passed.get(_LOSSES.get(name, name)) for name in LOSSES}
        losses = {name: amount for name, amount in amounts.items() if amount is not None}
        clip_range = passed.get("clip_range")
        return MinibatchCapture(
            self.heads,
            tuple(rows),
            copies,
            placed,
            acted,
            copied(integers, copies).long() if integers else None,
            together,
            masked,
            _valid_actions(passed.get("valid_actions"), len(names), copies),
            copied(flags, copies).bool() if flags else None,
            causal,
            counted is not None,
            tuple(losses),
            _amounts(list(losses.values()), copies.device),
            clip_range if clip_range is None else arguments.number(clip_range),
            widths,
            self._std(passed.get("std"), copies),
            self.losses_recomputed,
        )

    def _actions(self, actions: Any, copies: Tensor) -> list[Any]:
        """Return one row per head, −1 for (continuous) heads without actions; empty if no head has any."""
        actions = arguments.by_head(actions, self.heads.names)
        discrete = [name for name in self.heads.names if name in actions and self.heads.kind(name) in _DISCRETE]
        if not discrete:
            return []
        nothing = torch.full_like(copies[0], -1, dtype=torch.int64)
        return [actions[name] if name in discrete else nothing for name in self.heads.names]

    def _std(self, argument: Any, copies: Tensor) -> dict[str, Tensor]:
        """Return the standard deviations of the heads that have some, copied: [N, dimensions] or [1, dimensions]."""
        by_head = {} if argument is None else arguments.by_head(argument, self.heads.names)
        discrete = [name for name in by_head if name in self.heads.names and self.heads.kind(name) in _DISCRETE]
        if discrete:
            kind = self.heads.kind(discrete[0])
            raise ValueError(f"head {discrete[0]!r} is {kind}: pass kinds={{{discrete[0]!r}: 'gaussian'}} to Recorder")
        return {name: _deviations(by_head[name], copies) for name in self.heads.names if name in by_head}

    def _tensors(self, argument: Any) -> Sequence[Any]:
        """Return one tensor per head, in the order of the heads."""
        names, tensors = self.heads.names, arguments.by_head(argument, self.heads.names)
        try:
            return [tensors[name] for name in names]
        except KeyError as missing:
            raise ValueError(f"no tensor for head {missing} among {', '.join(map(str, tensors))}") from None


def _shapes(argument: Any) -> list[tuple[int, ...]]:
    """Return the shape of an argument, one per head if passed by head; empty if it is not numeric."""
    if argument is None:
        return []
    if isinstance(argument, Mapping):
        return [shape for part in argument.values() for shape in _shapes(part)]
    try:
        return [tuple(argument.shape if isinstance(argument, Tensor) else arguments.tensor(argument).shape)]
    except Exception:  # not numeric: its shape is unknown
        return []


def _masks(by_head: Sequence[Any], copies: Tensor) -> tuple[Tensor | None, tuple[int, ...]]:
    """Return masks [N, K] concatenated [Σ N·K], copied, and their widths K."""
    if not by_head:
        return None, ()
    masks = [
        argument
        if isinstance(argument, Tensor) and argument.device == copies.device
        else arguments.like(argument, copies)
        for argument in by_head
    ]
    widths = tuple(mask.shape[-1] for mask in masks)
    if any(mask.numel() != copies.shape[1] * width for mask, width in zip(masks, widths, strict=True)):
        shapes = ", ".join(str(tuple(mask.shape)) for mask in masks)
        raise ValueError(f"masks of {shapes} for {copies.shape[1]} samples")
    return arguments.tensor(torch.cat([mask.reshape(-1) for mask in masks])), widths


def _deviations(argument: Any, copies: Tensor) -> Tensor:
    """Return standard deviations as [N, dimensions], or as [1, dimensions] where all samples have the same; copied."""
    std, samples = arguments.like(argument, copies), copies.shape[1]
    if not std.is_floating_point():
        raise ValueError(f"std of {std.dtype}: pass standard deviations, as the distribution has them")
    if std.numel() == samples:
        return std.reshape(samples, 1).clone()
    if std.dim() == 0 or std.numel() == std.shape[-1]:
        return std.reshape(1, -1).clone()
    if std.numel() != samples * std.shape[-1]:
        raise ValueError(f"std of shape {tuple(std.shape)} for {samples} samples: pass [N, dimensions] or [dimensions]")
    return std.reshape(samples, -1).clone()


def _valid_actions(argument: Any, heads: int, copies: Tensor) -> Tensor | None:
    """Return counts of valid actions [H, N], copied."""
    if argument is None:
        return None
    counts = arguments.like(argument, copies)
    if counts.numel() != heads * copies.shape[1]:
        raise ValueError(f"valid_actions of shape {tuple(counts.shape)} for {heads} heads, {copies.shape[1]} samples")
    return counts.reshape(heads, -1).clone()


def _amounts(losses: Sequence[Any], device: torch.device) -> Tensor | tuple[Tensor | float, ...]:
    """Return losses as single numbers, copied. Raises ``ValueError`` for a loss that is not reduced."""
    amounts = [loss if isinstance(loss, Tensor) else arguments.number(loss) for loss in losses]
    tensors = [amount for amount in amounts if isinstance(amount, Tensor)]
    for loss in tensors:
        if loss.numel() != 1:
            raise ValueError(f"a loss of shape {tuple(loss.shape)}: pass its mean, one number a minibatch")
    if (
        tensors
        and len(tensors) == len(losses)
        and len({(loss.shape, loss.dtype, loss.device) for loss in tensors}) == 1
    ):
        return arguments.on_device(arguments.tensor(torch.stack(tensors).reshape(-1)), device)
    return tuple(
        arguments.on_device(arguments.tensor(amount), device).clone() if isinstance(amount, Tensor) else amount
        for amount in amounts
    )
