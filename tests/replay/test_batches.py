"""Rows become frames over updates and subjects: order, gaps, rows told twice, and null apart from NaN."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from esper_analyze.detector.signals import Batch
from esper_analyze.replay.batches import (
    _as_codes,
    _by_appearance,
    _integers,
    _regular,
    _updates,
    batch_sources,
    numbers,
    pivot,
    read_batches,
)
from esper_analyze.replay.replay import between
from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.tables import HEADS, STEPS, UPDATES
from tests.replay.made import InParts, in_parts, run, updates

NAN, INF = math.nan, math.inf


def heads(*rows: tuple[int, str, float | None], **more: list[object]) -> pa.Table:
    """Return rows of table heads: update, head and gradient norm."""
    cells = {
        "update": [row[0] for row in rows],
        "head": [row[1] for row in rows],
        "grad_norm": [row[2] for row in rows],
    }
    return pa.table({**cells, **more}, schema=pa.schema([arrow_schema(HEADS).field(name) for name in (*cells, *more)]))


def test_rows_in_order_become_a_frame_as_they_are() -> None:
    data = heads((3, "b", 1.0), (3, "a", 2.0), (5, "b", NAN), (5, "a", None))
    frame = pivot(HEADS, data, np.array([3, 5]), ["grad_norm"])
    assert frame.subjects == ("b", "a")
    assert frame.present.all()
    assert np.array_equal(frame["grad_norm"].values, [[1.0, 2.0], [NAN, NAN]], equal_nan=True)
    assert frame["grad_norm"].null.tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize(
    ("rows", "present", "values"),
    [
        ([(3, "b", 1.0), (3, "a", 2.0), (5, "a", 3.0), (5, "b", 4.0)], [[1, 1], [1, 1]], [[1.0, 2.0], [4.0, 3.0]]),
        ([(3, "b", 1.0), (5, "a", 2.0)], [[1, 0], [0, 1]], [[1.0, NAN], [NAN, 2.0]]),
        ([(3, "b", 1.0), (3, "b", 9.0), (5, "a", 2.0)], [[1, 0], [0, 1]], [[9.0, NAN], [NAN, 2.0]]),
        ([(5, "b", 1.0), (5, "a", 2.0), (3, "b", 3.0), (3, "a", 4.0)], [[1, 1], [1, 1]], [[3.0, 4.0], [1.0, 2.0]]),
        ([(3, "b", 1.0), (5, "a", 2.0), (3, "b", 3.0), (5, "a", 4.0)], [[1, 0], [0, 1]], [[3.0, NAN], [NAN, 4.0]]),
    ],
)
def test_other_rows_are_put_in_their_places_and_the_later_of_two_counts(
    rows: list[tuple[int, str, float]], present: list[list[int]], values: list[list[float]]
) -> None:
    frame = pivot(HEADS, heads(*rows), np.array([3, 5]), ["grad_norm"])
    assert frame.subjects == ("b", "a")
    assert frame.present.tolist() == [[bool(cell) for cell in row] for row in present]
    assert np.array_equal(frame["grad_norm"].values, values, equal_nan=True)
    assert frame["grad_norm"].null.tolist() == [[not cell for cell in row] for row in present]


def test_a_table_without_subjects_is_of_the_run_and_updates_without_a_row_are_null() -> None:
    data = pa.table({"update": [2, 4], "kl_k3": [0.5, None]}, schema=pa.schema(
        [arrow_schema(UPDATES).field(name) for name in ("update", "kl_k3")]))  # fmt: skip
    frame = pivot(UPDATES, data, np.array([2, 3, 4]), ["kl_k3"])
    assert frame.subjects == ("run",)
    assert frame.present[:, 0].tolist() == [True, False, True]
    assert frame["kl_k3"].null[:, 0].tolist() == [False, True, True]
    assert np.array_equal(frame["kl_k3"].values[:, 0], [0.5, NAN, NAN], equal_nan=True)


@pytest.mark.parametrize(
    ("rows", "subjects", "k", "regular"),
    [
        ([0, 0, 1, 1], [0, 1, 0, 1], 2, True),
        ([0, 1], [0, 0], 1, True),
        ([0, 0, 1, 1], [0, 1, 1, 0], 2, False),
        ([0, 0, 1], [0, 1, 0], 2, False),
        ([0, 0, 0, 1], [0, 1, 0, 1], 2, False),
        ([1, 1, 0, 0], [0, 1, 0, 1], 2, False),
        ([0, 1, 0, 1], [0, 1, 0, 1], 2, False),
    ],
)
def test_rows_are_regular_where_each_update_has_each_subject_in_turn(
    rows: list[int], subjects: list[int], k: int, regular: bool
) -> None:
    assert _regular(np.array(rows), np.array(subjects), np.array([0, 1]), k) is regular


@pytest.mark.parametrize(
    ("tables", "merged"),
    [
        ([], []),
        ([[3, 4, 4, 6]], [3, 4, 6]),
        ([[4, 3, 4]], [3, 4]),
        ([[3, 4], [3, 3, 4, 4]], [3, 4]),
        ([[3, 5], [4], [5, 9]], [3, 4, 5, 9]),
        ([[], [2]], [2]),
    ],
)
def test_updates_are_those_of_any_table_once_each_and_in_order(tables: list[list[int]], merged: list[int]) -> None:
    assert _updates([np.array(table, np.int64) for table in tables if table]).tolist() == merged


def test_words_are_numbered_as_they_appear_and_unused_ones_have_no_number() -> None:
    coded = pa.DictionaryArray.from_arrays(pa.array([3, 1, 3, 0], pa.int32()), pa.array(["a", "b", "c", "d"]))
    words, index = _by_appearance(coded)
    assert (words, index.tolist()) == (("d", "b", "a"), [0, 1, 0, 2])
    none = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array(["a"]))
    assert _by_appearance(none)[0] == ()


def column(name: str, cells: list[object], *, coded: bool = False) -> pa.ChunkedArray:
    array = pa.array(cells, arrow_schema(UPDATES).field(name).type)
    return pa.chunked_array([array.dictionary_encode() if coded else array])


@pytest.mark.parametrize(
    ("name", "cells", "values", "null"),
    [
        ("kl_k3", [0.5, None, NAN, -INF], [0.5, NAN, NAN, -INF], [False, True, False, False]),
        ("kl_k3", [0.5, 1.5], [0.5, 1.5], [False, False]),
        ("minibatches", [7, None], [7.0, NAN], [False, True]),
        ("env_steps", [2**53 + 1], [2.0**53], [False]),
        ("inner_loop_measurable", [True, None, False], [1.0, NAN, 0.0], [False, True, False]),
        ("skip_reason", ["x", None, ""], [1.0, NAN, 1.0], [False, True, False]),
        ("kl_k3", [], [], []),
        ("status", [], [], []),
    ],
)
def test_cells_are_float64_with_nulls_apart(
    name: str, cells: list[object], values: list[float], null: list[bool]
) -> None:
    found, missing = numbers(UPDATES, name, column(name, cells))
    assert found.dtype == np.float64
    assert np.array_equal(found, values, equal_nan=True)
    assert missing.tolist() == null


@pytest.mark.parametrize("coded", [False, True])
def test_a_choice_is_its_position_and_one_that_is_not_declared_is_refused(coded: bool) -> None:
    choices = UPDATES.column("status").choices
    found, null = numbers(UPDATES, "status", column("status", [choices[2], choices[0], choices[2]], coded=coded))
    assert (found.tolist(), null.tolist()) == ([2.0, 0.0, 2.0], [False] * 3)
    found, null = numbers(UPDATES, "status", column("status", [choices[1], None], coded=coded))
    assert np.array_equal(found, [1.0, NAN], equal_nan=True)
    assert null.tolist() == [False, True]
    with pytest.raises(ValueError, match=r"updates\.status has the value 'odd', not one of its choices"):
        numbers(UPDATES, "status", column("status", ["odd"], coded=coded))


def test_a_slice_of_a_column_is_read_at_its_place() -> None:
    assert _integers(pa.chunked_array([pa.array([1, 2, 3, 4]).slice(1, 2)])).tolist() == [2, 3]
    assert _integers(pa.array([5, 6], pa.int32())).tolist() == [5, 6]


def test_words_in_plain_and_in_coded_pieces_become_codes_alike() -> None:
    plain = pa.table({"update": [1], "head": ["a"]}, metadata={"x": "y"})
    coded = pa.table({"update": [2], "head": pa.array(["b"]).dictionary_encode()})
    for piece in (plain, coded):
        found = _as_codes(piece, ["head"])
        assert pa.types.is_dictionary(found.schema.field("head").type)
        assert (found.schema.metadata, found.to_pylist()) == (None, piece.to_pylist())


def groups(made: InParts, *tables: str) -> list[list[tuple[str, int, int]]]:
    return [
        [(table, source.first_update, source.last_update) for table, source in group]
        for group in batch_sources(made, tables)
    ]


def test_pieces_that_share_an_update_are_read_together() -> None:
    made = in_parts(updates=[[4, 5], [0, 1], [2, 3]], heads=[[0, 1, 2], [5]])
    assert groups(made, "updates", "heads") == [
        [("updates", 0, 1), ("heads", 0, 2), ("updates", 2, 3)],
        [("updates", 4, 5), ("heads", 5, 5)],
    ]
    assert groups(made, "updates") == [[("updates", 0, 1)], [("updates", 2, 3)], [("updates", 4, 5)]]
    assert groups(made, "steps") == []
    single = in_parts(updates=[[0], [1], [2]])
    assert [len(group) for group in groups(single, "updates")] == [1, 1, 1]
    overlapping = in_parts(updates=[[0, 9], [1], [5], [10]])
    assert [len(group) for group in groups(overlapping, "updates")] == [3, 1]


def test_superseded_updates_of_a_piece_hold_nothing_together() -> None:
    made = in_parts(until=3, updates=[[0, 5], [3, 6]])
    assert [len(group) for group in groups(made, "updates")] == [1, 1]
    assert next(read_batches(made, {"updates": ["kl_k3"]})).update.tolist() == [0]


def test_batches_have_the_wanted_columns_of_every_table_that_has_rows() -> None:
    made = run(
        updates=[{"update": 1, "kl_k3": 0.5}, {"update": 2}],
        heads=[{"update": 2, "head": "op", "grad_norm": 1.0}, {"update": 4, "head": "op"}],
    )
    (batch,) = read_batches(made, {"updates": ["kl_k3", "status"], "heads": ["grad_norm"], "steps": ["loss"]})
    assert batch.update.tolist() == [1, 2, 4]
    assert set(batch.frames) == {"updates", "heads"}
    assert list(batch.frames["updates"].columns) == ["kl_k3", "status"]
    assert batch.frames["updates"].present[:, 0].tolist() == [True, True, False]
    assert batch.frames["heads"].present[:, 0].tolist() == [False, True, True]
    assert STEPS.name == "steps"


def test_pieces_with_coded_and_with_plain_words_are_one_table() -> None:
    made = in_parts(heads=[[0, 1], [2]])
    first, second = made.parts["heads"]
    assert first.logged is not None
    place = first.logged.schema.get_field_index("head")
    coded = first.logged.set_column(place, "head", first.logged["head"].dictionary_encode())
    made.parts["heads"][:] = [replace(first, logged=coded, last_update=2), second]
    (batch,) = read_batches(made, {"heads": ["grad_norm", "grad_state"]})
    assert (batch.update.tolist(), batch.frames["heads"].subjects) == ([0, 1, 2], ("op",))


@pytest.mark.parametrize(
    ("edges", "parts"),
    [
        ([], [[3, 4, 5], [8, 9]]),
        ([4], [[3], [4, 5], [8, 9]]),
        ([3, 6, 9, 20], [[3, 4, 5], [8], [9]]),
        ([4, 5, 8], [[3], [4], [5], [8, 9]]),
    ],
)
def test_a_batch_is_split_where_a_detector_began_anew(edges: list[int], parts: list[list[int]]) -> None:
    batches = [Batch(np.array(piece), {}) for piece in ([3, 4, 5], [8, 9])]
    assert [batch.update.tolist() for batch in between(batches, edges)] == parts


def test_updates_are_rows_of_their_own() -> None:
    made = run(updates=updates(3, kl_k3=0.5))
    assert [batch.update.tolist() for batch in read_batches(made, {"updates": ["kl_k3"]})] == [[0, 1, 2]]
