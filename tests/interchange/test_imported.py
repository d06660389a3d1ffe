"""What an importer counts as lost, and the lines of JSON and rows of files that importers read."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange.imported import Imported, ImportLosses, named_columns, own_finding
from esper_analyze.interchange.json_lines import json_lines
from esper_analyze.interchange.rows_file import rows_of
from esper_analyze.interchange.sources import read_source


def test_losses_are_counted_by_kind_and_their_first_five_places_are_named() -> None:
    losses = ImportLosses()
    assert (losses.lost, losses.rows(), losses.sentences()) == (0, [], [])
    for number in range(5):
        losses.count("a", "odd line", f"line {number}", update=number + 3, lost=1)
    assert losses.sentences() == ["5 × odd line: line 0, line 1, line 2, line 3, line 4"]
    losses.count("a", "other words", "line 5", times=3)
    losses.count("b", "row", times=1200, lost=7)
    assert losses.sentences() == ["8 × odd line: line 0, line 1, line 2, line 3, line 4 …", "1,200 × row"]
    assert losses.lost == 12
    assert losses.rows() == [
        {"update": 3, "kind": "a", "detail": losses.sentences()[0], "rows": 5},
        {"update": 0, "kind": "b", "detail": "1,200 × row", "rows": 7},
    ]


@pytest.mark.parametrize(
    ("numbers", "detail", "lost", "update"),
    [
        ([3, 4, 5], None, 0, 0),
        ([], None, 0, 0),
        ([7], None, 0, 0),
        ([5, 3, 3], "1 × update is missing: 4", 1, 4),
        ([1, 5], "3 × update is missing: 2–4", 3, 2),
        ([9, 1, 4, 6], "5 × update is missing: 2–3, 5, 7–8", 5, 2),
    ],
)
def test_updates_between_others_are_lost(numbers: list[int], detail: str | None, lost: int, update: int) -> None:
    imported = Imported("x")
    imported.count_gaps(numbers, "is missing")
    row = {"update": update, "kind": "missing_updates", "detail": detail, "rows": lost}
    assert imported.losses.rows() == ([row] if detail else [])


def test_only_columns_that_some_row_fills_are_named() -> None:
    rows: list[dict[str, object]] = [{"kl_k3": None, "entropy": 0.0}, {"kl_k3": None, "loss": 1.0}]
    named = {"kl_k3": "kl", "entropy": "ent", "other": "x"}
    assert named_columns(named, rows, "updates") == {"updates.entropy": "ent"}


def test_rows_are_added_to_their_table() -> None:
    imported = Imported("x")
    row = imported.add("heads", {"update": 1})
    row["head"] = "op"
    imported.add("heads", {"update": 2})
    assert imported.rows == {"heads": [{"update": 1, "head": "op"}, {"update": 2}]}


def test_an_alarm_of_a_source_is_a_finding_with_its_words() -> None:
    found = own_finding(4, "x:nan", "run", "loss", "critical", "loss is NaN")
    assert (found.update, found.rule, found.subject, found.metric) == (4, "x:nan", "run", "loss")
    assert (found.verdict, found.reason, found.alarm) == ("critical", "loss is NaN", True)
    assert (found.value, found.threshold) == (None, None)


def lines(path: Path, text: bytes) -> tuple[list[tuple[int, Any]], list[dict[str, object]]]:
    """Return what lines of JSON hold, and what was lost."""
    path.write_bytes(text)
    losses = ImportLosses()
    return list(json_lines(path, losses)), losses.rows()


def test_lines_of_json_have_their_numbers_and_odd_ones_are_counted(tmp_path: Path) -> None:
    text = b'{"a": 1}\n\n  \n[1]\n{bad\n{"b": NaN, "c": -Infinity}\n7\n{"d"'
    found, lost = lines(tmp_path / "x.jsonl", text)
    assert [number for number, _ in found] == [1, 6]
    assert found[0][1] == {"a": 1}
    assert math.isnan(found[1][1]["b"])
    assert found[1][1]["c"] == -math.inf
    assert [(row["kind"], row["rows"], row["detail"]) for row in lost] == [
        ("malformed_line", 3, "3 × line that is no JSON object of x.jsonl: line 4, line 5, line 7"),
        ("cut_line", 1, "1 × cut line, the last of x.jsonl: line 8"),
        ("nonfinite_tokens", 0, "2 × NaN or Infinity as a bare token, read as the number"),
    ]


def test_a_last_line_without_a_newline_is_no_loss_when_it_is_whole(tmp_path: Path) -> None:
    assert lines(tmp_path / "x.jsonl", b'{"a": 1}') == ([(1, {"a": 1})], [])
    assert lines(tmp_path / "x.jsonl", b"") == ([], [])
    assert lines(tmp_path / "x.jsonl", b"[" * 200_000)[1][0]["kind"] == "cut_line"


def test_packed_lines_are_read_and_a_cut_one_is_counted(tmp_path: Path) -> None:
    packed = gzip.compress(b"".join(b'{"a": %d}\n' % number for number in range(100)))
    assert len(lines(tmp_path / "x.jsonl", packed)[0]) == 100
    found, lost = lines(tmp_path / "x.jsonl", packed[:-12])
    assert found[:2] == [(1, {"a": 0}), (2, {"a": 1})]
    assert lost[0]["kind"] == "cut_file"
    assert f"after line {len(found)}" in str(lost[0]["detail"])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        list(json_lines(tmp_path, ImportLosses()))
    with pytest.raises(UsageError, match="No such file"):
        list(rows_of(tmp_path / "none.csv", ImportLosses()))
    with pytest.raises(UsageError, match=r"x\.md ends in none of \.csv, \.jsonl, \.ndjson, \.parquet"):
        list(rows_of(tmp_path / "x.md", ImportLosses()))
    with pytest.raises(DamagedError, match="cannot be read"):
        list(rows_of(tmp_path / "none.parquet", ImportLosses()))


def test_rows_of_csv_have_null_for_empty_and_lines_of_another_length_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(b"\xef\xbb\xbfa,b\n1,\n\n1\n1,2,3\n,nan\n")
    losses = ImportLosses()
    assert list(rows_of(file, losses)) == [{"a": "1", "b": None}, {"a": None, "b": "nan"}]
    (row,) = losses.rows()
    assert (row["kind"], row["rows"]) == ("malformed_line", 2)
    assert str(row["detail"]).endswith("than the header of x.csv: line 4, line 5")


def test_a_csv_that_breaks_in_its_middle_gives_what_is_before(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text('a,b\n1,2\n"3"x,4\n5,6\n')
    losses = ImportLosses()
    assert list(rows_of(file, losses)) == [{"a": "1", "b": "2"}]
    assert losses.lost == 1
    assert "from which on x.csv is no CSV" in losses.sentences()[0]


@pytest.mark.parametrize(("header", "doubled"), [("a,b,b", "b"), ("a,b,a,b", "a")])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, header: str, doubled: str) -> None:
    (tmp_path / "x.csv").write_text(f"{header}\n")
    with pytest.raises(DamagedError, match=f"two columns called '{doubled}'"):
        list(rows_of(tmp_path / "x.csv", ImportLosses()))


def test_a_source_that_is_not_there_or_of_no_known_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_source(tmp_path / "none")
    (tmp_path / "x.md").write_text("")
    with pytest.raises(UsageError, match="not in a format") as refused:
        read_source(tmp_path / "x.md")
    assert "csv: a progress.csv" in str(refused.value.hint)
    with pytest.raises(UsageError, match="does not hold, a W&B history"):
        read_source(tmp_path / "x.md", "wandb")


def test_a_recorded_run_is_not_a_log(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="is a recorded run"):
        read_source(tmp_path)


def test_the_source_is_named_and_its_own_facts_of_it_stay(tmp_path: Path) -> None:
    file = tmp_path / "progress.csv"
    file.write_text("time/iterations,train/loss\n1,\n2,1.0\n")
    assert read_source(file).facts["source"] == {"path": "progress.csv"}
    assert read_source(tmp_path).facts["source"] == {"path": "progress.csv"}
    assert read_source(file).format == "csv"
    assert read_source(file, "wandb").format == "wandb"
