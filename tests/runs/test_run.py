"""A recorded run as readers see it: its ranks, attempts, rows, tables and how it ended."""

from __future__ import annotations

import fcntl
import json
import math
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from esper_analyze.errors import DamagedError, EsperError, UsageError
from esper_analyze.runs.damaged_shard import naming_damaged_shard
from esper_analyze.runs.ending import TrainingEnd, end_of_run
from esper_analyze.runs.fleet import labels, open_fleet, run_paths
from esper_analyze.runs.run import open_run
from esper_analyze.schema import TABLES
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage.attempt_end import End, end_of
from esper_analyze.storage.entries import arrow_table
from esper_analyze.storage.shard_file import parquet_bytes, shard_entry
from tests.storage.handmade import HandmadeAttempt, heads, identify, updates


def resumed(path: Path) -> Path:
    """Return a run of two ranks; the first was resumed at update 2, and its last rows are in the log."""
    identify(path, ranks=4)
    first = HandmadeAttempt(path)
    first.seal(updates=updates(0, 1), heads=heads(0, "a", "b"))
    first.seal(updates=updates(2, 3))
    second = HandmadeAttempt(path, number=1)
    second.seal(updates=updates(2), heads=heads(2, "a"))
    second.log(1, updates=updates(3, 4))
    other = HandmadeAttempt(path, rank=2)
    other.seal(updates=updates(0, 1, 2))
    other.close()
    return path


def test_ranks_updates_and_rows(tmp_path: Path) -> None:
    run = open_run(resumed(tmp_path / "run"))
    assert (run.ranks, run.missing_ranks) == ([0, 2], [1, 3])
    assert (run.last_update, run.lost_rows, run.closed, run.written, run.repaired) == (4, 0, False, False, False)
    assert run.rows == {table.name: {"updates": 8, "heads": 3}.get(table.name, 0) for table in TABLES}
    assert run.frame("updates", ["update", "rank"]).to_dicts() == [
        {"update": update, "rank": rank} for rank, numbers in ((0, range(5)), (2, range(3))) for update in numbers
    ]
    whole = open_run(run.path, all_attempts=True)
    assert whole.rows["updates"] == 10
    assert whole.frame("updates")["update"].to_list() == [0, 1, 2, 3, 2, 3, 4, 0, 1, 2]
    one = run.only(2)
    assert (one.ranks, one.rows["updates"], one.closed) == ([2], 3, True)
    with pytest.raises(UsageError, match="has no rank 1") as caught:
        run.only(1)
    assert caught.value.hint == "ranks: 0, 2"


def test_a_table_without_rows_is_typed_and_empty(tmp_path: Path) -> None:
    run = open_run(resumed(tmp_path / "run"))
    steps = run.frame("steps", ["epoch", "kl_k1"])
    assert (steps.height, steps.columns) == (0, ["epoch", "kl_k1"])
    assert steps.schema == {"epoch": pl.Int64, "kl_k1": pl.Float64}
    assert run.files("steps") == []
    assert [Path(name).name for name in run.files("heads")] == ["heads-000001.parquet"] * 2


@pytest.mark.parametrize(("planned", "missing"), [(1, []), (3, [1]), (4, [1, 3]), ("x", []), (None, [])])
def test_ranks_that_were_planned_and_recorded_nothing(tmp_path: Path, planned: object, missing: list[int]) -> None:
    path = resumed(tmp_path / "run")
    identify(path, ranks=planned)
    assert open_run(path).missing_ranks == missing
    info = json.loads((path / "run.json").read_text())
    del info["ranks"]
    (path / "run.json").write_text(json.dumps(info))
    assert open_run(path).missing_ranks == []


