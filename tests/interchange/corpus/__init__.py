"""Logs of other tools: short trainings, sound and broken on purpose, with what an importer must make of each.

``cases.json`` lists them. ``make/`` holds the programs that recorded them; the tests need none of those frameworks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent
LIST = ROOT / "cases.json"
FAULTS = (
    "kl_too_high",
    "policy_dead",
    "critic_never_learns",
    "return_fell",
    "nan",
    "std_runaway",
    "std_nonpositive",
    "no_longer_learns",
    "none",
    "refused",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of a log and where an importer must put it.

    ``number`` is as the logger wrote it; out of an event file, the float32 written out. ``index`` counts what was
    logged under ``name`` from 0, empty cells left out. ``update`` counts trainings from 0. ``column`` is None where
    the name has no column that is certain.
    """

    file: str
    name: str
    index: int
    number: str
    table: str
    column: str | None
    update: int


@dataclass(frozen=True, slots=True)
class LoggedCase:
    """One log: a file, or a folder that is to be read as one.

    ``origin`` is ``recorded``, or ``written`` by names out of the framework's source. ``first_broken`` is the first
    update in which something is wrong; None when nothing is, or when the log is to be refused. ``split`` says what the
    case is for: bounds of rules are chosen on ``tune`` alone. ``updates`` counts the trainings up to the last that is
    logged; None where there is none, or the log holds several runs. ``runs`` are the runs in a folder.
    """

    path: str
    framework: str
    version: str
    origin: str
    fault: str
    wrong: str
    first_broken: int | None
    updates: int | None
    refused: str | None
    split: str
    runs: int
    cells: tuple[Cell, ...]

    @property
    def location(self) -> Path:
        """The file or folder."""
        return ROOT / self.path

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with the training."""
        return self.fault == "none"


@cache
def cases() -> tuple[LoggedCase, ...]:
    """Return every log of the corpus."""
    entries = json.loads(LIST.read_text(encoding="utf-8"))
    return tuple(LoggedCase(**entry | {"cells": tuple(Cell(**cell) for cell in entry["cells"])}) for entry in entries)
