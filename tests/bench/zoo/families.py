"""The families of the zoo, and how one run of them is made."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from esper_analyze.storage.layout import CLOSED_FILE
from tests.bench.zoo.faulty import FAULTY
from tests.bench.zoo.healthy import HARD_TO_LOOK_AT, HEALTHY, Train
from tests.bench.zoo.label import has_label, write_label

FAMILIES: dict[str, Train] = HEALTHY | HARD_TO_LOOK_AT | FAULTY
TELL_EVERY_S = 2.0


@dataclass(frozen=True)
class Order:
    """One run to be made: ``out/family-seed``."""

    family: str
    seed: int
    out: Path

    @property
    def run_dir(self) -> Path:
        """Return where the run goes."""
        return self.out / f"{self.family}-{self.seed}"

    @property
    def made(self) -> bool:
        """Return whether it is there: the label is written last, after the run's closed marker."""
        return has_label(self.run_dir) and any(self.run_dir.glob(f"rank*/attempt-*/{CLOSED_FILE}"))


def seeds_of(family: str) -> int:
    """Return how many seeds of a family are made unless said otherwise."""
    return 3 if family in FAULTY else 5


def make(order: Order, progress: Path) -> str:
    """Train one run in this process, replacing what is left of an earlier try; return what was done.

    The number of the update in progress is kept in the file ``progress``.
    """
    import torch

    torch.set_num_threads(1)
    if order.run_dir.exists():
        shutil.rmtree(order.run_dir)
    began = told = time.monotonic()

    def tell(update: int) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            progress.write_text(f"{order.run_dir.name} {update}")

    progress.write_text(f"{order.run_dir.name} 0")
    faults = FAMILIES[order.family](order.run_dir, order.seed, tell)
    write_label(order.run_dir, faults)
    progress.unlink(missing_ok=True)
    return f"{order.run_dir.name}: {time.monotonic() - began:.0f} s, process {os.getpid()}"
