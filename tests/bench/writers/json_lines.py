"""A line of JSON an update, flushed to the operating system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.bench.payload import LAYER_NAMES, STATISTICS, Update


class JsonLines:
    """Scalars by name, the table as one list a column."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "updates.jsonl").open("w")

    def prepare(self, update: Update) -> Any:
        columns = dict(zip(STATISTICS, update.layers.T.tolist(), strict=True))
        return update.scalars | {"layers": {"layer": LAYER_NAMES, **columns}}

    def hand_over(self, prepared: Any) -> None:
        self._file.write(json.dumps(prepared) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


make = JsonLines
