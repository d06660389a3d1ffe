"""Columns over updates, read shard by shard: in order, each update once, null and NaN apart."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from esper_analyze.runs import series as module
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.runs.series import (
    Series,
    all_series,
    by_subject,
    corners,
    envelope,
    queried,
    rows_by_subject,
    rows_of,
    series_of,
    with_gaps,
)
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage.entries import arrow_table
from esper_analyze.storage.shard_file import parquet_bytes, shard_entry
from tests.storage.handmade import HandmadeAttempt, heads, identify, updates


def run_of_shards(path: Path) -> RecordedRun:
    """Return a run of three shards: the second has its rows in the wrong order, the third repeats an update."""
    writer = HandmadeAttempt(identify(path))
    writer.seal(updates=updates(0, 1, kl_k3=0.5), heads=[*heads(0, "b", "a", entropy=1.0), *heads(1, "a", entropy=2.0)])
    rows = [(12, heads(3, "a", entropy=5.0)), (10, heads(2, "a", "b", entropy=3.0))]
    table = arrow_table(BY_NAME["heads"], rows)
    content = parquet_bytes(BY_NAME["heads"], table)
    entry = shard_entry(BY_NAME["heads"], 2, table.sort_by("seq"), content)
    (writer.folder / entry.shard).write_bytes(content)
    with (writer.folder / "manifest.jsonl").open("ab") as manifest:
        manifest.write(entry.as_line())
    writer.seq, writer.shards = 20, 2
    writer.seal(updates=[*updates(1, kl_k3=None), *updates(4, kl_k3=math.nan)], heads=heads(3, "a", "c", entropy=7.0))
    return open_run(path)


EXPECTED = {"b": ([0, 2], [1.0, 3.0]), "a": ([0, 1, 2, 3], [1.0, 2.0, 3.0, 7.0]), "c": ([3], [7.0])}


@pytest.mark.parametrize("chunk", [1, 3, 5, 10**6])
def test_rows_of_subjects_however_many_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    run = run_of_shards(tmp_path / "run")
    parts = rows_by_subject(run, "heads", ["entropy", "kind"])
    assert list(parts) == ["b", "a", "c"], "in order of appearance"
    assert {name: (part["update"].to_list(), part["entropy"].to_list()) for name, part in parts.items()} == EXPECTED
    assert all(part.columns == ["update", "entropy", "kind"] for part in parts.values())
    assert parts["a"]["kind"].dtype == pl.Enum(BY_NAME["heads"].column("kind").choices)
    rows = rows_of(run, "heads", ["entropy"])
    assert rows.columns == ["update", "head", "entropy"]
    assert rows.rows() == [
        (0, "b", 1.0),
        (0, "a", 1.0),
        (1, "a", 2.0),
        (2, "a", 3.0),
        (2, "b", 3.0),
        (3, "a", 7.0),
        (3, "c", 7.0),
    ]
    only = rows_of(run, "updates", ["kl_k3"])
    assert only["update"].to_list() == [0, 1, 4]
    assert repr(only["kl_k3"].to_list()) == "[0.5, None, nan]"


@pytest.mark.parametrize(("chunk", "pieces"), [(1, [4, 3, 2]), (4, [4, 5]), (5, [7, 2]), (8, [9]), (9, [9]), (10, [9])])
def test_pieces_hold_at_least_so_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, pieces: list[int]
) -> None:
    """The shards have 3, 3 and 2 rows; the first of them four with a head more."""
    writer = HandmadeAttempt(identify(tmp_path / "run"))
    for number, count in enumerate((4, 3, 2)):
        writer.seal(heads=heads(number, *"abcd"[:count]))
    monkeypatch.setattr(module, "_CHUNK", chunk)
    found = list(module._chunks(open_run(tmp_path / "run"), "heads", ["head", "head"]))
    assert [part.height for part in found] == pieces
    assert [name for part in found for name in part["head"]] == [*"abcd", *"abc", *"ab"]


def test_a_table_without_rows_has_none(tmp_path: Path) -> None:
    run = run_of_shards(tmp_path / "run")
    assert rows_by_subject(run, "groups", ["grad_norm"]) == {}
    assert by_subject(run, "groups", ["grad_norm"]) == {}
    empty = rows_of(run, "groups", ["grad_norm"])
    assert (empty.height, empty.columns) == (0, ["update", "group", "grad_norm"])
    with pytest.raises(ValueError, match="table updates has one row per update"):
        rows_by_subject(run, "updates", ["kl_k3"])


def test_series_of_columns_and_subjects(tmp_path: Path) -> None:
    run = run_of_shards(tmp_path / "run")
    found = all_series(run, "updates", ["kl_k3", "env_steps"])
    assert list(found) == ["kl_k3", "env_steps"]
    kl = found["kl_k3"]
    assert (kl.update.tolist(), kl.null.tolist()) == ([0, 1, 4], [False, True, False])
    assert repr(kl.value.tolist()) == "[0.5, nan, nan]"
    assert (found["env_steps"].empty, kl.empty) == (True, False)
    subjects = by_subject(run, "heads", ["entropy"])
    assert {
        name: (one["entropy"].update.tolist(), one["entropy"].value.tolist()) for name, one in subjects.items()
    } == (EXPECTED)
    flags = series_of(pl.DataFrame({"update": [1, 2, 3], "flag": [True, None, False]}), "flag")
    assert (flags.value.tolist()[::2], flags.null.tolist()) == ([1.0, 0.0], [False, True, False])


def test_a_query_over_a_run(tmp_path: Path) -> None:
    connection = run_of_shards(tmp_path / "run").connection()
    rows = queried(connection, 'select "update" from updates where "update" >= $least order by 1', {"least": 1})
    assert rows["update"].to_list() == [1, 1, 4]
    assert queried(connection, "select count(*) as n from heads")["n"].to_list() == [8]


def series(updates_: list[int], cells: list[Any]) -> Series:
    value = np.array([math.nan if cell is None else cell for cell in cells], float)
    return Series(np.array(updates_, np.int64), value, np.array([cell is None for cell in cells], bool))


def test_the_extremes_are_the_first_of_equals_and_finite() -> None:
    one = series([0, 1, 2, 3, 4, 5], [math.nan, 2.0, -3.0, 2.0, math.inf, None])
    assert (one.largest, one.smallest, one.last) == (1, 2, math.inf)
    assert one.finite.tolist() == [False, True, True, True, False, False]
    assert one.nonfinite.tolist() == [True, False, False, False, True, False]
    assert series([0, 1], [None, None]).empty
    assert not series([0, 1], [None, math.nan]).empty


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("pixels", [1, 2, 3, 7, 100])
def test_an_envelope_has_least_mean_and_greatest_of_each_interval(seed: int, pixels: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.flatnonzero(rng.random(60) < 0.7) + 10
    values = np.where(
        rng.random(len(numbers)) < 0.2, rng.choice([math.nan, math.inf], len(numbers)), rng.normal(size=len(numbers))
    )
    one = Series(numbers, values, rng.random(len(numbers)) < 0.1)
    found = envelope(one, pixels)
    first, last = int(numbers[0]), int(numbers[-1])
    width = max(1, math.ceil((last - first + 1) / pixels))
    starts = list(range(first, last + 1, width))
    assert found.update.tolist() == starts
    assert len(starts) <= pixels or width == 1
    for i, start in enumerate(starts):
        inside = one.value[one.finite & (numbers >= start) & (numbers < start + width)]
        if len(inside):
            assert (found.low[i], found.high[i]) == (inside.min(), inside.max())
            assert found.mean[i] == pytest.approx(inside.mean())
        else:
            assert np.isnan([found.low[i], found.mean[i], found.high[i]]).all()


def test_an_envelope_of_nothing_and_of_one_and_of_what_overflows() -> None:
    nothing = envelope(series([], []))
    assert (nothing.update.tolist(), np.isnan(nothing.mean).tolist()) == ([0], [True])
    alone = envelope(series([7], [2.0]))
    assert (alone.update.tolist(), alone.low.tolist(), alone.mean.tolist(), alone.high.tolist()) == (
        [7],
        [2.0],
        [2.0],
        [2.0],
    )
    huge = envelope(series([0, 1], [1.5e308, 1.7e308]), 1)
    assert huge.mean.tolist() == [1.7e308], "not beyond its band"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("pixels", [1, 3, 7, 100])
def test_corners_are_first_least_greatest_and_last_of_each_interval(seed: int, pixels: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.flatnonzero(rng.random(60) < 0.7) + 10
    values = np.round(rng.normal(size=len(numbers)), 1)
    one = Series(numbers, values, rng.random(len(numbers)) < 0.2)
    first = int(numbers[0])
    width = max(1, math.ceil((int(numbers[-1]) - first + 1) / pixels))
    expected = set[int]()
    for start in range(first, int(numbers[-1]) + 1, width):
        inside = np.flatnonzero(one.finite & (numbers >= start) & (numbers < start + width))
        if len(inside):
            low, high = inside[np.argmin(values[inside])], inside[np.argmax(values[inside])]
            expected |= {int(inside[0]), int(inside[-1]), int(low), int(high)}
    found = corners(one, pixels)
    measured = np.flatnonzero(~found.null)
    assert found.update[measured].tolist() == [int(numbers[i]) for i in sorted(expected)]
    assert found.value[measured].tolist() == [float(values[i]) for i in sorted(expected)]
    drawn = found.update[measured]
    holes = [int(b) - 1 for a, b in pairwise(drawn) if b - a > 2 * width]
    assert found.update[found.null].tolist() == holes
    assert np.isnan(found.value[found.null]).all()


def test_corners_of_nothing_are_nothing() -> None:
    for one in (series([], []), series([3, 4], [None, math.nan])):
        assert len(corners(one).update) == 0


def test_gaps_become_one_null_point_before_what_follows() -> None:
    one = with_gaps(series([0, 2, 3, 9], [1.0, 2.0, 3.0, 4.0]))
    assert one.update.tolist() == [0, 1, 2, 3, 8, 9]
    assert one.null.tolist() == [False, True, False, False, True, False]
    assert one.value[~one.null].tolist() == [1.0, 2.0, 3.0, 4.0]
