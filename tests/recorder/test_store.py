"""Shards on disk: whole or not there, found by the manifest, and NaN answered rightly by every engine."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import threading
from collections import deque
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from esper_analyze.errors import DamagedError
from esper_analyze.runs.run import open_run
from esper_analyze.schema import BY_NAME, TABLES, Kind
from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.column import Column, Table
from esper_analyze.sql.sandbox import sandbox
from esper_analyze.storage.atomic import write_whole
from esper_analyze.storage.block import Block, nullable
from esper_analyze.storage.lock import LockedError, WriterLock
from recorder.store import store as store_module
from recorder.store.run_file import create_run, plain
from recorder.store.store import Store
from tests.patience import PATIENCE
from tests.present import present

SPECIAL = [None, math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1.7e308, 1e20]


def update_row(number: int, **cells: object) -> dict[str, object]:
    return {"update": number, "status": "performed", "level": "NORMAL", **cells}


def new_store(tmp_path: Path) -> Store:
    create_run(tmp_path, {"name": "test"})
    return Store(tmp_path)


def test_null_nan_inf_and_zero_are_counted_alike_by_duckdb_polars_and_pyarrow(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(i, kl_k3=value) for i, value in enumerate(SPECIAL)]})
    store.close("closed")
    run = open_run(tmp_path)
    sql = "select count(*) - count(kl_k3), sum(isnan(kl_k3)::int), sum(isinf(kl_k3)::int), max(kl_k3) from updates"
    nulls, nans, infs, largest = run.connection().execute(sql).fetchall()[0]
    assert (nulls, nans, infs) == (1, 1, 2)
    assert math.isnan(largest)  # DuckDB orders NaN last; with float statistics it would not see it
    over = run.connection().execute("select count(*) from updates where kl_k3 > 100").fetchall()[0][0]
    assert over == 4  # 1e20, 1.7e308, Inf, and NaN, which SQL orders above all: only the detector judges
    column = run.frame("updates")["kl_k3"]
    assert (column.null_count(), int(column.is_nan().sum() or 0)) == (1, 1)
    assert [_bits(value) for value in column.to_list()] == [_bits(value) for value in SPECIAL]


def _bits(value: float | None) -> str | None:
    return None if value is None else f"{value.hex()}{math.copysign(1, value)}"


def test_float_columns_carry_no_statistics_and_integers_do(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0, kl_k3=1.0)]})
    store.close("closed")
    group = pq.ParquetFile(open_run(tmp_path).files("updates")[0]).metadata.row_group(0)
    by_name = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert all(not by_name[c.name].is_stats_set for c in BY_NAME["updates"].columns if c.kind is Kind.FLOAT)
    assert by_name["update"].is_stats_set


def test_column_meaning_travels_in_the_file(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    store.close("closed")
    schema = pq.read_schema(open_run(tmp_path).files("updates")[0])
    metadata = schema.field("kl_k3").metadata
    assert metadata[b"unit"] == b"nats"
    assert metadata[b"empty"]


def cells(column: Column) -> st.SearchStrategy[Any]:
    """Return values of one column's type, null included where it may be."""
    kinds: dict[Kind, st.SearchStrategy[Any]] = {
        Kind.FLOAT: st.floats(),
        Kind.INT: st.integers(-(2**63), 2**63 - 1),
        Kind.BOOL: st.booleans(),
        Kind.TEXT: st.text(),
        Kind.CHOICE: st.sampled_from(column.choices or ("",)),
    }
    strategy = kinds[column.kind]
    return strategy if column.required else st.none() | strategy


def rows(table: Table) -> st.SearchStrategy[list[dict[str, Any]]]:
    own = {c.name: cells(c) for c in table.columns if c.name not in ("rank", "seq", "update")}
    return st.lists(st.fixed_dictionaries(own), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_value_comes_back_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(TABLES))
    given_rows = [{"update": i, **row} for i, row in enumerate(data.draw(rows(table)))]
    path = tmp_path_factory.mktemp("run")
    store = new_store(path)
    store.put({table.name: given_rows})
    store.close("closed")
    run = open_run(path)
    by_polars = run.frame(table.name).to_dicts()
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    by_duckdb = run.connection().execute(f'select {names} from "{table.name}" order by seq').fetchall()
    for wanted, found, tupled in zip(given_rows, by_polars, by_duckdb, strict=True):
        for column, other in zip(table.columns, tupled, strict=True):
            if column.name in wanted:
                assert _same(found[column.name], wanted[column.name]), column.name
                assert _same(other, wanted[column.name]), column.name


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return _bits(one) == _bits(other)
    return type(one) is type(other) and one == other


