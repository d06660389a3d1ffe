"""Pretrigger: gradients of the last unsampled updates, kept until an escalation needs them or they are too old.

When a finding raises the next updates to DEBUG, the updates in which it arose get rows of ``layers`` as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from esper_analyze.schema.row_types import LayersColumns
from esper_analyze.storage.block import Block, nullable
from recorder.capture.detail import Detail, DetailBatch, SampledDetail, fullest_batches
from recorder.capture.snapshot_batch import SnapshotStack
from recorder.measure.elements import element_statistics
from recorder.reduce.detail import DetailNumbers
from recorder.transfer import Handle

UPDATES = 3
"""Unsampled updates kept: bounds the memory to this many copies of a small model's gradients."""


@dataclass(frozen=True, slots=True)
class _KeptStep:
    """One optimizer step of an update: all gradients of a small model, or the tensor norms of a large one."""

    update: int
    detail: Detail  # of the parameters at that time
    batch: SnapshotStack
    minibatch: int
    gradients: Tensor | None
    norms: Tensor | None


class Pretrigger:
    """Keeps one step of each of the last ``UPDATES`` unsampled updates on its device; nothing waits for it."""

    def __init__(self, detail: Detail) -> None:
        self.detail = detail
        self._steps: deque[_KeptStep] = deque(maxlen=UPDATES)

    def keep(self, update: int, batches: Sequence[SnapshotStack]) -> None:
        """Keep one step of an unsampled update; of several parameter lists, the longest."""
        if self._steps and self._steps[-1].update == update:  # kept before Ctrl-C interrupted
            return
        chosen = max(fullest_batches(batches), key=lambda batch: len(batch.like.plan.ours), default=None)
        if chosen is None or chosen.like.scale is not None:
            return
        if chosen.flat is not None:
            index = len(chosen.minibatches) // 2
            gradients = chosen.flat[index].clone()
            self._steps.append(_KeptStep(update, self.detail, chosen, chosen.minibatches[index], gradients, None))
        elif chosen.like.norms is not None:
            self._steps.append(
                _KeptStep(update, self.detail, chosen, chosen.minibatches[0], None, chosen.like.norms.clone())
            )

    def take(self) -> list[Block]:
        """Return and discard the rows of ``layers`` for the kept updates. Waits for the device, once an escalation."""
        blocks = [self._described(step) if step.norms is None else self._normed(step) for step in self._steps]
        self._steps.clear()
        return blocks

    @staticmethod
    def _described(step: _KeptStep) -> Block:
        assert step.gradients is not None
        segments, atoms = step.detail.segments_of(step.batch.like, step.gradients.device, large=False)
        with torch.no_grad():
            statistics = element_statistics(step.gradients, segments).cpu().numpy()
        unknown = np.full((1, len(atoms)), np.nan)
        described, squares, means = Handle(), Handle(), Handle()
        arrays = {described: statistics, squares: unknown, means: unknown}
        batch = DetailBatch(atoms, (step.minibatch,), step.minibatch, described, squares, means, dot=None)
        samples = np.full(step.minibatch + 1, np.nan)
        return DetailNumbers(step.detail.parameters, SampledDetail([batch]), arrays, samples).layer_block(step.update)

    @staticmethod
    def _normed(step: _KeptStep) -> Block:
        parameters, like = step.detail.parameters, step.batch.like
        assert step.norms is not None
        positions = range(len(like.plan.tensors)) if like.present is None else like.present
        norms, present = np.full(len(parameters.parameters), np.nan), np.zeros(len(parameters.parameters), bool)
        tensors = [like.plan.tensors[position] for position in positions]
        norms[tensors], present[tensors] = step.norms.double().cpu().numpy(), True
        cells: LayersColumns = {
            "update": step.update,
            "layer": parameters.names,
            "minibatch": step.minibatch,
            "elements": np.array([parameter.numel() for parameter in parameters.parameters], np.int64),
            "grad_norm": nullable(norms, present),
        }
        return Block(len(norms), cells)
