"""The faults of the bench, and the changes that do no harm, by split: ``held`` has all, ``tune`` the known ones."""

from __future__ import annotations

from tests.faultbench.held_faults import HELD_FAULTS, HELD_HARMLESS
from tests.faultbench.tune_faults import TUNE_FAULTS, TUNE_HARMLESS

FAULTS = TUNE_FAULTS | HELD_FAULTS
HARMLESS = TUNE_HARMLESS | HELD_HARMLESS

KINDS_BY_SPLIT = {"tune": tuple(sorted(TUNE_FAULTS)), "held": tuple(sorted(FAULTS))}
HARMLESS_BY_SPLIT = {"tune": tuple(TUNE_HARMLESS), "held": tuple(HARMLESS)}