def test_rows_sealed_at_several_times_keep_their_order(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    for number in range(6):
        store.put({"updates": [update_row(number)], "episodes": [{"update": number, "length": number}]})
        if number % 2:
            store.flush()
    store.close("closed")
    run = open_run(tmp_path)
    assert len(run.files("updates")) == 3
    assert run.frame("updates")["update"].to_list() == list(range(6))
    seqs = sorted(run.frame("updates")["seq"].to_list() + run.frame("episodes")["seq"].to_list())
    assert seqs == list(range(12))


def test_a_full_disk_never_raises_and_nothing_is_lost_once_it_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("esper_analyze.storage.shard_file.write_whole", full)
        store.flush()
        store.put({"updates": [update_row(1)]})
        store.flush()
    assert len([r for r in caplog.records if "No space left" in r.getMessage()]) == 1
    store.close("closed")
    run = open_run(tmp_path)
    assert run.frame("updates")["update"].to_list() == [0, 1]
    assert run.lost_rows == 0


def test_what_can_never_be_written_is_counted_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recorder.store.log.write_all", no_space)
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)], "episodes": [{"update": 0}] * 3})
    monkeypatch.setattr("esper_analyze.storage.shard_file.write_whole", no_space)
    store.close("closed")
    assert store.lost_rows == 4
    assert open_run(tmp_path).rows["updates"] == 0


def test_what_cannot_be_sealed_is_read_from_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(tmp_path)
    block = Block(2, {"update": 0, "layer": ["a", "b"], "minibatch": 1, "std": nullable(np.ones(2), np.eye(2)[0] > 0)})
    store.put({"updates": [update_row(0, kl_k3=math.nan)], "layers": block, "episodes": [{"update": 0}] * 3})
    with monkeypatch.context() as broken:
        broken.setattr("esper_analyze.storage.shard_file.write_whole", no_space)
        store.close("closed")
    assert store.lost_rows == 0
    run = open_run(tmp_path)
    assert (run.closed, run.rows["episodes"], run.last_update) == (True, 3, 0)
    assert math.isnan(run.frame("updates")["kl_k3"][0])
    assert run.frame("layers")["std"].to_list() == [1.0, None]
    assert run.frame("layers")["seq"].to_list() == [1, 2]
    for connection in (run.connection(), sandbox([("run", run)])):
        assert connection.execute("select count(*), count(std) from layers").fetchall() == [(2, 1)]
        assert connection.execute("select isnan(kl_k3) from updates").fetchall() == [(True,)]


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_memory_is_bounded_and_detail_goes_before_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_WAITING_ROWS", 10)
    store = new_store(tmp_path)
    for number in range(8):
        store.put({"updates": [update_row(number)], "steps": [{"update": number, "epoch": 0, "minibatch": 0}] * 2})
    store.settle(PATIENCE)
    assert store.take_losses() == 14
    assert store.take_losses() == 0
    store.close("closed")
    run = open_run(tmp_path)
    assert run.rows["updates"] == 8
    assert run.rows["steps"] == 2


def test_a_cell_of_a_wrong_type_loses_its_row_only(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0), update_row(1, kl_k3="no number"), update_row(2)]})
    store.close("closed")
    run = open_run(tmp_path)
    assert run.frame("updates")["update"].to_list() == [0, 2]
    assert run.lost_rows == 1


def test_a_row_without_a_required_cell_is_lost_alone_and_the_writer_lives(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    layer = {"update": 0, "minibatch": 1}
    broken = Block(2, {"update": 0, "layer": ["a", "b"]})  # no minibatch
    store.put({"updates": [update_row(0)], "layers": Block(1, {**layer, "layer": ["c"]})})
    store.put({"updates": [update_row(1)], "layers": broken})
    store.close("closed")
    run = open_run(tmp_path)
    assert run.frame("layers")["layer"].to_list() == ["c"]
    assert (run.rows["updates"], run.lost_rows) == (2, 2)


def test_blocks_and_rows_of_one_table_keep_their_order(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"steps": [{"update": 0, "epoch": 0, "minibatch": 0, "kl_k1": math.nan}]})
    cells = {"update": 0, "epoch": 1, "minibatch": np.arange(1, 4), "kl_k1": np.array([math.nan, 0.0, 1.0])}
    store.put(
        {"steps": Block(3, cells | {"kl_k2": nullable(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]))})}
    )
    store.close("closed")
    frame = open_run(tmp_path).frame("steps")
    assert frame["minibatch"].to_list() == [0, 1, 2, 3]
    assert frame["kl_k2"].to_list() == [None, 1.0, None, 3.0]
    assert (frame["kl_k1"].is_nan().sum(), frame["kl_k1"].null_count()) == (2, 0)


def test_close_is_idempotent_and_marks_the_run_closed(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    assert not open_run(tmp_path).closed
    store.close("closed")
    store.close("again")
    marker = json.loads((store.folder / "closed.json").read_text())
    assert marker["reason"] == "closed"
    assert marker["tables"] == {"updates": {"rows": 1, "last_update": 0}}
    assert open_run(tmp_path).closed


def test_a_second_writer_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / ".lock")
    with pytest.raises(LockedError, match=f"pid {os.getpid()} on "):
        WriterLock(tmp_path / ".lock")
    lock.release()
    WriterLock(tmp_path / ".lock").release()


