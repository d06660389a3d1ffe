"""Buffer of one update: its minibatches, and the gradients of the optimizer steps between them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field

from torch import Tensor
from torch.linalg import vector_norm

from recorder.capture.batch import Capture, CaptureBatch, Measurements, measure, pieces_of
from recorder.capture.detail import Detail, SampledDetail
from recorder.capture.gradient_snapshot import GradientReader, GradientSnapshot
from recorder.capture.snapshot_batch import SnapshotBatch, SnapshotStack, snapshot_stacks, stacked
from recorder.capture.transitions import RatioBounds, worst_of
from recorder.measure.worst import Worst
from recorder.transfer import Handle, Outgoing

KEEP_ELEMENTS = 1 << 22
"""Log-probs buffered before they are measured, over all minibatches and heads."""


@dataclass(slots=True)
class Minibatch:
    """One minibatch: facts known without measuring, and the gradients and optimizer steps that followed it."""

    epoch: int
    clip_range: float | None
    clip_norm: float | None = None
    pre_clip: list[Tensor] = field(default_factory=list)
    pre_from_norms: bool = False
    clips: int = 0
    snapshots: list[GradientSnapshot] = field(default_factory=list)
    post_clip: list[Tensor] = field(default_factory=list)
    steps: int = 0
    unknown: bool = False  # a clip call had parameters that the map does not have yet
    as_clipped: bool = False  # one clip by the recorder's own norms, then one step of exactly those parameters
    measured: bool = False  # its gradients, before they change
    capture: Capture | None = None  # its inputs, until they are stacked

    def record_clip(self, total: Tensor | None, max_norm: float | None) -> None:
        """Record the norm before clipping (None: it follows from the tensors' norms) and the clip bound."""
        if total is None:
            self.pre_from_norms = True
        else:
            self.pre_clip.append(total.detach())
        self.clip_norm = max_norm
        self.clips += 1


class UpdateBuffer:
    """The minibatches of the update in progress and their measurements."""

    def __init__(
        self, reader: GradientReader | None, heads: int, detail: Detail | None, bounds: RatioBounds, *, every_step: bool
    ) -> None:
        self.minibatches: list[Minibatch] = []
        self.announced = 0  # minibatches that came, recorded or not
        self.other_steps = 0  # optimizer steps that followed no recorded minibatch
        self._measured: dict[tuple[int, ...], Measurements] = {}  # by the indices of the minibatches measured together
        self._batches: dict[tuple[int, ...], CaptureBatch] = {}  # those not reduced to their worst samples yet
        self._worst: dict[tuple[int, tuple[int, ...]], Worst] = {}
        self.stacks: list[SnapshotStack] = []
        self.snapshots: list[SnapshotBatch] = []
        self.every_step = every_step
        self.packed: list[Handle] = []  # of each of ``measurements``
        self.pre_clips: Tensor | None = None  # norms of the minibatches that have one, in order; after ``stack``
        self.post_clips: Tensor | None = None
        self.pre_clip: Handle | None = None
        self.post_clip: Handle | None = None
        self.sampled: SampledDetail | None = None
        self._detail = detail
        self._bounds = bounds
        self.changed_groups: frozenset[str] = frozenset()  # groups whose parameters differ from the previous update
        self.reader = reader
        self._heads = heads
        self._buffered = 0
        self._copied = 0

    def announce(self) -> None:
        """Announce the next minibatch: if recording it fails, its gradients are not attributed to the previous one."""
        self.announced = len(self.minibatches) + 1

    @property
    def attributable(self) -> bool:
        """Whether gradients measured now belong to the last minibatch."""
        return 0 < len(self.minibatches) >= self.announced

    def succeed(self, earlier: UpdateBuffer) -> None:
        """Take the place of an empty ``earlier``, of the same update."""
        self.announced, self.other_steps = earlier.announced, earlier.other_steps

    def emptied(self) -> UpdateBuffer:
        """Return a buffer of the same update without the minibatches; their optimizer steps still count."""
        empty = UpdateBuffer(self.reader, self._heads, self._detail, self._bounds, every_step=self.every_step)
        empty.changed_groups, empty.announced = self.changed_groups, self.announced
        empty.other_steps = self.other_steps + sum(minibatch.steps > 0 for minibatch in self.minibatches)
        return empty

    def add(self, capture: Capture, epoch: int) -> None:
        """Add a minibatch; it is measured later, together with others of its shape."""
        self.minibatches.append(Minibatch(epoch, capture.clip_range, capture=capture))
        self._buffered += capture.samples * self._heads
        if self._buffered >= KEEP_ELEMENTS:
            self._stack_waiting()
            self._measure_batches()
            self.find_worst()

    def with_gradients(self, most: int) -> UpdateBuffer:
        """Return a stacked buffer with copied gradients of at most so many optimizer steps of each stack."""
        fewer = copy(self)
        fewer.stacks = [stack.of_first(most) for stack in self.stacks if most or stack.flat is None]
        return fewer

    @property
    def batches(self) -> list[CaptureBatch]:
        """The minibatches stacked so far and not reduced to their worst samples."""
        return list(self._batches.values())

    @property
    def measurements(self) -> list[Measurements]:
        """The measurements so far, in the order in which they were made."""
        return list(self._measured.values())

    @property
    def worst(self) -> list[Worst]:
        """The worst samples found by ``find_worst``."""
        return list(self._worst.values())

    def _stack_waiting(self) -> None:
        """Stack the buffered minibatches. Ctrl-C may interrupt anywhere: the rest is stacked at the next call."""
        done = {index for indices in (*self._measured, *self._batches) for index in indices}
        waiting: dict[tuple[object, ...], list[tuple[int, Capture]]] = {}
        for index, minibatch in enumerate(self.minibatches):
            if minibatch.capture is not None and index not in done:
                waiting.setdefault(minibatch.capture.shape(), []).append((index, minibatch.capture))
        for members in waiting.values():
            captures, indices = [capture for _, capture in members], tuple(index for index, _ in members)
            self._batches[indices] = captures[0].together(captures)
        for minibatch in self.minibatches:
            minibatch.capture = None
        self._buffered = 0

    def _measure_batches(self) -> None:
        for indices, batch in self._batches.items():
            if indices not in self._measured:
                self._measured[indices] = measure(batch, indices)

    def find_worst(self) -> None:
        """Reduce the buffered batches to their worst samples."""
        for indices in list(self._batches):
            for piece, batch in enumerate(pieces_of(self._batches[indices])):
                self._worst[piece, indices] = worst_of(batch, indices, self._bounds)
            del self._batches[indices]

    def snapshot_gradients(self, parameters: Sequence[Tensor], scale: Tensor | None = None) -> GradientSnapshot | None:
        """Take a snapshot of the gradients of ``parameters``, some of them the model's, before they change."""
        if self.reader is None or not self.minibatches:
            return None
        plan = self.reader.plan(parameters)
        detail = self._detail
        now = detail is not None and detail.wanted and len(self.minibatches) - 1 in detail.steps
        describe = detail.measure_large if detail is not None and now else None
        snapshot = self.reader.take_snapshot(plan, scale, keep=self._copied <= KEEP_ELEMENTS, describe=describe)
        if snapshot.flat is not None:
            self._copied += snapshot.flat.block.shape[1]
        minibatch = self.minibatches[-1]
        minibatch.unknown = minibatch.unknown or not plan.complete
        if plan.ours:
            minibatch.snapshots.append(snapshot)
            minibatch.measured = True
        return snapshot

    def record_step(self, parameters: Sequence[Tensor], scale: Tensor | None = None) -> None:
        """Record a step and measure the gradients it is about to take; ``scale``: the loss scale they still carry."""
        if self.reader is None or not self.minibatches:
            return
        plan = self.reader.plan(parameters)
        minibatch = self.minibatches[-1]
        minibatch.steps += 1
        clip = minibatch.snapshots[0] if len(minibatch.snapshots) == 1 and minibatch.clip_norm is not None else None
        alone = minibatch.steps == 1 and clip is not None and clip.scale is None
        minibatch.as_clipped = alone and clip is not None and self.reader.covers(clip.plan, plan)
        if self._measures_post_clip(minibatch):
            norm = self.reader.total(plan, unknown=minibatch.unknown or not minibatch.clips)
            if norm is not None:
                minibatch.post_clip.append(norm if scale is None else norm / scale)

    def _measures_post_clip(self, minibatch: Minibatch) -> bool:
        """Return whether to measure the gradients that the optimizer takes, instead of deriving them from the clip.

        The first step of each update is always measured; while all measured steps agree with the clip, the others
        are derived from the norms before it.
        """
        trusted = self.reader is not None and self.reader.trusted and not self.every_step
        return not (trusted and minibatch.as_clipped and len(self.minibatches) > 1)

    @property
    def sampled_steps(self) -> int:
        """Number of optimizer steps on which detail was measured."""
        batches = () if self.sampled is None else self.sampled.batches
        return len({minibatch for batch in batches for minibatch in batch.minibatches})

    def detail_tensors(self) -> Outgoing:
        """Return the detail of a sampled update, to be transferred; after ``stack``."""
        outgoing = Outgoing()
        if self._detail is not None:
            self.sampled = self._detail.schedule(self.stacks, outgoing)
        return outgoing

    def stack(self) -> None:
        """Stack what the update has captured, without measuring it."""
        self._stack_waiting()
        self.stacks = snapshot_stacks([minibatch.snapshots for minibatch in self.minibatches])
        self.pre_clips = _combined([minibatch.pre_clip for minibatch in self.minibatches])
        self.post_clips = _combined([minibatch.post_clip for minibatch in self.minibatches])

    def tensors(self) -> Outgoing:
        """Return all measurements of the update, to be transferred; after ``stack``."""
        self._measure_batches()
        outgoing = Outgoing()
        self.packed = [outgoing.add(measured.packed) for measured in self.measurements]
        self.snapshots = [stack.scheduled(outgoing) for stack in self.stacks]
        self.pre_clip = None if self.pre_clips is None else outgoing.add(self.pre_clips)
        self.post_clip = None if self.post_clips is None else outgoing.add(self.post_clips)
        return outgoing


def _combined(norms: Sequence[Sequence[Tensor]]) -> Tensor | None:
    """Return the combined norms of the minibatches that have any; None if none has."""
    combined = [_together(of_minibatch) for of_minibatch in norms if of_minibatch]
    return stacked(combined) if combined else None


def _together(norms: Sequence[Tensor]) -> Tensor:
    """Combine the norms of separate clip calls or optimizers; a single norm is returned bit for bit."""
    return norms[0].reshape(()) if len(norms) == 1 else vector_norm(stacked([n.double() for n in norms]))
