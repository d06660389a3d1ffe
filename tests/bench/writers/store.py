"""Our store: the row of the update and the block of layers, sealed as Parquet by the store's own thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from esper_analyze.schema.tables import BY_NAME
from recorder.store.block import Block
from recorder.store.store import Store
from tests.bench.payload import COUNTS, LAYER_NAMES, LAYERS, STATISTICS, Update

LAYER_COLUMNS = ("layer", "elements", *STATISTICS)
GROUP_COLUMNS = (
    *("group", "tensors", "grad_norm", "health", "vanishing_severity", "exploding_severity", "min_tensor_norm"),
    *("max_tensor_norm", "norm_ratio", "concentration", "tensors_without_grad", "elements"),
    *("drift_norm", "drift_health"),
)


class OurStore:
    """Hands over a row of ``updates`` and a block of ``layers``; of ``groups`` while there is no table ``layers``."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder / "run")
        self._table = "layers" if "layers" in BY_NAME else "groups"
        self._columns = LAYER_COLUMNS if self._table == "layers" else GROUP_COLUMNS

    def prepare(self, update: Update) -> Any:
        row = {**update.scalars, "status": "performed", "level": "NORMAL"}
        columns = [
            column.astype(np.int64) if name in COUNTS else column
            for name, column in zip(STATISTICS, update.layers.T.copy(), strict=True)
        ]
        return row, {"update": update.number, **dict(zip(self._columns, (LAYER_NAMES, 4096, *columns), strict=True))}

    def hand_over(self, prepared: Any) -> None:
        row, layers = prepared
        self._store.put({"updates": [row], self._table: Block(LAYERS, layers)})

    def close(self) -> None:
        self._store.close("closed")


make = OurStore