def test_rows_out_of_order_come_in_order(tmp_path: Path) -> None:
    identify(tmp_path / "run")
    writer = HandmadeAttempt(tmp_path / "run", seq=5)
    writer.seal(updates=updates(5, 6))
    writer.seq = 0
    writer.seal(updates=updates(0, 1, 2, 3, 4))
    table = arrow_table(BY_NAME["heads"], [(9, heads(1, "b")), (7, heads(0, "a"))])
    content = parquet_bytes(BY_NAME["heads"], table)
    entry = shard_entry(BY_NAME["heads"], 3, table.sort_by("seq"), content)
    (writer.folder / entry.shard).write_bytes(content)
    with (writer.folder / "manifest.jsonl").open("ab") as manifest:
        manifest.write(entry.as_line())
    run = open_run(tmp_path / "run")
    assert run.frame("updates", ["update"])["update"].to_list() == list(range(7))
    assert run.frame("heads", ["head"])["head"].to_list() == ["a", "b"], "within a shard too"


def test_views_and_tables_of_duckdb_hold_the_rows_that_frames_do(tmp_path: Path) -> None:
    run = open_run(resumed(tmp_path / "run"))
    connection = run.connection()
    for table in ("updates", "heads", "steps"):
        rows = pl.DataFrame(connection.sql(f"select * from {table} order by rank, update, seq").to_arrow_table())
        frame = run.frame(table).sort("rank", "update", "seq")
        assert rows.columns == frame.columns
        assert rows.equals(frame, null_equal=True)


def test_rows_of_the_log_are_registered_by_name(tmp_path: Path) -> None:
    run, connection = open_run(resumed(tmp_path / "run")), duckdb.connect(":memory:")
    queries, names = run.row_queries(connection, BY_NAME["updates"], name_prefix="my ")
    assert names == ["my rows of updates in memory, part 2"], "a shard before the resume, one after it, then the log"
    assert connection.sql(f"select count(*) from ({' union all '.join(queries)})").fetchall() == [(8,)]
    queries, names = run.row_queries(connection, BY_NAME["heads"])
    assert names == []
    assert connection.sql(f"select count(*) from ({' union all '.join(queries)})").fetchall() == [(3,)]


def test_what_is_broken_refuses_the_run_or_is_left_out(tmp_path: Path) -> None:
    path = resumed(tmp_path / "run")
    first, *_ = sorted(path.rglob("heads-000001.parquet"))
    first.unlink()
    with pytest.raises(DamagedError) as caught:
        open_run(path)
    assert caught.value.message == f"{first} is missing, the manifest lists it"
    run = open_run(path, skip_broken=True)
    assert [one.file for one in run.broken] == [first]
    assert run.rows["heads"] == 1
    next(iter(path.rglob("rank00002/*/updates-000001.parquet"))).write_bytes(b"")
    with pytest.raises(DamagedError, match=r"the manifest lists it \(and 1 more\)"):
        open_run(path)


def test_where_a_writer_was_stopped_and_what_is_unverified(tmp_path: Path) -> None:
    path = identify(tmp_path / "run")
    writer = HandmadeAttempt(path)
    writer.seal(updates=updates(0))
    log = writer.log(1, updates=updates(1))
    data = log.read_bytes()
    log.write_bytes(data + b"\xf5ES")
    run = open_run(path)
    assert run.torn == [f".wal-000001 bytes {len(data)}–{len(data) + 3}: torn tail, ends within a frame"]
    assert run.unverified == []
    from dataclasses import replace

    (writer.folder / "manifest.jsonl").write_bytes(replace(writer.entries[0], rebuilt=True).as_line())
    assert open_run(path).unverified == [writer.folder / "updates-000001.parquet"]
    assert run.older_schema is None


