import json
import math
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from esper_analyze.strict_json import plain, strict_json

cells = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def refuse(token: str) -> None:
    raise AssertionError(token)


@given(cells)
def test_whatever_goes_in_comes_out_as_strict_json(value: Any) -> None:
    assert strict_json(value).isascii()
    json.loads(strict_json(value), parse_constant=refuse)


@given(st.floats())
def test_every_number_can_be_read_back(value: float) -> None:
    back = float(json.loads(strict_json([value]))[0])
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_null_nan_infinity_and_zero_stay_apart() -> None:
    assert plain([None, math.nan, math.inf, -math.inf, 0.0]) == [None, "NaN", "Infinity", "-Infinity", 0.0]


def test_dataclasses_become_objects_and_strange_things_text() -> None:
    @dataclass
    class Pair:
        x: float
        y: object

    assert plain(Pair(math.nan, 1j)) == {"x": "NaN", "y": "1j"}
