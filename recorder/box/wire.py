"""What passes between training and box: messages, pickled with the tensors' memory beside the pickle."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recorder.act.alerts import AlertPlan
from recorder.capture.gradient_snapshot import CopiedRow, SnapshotPlan
from recorder.capture.parameters import ParameterMap
from recorder.capture.snapshot_batch import SnapshotStack
from recorder.capture.update_buffer import Minibatch, UpdateBuffer
from recorder.heads import Heads
from recorder.pipeline import CapturedUpdate
from recorder.rows import UpdateFacts
from recorder.store.claimed_folder import FolderClaim

SMALL = 256
"""Tensors of up to so many bytes travel within the pickle."""


@dataclass(frozen=True, slots=True)
class BoxSetup:
    """What the box needs to begin: the first frame. ``state``: of a pipeline to continue; None: a fresh one."""

    claim: FolderClaim
    heads: Heads
    parameters: ParameterMap | None
    thresholds: Mapping[str, Mapping[str, Any]]
    rules: Path | None
    level: str
    quiet: bool
    records_gradients: bool
    alerts: AlertPlan
    stop_on: tuple[str, ...]
    state: Mapping[str, Any] | None = None
    ring: Path = Path()


@dataclass(frozen=True, slots=True)
class HandedUpdate:
    """An ended update as captured.

    ``trainable``: of each parameter. ``weights``: the largest magnitude of each [T]; None: not read.
    """

    facts: UpdateFacts
    captured: CapturedUpdate
    trainable: bytes
    weights: np.ndarray[Any, Any] | None


@dataclass(frozen=True, slots=True)
class NewParameters:
    """The model has other parameters from now on."""

    parameters: ParameterMap


@dataclass(frozen=True, slots=True)
class StateRequest:
    """Answered with the pipeline's state, under the same number."""

    number: int


@dataclass(frozen=True, slots=True)
class NewState:
    """The state to continue from."""

    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EndOfRecording:
    """The recording has been closed."""

    reason: str
    losses: Sequence[Any]


def packed(message: object) -> tuple[bytes, list[memoryview]]:
    """Return a message as bytes, and the memory of its tensors beside them, not copied."""
    sink, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    pickler = pickle.Pickler(sink, 5, buffer_callback=buffers.append)
    pickler.dispatch_table = _REDUCERS
    pickler.dump(message)
    return sink.getvalue(), [buffer.raw() for buffer in buffers]


def unpacked(message: memoryview, buffers: Sequence[memoryview]) -> Any:
    """Return a message; its tensors share the memory of ``buffers``."""
    return pickle.loads(message, buffers=buffers)


def _tensor(memory: Any, dtype: str, shape: tuple[int, ...]) -> Tensor:
    array = np.frombuffer(bytearray(memory) if isinstance(memory, bytes) else memory, np.uint8)
    return torch.from_numpy(array).view(getattr(torch, dtype)).reshape(shape)


def _reduced_tensor(tensor: Tensor) -> Any:
    dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    if not tensor.numel():
        return torch.empty, (shape,), None, None, None
    flat: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    memory = flat.tobytes() if flat.nbytes <= SMALL else pickle.PickleBuffer(flat)
    return _tensor, (memory, dtype, shape)


def _reduced_plan(plan: SnapshotPlan) -> Any:
    shapes = tuple((tuple(ours.shape), str(ours.dtype).removeprefix("torch.")) for ours in plan.ours)
    return _plan, (shapes, plan.tensors, plan.cut, plan.on_host, plan.small, plan.complete)


def _plan(
    shapes: Any, tensors: Any, cut: Any, on_host: bool, small: bool, complete: bool
) -> SnapshotPlan:  # fields of the plan
    ours = tuple(torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for shape, dtype in shapes)
    return SnapshotPlan(ours, ours, tensors, cut, on_host=on_host, small=small, complete=complete)


def _reduced_row(_: CopiedRow) -> Any:
    return CopiedRow, (torch.empty(0), 0)  # its gradients are in the stack


def _reduced_minibatch(minibatch: Minibatch) -> Any:
    one = minibatch  # its norms are in the buffer, stacked: here is only how many there are
    norms = (len(one.pre_clip), one.pre_from_norms, len(one.post_clip))
    return _minibatch, (
        one.epoch,
        one.clip_range,
        one.clip_norm,
        norms,
        one.clips,
        one.steps,
        one.unknown,
        one.as_clipped,
        one.measured,
    )


def _minibatch(
    epoch: int, clip_range: float | None, clip_norm: float | None, norms: tuple[int, bool, int], *counts: Any
) -> Minibatch:
    clips, steps, *flags = counts
    pre, from_norms, post = norms
    before, after = [_NOWHERE] * pre, [_NOWHERE] * post
    return Minibatch(epoch, clip_range, clip_norm, before, from_norms, clips, [], after, steps, *flags)


def _reduced_buffer(buffer: UpdateBuffer) -> Any:
    state = {name: cell for name, cell in vars(buffer).items() if name not in ("reader", "_detail")}
    return _buffer, (state,)


def _buffer(state: dict[str, Any]) -> UpdateBuffer:
    buffer = UpdateBuffer.__new__(UpdateBuffer)
    vars(buffer).update(state, reader=None, _detail=None)
    return buffer


def _reduced_stack(stack: SnapshotStack) -> Any:
    state = {
        name: getattr(stack, name) for name in ("like", "minibatches", "flat", "norms", "rows", "elements", "scale")
    }
    return _stack, (state,)


def _stack(state: dict[str, Any]) -> SnapshotStack:
    return SnapshotStack(**state, large=())


_NOWHERE = torch.empty(0)
"""Stands for a norm that is elsewhere."""

_REDUCERS = copyreg.dispatch_table | {
    Tensor: _reduced_tensor,
    SnapshotPlan: _reduced_plan,
    CopiedRow: _reduced_row,
    SnapshotStack: _reduced_stack,
    Minibatch: _reduced_minibatch,
    UpdateBuffer: _reduced_buffer,
}