def test_a_run_is_written_while_its_lock_is_held_and_repaired_if_any_marker_says_so(tmp_path: Path) -> None:
    path = resumed(tmp_path / "run")
    attempt = sorted(path.rglob("attempt-0001-*"))[0]
    with (attempt / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert open_run(path).written
    assert not open_run(path).written
    writer = HandmadeAttempt(path, rank=3)
    writer.seal(updates=updates(0))
    writer.close("repaired")
    assert open_run(path).repaired


# ── how it ended ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reason", "end", "error"),
    [
        ("closed", End.CLOSED, ""),
        ("end of the training", End.CLOSED, ""),
        ("SIGTERM", End.PREEMPTED, ""),
        ("repaired", End.UNCLOSED, ""),
        ("KeyboardInterrupt: ", End.STOPPED, ""),
        ("KeyboardInterrupt:", End.STOPPED, ""),
        ("SystemExit:", End.CLOSED, ""),
        ("SystemExit: 0", End.CLOSED, ""),
        ("SystemExit: None", End.CLOSED, ""),
        ("SystemExit: 3", End.DIED, "SystemExit: 3"),
        ("ValueError: no\nsuch", End.DIED, "ValueError: no\nsuch"),
        ("torch.cuda.OutOfMemoryError: x", End.DIED, "torch.cuda.OutOfMemoryError: x"),
        ("3Error: x", End.CLOSED, ""),
        ("two words: x", End.CLOSED, ""),
    ],
)
def test_the_reason_of_a_marker_is_an_end(reason: str, end: End, error: str) -> None:
    assert end_of(reason) == (end, error)


@pytest.mark.parametrize(
    ("end", "kind", "status", "headline"),
    [
        (TrainingEnd(End.CLOSED, update=4), "", "closed", ""),
        (TrainingEnd(End.CLOSED), "", "closed", ""),
        (
            TrainingEnd(End.STOPPED, update=1234),
            "",
            "stopped by Ctrl-C after update 1,234",
            "The training was stopped by Ctrl-C after update 1,234",
        ),
        (
            TrainingEnd(End.PREEMPTED, update=4, interrupted=True),
            "",
            "stopped by SIGTERM in update 4",
            "The training was stopped by SIGTERM in update 4",
        ),
        (TrainingEnd(End.RUNNING, update=4), "", "running, last complete update 4", ""),
        (TrainingEnd(End.RUNNING), "", "running, no complete update", ""),
        (
            TrainingEnd(End.UNCLOSED, update=0),
            "",
            "not closed, last complete update 0",
            "The training ended without closing after update 0",
        ),
        (
            TrainingEnd(End.UNCLOSED),
            "",
            "not closed, no complete update",
            "The training ended without closing before its first update was complete",
        ),
        (
            TrainingEnd(End.DIED, "ValueError: no", 4, interrupted=True),
            "ValueError",
            "died: ValueError in update 4",
            "The training died of ValueError in update 4",
        ),
        (
            TrainingEnd(End.DIED, "SystemExit: 3", 4),
            "exit code 3",
            "died: exit code 3 after update 4",
            "The training died of exit code 3 after update 4",
        ),
    ],
)
def test_an_end_in_words(end: TrainingEnd, kind: str, status: str, headline: str) -> None:
    assert (end.kind, end.status, end.headline) == (kind, status, headline)


def ending(path: Path, *ranks: str | None, status: str = "performed") -> TrainingEnd:
    """Return how a run ended of whose ranks each closed for a reason, or did not."""
    identify(path, ranks=len(ranks))
    for rank, reason in enumerate(ranks):
        writer = HandmadeAttempt(path, rank=rank)
        writer.seal(updates=[*updates(0, 1), *updates(2, status=status)])
        if reason is not None:
            writer.close(reason)
    return end_of_run(open_run(path))


def test_of_several_ranks_the_worst_end_counts(tmp_path: Path) -> None:
    order = ["closed", "KeyboardInterrupt: ", "SIGTERM", None, "ValueError: no"]
    ends = [End.CLOSED, End.STOPPED, End.PREEMPTED, End.UNCLOSED, End.DIED]
    for i, end in enumerate(ends):
        found = ending(tmp_path / f"{i}", *order[: i + 1])
        assert (found.end, found.update, found.interrupted) == (end, 2, False)
        assert found.error == ("ValueError: no" if end is End.DIED else "")
    assert ending(tmp_path / "in", "ValueError: no", status="interrupted").interrupted


