"""Which trainings belong to the bench, and how one is made."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.faultbench.draw import Setup, draw
from tests.faultbench.faults import FAULTS, HARMLESS, KINDS_BY_SPLIT
from tests.faultbench.outcome import FILE, Made, write

HARMLESS_EVERY = 3
"""Of so many trainings one is made a third time, with a harmless change."""


def setups(split: str, first: int, count: int) -> Iterator[Setup]:
    """Yield the trainings number ``first`` to ``first + count - 1``: each sound, and again with a fault put in."""
    for number in range(first, first + count):
        sound = draw(split, number)
        yield sound
        random = np.random.default_rng([number, 11, split == "held"])
        onset = max(20, int(sound.updates * random.uniform(0.25, 0.65)))
        possible = [kind for kind in KINDS_BY_SPLIT[split] if FAULTS[kind].possible(sound)]
        yield replace(sound, kind=possible[int(random.integers(len(possible)))], onset=onset)
        if number % HARMLESS_EVERY == 0:
            yield replace(sound, kind=list(HARMLESS)[int(random.integers(len(HARMLESS)))], onset=onset)


def is_made(out: Path, setup: Setup) -> bool:
    """Return whether the training is there, whole."""
    return (out / setup.name / FILE).exists()


def make(out: Path, setup: Setup) -> str:
    """Train and record one in this process, replacing what is left of an earlier try; return a line about it."""
    import torch

    from tests.faultbench.loop import Training

    torch.set_num_threads(1)
    run_dir, began = out / setup.name, time.monotonic()
    if run_dir.exists():
        shutil.rmtree(run_dir)
    touch = FAULTS[setup.kind].touch if setup.kind in FAULTS else HARMLESS.get(setup.kind)

    def before(training: Training, update: int) -> None:
        if touch is not None and update >= setup.onset:
            touch(training, update - setup.onset)

    made = Made(setup, Training(setup).run(run_dir, before))
    write(run_dir, made)
    died = f", died: {made.outcome.died}" if made.outcome.died else ""
    return f"{setup.name} ({setup.task}, {setup.updates} updates): {time.monotonic() - began:.0f} s{died}"
