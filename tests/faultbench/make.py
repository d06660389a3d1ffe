"""Which trainings belong to the bench, and how one is made."""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.faultbench.draw import Setup, draw
from tests.faultbench.faults import FAULTS, HARMLESS, HARMLESS_BY_SPLIT, KINDS_BY_SPLIT
from tests.faultbench.outcome import FILE, Made, read, write
from tests.faultbench.training import Training

HARMLESS_EVERY = 3
"""Of so many trainings one is made a third time, with a harmless change."""


def setups(split: str, first: int, count: int) -> Iterator[Setup]:
    """Yield the trainings number ``first`` to ``first + count - 1``: each sound, and again with a fault put in.

    Kinds take turns, so that each is there as often as any other.
    """
    kinds, harmless = KINDS_BY_SPLIT[split], HARMLESS_BY_SPLIT[split]
    for number in range(first, first + count):
        kind = kinds[number % len(kinds)]
        drawn = (draw(split, number, attempt) for attempt in itertools.count())
        sound = next(one for one in drawn if FAULTS[kind].possible(one))
        yield sound
        random = np.random.default_rng([number, 11, split == "held"])
        onset = max(20, int(sound.updates * random.uniform(0.25, 0.65)))
        yield replace(sound, kind=kind, onset=onset)
        if number % HARMLESS_EVERY == 0:
            yield replace(sound, kind=harmless[number // HARMLESS_EVERY % len(harmless)], onset=onset)


def training(setup: Setup) -> Training:
    """Return the training, ready to run."""
    from tests.faultbench.loop import LoopTraining
    from tests.faultbench.sb3 import Sb3Training

    return LoopTraining(setup) if setup.algorithm == "loop" else Sb3Training(setup)


def is_made(out: Path, setup: Setup) -> bool:
    """Return whether the training is there, whole, and drawn as it is drawn now."""
    return (out / setup.name / FILE).exists() and read(out / setup.name).setup == setup


def make(out: Path, setup: Setup) -> str:
    """Train and record one in this process, replacing what is left of an earlier try; return a line about it."""
    import torch

    torch.set_num_threads(1)
    run_dir, began = out / setup.name, time.monotonic()
    if run_dir.exists():
        shutil.rmtree(run_dir)
    touch = FAULTS[setup.kind].touch if setup.kind in FAULTS else HARMLESS.get(setup.kind)

    def before(trained: Training, update: int) -> None:
        if touch is not None and update >= setup.onset:
            touch(trained, update - setup.onset)

    log = logging.getLogger("recorder")
    level = log.level
    log.setLevel(logging.ERROR)  # findings are for the report: nobody is to see them by the way
    try:
        made = Made(setup, training(setup).run(run_dir, before))
    finally:
        log.setLevel(level)
    write(run_dir, made)
    died = f", died: {made.outcome.died}" if made.outcome.died else ""
    return f"{setup.name} ({setup.task}, {setup.updates} updates): {time.monotonic() - began:.0f} s{died}"
