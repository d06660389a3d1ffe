"""The writers that are compared: ours, and what one would use instead. One file each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One writer: its module here, the package it needs (None: nothing), and its share of the updates.

    Slow ones hand over fewer, so that each takes about as long.
    """

    name: str
    module: str
    needs: str | None = None
    share: float = 1.0


WRITERS = (
    Entry("nothing", "nothing"),
    Entry("recorder", "store"),
    Entry("rerun", "rerun_file", "rerun"),
    Entry("jsonl", "json_lines"),
    Entry("trackio", "trackio_run", "trackio", 0.25),
    Entry("wandb", "wandb_offline", "wandb", 0.2),
    Entry("tensorboard", "tensorboard_events", "tensorboard", 0.05),
)
