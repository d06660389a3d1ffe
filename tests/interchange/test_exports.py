"""Exports of tables held in memory, and an imported source as a run: every cell, its place and its type."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange import export_wide
from esper_analyze.interchange import write as writing
from esper_analyze.interchange.event_file import Scalar, records, scalars
from esper_analyze.interchange.export_rows import write_csv, write_jsonl
from esper_analyze.interchange.export_tensorboard import write_events
from esper_analyze.interchange.export_wide import wide, write_table, write_wide
from esper_analyze.interchange.imported import Imported, own_finding
from esper_analyze.interchange.write import LAST_UPDATE, SHARD_ROWS, Written, write_imported
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema import VERSION
from esper_analyze.schema.column import Table
from esper_analyze.schema.tables import BY_NAME, HEADS, UPDATES
from esper_analyze.storage.entries import arrow_table
from esper_analyze.storage.maintenance.verify import verify

NAN, INF = math.nan, math.inf
READY = {"status": "performed", "level": "NORMAL"}


def run(info: dict[str, Any] | None = None, **rows: list[dict[str, Any]]) -> RecordedRun:
    """Return a run in memory; every update has the cells that it must have."""
    tables = {
        name: arrow_table(BY_NAME[name], [(0, [{**(READY if name == "updates" else {}), **row} for row in of_table])])
        for name, of_table in rows.items()
    }
    return RecordedRun(Path("made"), info or {}, (), tables)


SMALL = run(
    {"created": 12.75},
    updates=[
        {"update": 3, "kl_k3": 0.5, "skip_reason": 'a,"b"\n', "wall_time": 100.0, "inner_loop_measurable": True},
        {"update": 1, "kl_k3": NAN, "skip_reason": "", "entropy": None},
        {"update": 2, "kl_k3": -INF, "wall_time": None},
    ],
    heads=[
        {"update": 1, "head": "op", "grad_norm": 1.0, "grad_state": "finite"},
        {"update": 1, "head": "op", "grad_norm": 2.0, "grad_state": "nonfinite"},
        {"update": 7, "head": "a/b", "entropy": 1e300},
    ],
)


def test_csv_has_the_columns_in_order_and_empty_for_null(tmp_path: Path) -> None:
    assert write_csv(SMALL, UPDATES, tmp_path / "x.csv") == 3
    text = (tmp_path / "x.csv").read_text()
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == list(UPDATES.names)
    cells = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [row["update"] for row in cells] == ["3", "1", "2"]
    assert [row["kl_k3"] for row in cells] == ["0.5", "NaN", "-inf"]
    assert [row["skip_reason"] for row in cells] == ['a,"b"\n', "", ""]
    assert '""' in text.split("\n")[3]  # a text without letters is not null
    assert [row["inner_loop_measurable"] for row in cells] == ["true", "", ""]


def test_a_csv_for_a_spreadsheet_runs_nothing(tmp_path: Path) -> None:
    evil = run(updates=[{"update": 0, "skip_reason": "=1+1"}])
    for safe in (False, True):
        write_csv(evil, UPDATES, tmp_path / "x.csv", safe=safe)
        (row,) = csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text()))
        assert row["skip_reason"].startswith("=") is not safe


def test_lines_of_json_have_null_and_words_for_what_is_no_number(tmp_path: Path) -> None:
    assert write_jsonl(SMALL, UPDATES, tmp_path / "x.jsonl") == 3
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [row["kl_k3"] for row in rows] == [0.5, "NaN", "-Infinity"]
    assert [row["entropy"] for row in rows] == [None] * 3
    assert [row["wall_time"] for row in rows] == [100.0, None, None]
    assert list(rows[0]) == list(UPDATES.names)
    assert rows[0]["inner_loop_measurable"] is True


def test_a_table_without_rows_is_a_header_or_nothing(tmp_path: Path) -> None:
    assert write_csv(SMALL, BY_NAME["steps"], tmp_path / "x.csv") == 0
    assert (tmp_path / "x.csv").read_text() == ",".join(BY_NAME["steps"].names) + "\n"
    assert write_jsonl(SMALL, BY_NAME["steps"], tmp_path / "x.jsonl") == 0
    assert (tmp_path / "x.jsonl").read_text() == ""
    assert write_table(SMALL, BY_NAME["steps"], tmp_path / "x.parquet") == 0
    assert pq.read_table(tmp_path / "x.parquet").column_names == list(BY_NAME["steps"].names)


def test_one_row_an_update_has_each_subject_s_columns_and_the_later_of_two_rows() -> None:
    found = wide(SMALL, (UPDATES, HEADS))
    assert found["update"].to_list() == [1, 2, 3, 7]
    assert found["heads/op/grad_norm"].to_list() == [2.0, None, None, None]
    assert found["heads/op/grad_state"].to_list() == ["nonfinite", None, None, None]
    assert found["heads/a/b/entropy"].to_list() == [None, None, None, 1e300]
    assert found["updates/kl_k3"].to_list()[1:] == [-INF, 0.5, None]
    assert math.isnan(found["updates/kl_k3"][0])
    for empty in ("updates/entropy", "heads/op/entropy", "updates/seq", "heads/op/head"):
        assert empty not in found.columns


@pytest.mark.parametrize("most", [1, 2])
def test_more_columns_than_any_tool_opens_are_refused(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(export_wide, "MOST_COLUMNS", most)
    two = run(heads=[{"update": 0, "head": "op", "grad_norm": 1.0, "entropy": 1.0}])
    if most == 2:
        assert wide(two, (HEADS,)).width == 3
        return
    with pytest.raises(UsageError, match="2 columns are more than 1"):
        wide(two, (HEADS,))


def test_parquet_of_both_shapes_has_statistics_of_whole_numbers_only(tmp_path: Path) -> None:
    assert write_wide(SMALL, (UPDATES, HEADS), tmp_path / "wide.parquet") == 4
    assert write_table(SMALL, UPDATES, tmp_path / "updates.parquet") == 3
    for name in ("wide", "updates"):
        data = pq.ParquetFile(tmp_path / f"{name}.parquet")
        group = data.metadata.row_group(0)
        for place in range(group.num_columns):
            column = group.column(place)
            whole = pa.types.is_integer(data.schema_arrow.field(column.path_in_schema).type)
            assert column.is_stats_set is whole, column.path_in_schema
    export_wide.write_parquet(pa.table({"x": [1.0, NAN]}), tmp_path / "floats.parquet")
    assert not pq.ParquetFile(tmp_path / "floats.parquet").metadata.row_group(0).column(0).is_stats_set


def points(path: Path) -> list[Scalar]:
    return [scalar for payload in records(path.read_bytes()).payloads for scalar in scalars(payload)]


def test_tensorboard_gets_a_scalar_for_each_number_of_each_update(tmp_path: Path) -> None:
    assert write_events(SMALL, (UPDATES, HEADS), tmp_path) == (4, 1)  # 1e300 is too large
    (file,) = tmp_path.iterdir()
    assert file.name == "events.out.tfevents.0000000012.export.0"
    found = {(one.tag, one.step): one.value for one in points(file)}
    clocks = {one.step: one.wall_time for one in points(file)}
    assert clocks == {1: 12.75, 2: 12.75, 3: 100.0, 7: 100.0}
    assert math.isnan(found.pop(("updates/kl_k3", 1)))
    states = HEADS.column("grad_state").choices
    level = float(UPDATES.column("level").choices.index("NORMAL"))
    performed = float(UPDATES.column("status").choices.index("performed"))
    assert found == {
        ("updates/kl_k3", 2): -INF, ("updates/kl_k3", 3): 0.5, ("updates/wall_time", 3): 100.0,
        ("updates/inner_loop_measurable", 3): 1.0, ("heads/op/grad_norm", 1): 2.0,
        ("heads/op/grad_state", 1): float(states.index("nonfinite")), ("heads/a/b/entropy", 7): INF,
        **{("updates/level", step): level for step in (1, 2, 3)},
        **{("updates/status", step): performed for step in (1, 2, 3)},
    }  # fmt: skip


@pytest.mark.parametrize(("created", "clock"), [(None, 0.0), ("soon", 0.0), (7, 7.0), (2.5, 2.5)])
def test_without_a_clock_events_have_that_of_the_run(tmp_path: Path, created: object, clock: float) -> None:
    made = run({"created": created}, heads=[{"update": 1, "head": "op", "grad_norm": 1.0}])
    assert write_events(made, (HEADS,), tmp_path) == (1, 0)
    (file,) = tmp_path.iterdir()
    assert [(one.tag, one.wall_time) for one in points(file)] == [("heads/op/grad_norm", clock)]
    assert file.name == f"events.out.tfevents.{int(clock):010d}.export.0"


def test_whether_a_table_has_the_clock() -> None:
    assert export_wide.wall_times(pl.DataFrame({"updates/wall_time": [1.0]})) == "updates/wall_time"
    assert export_wide.wall_times(pl.DataFrame({"heads/x/wall_time": [1.0]})) is None


def source(**more: Any) -> Imported:
    updates: list[dict[str, object]] = [{"update": at, "kl_k3": 0.01, **READY} for at in (2, 0, 1)]
    return Imported("made up", **{"rows": {"updates": updates}, **more})


def test_an_imported_source_is_a_run_in_the_order_of_its_updates(tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, object]]] = {
        "updates": [{"update": at, "kl_k3": float(at), **READY} for at in (2, 0, 1)],
        "heads": [{"update": 1, "head": "b"}, {"update": 0, "head": "z"}, {"update": 1, "head": "a"}],
        "episodes": [],
    }
    foreign = [own_finding(1, "x:b", "run", "m", "critical", "why"), own_finding(0, "x:a", "run", "m", "info", "why")]
    made = Imported("made up", {"framework": "F", "notes": None, "source": {"path": "file"}}, rows, {"a": "b"},
                    {"c": "d"}, foreign=foreign)  # fmt: skip
    made.losses.count("odd", "odd line", lost=3)
    written = write_imported(tmp_path / "run", made)
    found = open_run(tmp_path / "run")
    assert found.frame("updates")["update"].to_list() == [0, 1, 2]
    assert found.frame("heads")["head"].to_list() == ["z", "b", "a"]
    assert found.frame("losses_of_data").select("kind", "rows").rows() == [("odd", 3)]
    theirs = [row for row in found.frame("findings").to_dicts() if row["rule"].startswith("x:")]
    assert [(row["update"], row["reason"]) for row in theirs] == [(1, "why"), (0, "why")]
    assert written.rows == {name: rows for name, rows in found.rows.items() if rows}
    assert (written.path, written.updates, written.foreign) == (tmp_path / "run", 3, 2)
    info = found.info
    assert {name: info[name] for name in ("schema_version", "name", "level", "ranks", "heads", "imported_from",
                                          "foreign_rules", "framework")} == {
        "schema_version": VERSION, "name": "run", "level": "NORMAL", "ranks": 1, "heads": {},
        "imported_from": "made up", "foreign_rules": ["x:a", "x:b"], "framework": "F",
    }  # fmt: skip
    assert info["source"] == {"format": "made up", "columns": {"a": "b"}, "left_out": {"c": "d"}, "path": "file"}
    assert "notes" not in info
    sequence = [seq for table in BY_NAME for seq in found.frame(table)["seq"].to_list()]
    assert sequence == list(range(len(sequence)))
    assert found.closed
    assert verify(found.path).damage == []
    (marker,) = found.path.rglob("closed.json")
    facts = json.loads(marker.read_text())
    assert (facts["reason"], facts["lost_rows"]) == ("imported", 0)
    assert facts["tables"]["updates"] == {"rows": 3, "last_update": 2}
    assert set(facts["tables"]) == set(written.rows)


@pytest.mark.parametrize("update", [-1, LAST_UPDATE])
def test_an_update_that_cannot_be_is_left_out_with_its_rows_and_alarms(tmp_path: Path, update: int) -> None:
    foreign = [own_finding(at, "x:y", "run", "m", "info", "why") for at in (update, 1)]
    made = source(foreign=foreign)
    made.rows["updates"].append({"update": update, **READY})
    made.rows["heads"] = [{"update": update, "head": "op"}] * 2
    written = write_imported(tmp_path / "run", made)
    assert (written.updates, written.foreign, "heads" in written.rows) == (3, 1, False)
    (row,) = open_run(tmp_path / "run").frame("losses_of_data").to_dicts()
    assert (row["kind"], row["rows"]) == ("impossible_update", 3)
    assert row["detail"] == "3 × row of updates with an impossible update number"


def test_the_largest_update_that_can_be_stays(tmp_path: Path) -> None:
    made = source()
    made.rows["updates"] = [{"update": LAST_UPDATE - 1, **READY}]
    write_imported(tmp_path / "run", made)
    assert open_run(tmp_path / "run").frame("updates")["update"].to_list() == [2**53 - 1]


def test_a_source_without_updates_or_with_a_cell_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="contains no update"):
        write_imported(tmp_path / "run", Imported("x", rows={"heads": [{"update": 0, "head": "op"}]}))
    odd = source()
    odd.rows["updates"][0]["status"] = "odd"
    with pytest.raises(DamagedError, match="updates cannot be stored: column status has the value 'odd'"):
        write_imported(tmp_path / "run", odd)
    assert list(tmp_path.iterdir()) == []


def test_a_large_table_is_split_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SHARD_ROWS == 250_000
    monkeypatch.setattr(writing, "SHARD_ROWS", 2)
    written: Written = write_imported(tmp_path / "run", source())
    shards = sorted((tmp_path / "run").rglob("updates-*.parquet"))
    assert [(path.name, len(pq.read_table(path))) for path in shards] == [
        ("updates-000001.parquet", 2), ("updates-000002.parquet", 1),
    ]  # fmt: skip
    assert written.rows["updates"] == 3
    assert open_run(tmp_path / "run").frame("updates")["update"].to_list() == [0, 1, 2]


def test_alarms_of_our_detector_are_counted_and_stored(tmp_path: Path) -> None:
    made = source()
    for row in made.rows["updates"]:
        row["total_loss"] = NAN if row["update"] == 1 else 0.5
    written = write_imported(tmp_path / "run", made)
    findings = open_run(tmp_path / "run").frame("findings").to_dicts()
    alarms = [row for row in findings if row["verdict"] in ("warning", "critical")]
    assert written.alarms == len(alarms) > 0
    assert written.foreign == 0
    assert {row["update"] for row in alarms} == {1}
    assert isinstance(BY_NAME["findings"], Table)


def test_columns_that_the_detector_fills_are_filled_for_each_subject(tmp_path: Path) -> None:
    made = source()
    made.rows["updates"] = [{"update": at, **READY} for at in range(30)]
    made.rows["groups"] = [
        {"update": at, "group": group, "grad_norm": size * (1 + 0.1 * (at % 3))}
        for at in range(30) for group, size in (("a", 1.0), ("b", 5.0))
    ]  # fmt: skip
    write_imported(tmp_path / "run", made)
    rows = open_run(tmp_path / "run").frame("groups")
    drift = [column.name for column in BY_NAME["groups"].columns if "ema" in column.meaning]
    assert len(drift) == 1
    last = {row["group"]: row[drift[0]] for row in rows.to_dicts() if row["update"] == 29}
    assert all(isinstance(value, float) for value in last.values())
    assert last["a"] == pytest.approx(last["b"])  # relative, so alike for both
