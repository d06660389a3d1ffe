"""One packed copy from device to host per update, and the only function that waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recorder.measure import Numbers


class Handle:
    """One tensor on its way to the host: made where the tensor is scheduled, and the key of its array on arrival."""

    __slots__ = ()


class Outgoing(dict[Handle, Tensor]):
    """Tensors scheduled for transfer."""

    def add(self, tensor: Tensor) -> Handle:
        """Schedule ``tensor``; return its handle."""
        handle = Handle()
        self[handle] = tensor
        return handle


Arrays = Mapping[Handle, Numbers]
"""The arrays of an update that have arrived."""


class Transfer:
    """Measurements of one update in transfer to the host.

    The constructor starts the copy and does not wait. ``arrays`` waits, and is called only when the next update's
    optimisation begins (at once if the numbers are on the host already).
    """

    def __init__(self, tensors: Mapping[Handle, Tensor]) -> None:
        self._shapes = {handle: tuple(tensor.shape) for handle, tensor in tensors.items()}
        self._parts = [
            _DevicePack({h: t for h, t in tensors.items() if t.device == device}) for device in _devices(tensors)
        ]

    @property
    def waits(self) -> bool:
        """Whether ``arrays`` would have to wait for a device."""
        return any(part.waits for part in self._parts)

    def arrays(self) -> dict[Handle, Numbers]:
        """Return the measurements as float64 arrays in their shapes, by handle."""
        arrays = {}
        for part in self._parts:
            flat, start = part.numbers(), 0
            for handle in part.handles:
                size = int(np.prod(self._shapes[handle], dtype=np.int64))
                arrays[handle] = flat[start : start + size].reshape(self._shapes[handle])
                start += size
        return arrays


class _DevicePack:
    """The measurements of one device, packed."""

    def __init__(self, tensors: Mapping[Handle, Tensor]) -> None:
        self.handles = tuple(tensors)
        device = next(iter(tensors.values())).device
        kind = torch.float32 if device.type == "mps" else torch.float64
        packed = torch.cat([tensor.detach().reshape(-1).to(kind) for tensor in tensors.values()])
        self._arrived: Any = None
        if device.type == "cuda":
            self._host = torch.empty(packed.shape, dtype=kind, pin_memory=True)
            self._host.copy_(packed, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(device))
        else:
            self._host = packed

    @property
    def waits(self) -> bool:
        if self._arrived is not None:
            return not self._arrived.query()
        return self._host.device.type != "cpu"

    def numbers(self) -> Numbers:
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: Numbers = self._host.cpu().double().numpy()
        return numbers


def _devices(tensors: Mapping[Handle, Tensor]) -> list[torch.device]:
    return list(dict.fromkeys(tensor.device for tensor in tensors.values()))
