"""Takes up what the loop hands over for one minibatch: checks names and shapes, copies numbers."""

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
"""What a minibatch cannot be recorded without."""
ROWS = ("joint_log_ratio", "joint_entropy", "values", "advantages")
ORIGINS = ("index", "env", "step")
PER_HEAD = (*BY_HEAD, "masks", "relevant", "actions")
_DISCRETE = ("categorical", "bernoulli")
_ONE_A_SAMPLE = (*ROWS, *ORIGINS, "valid")
_LOSSES = {"total_loss": "loss"}
SUM = "hand over their sum over the dimensions, one number a sample (log_prob.sum(-1))"

MinibatchArguments = Mapping[str, Any]
"""Arguments of ``Recorder.minibatch`` by name; None: not given."""


class DimensionsError(ValueError):
    """Log-probs that were not summed over the dimensions of the action."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A minibatch whose log-probs are [..., A], while nothing handed over says how many samples that is."""

    epoch: int
    elements: int
    width: int


@dataclass(slots=True)
class MinibatchReader:
    """Makes samples for one set of heads.

    ``matrices`` are the minibatches of the update in progress that may be N·A samples, or N of A dimensions each;
    ``unsummed`` says that a rollout has shown them to be the latter.
    """

    heads: Heads
    guarded: ErrorGuard
    matrices: list[Matrix] = field(default_factory=list)
    unsummed: bool = False
    causal: bool = False  # whether a minibatch of the update in progress came with causal masks

    def begin(self) -> None:
        """Begin an update."""
        self.causal = False
        self.matrices.clear()

    def sample(self, given: MinibatchArguments, epoch: int = 0) -> MinibatchCapture:
        """Return one minibatch, copied, without the optional arguments that cannot be used: these are counted.

        Raises ``ValueError`` when the log-probs cannot be used.
        """
        self.causal = self.causal or given.get("relevant") is not None
        try:
            sample = self._sample(given)
        except Exception as error:
            self._refuse_unsummed(given)
            if self.guarded.strict:
                raise
            sample = self._usable(given, error)
        for name in PER_HEAD:
            self._count_unknown(name, given.get(name))
        self._note_matrix(given, sample, epoch)
        if "entropy" in sample.names and sample.valid_actions is None:
            self._tell_unsized(sample)
        return sample

    def _tell_unsized(self, sample: MinibatchCapture) -> None:
        unsized = [name for name in self.heads.categorical if name not in sample.masked and not self.heads.size(name)]
        if unsized:
            self.guarded.tell_once(
                "sizes",
                f"the number of actions of {', '.join(unsized)} is not known, so their entropy cannot be judged for "
                f"collapse: give sizes={{{unsized[0]!r}: …}} to Recorder, or masks= to minibatch(); where the actions "
                f"are continuous, kinds={{{unsized[0]!r}: 'gaussian'}}",
            )

    def _count_unknown(self, argument: str, given: Any) -> None:
        if isinstance(given, Mapping) and not given.keys() <= set(self.heads.names):
            for name in given:
                if name not in self.heads.names:
                    error = arguments.unknown(name, self.heads.names, "head")
                    self.guarded.refuse(f"minibatch({argument})", error)

    def _usable(self, given: MinibatchArguments, error: Exception) -> MinibatchCapture:
        """Return a minibatch of what can be recorded, each argument tried alone. Raises where log-probs cannot be."""
        needed = {name: given[name] for name in NEEDED}
        try:
            sample = self._sample(needed)
        except Exception as needed_error:
            raise needed_error from error
        usable = dict(needed)
        for name in given:
            if name not in NEEDED and given[name] is not None:
                with self.guarded(f"minibatch({name})"):
                    self._sample(needed | {name: given[name]})
                    usable[name] = given[name]
        sample = self._sample(usable)
        sample.sized = all(name in usable or given.get(name) is None for name in ("masks", "valid_actions"))
        return sample

    def _refuse_unsummed(self, given: MinibatchArguments) -> None:
        """Raise ``DimensionsError`` where other arguments show that the last axis of log-probs is the action's."""
        for name in NEEDED:
            for shape in _shapes(given[name]):
                if len(shape) > 1 and shape[-1] > 1:
                    samples, elements = math.prod(shape[:-1]), math.prod(shape)
                    counts = self._samples_said(given)
                    said = next((one for one, count in counts.items() if count == samples), None)
                    if said and elements not in [count for one, count in counts.items() if one not in BY_HEAD]:
                        raise DimensionsError(f"{name} of shape {shape} where {said} has {samples} samples: {SUM}")

    def _samples_said(self, given: MinibatchArguments) -> dict[str, int]:
        """Return how many samples each argument stands for, as far as its shape says."""
        counts: dict[str, int] = {}
        for name in (*_ONE_A_SAMPLE, "relevant", *BY_HEAD):
            for shape in _shapes(given.get(name)):
                if name not in BY_HEAD or len(shape) == 1 or shape[-1] == 1:
                    counts[name] = math.prod(shape)
        for shape in _shapes(given.get("masks")):
            counts["masks"] = math.prod(shape[:-1])
        for shape in _shapes(given.get("valid_actions")):
            counts["valid_actions"] = math.prod(shape) // len(self.heads.names)
        return counts

    def _note_matrix(self, given: MinibatchArguments, sample: MinibatchCapture, epoch: int) -> None:
        """Keep the shape of log-probs [..., A] when nothing that was recorded says that they are N·A samples."""
        new = given["log_prob"]
        first = new[self.heads.names[0]] if isinstance(new, Mapping) else new
        shape = first.shape if isinstance(first, Tensor) else np.shape(first)
        decided = sample.counted or sample.masked or sample.causal or sample.placed or sample.acted
        if len(shape) < 2 or shape[-1] < 2 or decided or sample.valid_actions is not None:
            return
        if any(name in ROWS for name in sample.names):
            return
        if self.unsummed:
            raise DimensionsError(f"log_prob of shape {tuple(shape)}, as in an update before: {SUM}")
        self.matrices.append(Matrix(epoch, sample.numbers.shape[1], int(shape[-1])))

    def judge_matrices(self, minibatches: int, rollout: int | None) -> None:
        """Decide, when an update ends, whether its log-probs were summed; ``rollout``: samples collected, if known.

        Raises ``DimensionsError`` when each epoch shows A log-probs for every sample of the rollout, or a minibatch
        more than there are samples. What stays open is logged once.
        """
        matrices, self.matrices = self.matrices, []
        if not matrices:
            return
        widths, epochs = {one.width for one in matrices}, {one.epoch for one in matrices}
        width, whole = max(widths), len(matrices) == minibatches and len(widths) == 1
        shown = {epoch: sum(one.elements for one in matrices if one.epoch == epoch) for epoch in epochs}
        if rollout is not None and whole:
            each = all(count == width * rollout for count in shown.values())
            more = any(rollout < one.elements <= width * rollout for one in matrices)
            if more or (each and (len(epochs) > 1 or width in self.heads.widths.values())):
                self.unsummed = True
                raise DimensionsError(f"{width} log-probs for each of the {rollout} samples of the rollout: {SUM}")
            if all(count <= rollout for count in shown.values()):
                return  # as many as a loop over time × environments hands over
        self.guarded.tell_once(
            "matrix",
            f"log_prob of shape [..., {width}] is taken as one sample a number; where {width} are the dimensions of "
            f"one action, {SUM}",
        )

    def _sample(self, given: MinibatchArguments) -> MinibatchCapture:
        names = self.heads.names
        numbers: list[Any] = []
        rows = [name for name in (*BY_HEAD, *ROWS) if given.get(name) is not None]
        for name in rows:
            numbers += self._tensors(given[name]) if name in BY_HEAD else (given[name],)
        copies = copied(numbers)
        actions, masks, relevant = given.get("actions"), given.get("masks"), given.get("relevant")
        placed = tuple(name for name in ORIGINS if given.get(name) is not None)
        whole = [] if actions is None else self._actions(actions, copies)
        acted = bool(whole)
        whole += [given[name] for name in placed]
        masks = {} if masks is None else arguments.by_head(masks, names)
        relevant = {} if relevant is None else arguments.by_head(relevant, names)
        masked = tuple(name for name in self.heads.categorical if name in masks)
        causal = tuple(name for name in names if name in relevant)
        flags = [relevant[name] for name in causal]
        counted = given.get("valid")
        if counted is not None:
            flags.append(counted)
        together, widths = _masks([masks[name] for name in masked], copies)
        amounts = {name: given.get(_LOSSES.get(name, name)) for name in LOSSES}
        losses = {name: amount for name, amount in amounts.items() if amount is not None}
        clip_range = given.get("clip_range")
        return MinibatchCapture(
            self.heads,
            tuple(rows),
            copies,
            placed,
            acted,
            copied(whole, copies).long() if whole else None,
            together,
            masked,
            _valid_actions(given.get("valid_actions"), len(names), copies),
            copied(flags, copies).bool() if flags else None,
            causal,
            counted is not None,
            tuple(losses),
            _amounts(list(losses.values()), copies.device),
            clip_range if clip_range is None else arguments.number(clip_range),
            widths,
        )

    def _actions(self, given: Any, copies: Tensor) -> list[Any]:
        """Return one row a head, −1 for heads (continuous ones) whose actions are not given; none without any."""
        taken = arguments.by_head(given, self.heads.names)
        discrete = [name for name in self.heads.names if name in taken and self.heads.kind(name) in _DISCRETE]
        if not discrete:
            return []
        nothing = torch.full_like(copies[0], -1, dtype=torch.int64)
        return [taken[name] if name in discrete else nothing for name in self.heads.names]

    def _tensors(self, given: Any) -> Sequence[Any]:
        """Return one tensor a head, in the order of the heads."""
        names, taken = self.heads.names, arguments.by_head(given, self.heads.names)
        try:
            return [taken[name] for name in names]
        except KeyError as missing:
            raise ValueError(f"no tensor for head {missing} among {', '.join(map(str, taken))}") from None


