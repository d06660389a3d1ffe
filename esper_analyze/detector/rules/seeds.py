"""Shared by the rules on seed modules: which seed modules are judged."""

from __future__ import annotations

from collections.abc import Sequence

from esper_analyze.detector.deferral_guards import Side, same
from esper_analyze.detector.signals import Bools, Frame, choice_code
from esper_analyze.detector.verdict import Excuse
from esper_analyze.schema.tables.slots import LOW_RATIO

CONTEXT = ("low_ratio_cause", "should_train", "tensors")
"""Columns that the functions here read, besides ``normalized_ratio``."""
FAST = choice_code("slots", "low_ratio_cause", "host_learning_fast")
DISCONNECTED = choice_code("slots", "low_ratio_cause", "disconnected")
RATIO = float(LOW_RATIO)
"""Default bound on the ratio, below which the recorder names a cause."""


def not_training(frame: Frame) -> list[Excuse]:
    """Excuse empty slots, stages in which seed modules do not train, and seed modules without trainable parameters."""
    return [
        Excuse(frame["should_train"].equals(0.0), "not in a stage in which a seed trains", quiet=True),
        Excuse(frame["tensors"].equals(0.0), "nothing in this seed is trainable"),
    ]


def disconnected(frame: Frame) -> Bools:
    """Return seed modules that should train and have no gradient in any tensor: ``seed_dormant`` reports them."""
    cut: Bools = frame["low_ratio_cause"].equals(DISCONNECTED) & frame["normalized_ratio"].null
    return cut


def unreached(frame: Frame) -> Excuse:
    """Excuse these seed modules from rules on gradients that they do not have."""
    return Excuse(disconnected(frame), "disconnected: judged by seed_dormant", quiet=True)


def judged(frame: Frame, excuses: Sequence[Excuse]) -> Bools:
    """Return where there is a row and no excuse."""
    applies: Bools = ~frame["should_train"].null
    for excuse in excuses:
        applies = applies & ~excuse.where
    return applies


def known_sides(frame: Frame) -> dict[str, Sequence[Side] | None]:
    """Return the sides of ``CONTEXT`` on which the functions above return the same."""
    sides: dict[str, Sequence[Side] | None] = {"low_ratio_cause": same(frame["low_ratio_cause"])}
    return sides | {"should_train": (0.0,), "tensors": (0.0,)}
