"""Our store: the row of the update and the block of layers, sealed as Parquet by the store's own thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from esper_analyze.storage.block import Block
from recorder.store.store import Store
from tests.bench.payload import COUNTS, LAYER_NAMES, LAYERS, STATISTICS, Update

LAYER_COLUMNS = ("layer", "elements", *STATISTICS)


class OurStore:
    """Hands over a row of ``updates`` and a block of ``layers``."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder / "run")

    def prepare(self, update: Update) -> Any:
        row = {**update.scalars, "status": "performed", "level": "NORMAL"}
        columns = [
            column.astype(np.int64) if name in COUNTS else column
            for name, column in zip(STATISTICS, update.layers.T.copy(), strict=True)
        ]
        cells = {"update": update.number, "minibatch": 7}
        return row, cells | dict(zip(LAYER_COLUMNS, (LAYER_NAMES, 4096, *columns), strict=True))

    def hand_over(self, prepared: Any) -> None:
        row, layers = prepared
        self._store.put({"updates": [row], "layers": Block(LAYERS, layers)})

    def close(self) -> None:
        self._store.close("closed")


make = OurStore
