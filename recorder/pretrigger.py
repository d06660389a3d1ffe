"""What came just before an escalation: gradients of the last unsampled updates, kept until they are needed or too old.

When a finding puts the next updates at DEBUG, the updates it arose in have rows of ``layers`` as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from esper_analyze.storage.block import Block, nullable
from recorder.capture.detail import Detail, DetailBatch, fullest
from recorder.capture.snapshot_batch import SnapshotBatch
from recorder.measure.elements import element_statistics
from recorder.reduce.detail import DetailNumbers

UPDATES = 3
"""Unsampled updates kept: bounds the memory to that many copies of a small model's gradients."""


@dataclass(frozen=True, slots=True)
class _KeptStep:
    """One optimizer step of an update: all gradients of a small model, the norms of a large one's tensors."""

    update: int
    detail: Detail  # of the parameters there were then
    look: SnapshotBatch
    minibatch: int
    gradients: Tensor | None
    norms: Tensor | None


class Pretrigger:
    """Keeps one step of each of the last ``UPDATES`` unsampled updates where its tensors are; nothing is awaited."""

    def __init__(self, detail: Detail) -> None:
        self.detail = detail
        self._kept: deque[_KeptStep] = deque(maxlen=UPDATES)

    def keep(self, update: int, looks: Sequence[SnapshotBatch]) -> None:
        """Keep a step of an update that was not sampled; of several lists of parameters, the largest."""
        if self._kept and self._kept[-1].update == update:  # kept before Ctrl-C came
            return
        chosen = max(fullest(looks), key=lambda look: len(look.like.plan.ours), default=None)
        if chosen is None or chosen.like.scale is not None:
            return
        if chosen.flat is not None:
            place = len(chosen.places) // 2
            gradients = chosen.flat[place].clone()
            self._kept.append(_KeptStep(update, self.detail, chosen, chosen.places[place], gradients, None))
        elif chosen.like.norms is not None:
            self._kept.append(_KeptStep(update, self.detail, chosen, chosen.places[0], None, chosen.like.norms.clone()))

    def take(self) -> list[Block]:
        """Return rows of ``layers`` for the updates kept, and forget them. Waits for the device, once an escalation."""
        blocks = [self._described(one) if one.norms is None else self._normed(one) for one in self._kept]
        self._kept.clear()
        return blocks

    @staticmethod
    def _described(kept: _KeptStep) -> Block:
        segments, atoms = kept.detail.segments_of(kept.look.like, large=False)
        assert kept.gradients is not None
        with torch.no_grad():
            statistics = element_statistics(kept.gradients, segments).cpu().numpy()
        unknown = np.full((1, len(atoms)), np.nan)
        arrays = {"detail kept statistics": statistics, "detail kept squares": unknown, "detail kept means": unknown}
        look = DetailBatch("kept", atoms, (kept.minibatch,), kept.minibatch, compared=False)
        samples = np.full(kept.minibatch + 1, np.nan)
        return DetailNumbers(kept.detail.parameters, [look], arrays, samples).layer_block(kept.update)

    @staticmethod
    def _normed(kept: _KeptStep) -> Block:
        parameters, like = kept.detail.parameters, kept.look.like
        assert kept.norms is not None
        positions = range(len(like.plan.places)) if like.present is None else like.present
        norms, there = np.full(len(parameters.parameters), np.nan), np.zeros(len(parameters.parameters), bool)
        tensors = [like.plan.places[position] for position in positions]
        norms[tensors], there[tensors] = kept.norms.double().cpu().numpy(), True
        cells = {
            "update": kept.update,
            "layer": parameters.names,
            "minibatch": kept.minibatch,
            "elements": np.array([parameter.numel() for parameter in parameters.parameters], np.int64),
            "grad_norm": nullable(norms, there),
        }
        return Block(len(norms), cells)
