"""The checkpoints that a training saves, noted in the attempt's folder: in a thread, as the disk may be slow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper_analyze.schema.row_types import LossesOfDataRow
from esper_analyze.schema.tables.events import CHECKPOINT_LOST
from esper_analyze.storage.atomic import append_line
from esper_analyze.storage.checkpoints import SavedCheckpoint
from esper_analyze.storage.layout import CHECKPOINTS_FILE
from recorder.act.channel import Channel
from recorder.act.delivery import DeliveryError

CLOSE_SECONDS = 2.0
"""Longest wait, at the end of a training, for checkpoints to be noted."""


@dataclass(frozen=True, slots=True)
class CheckpointsFile:
    """Appends lines to ``checkpoints.jsonl`` of an attempt, as the endpoint of a channel."""

    label: str = CHECKPOINTS_FILE
    paced: bool = False

    def deliver(self, message: Mapping[str, Any]) -> None:
        """Append one checkpoint, durably. Raises ``DeliveryError``."""
        try:
            append_line(message["folder"] / CHECKPOINTS_FILE, message["checkpoint"].as_line())
        except OSError as error:
            raise DeliveryError(error.strerror or type(error).__name__, retry=True) from None


class CheckpointLog:
    """Notes the checkpoints of one recording."""

    def __init__(self) -> None:
        self._channel = Channel(CheckpointsFile(), "checkpoint")

    def add(self, folder: Path, path: object, update: int, env_steps: int | None) -> None:
        """Note a checkpoint, whose optimizer steps end with ``update``, in the ``folder`` of an attempt.

        Raises ``TypeError`` for a ``path`` that is none.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"checkpoint() needs the path of the file or folder, not a {type(path).__name__}")
        saved = SavedCheckpoint(os.fsdecode(path), update, env_steps, time.time())
        self._channel.put({"folder": folder, "checkpoint": saved})

    def close(self, update: int) -> list[LossesOfDataRow]:
        """Wait until all are noted, at most ``CLOSE_SECONDS``; return the losses as rows of ``losses_of_data``."""
        self._channel.begin_close()
        self._channel.end_close(time.monotonic() + CLOSE_SECONDS)
        reasons = [*self._channel.take_reasons().items()]
        lost = [
            *reasons,
            ("not written when the training ended", self._channel.unsent),
            ("too many", self._channel.dropped),
        ]
        return [
            {"update": update, "kind": CHECKPOINT_LOST, "detail": f"{why} ({count} of them)", "rows": 0}
            for why, count in lost
            if count
        ]
