"""Rows as columns, and columns as Arrow: null, NaN and one value for all rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage.block import Block, nullable
from esper_analyze.storage.entries import arrow_table, fitting
from tests.storage.handmade import updates

UPDATES, HEADS = BY_NAME["updates"], BY_NAME["heads"]
CELLS: list[tuple[Any, list[Any]]] = [
    (None, [None] * 3),
    (2.5, [2.5] * 3),
    (7, [7.0] * 3),
    (np.array([1.0, math.inf, 3.0]), [1.0, math.inf, 3.0]),
    ([1.0, None, 3.0], [1.0, None, 3.0]),
    ((1.0, 2.0, None), [1.0, 2.0, None]),
    (np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False]), [1.0, None, 3.0]),
]


@pytest.mark.parametrize(("cell", "expected"), CELLS)
def test_a_column_has_the_cells_of_its_rows(cell: Any, expected: list[Any]) -> None:
    block = Block(3, {"a": cell})
    assert len(block) == 3
    assert block.column("a", pa.float64()).to_pylist() == expected
    assert block.column("b", pa.float64()).to_pylist() == [None] * 3
    rows = block.as_rows()
    assert [row["a"] for row in rows] == expected
    numbers = block.numbers("a")
    if numbers is None:
        assert isinstance(cell, (list, tuple, np.ma.MaskedArray)) or cell is None
    else:
        assert numbers.tolist() == expected
    assert block.numbers("b") is None


def test_numbers_are_those_without_nulls_of_the_right_length() -> None:
    alone: tuple[Any, ...] = (2.5, 3, True)
    for cell in alone:
        numbers = Block(2, {"a": cell}).numbers("a")
        assert numbers is not None
        assert numbers.tolist() == [cell] * 2
    masked = np.ma.array([1.0, 2.0], mask=[False, False])
    others: tuple[Any, ...] = ("text", None, np.ones(3), [1.0, 2.0], masked)
    for cell in others:
        assert Block(2, {"a": cell}).numbers("a") is None


def test_texts_stand_for_all_rows_and_cells_that_do_not_fit_are_refused() -> None:
    assert Block(2, {"a": "x"}).column("a", pa.string()).to_pylist() == ["x", "x"]
    assert Block(2, {"a": "x", "b": [1, 2]}).as_rows() == [{"a": "x", "b": 1}, {"a": "x", "b": 2}]
    for cell in (np.ones(3), [1.0], (1.0, 2.0, 3.0)):
        with pytest.raises(ValueError, match=r"column 'a' has \d cells for 2 rows"):
            Block(2, {"a": cell}).column("a", pa.float64())
    with pytest.raises(pa.ArrowException):
        Block(2, {"a": "x"}).column("a", pa.float64())


def test_null_where_not_valid_and_nan_stays_measured() -> None:
    values = np.array([1.0, math.nan, 3.0])
    assert nullable(values, np.ones(3, bool)) is values
    assert nullable(values, np.zeros(3, bool)) is None
    partly = nullable(values, np.array([True, True, False]))
    arrow = Block(3, {"a": partly}).column("a", pa.float64())
    assert arrow.null_count == 1
    assert [arrow[0].as_py(), math.isnan(arrow[1].as_py()), arrow[2].as_py()] == [1.0, True, None]


def test_entries_follow_one_another_with_their_rank_and_numbers() -> None:
    rows = [*updates(3, kl_k3=0.5), *updates(4, skip_reason="why")]
    cells = {"update": np.array([5, 6]), "kl_k3": [None, 0.25], "status": "kl_stopped", "level": "DEBUG"}
    entries: list[Any] = [(10, rows), (20, Block(2, cells)), (30, updates(7, kl_k3=math.nan))]
    table = arrow_table(UPDATES, entries, rank=2)
    assert table.column_names == list(UPDATES.names)
    assert table["rank"].to_pylist() == [2] * 5
    assert table["seq"].to_pylist() == [10, 11, 20, 21, 30]
    assert table["update"].to_pylist() == [3, 4, 5, 6, 7]
    assert table["kl_k3"].to_pylist()[:4] == [0.5, None, None, 0.25]
    assert math.isnan(table["kl_k3"].to_pylist()[4])
    assert table["status"].to_pylist() == ["performed"] * 2 + ["kl_stopped"] * 2 + ["performed"]
    assert table["skip_reason"].to_pylist() == [None, "why", None, None, None]
    assert len(arrow_table(UPDATES, [], rank=1)) == 0


def test_columns_of_numbers_are_joined_over_all_blocks() -> None:
    texts = {"status": "performed", "level": "NORMAL"}
    blocks: list[Any] = [
        (0, Block(2, {"update": 1, "kl_k3": np.array([1.0, 2.0]), **texts})),
        (2, Block(1, {"update": 2, "kl_k3": 3, **texts})),
    ]
    assert arrow_table(UPDATES, blocks)["kl_k3"].to_pylist() == [1.0, 2.0, 3.0]
    names = ["a", "b"]
    heads: list[Any] = [(0, Block(2, {"update": 1, "head": names})), (2, Block(2, {"update": 2, "head": names}))]
    table = arrow_table(HEADS, heads)
    assert table["head"].to_pylist() == ["a", "b", "a", "b"]
    assert table["update"].to_pylist() == [1, 1, 2, 2]


def test_a_required_cell_must_not_be_empty() -> None:
    with pytest.raises(ValueError, match="column 'head' of heads must not be empty"):
        arrow_table(HEADS, [(0, [{"update": 1, "head": "a"}, {"update": 1}])])


def test_rows_that_do_not_fit_are_counted_and_the_others_are_there() -> None:
    sound = [*updates(1, kl_k3=0.5), *updates(2)]
    table, misfits = fitting(UPDATES, [(0, sound)])
    assert (table["update"].to_pylist(), misfits) == ([1, 2], 0)
    bad: list[Any] = [*updates(1), {**updates(1)[0], "update": "x"}, *updates(3, kl_k3="much"), {"update": 4}]
    table, misfits = fitting(UPDATES, [(5, bad), (9, sound)], rank=3)
    assert misfits == 3
    assert table["seq"].to_pylist() == [5, 9, 10]
    assert table["rank"].to_pylist() == [3] * 3
    texts = {"status": "performed", "level": "NORMAL"}
    block = Block(3, {"update": [1, 2, None], "kl_k3": [0.5, "x", 0.5], **texts})
    table, misfits = fitting(UPDATES, [(7, block)])
    assert (table["seq"].to_pylist(), misfits) == ([7], 2)
    uneven = Block(3, {"update": [1, 2, 3], "kl_k3": [0.5], **texts})
    table, misfits = fitting(UPDATES, [(7, uneven), (10, sound)])
    assert (table["seq"].to_pylist(), misfits) == ([10, 11], 3)
