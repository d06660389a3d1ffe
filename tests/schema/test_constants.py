"""Numbers that recorder, detector and report share are those that the columns' meanings state."""

from __future__ import annotations

import pytest

from esper_analyze.schema import BY_NAME
from esper_analyze.schema.constants import (
    DEFAULT_CLIP_NORM,
    EXPLODING_FACTOR,
    HEAD_GROUP,
    TINY_STD,
    VANISHING,
    gradient_health,
)
from esper_analyze.schema.tables.slots import LOW_RATIO
from esper_analyze.schema.tables.updates import LOW_VARIANCE


def meaning(table: str, column: str) -> str:
    return BY_NAME[table].column(column).meaning


@pytest.mark.parametrize("table", ["groups", "slots"])
def test_bounds_of_gradients_are_those_that_the_columns_state(table: str) -> None:
    assert f"n_i < {VANISHING:g}".replace("e-0", "e-") in meaning(table, "vanishing_severity")
    exploding = f"n_i > {EXPLODING_FACTOR:g} × max_grad_norm ({EXPLODING_FACTOR * DEFAULT_CLIP_NORM:.1f} without one)"
    assert exploding in meaning(table, "exploding_severity")


def test_a_low_ratio_and_a_low_variance_are_as_the_columns_state() -> None:
    assert f"below {LOW_RATIO:.2f} or missing" in meaning("slots", "low_ratio_cause")
    assert (LOW_VARIANCE, TINY_STD) == (1e-8, 1e-12)  # columns state these in words only
    assert HEAD_GROUP == "head:"


@pytest.mark.parametrize(
    ("vanishing", "exploding", "health"),
    [(0.0, 0.0, 1.0), (1.0, 0.0, 0.5), (0.0, 1.0, 0.2), (0.5, 0.25, 0.55), (0.4, 0.5, 0.4), (1.0, 1.0, 0.0)],
)
def test_health_is_one_less_half_of_what_vanished_and_four_fifths_of_what_exploded(
    vanishing: float, exploding: float, health: float
) -> None:
    assert gradient_health(vanishing, exploding, nonfinite=False) == pytest.approx(health)
    assert gradient_health(vanishing, exploding, nonfinite=True) == 0.0
