"""Why a gradient is zero or missing: the first explanation that holds, and none where nothing was measured."""

from __future__ import annotations

import math
from typing import Any

import pytest

from esper_analyze.schema import BY_NAME
from esper_analyze.schema.zero import explain_zero

NORM = {"grad_state": "finite", "grad_norm": 0.0}
ALL = {"learnable_fraction": 0.0, "relevant_fraction": 0.0, "effective_fraction": 0.0}
SOME = {"learnable_fraction": 1.0, "relevant_fraction": 1.0, "effective_fraction": 1.0}


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({}, None),
        ({"grad_state": None, "grad_norm": 0.0, **ALL}, None),
        ({"grad_state": "removed", "grad_norm": None, **ALL}, None),
        ({"grad_state": "frozen", **ALL}, "frozen"),
        ({"grad_state": "nonfinite", "grad_norm": math.nan, **ALL}, "not_zero"),
        ({"grad_state": "nonfinite", "grad_norm": 0.0, **ALL}, "not_zero"),
        ({"grad_state": "finite", "grad_norm": 1e-300, **ALL}, "not_zero"),
        ({"grad_state": "finite", "grad_norm": 1.0, **ALL}, "not_zero"),
        ({**NORM, **ALL}, "masked"),
        ({**NORM, **ALL, "learnable_fraction": 1.0}, "irrelevant"),
        ({**NORM, **SOME, "relevant_fraction": 0.0}, "irrelevant"),
        ({**NORM, **SOME, "effective_fraction": 0.0}, "irrelevant"),
        ({**NORM, **SOME, "learnable_fraction": 0.0}, "masked"),
        ({**NORM, **SOME}, "unexplained"),
        ({**NORM, **dict.fromkeys(SOME, 0.5)}, "unexplained"),
        (NORM, "unexplained"),
        ({"grad_state": "missing", "grad_norm": None, **ALL}, "masked"),
        ({"grad_state": "missing", "grad_norm": None, **SOME}, "unexplained"),
        ({"grad_state": "missing", "grad_norm": 1.0, **SOME}, "unexplained"),
    ],
)
def test_the_first_explanation_that_holds_is_given(cells: dict[str, Any], why: str | None) -> None:
    assert explain_zero(cells) == why
    assert why is None or why in BY_NAME["heads"].column("zero_explained").choices
