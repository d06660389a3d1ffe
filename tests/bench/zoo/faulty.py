"""Trainings with one known fault each, by family."""

from __future__ import annotations

from tests.bench.zoo.faulty_loop import FAULTY_LOOP
from tests.bench.zoo.faulty_sb3 import FAULTY_SB3
from tests.bench.zoo.healthy import Train

FAULTY: dict[str, Train] = FAULTY_SB3 | FAULTY_LOOP
