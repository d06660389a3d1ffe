"""The checkpoint to resume from: the newest that the training told of from before the primary incident."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from esper_analyze.storage.checkpoints import SavedCheckpoint, checkpoints_of
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.runs.run import RecordedRun


def resume_from(run: RecordedRun, lead: Incident) -> str:
    """Say which checkpoint is the newest from before the onset of ``lead``; empty if the training told of none."""
    checkpoints = checkpoints_of(run.attempts)
    before = [checkpoint for checkpoint in checkpoints if checkpoint.update < lead.onset]
    if before:
        newest = before[-1]
        began = f"the incident began at update {lead.onset:,}"
        return f"Resume from {_named(newest)}, {_saved(newest)}; {began}.{_gone(run, newest)}"
    if not checkpoints:
        return ""
    count = many(len(checkpoints), "checkpoint")
    first = f"the first was {_saved(checkpoints[0])}"
    return f"No checkpoint is from before update {lead.onset:,}, when the incident began: of {count} told, {first}."


def _named(checkpoint: SavedCheckpoint) -> str:
    return cleaned(checkpoint.path, 300)


def _saved(checkpoint: SavedCheckpoint) -> str:
    steps = "" if checkpoint.env_steps is None else f" ({checkpoint.env_steps:,} env steps)"
    return (
        f"saved before the first update{steps}"
        if checkpoint.update < 0
        else f"saved after update {checkpoint.update:,}{steps}"
    )


def _gone(run: RecordedRun, checkpoint: SavedCheckpoint) -> str:
    """Say that the file is gone; only on the machine of the training, and of an absolute path, can that be known."""
    path = Path(checkpoint.path)
    if not path.is_absolute() or run.info.get("host") != platform.node():
        return ""
    try:
        exists = path.exists()
    except (OSError, ValueError):
        return ""
    return "" if exists else " That file no longer exists."