def test_of_several_attempts_the_last_counts_and_a_repair_says_what_was_before(tmp_path: Path) -> None:
    path = identify(tmp_path / "run")
    first, second = HandmadeAttempt(path), HandmadeAttempt(path, number=1)
    first.seal(updates=[*updates(0), *updates(1, status="interrupted")])
    first.close("ValueError: no")
    second.seal(updates=updates(1, 2))
    assert end_of_run(open_run(path)).end is End.UNCLOSED
    second.close("closed")
    found = end_of_run(open_run(path))
    assert (found.end, found.update, found.interrupted) == (End.CLOSED, 2, False)
    for before, end in (("ValueError: no", End.DIED), (None, End.UNCLOSED), ("closed", End.CLOSED)):
        second.close("repaired")
        marker = json.loads((second.folder / "closed.json").read_text())
        (second.folder / "closed.json").write_text(json.dumps(marker | {"before": before}))
        assert end_of_run(open_run(path)).end is end
    with (second.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (second.folder / "closed.json").unlink()
        assert end_of_run(open_run(path)).end is End.RUNNING
    nothing = end_of_run(open_run(identify(tmp_path / "empty")))
    assert (nothing.end, nothing.update, nothing.interrupted) == (End.UNCLOSED, None, False)


# ── several runs ─────────────────────────────────────────────────────────────────────────────────


def made(path: Path) -> Path:
    HandmadeAttempt(identify(path)).seal(updates=updates(0))
    return path


def test_runs_are_found_by_folder_and_pattern_each_once(tmp_path: Path) -> None:
    for name in ("x/a", "x/b", "y/a", "z"):
        made(tmp_path / name)
    (tmp_path / "x" / "notes").mkdir()
    (tmp_path / "x" / "file").write_text("")

    def listed(*paths: Path) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in run_paths(paths)]

    assert listed(tmp_path / "x") == ["x/a", "x/b"]
    assert listed(tmp_path / "y", tmp_path / "x", tmp_path / "x" / "a") == ["y/a", "x/a", "x/b"]
    assert listed(tmp_path / "*" / "a") == ["x/a", "y/a"]
    assert listed(tmp_path / "[xz]") == ["x/a", "x/b", "z"]
    assert listed(tmp_path / "?") == ["x/a", "x/b", "y/a", "z"]
    (tmp_path / "link").symlink_to(tmp_path / "z")
    assert listed(tmp_path / "z", tmp_path / "link") == ["z"]
    assert listed() == []
    for pattern in ("n*", "x/f*"):
        with pytest.raises(UsageError, match="no recorded run matches"):
            run_paths([tmp_path / pattern])
    for name, words in (("x/notes", "is not a recorded run"), ("nowhere", "does not exist"), ("x/file", "is not a")):
        with pytest.raises(UsageError, match=words):
            run_paths([tmp_path / name])
    made(tmp_path / "odd[1]")
    assert listed(tmp_path / "odd[1]") == ["odd[1]"], "a folder of that name"


def test_labels_are_as_short_as_they_can_be_and_still_differ() -> None:
    def of(*names: str) -> list[str]:
        return labels([Path(name) for name in names])

    assert of("/a/b/c") == ["c"]
    assert of("/a/x", "/a/y") == ["x", "y"]
    assert of("/a/x", "/b/x") == ["a/x", "b/x"]
    assert of("/q/a/x", "/r/a/x", "/q/y") == ["q/a/x", "r/a/x", "/q/y"]
    assert of() == []
    assert of("/a/x", "/a/x") == ["/a/x", "/a/x"]


def test_of_several_runs_one_that_cannot_be_opened_may_be_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        made(tmp_path / name)
    (tmp_path / "a" / "run.json").write_text("{")
    with pytest.raises(DamagedError):
        open_fleet([tmp_path])
    fleet = open_fleet([tmp_path], skip_broken=True)
    assert [(label, run.path) for label, run in fleet.runs] == [("b", tmp_path / "b")]
    assert [type(error) for error in fleet.unopened] == [DamagedError]
    with pytest.raises(DamagedError):
        open_fleet([tmp_path / "a"], skip_broken=True)
    resumed(tmp_path / "c")
    for everything, rows in ((False, 8), (True, 10)):
        ((_, run),) = open_fleet([tmp_path / "c"], all_attempts=everything).runs
        assert run.rows["updates"] == rows


