"""Host and seeds of a growing network: snapshots after their backward passes, rows when the update ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from torch import Tensor, nn

from esper_analyze.schema.constants import DEFAULT_CLIP_NORM, EXPLODING_FACTOR
from esper_analyze.schema.row_types import LossesOfDataRow, SlotsRow
from recorder import amp, arguments
from recorder.module_gradients import ModuleGradients, ModuleSnapshots, trained_gradients
from recorder.reduce.slots import NOTHING, Slot, SlotCall, SlotHistory, slot_rows
from recorder.transfer import Arrays, Handle, Outgoing

Parameters = nn.Module | Iterable[Tensor]


@dataclass(slots=True)
class SlotCalls:
    """The calls of one update, in order; ``slots``: by slot key, as of the last call."""

    calls: list[SlotCall] = field(default_factory=list)
    slots: dict[str, Slot] = field(default_factory=dict)
    snapshots: ModuleSnapshots = field(default_factory=ModuleSnapshots)
    alphas: dict[str, Tensor] = field(default_factory=dict)
    numbers: list[tuple[int, ...]] = field(default_factory=list)
    """Numbers of the snapshots measured together, and the handles of their statistics:"""
    statistics: list[Handle] = field(default_factory=list)
    sent_alphas: dict[str, Handle] = field(default_factory=dict)


class Slots:
    """The slots of one recording."""

    def __init__(self) -> None:
        self.now = SlotCalls()

    def take_snapshot(
        self,
        env: int,
        slot: str,
        seed: Parameters | None,
        host: Parameters | None,
        labels: Mapping[str, Any],
        max_grad_norm: float | None,
    ) -> None:
        """Take a snapshot of the gradients of a seed and its host; ``labels``: stage, blueprint, alpha."""
        env, slot, now = int(env), str(slot), self.now
        seeds = None if seed is None else tuple(_listed(seed))
        hosts = None if host is None else tuple(_listed(host))
        growing = None if seeds is None else trained_gradients(seeds)
        around = None if hosts is None else trained_gradients(hosts, seeds or ())
        exploding = _exploding(max_grad_norm)
        scale = amp.carried([*(seeds or ()), *(hosts or ())])
        numbers = [
            NOTHING if gradients is None else _take_snapshot(now.snapshots, gradients, exploding, scale)
            for gradients in (growing, around)
        ]
        slot_key = f"env {env}, {slot}"
        alpha = labels["alpha"]
        now.slots[slot_key] = Slot(
            env,
            slot,
            labels["stage"],
            labels["blueprint"],
            None if isinstance(alpha, Tensor) else alpha,
            None if growing is None else growing.tensors,
        )
        now.alphas.pop(slot_key, None)
        if isinstance(alpha, Tensor):
            now.alphas[slot_key] = alpha.clone()
            now.snapshots.note(now.alphas[slot_key])
        now.calls.append(_call(slot_key, numbers, growing, around))

    def tensors(self) -> Outgoing:
        """Return the measurements of the update's calls, to be transferred."""
        now, outgoing = self.now, Outgoing()
        now.numbers, statistics = now.snapshots.tensors()
        now.snapshots.join(now.alphas.values())
        now.statistics = [outgoing.add(part) for part in statistics]
        now.sent_alphas = {slot_key: outgoing.add(alpha) for slot_key, alpha in now.alphas.items()}
        return outgoing

    def forget_calls(self) -> None:
        """Discard the calls: the next update begins."""
        self.now = SlotCalls()

    def left_out(self, update: int) -> list[LossesOfDataRow]:
        """Return a row of ``losses_of_data`` if calls were made after the last update; else empty."""
        calls = len(self.now.calls)
        detail = f"calls of slot() after the last update, which are part of no update: {calls}"
        return [{"update": update, "kind": "slot_calls_left_out", "detail": detail, "rows": 0}] if calls else []


def rows_of_slots(done: SlotCalls, arrays: Arrays, history: SlotHistory, update: int) -> list[SlotsRow]:
    """Return the rows of an update whose measurements have arrived; call it in the order of updates."""
    if not done.calls or sum(map(len, done.numbers)) != done.snapshots.count:  # not measured: the loss is counted
        return []
    for slot_key, handle in done.sent_alphas.items():
        done.slots[slot_key].alpha = float(arrays[handle][0])
    parts = [(numbers, arrays[handle]) for numbers, handle in zip(done.numbers, done.statistics, strict=True)]
    return slot_rows(done.calls, done.slots, parts, history, update)


def _listed(parts: Parameters | None) -> Iterable[Tensor]:
    return () if parts is None else parts.parameters() if isinstance(parts, nn.Module) else parts


def _take_snapshot(snapshots: ModuleSnapshots, module: ModuleGradients, exploding: float, scale: Tensor | None) -> int:
    return snapshots.take(module, exploding, scale) if module.gradients else NOTHING


def _call(
    slot_key: str, numbers: Sequence[int], seed: ModuleGradients | None, host: ModuleGradients | None
) -> SlotCall:
    return SlotCall(
        slot_key,
        seed=numbers[0],
        host=numbers[1],
        tensors=NOTHING if seed is None else seed.tensors,
        without=NOTHING if seed is None else seed.tensors - len(seed.gradients),
        seed_elements=NOTHING if seed is None else seed.elements,
        host_elements=NOTHING if host is None else host.elements,
    )


def _exploding(max_grad_norm: float | None) -> float:
    """Return the norm above which a tensor counts as exploded."""
    return EXPLODING_FACTOR * (DEFAULT_CLIP_NORM if max_grad_norm is None else max_grad_norm)


def word(label: object) -> str:
    """Return a stage or blueprint as text; an enum member as its name."""
    return label.name if isinstance(label, Enum) else str(label)


def amount(value: Any) -> float | Tensor:
    """Return a number; one on a device as a tensor of one element. Raises ``TypeError`` or ``ValueError`` otherwise."""
    if isinstance(value, Tensor) and arguments.tensor(value).numel() == 1:
        return value.detach().reshape(1)
    return arguments.number(value)


def parameters(parts: Any) -> Parameters:
    """Return a module or its parameters. Raises ``TypeError`` for anything else."""
    if isinstance(parts, nn.Module):
        return parts
    tensors = (parts,) if isinstance(parts, (str, bytes, np.ndarray)) else tuple(parts)
    if isinstance(parts, Tensor) or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise TypeError("pass a module or its parameters")
    return tensors