def test_a_reader_that_looks_whether_somebody_writes_keeps_no_writer_away(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.touch()
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        release = threading.Timer(0.03, partial(fcntl.flock, reader, fcntl.LOCK_UN))
        release.start()
        WriterLock(path).release()
        release.join()


def test_a_file_system_without_locks_is_no_reason_not_to_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    WriterLock(tmp_path / ".lock").release()
    assert "cannot be locked" in caplog.text


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    child = os.fork()
    if child == 0:
        store.put({"updates": [update_row(99)]})
        store.close("child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not (store.folder / "closed.json").exists()
    store.close("closed")
    assert open_run(tmp_path).frame("updates")["update"].to_list() == [0]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove", "foreign"])
def test_a_damaged_shard_is_named_and_refused(tmp_path: Path, damage: str) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0, kl_k3=0.5)], "episodes": [{"update": 0}]})
    store.close("closed")
    shard = Path(open_run(tmp_path).files("updates")[0])
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "remove":
        shard.unlink()
    elif damage == "foreign":
        pl.DataFrame({"update": [1]}).write_parquet(shard)
    else:
        shard.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
    with pytest.raises(DamagedError, match=shard.name):
        open_run(tmp_path)
    run = open_run(tmp_path, skip_broken=True)
    assert [broken.file.name for broken in run.broken if broken.file.suffix == ".parquet"] == [shard.name]
    assert (run.rows["updates"], run.rows["episodes"]) == (0, 1)


def test_an_edited_manifest_line_is_named(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    store.close("closed")
    manifest = store.folder / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"rows": 1', '"rows": 2'))
    with pytest.raises(DamagedError, match=r"manifest.jsonl line 1: line does not match its own checksum"):
        open_run(tmp_path)


def test_a_stray_file_in_the_folder_is_never_read(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    store.close("closed")
    (store.folder / "updates-000099.parquet").write_bytes(b"not mine")
    assert open_run(tmp_path).frame("updates")["update"].to_list() == [0]


@pytest.mark.parametrize("name", ["star*[1]?", "quote'\"", "space and ünïcode", "semi;colon"])
def test_a_directory_of_any_name_is_read(tmp_path: Path, name: str) -> None:
    store = new_store(tmp_path / name)
    store.put({"updates": [update_row(7)]})
    store.close("closed")
    run = open_run(tmp_path / name)
    assert run.connection().execute("select update from updates").fetchall() == [(7,)]
    assert run.frame("updates")["update"].to_list() == [7]


def test_an_unrecorded_table_is_typed_and_empty(tmp_path: Path) -> None:
    new_store(tmp_path).close("closed")
    run = open_run(tmp_path)
    for table in TABLES:
        assert run.frame(table.name).columns == list(table.names)
        described = run.connection().execute(f'describe "{table.name}"').fetchall()
        assert [row[0] for row in described] == arrow_schema(table).names
        assert len(run.frame(table.name)) == 0


def test_facts_become_strict_json() -> None:
    facts = plain({"a": math.nan, "b": [1, (2.5, None)], "c": Path("x"), 3: {"d": math.inf}})
    assert json.loads(json.dumps(facts, allow_nan=False)) == {
        "a": "nan",
        "b": [1, [2.5, None]],
        "c": "x",
        "3": {"d": "inf"},
    }


def test_duckdb_still_needs_float_columns_without_statistics(tmp_path: Path) -> None:
    """Hold the reason for writing floats without statistics: with them, DuckDB may lose NaN."""
    frame = pl.DataFrame({"v": [1.0, math.nan]})
    frame.write_parquet(tmp_path / "bare.parquet", statistics=False)
    found = present(duckdb.sql(f"select sum(isnan(v)::int) from read_parquet('{tmp_path}/bare.parquet')")).fetchall()
    assert found == [(1,)]


@pytest.mark.parametrize(("bound", "tables", "lost"), [(5, 2, 0), (4, 1, 3), (1, 1, 3), (0.4, 0, 4), (0.1, 0, 4)])
def test_a_writer_that_lags_costs_detail_first_then_everything(
    monkeypatch: pytest.MonkeyPatch, bound: float, tables: int, lost: int
) -> None:
    monkeypatch.setattr(store_module, "MAX_INBOX", bound)
    lagging: Any = SimpleNamespace(inert=False, _closing=False, _inbox=deque([{}] * 4), lost_rows=0, _handed=4)
    lagging._stripped = partial(Store._stripped, lagging)
    Store.put(lagging, {"updates": [update_row(0)], "layers": [{"update": 0}] * 3})
    assert (len(lagging._inbox[-1]), lagging.lost_rows) == (tables, lost)


def test_a_failing_disk_is_tried_again_at_twice_the_interval_up_to_a_minute(tmp_path: Path) -> None:
    create_run(tmp_path / "run", {})
    store = Store(tmp_path / "run")
    intervals = []
    for _ in range(10):
        store._disk_failed("updates", OSError("full"))
        intervals.append(store._back_off)
    first = store_module.FIRST_BACK_OFF
    assert intervals == [min(first * 2**n, 60.0) for n in range(1, 11)]
    store.close("closed")
