"""The faults of the bench, and the changes that do no harm, by split: ``held`` has all, ``tune`` the known ones."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle

from tests.faultbench.held_faults import HELD_FAULTS, HELD_HARMLESS
from tests.faultbench.tune_faults import TUNE_FAULTS, TUNE_HARMLESS

FAULTS = TUNE_FAULTS | HELD_FAULTS
HARMLESS = TUNE_HARMLESS | HELD_HARMLESS


def spread(known: Iterable[str], new: Iterable[str]) -> tuple[str, ...]:
    """Return all, so that every stretch of them has about as large a share of new ones."""
    places = [(place / len(names), name) for names in (sorted(known), sorted(new)) for place, name in enumerate(names)]
    return tuple(name for _, name in sorted(places))


def in_turn(known: Iterable[str], new: Iterable[str]) -> tuple[str, ...]:
    """Return known and new ones taking turns, each known one once; the fewer new ones come again from the first on."""
    return tuple(name for pair in zip(sorted(known), cycle(sorted(new)), strict=False) for name in pair)


KINDS_BY_SPLIT = {"tune": tuple(sorted(TUNE_FAULTS)), "held": in_turn(TUNE_FAULTS, HELD_FAULTS)}
HARMLESS_BY_SPLIT = {"tune": tuple(TUNE_HARMLESS), "held": spread(TUNE_HARMLESS, HELD_HARMLESS)}
