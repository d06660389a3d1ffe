"""One packed copy from device to host per update, and the only function that waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Numbers = npt.NDArray[np.float64]


class Transfer:
    """Measurements of one update in transfer to the host.

    The constructor starts the copy and does not wait. ``arrays`` waits, and is called only when the next update's
    optimisation begins (at once if the numbers are on the host already).
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self._parts = [
            _DevicePack({n: t for n, t in tensors.items() if t.device == device}) for device in _devices(tensors)
        ]

    @property
    def waits(self) -> bool:
        """Whether ``arrays`` would have to wait for a device."""
        return any(part.waits for part in self._parts)

    def arrays(self) -> dict[str, Numbers]:
        """Return the measurements as float64 arrays under their names and in their shapes."""
        arrays = {}
        for part in self._parts:
            flat, start = part.numbers(), 0
            for name in part.names:
                size = int(np.prod(self._shapes[name], dtype=np.int64))
                arrays[name] = flat[start : start + size].reshape(self._shapes[name])
                start += size
        return arrays


class _DevicePack:
    """The measurements of one device, packed."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.names = tuple(tensors)
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


def _devices(tensors: Mapping[str, Tensor]) -> list[torch.device]:
    return list(dict.fromkeys(tensor.device for tensor in tensors.values()))