def _shapes(given: Any) -> list[tuple[int, ...]]:
    """Return the shape of an argument, of one given by head that of each; nothing of what is not numbers."""
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [shape for one in given.values() for shape in _shapes(one)]
    try:
        return [tuple(given.shape if isinstance(given, Tensor) else arguments.tensor(given).shape)]
    except Exception:  # whatever it is, it does not say
        return []


def _masks(given: Sequence[Any], copies: Tensor) -> tuple[Tensor | None, tuple[int, ...]]:
    """Return masks [N, K] one after the other [Σ N·K], copied, and their widths K."""
    if not given:
        return None, ()
    masks = [
        one if isinstance(one, Tensor) and one.device == copies.device else arguments.like(one, copies) for one in given
    ]
    widths = tuple(mask.shape[-1] for mask in masks)
    if any(mask.numel() != copies.shape[1] * width for mask, width in zip(masks, widths, strict=True)):
        shapes = ", ".join(str(tuple(mask.shape)) for mask in masks)
        raise ValueError(f"masks of {shapes} for {copies.shape[1]} samples")
    return arguments.tensor(torch.cat([mask.reshape(-1) for mask in masks])), widths


def _valid_actions(given: Any, heads: int, copies: Tensor) -> Tensor | None:
    """Return numbers of valid actions [H, N], copied."""
    if given is None:
        return None
    counts = arguments.like(given, copies)
    if counts.numel() != heads * copies.shape[1]:
        raise ValueError(f"valid_actions of shape {tuple(counts.shape)} for {heads} heads, {copies.shape[1]} samples")
    return counts.reshape(heads, -1).clone()


def _amounts(losses: Sequence[Any], device: torch.device) -> Tensor | tuple[Tensor | float, ...]:
    """Return losses as single numbers, copied. Raises ``ValueError`` for one that is not reduced."""
    amounts = [loss if isinstance(loss, Tensor) else arguments.number(loss) for loss in losses]
    tensors = [amount for amount in amounts if isinstance(amount, Tensor)]
    for loss in tensors:
        if loss.numel() != 1:
            raise ValueError(f"a loss of shape {tuple(loss.shape)}: give its mean, one number a minibatch")
    if tensors and len(tensors) == len(losses) and len({(one.shape, one.dtype, one.device) for one in tensors}) == 1:
        return arguments.on_device(arguments.tensor(torch.stack(tensors).reshape(-1)), device)
    return tuple(
        arguments.on_device(arguments.tensor(amount), device).clone() if isinstance(amount, Tensor) else amount
        for amount in amounts
    )