# ── a shard at fault ─────────────────────────────────────────────────────────────────────────────


def failing(path: Path, error: BaseException) -> None:
    with naming_damaged_shard(open_run(path)):
        raise error


def test_an_error_over_a_shard_with_strange_cells_names_the_shard(tmp_path: Path) -> None:
    path = identify(tmp_path / "run")
    writer = HandmadeAttempt(path)
    writer.seal(updates=updates(0), heads=heads(0, "a"))
    for error in (ValueError("odd"), ZeroDivisionError()):
        with pytest.raises(type(error)):
            failing(path, error)
    writer.seal(updates=updates(1, status="strange"))
    with pytest.raises(DamagedError) as caught:
        failing(path, ValueError("odd"))
    shard = writer.folder / "updates-000002.parquet"
    assert caught.value.message == f"{shard} column status has the value 'strange', not one of its choices"
    for passed in (EsperError("said"), MemoryError(), KeyboardInterrupt()):
        with pytest.raises(type(passed)):
            failing(path, passed)
    with naming_damaged_shard(open_run(path)):
        pass


def test_an_error_over_a_line_that_counts_other_rows_names_the_shard(tmp_path: Path) -> None:
    from dataclasses import replace

    path = identify(tmp_path / "run")
    writer = HandmadeAttempt(path)
    writer.seal(heads=heads(math.floor(3.5), "a", "b"))
    run = open_run(path)
    shard, entry = run.attempts[0].shards[0]
    run.attempts[0].shards[0] = (shard, replace(entry, rows=3))

    def fail(error: Any = None) -> None:
        with naming_damaged_shard(run):
            raise error or ValueError

    with pytest.raises(DamagedError, match="has rows 2, the manifest says 3"):
        fail()


LOST_IN_PART = TrainingEnd(End.UNCLOSED, update=4, lost=True)


@pytest.mark.parametrize(
    ("end", "status", "when"),
    [
        (LOST_IN_PART, "not closed, last complete update 4 of those left", "after update 4, the last of those left"),
        (
            TrainingEnd(End.UNCLOSED, lost=True),
            "not closed, its updates are lost",
            "at a lost update",
        ),
        (
            TrainingEnd(End.RUNNING, update=4, lost=True),
            "running, last complete update 4 of those left",
            "after update 4, the last of those left",
        ),
        (
            TrainingEnd(End.DIED, "ValueError: no", 4, interrupted=True, lost=True),
            "died: ValueError in update 4",
            "in update 4",
        ),
    ],
)
def test_an_end_whose_updates_are_lost_in_part_or_all(end: TrainingEnd, status: str, when: str) -> None:
    assert (end.status, end.when) == (status, when)


@pytest.mark.parametrize(
    ("error", "message"), [("ValueError: no: such", "no: such"), ("KeyError:", ""), ("", ""), ("SystemExit: 3", "3")]
)
def test_the_message_of_an_error(error: str, message: str) -> None:
    assert TrainingEnd(End.DIED, error).message == message


def test_updates_are_lost_where_their_shard_or_a_log_is_left_out_and_nowhere_else(tmp_path: Path) -> None:
    for name, lost in (
        ("updates-000001.parquet", True),
        ("heads-000001.parquet", False),
        ("closed.json", False),
        (".wal-000001", True),
        (None, False),
    ):
        path = identify(tmp_path / f"run {name}")
        writer = HandmadeAttempt(path)
        writer.seal(updates=updates(0), heads=heads(0, "a"))
        if name == "closed.json":
            (writer.folder / name).write_text("[]")
        elif name == ".wal-000001":
            (writer.folder / name).mkdir()
        elif name is not None:
            (writer.folder / name).unlink()
        assert end_of_run(open_run(path, skip_broken=True)).lost is lost
