"""trackio: all numbers of an update in one ``log`` call, kept in its local database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.bench.payload import Update


class TrackioRun:
    """One run in a database of its own; nothing is sent anywhere, no dashboard is started."""

    def __init__(self, folder: Path) -> None:
        offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
        os.environ |= offline | {"TRACKIO_DIR": str(folder), "HF_HOME": str(folder / "hub")}
        import trackio  # reads its folder from the environment as it is imported

        self._trackio = trackio
        trackio.init(project="bench", name="bench", embed=False, auto_log_gpu=False, auto_log_cpu=False)

    def prepare(self, update: Update) -> Any:
        return update.number, update.flat

    def hand_over(self, prepared: Any) -> None:
        number, values = prepared
        self._trackio.log(values, step=number)

    def close(self) -> None:
        self._trackio.finish()


make = TrackioRun
