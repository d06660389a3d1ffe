"""wandb in offline mode: all numbers of an update in one ``log`` call.

A ``wandb.Table`` at each step would be a file at each step; its documentation keeps those for results, not for steps.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.bench.payload import Update


class WandbOffline:
    """One offline run; its service process ends with ``close``, so that its CPU time is seen."""

    def __init__(self, folder: Path) -> None:
        os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
        import wandb  # reads its settings from the environment

        self._wandb = wandb
        self._run = wandb.init(project="bench", dir=folder, mode="offline")

    def prepare(self, update: Update) -> Any:
        return update.number, update.flat

    def hand_over(self, prepared: Any) -> None:
        number, values = prepared
        self._run.log(values, step=number)

    def close(self) -> None:
        self._run.finish()
        self._wandb.teardown()


make = WandbOffline
