"""The tolerance of stored facts is for the last digits of floats and for nothing else."""

from __future__ import annotations

import math

import pytest

from tests.tolerance import differences

CLOSE = math.nextafter(0.09256466382222145, 1)


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (0.1 + 0.2, 0.3),
        (CLOSE, 0.09256466382222145),
        (math.nan, math.nan),
        ({"a": [CLOSE, None]}, {"a": [CLOSE, None]}),
    ],
)
def test_the_last_digits_of_a_float_may_differ(now: object, then: object) -> None:
    assert differences(now, then) == []
    assert differences({"deep": [now]}, {"deep": [then]}) == []


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (0.3001, 0.3),
        (1.0000000000000002, 1.0),
        (1, 1.0),
        (1, True),
        (0.0, None),
        (math.nan, None),
        (math.nan, 0.5),
        (1e-300, 0.0),
        ("0.30000000000000004", "0.3"),
        ([0.5], [0.5, 0.5]),
        ({"a": None}, {}),
        ({}, {"a": None}),
        ({}, []),
    ],
)
def test_all_else_is_exact(now: object, then: object) -> None:
    assert len(differences({"deep": [now]}, {"deep": [then]})) == 1
