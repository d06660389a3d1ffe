"""TensorBoard: ``add_scalar`` for each of the 1,260 numbers; a histogram of a column would not keep them by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from tests.bench.payload import Update


class TensorboardEvents:
    """One event file."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def prepare(self, update: Update) -> Any:
        return update.number, update.flat

    def hand_over(self, prepared: Any) -> None:
        number, values = prepared
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)

    def close(self) -> None:
        self._writer.close()


make = TensorboardEvents
