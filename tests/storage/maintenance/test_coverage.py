"""Ranges of sequence numbers, and what they say is missing: held against plain sets of numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage.attempts import Attempt, Broken
from esper_analyze.storage.entries import arrow_table
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.maintenance.coverage import all_runs, coverage_faults, expected_end, gaps, overlapping
from esper_analyze.storage.shard_scan import Contents, as_runs, concatenated, entry_faults, integers, table_contents
from tests.storage.handmade import heads, updates


def numbers_of(runs: np.ndarray) -> list[int]:
    return [number for first, stop in runs.tolist() for number in range(first, stop)]


@pytest.mark.parametrize("seed", range(20))
def test_ranges_and_their_gaps_are_those_of_the_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.flatnonzero(rng.random(30) < rng.choice([0.2, 0.5, 0.9])).astype(np.int64)
    runs = as_runs(numbers)
    assert numbers_of(runs) == numbers.tolist()
    assert all(first < stop for first, stop in runs.tolist())
    assert (runs[1:, 0] > runs[:-1, 1]).all(), "there is a gap between any two"
    for end in (0, 10, 30, 40):
        assert (
            numbers_of(gaps(runs, end))
            == [one for one in range(max([end, *numbers + 1])) if one not in numbers][
                : sum(one < max(end, numbers[-1] + 1 if len(numbers) else 0) for one in range(50) if one not in numbers)
            ]
        )


@pytest.mark.parametrize("seed", range(20))
def test_numbers_that_several_tables_have_are_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [np.flatnonzero(rng.random(30) < 0.4).astype(np.int64) for _ in range(3)]
    runs = all_runs([Contents("x", runs=as_runs(part)) for part in parts])
    assert (np.diff(runs[:, 0]) >= 0).all()
    assert sorted(numbers_of(runs)) == sorted(concatenated(parts).tolist())
    assert overlapping(runs) == sum(map(len, parts)) - len(set(concatenated(parts).tolist()))


def test_no_numbers_are_no_ranges() -> None:
    none = np.zeros((0, 2), np.int64)
    assert as_runs(np.zeros(0, np.int64)).shape == (0, 2)
    assert all_runs([]).shape == (0, 2)
    assert overlapping(none) == overlapping(np.array([[3, 9]])) == 0
    assert gaps(none, 5).tolist() == [[0, 5]]
    assert gaps(none, 0).tolist() == []
    assert concatenated([]).tolist() == []


def test_arrow_numbers_with_null_as_minus_one() -> None:
    cells = pa.chunked_array([[1, 2, None], [4], []], pa.int64())
    assert integers(cells).tolist() == [1, 2, -1, 4]
    assert integers(cells.slice(1, 2)).tolist() == [2, -1]
    assert integers(pa.chunked_array([], pa.int64())).tolist() == []


def entry(last_seq: int, table: str = "heads") -> ShardEntry:
    return ShardEntry(f"{table}-000001.parquet", table, 1, 0, 0, 1, last_seq, last_seq, 0, 0, "")


def attempt(tmp_path: Path, *broken: ShardEntry | None, lost: int | None = None) -> Attempt:
    folder = tmp_path / "rank00000" / "attempt-0000-00000000"
    folder.mkdir(parents=True, exist_ok=True)
    closed: dict[str, object] | None = None if lost is None else {"lost_rows": lost}
    return Attempt(folder, 0, 0, broken=[Broken(folder / "x", "why", one) for one in broken], closed=closed)


def test_the_end_is_the_highest_number_known_of_sound_and_broken_shards(tmp_path: Path) -> None:
    runs = np.array([[0, 4], [6, 9]])
    assert expected_end(attempt(tmp_path), runs) == 9
    assert expected_end(attempt(tmp_path, entry(8)), runs) == 9
    assert expected_end(attempt(tmp_path, entry(9), None), runs) == 10
    assert expected_end(attempt(tmp_path, None), np.zeros((0, 2), np.int64)) == 0


def scan(table: str, seqs: list[int], numbers: list[int], lost: int = 0) -> Contents:
    return Contents(table, len(seqs), as_runs(np.array(seqs, np.int64)), np.unique(np.array(numbers, np.int64)), lost)


FINE = [scan("updates", [0, 3, 6], [5, 6, 7]), scan("heads", [1, 2, 4, 5], [5, 5, 6, 6])]


def faults(
    one: Attempt, contents: list[Contents], level: str = "NORMAL"
) -> list[tuple[bool, str, str | None, int | None]]:
    return list(coverage_faults(one, contents, level))


def test_a_complete_writer_has_no_fault(tmp_path: Path) -> None:
    assert faults(attempt(tmp_path, lost=0), FINE) == []
    assert faults(attempt(tmp_path, lost=0), []) == []


def test_missing_numbers_are_damage_unless_they_are_counted_or_a_file_is_broken(tmp_path: Path) -> None:
    holes = [scan("updates", [0, 1, 4, 9, 20], [5, 6, 7, 8, 9]), scan("heads", [12, 13], [5, 5])]
    words = "rows are in no sound shard and no log: numbers 2–3, 5–8, 10–11 …"
    assert faults(attempt(tmp_path, lost=0), holes) == [(True, words, None, 14)]
    counted = "13 rows were lost, and counted"
    assert faults(attempt(tmp_path, lost=13), holes) == [(True, words, None, 14), (False, counted, None, 13)]
    assert faults(attempt(tmp_path, lost=14), holes) == [(False, "14 rows were lost, and counted", None, 14)]
    assert faults(attempt(tmp_path, entry(0), lost=0), holes) == [(False, words, None, 14)]
    first = [scan("updates", [1, 2], [5, 6])]
    words = "rows are in no sound shard and no log: numbers 0–0"
    assert faults(attempt(tmp_path, lost=0), first) == [(True, words, None, 1)]


def test_numbers_that_occur_twice_are_damage_whatever_else_is_broken(tmp_path: Path) -> None:
    twice = [*FINE, scan("events", [5, 6, 7], [5])]
    words = "2 sequence numbers occur more than once"
    for one in (attempt(tmp_path, lost=0), attempt(tmp_path, entry(0), lost=0)):
        assert (True, words, None, 2) in faults(one, twice)


def test_updates_without_a_row_are_named_by_number(tmp_path: Path) -> None:
    recorded = [5, 6, 8, 12, 13, 15, 17, 19]
    contents = [scan("updates", list(range(8)), recorded)]
    expected = [
        (True, "update 7 has no row", "updates", 1),
        (True, "updates 9–11 have no row", "updates", 3),
        (True, "update 14 has no row", "updates", 1),
    ]  # three are named
    assert faults(attempt(tmp_path, lost=0), contents) == expected
    assert faults(attempt(tmp_path, lost=0), contents, "OFF") == []
    excused = [(False, *rest) for _, *rest in expected]
    assert faults(attempt(tmp_path, lost=1), contents) == [*excused, (False, "1 rows were lost, and counted", None, 1)]
    noted = [*contents, scan("losses_of_data", [8], [7], lost=2)]
    words = "2 errors or rows that cost data are noted"
    assert faults(attempt(tmp_path, lost=0), noted) == [*excused, (False, words, "losses_of_data", None)]


def test_rows_of_updates_that_were_not_recorded_are_named_by_table(tmp_path: Path) -> None:
    contents = [scan("updates", [0], [5]), scan("heads", [1, 2, 3], [4, 5, 1234]), scan("events", [4], [9])]
    words = "has rows of updates that table updates does not have: 2, the first is 4"
    assert faults(attempt(tmp_path, lost=0), contents) == [(True, words, "heads", None)]
    alone = [scan("heads", [0], [1234])]
    words = "has rows of updates that table updates does not have: 1, the first is 1,234"
    assert faults(attempt(tmp_path, lost=0), alone) == [(True, words, "heads", None)]
    assert faults(attempt(tmp_path, lost=0), alone, "OFF") == []


def test_the_contents_of_rows_are_their_numbers_updates_and_faults() -> None:
    table = arrow_table(BY_NAME["heads"], [(4, heads(7, "a", "b")), (9, heads(3, "a"))])
    contents = table_contents(BY_NAME["heads"], table, 0)
    assert (contents.table, contents.rows, contents.lost, contents.faults) == ("heads", 3, 0, [])
    assert contents.runs.tolist() == [[4, 6], [9, 10]]
    assert contents.updates.tolist() == [3, 7]
    assert table_contents(BY_NAME["heads"], table, 1).faults == ["holds rows of rank 0, its folder is of rank 1"]
    losses = [{"update": 1, "kind": "disk", "rows": rows} for rows in (3, 0, 4)]
    assert table_contents(BY_NAME["losses_of_data"], arrow_table(BY_NAME["losses_of_data"], [(0, losses)]), 0).lost == 7
    empty = Contents("heads")
    assert (empty.rows, empty.lost, empty.faults) == (0, 0, [])
    assert (empty.runs.shape, empty.updates.shape) == ((0, 2), (0,))


def test_numbers_that_do_not_increase_and_words_that_are_no_choice_are_faults() -> None:
    updates_ = BY_NAME["updates"]
    table = arrow_table(updates_, [(4, updates(1)), (2, updates(2)), (-1, updates(3, status="strange"))])
    contents = table_contents(updates_, table, 0)
    assert contents.faults == [
        "column status has the value 'strange', not one of its choices",
        "has sequence numbers that do not increase",
        "has the sequence number -1",
    ]
    assert contents.runs.tolist() == [[-1, 0], [2, 3], [4, 5]]
    same = arrow_table(updates_, [(4, updates(1)), (4, updates(2))])
    assert table_contents(updates_, same, 0).faults == ["has sequence numbers that do not increase"]
    from_zero = arrow_table(updates_, [(0, updates(1))])
    assert table_contents(updates_, from_zero, 0).faults == []


def test_where_an_entry_and_the_cells_disagree() -> None:
    contents = scan("heads", [4, 5, 9], [3, 7])
    right = ShardEntry("heads-000001.parquet", "heads", 1, 0, 0, 3, 4, 9, 3, 7, "")
    assert entry_faults(right, contents) == []
    wrong = ShardEntry("heads-000001.parquet", "heads", 1, 0, 0, 4000, 5, 10, 2, 8, "")
    assert entry_faults(wrong, contents) == [
        "has rows 3, the manifest says 4,000",
        "has first seq 4, the manifest says 5",
        "has last seq 9, the manifest says 10",
        "has first update 3, the manifest says 2",
        "has last update 7, the manifest says 8",
    ]
    assert entry_faults(right, Contents("heads")) == ["holds no row"]
    assert entry_faults(ShardEntry("", "heads", 1, 0, 0, 0, 0, 0, 0, 0, ""), Contents("heads")) == []
