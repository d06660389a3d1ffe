"""What the store does when its disk, its threads or its rows fail: each loss counted, none beyond it."""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from esper_analyze.errors import DamagedError
from esper_analyze.runs.ending import end_of_run
from esper_analyze.runs.run import open_run
from esper_analyze.storage.atomic import append_line
from esper_analyze.storage.attempt_end import End
from esper_analyze.storage.log_frames import MAGIC, frames
from esper_analyze.storage.maintenance.verify import verify
from recorder.store import store as store_module
from recorder.store.store import Store
from tests.patience import PATIENCE
from tests.recorder.test_store import new_store, no_space, update_row

pytestmark = pytest.mark.clock


def test_what_is_handed_over_while_a_shard_is_written_is_in_the_log_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    began, go_on = threading.Event(), threading.Event()

    def stalled(*_: object) -> None:
        began.set()
        go_on.wait(PATIENCE)
        no_space()

    monkeypatch.setattr("esper_analyze.storage.shard_file.write_whole", stalled)
    monkeypatch.setattr(store_module, "SEAL_ROWS", 1)
    store.put({"updates": [update_row(0)]})
    store.settle(PATIENCE)
    assert began.wait(PATIENCE)
    store.put({"updates": [update_row(1)]})
    store.settle(PATIENCE)
    seen = open_run(tmp_path).frame("updates")["update"].to_list()
    go_on.set()
    monkeypatch.undo()
    store.close("closed")
    assert seen == [0, 1]


def test_a_manifest_line_that_failed_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    append_line(path, b"one\n")
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            append_line(path, b"two\n")
    assert path.read_bytes() == b"one\n"
    with path.open("ab") as file:
        file.write(b"tor")  # what stands where even taking back failed
    append_line(path, b"three\n")
    assert path.read_bytes() == b"one\ntor\nthree\n"


def test_a_shard_sealed_again_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    with monkeypatch.context() as broken:  # the line stands, and the writer does not know
        broken.setattr(os, "fdatasync", no_space)
        broken.setattr(store_module, "append_line", _append_and_fail)
        store.flush()
    store.put({"updates": [update_row(1)]})
    store.close("closed")
    run = open_run(tmp_path)
    assert len(list(store.folder.glob("updates-*.parquet"))) == 2
    assert run.frame("updates")["update"].to_list() == [0, 1]
    assert run.lost_rows == 0


def _append_and_fail(path: Path, line: bytes) -> None:
    append_line(path, line)
    no_space()


def test_a_last_manifest_line_that_is_torn_is_no_damage_while_the_log_has_its_rows(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    store.flush()
    store.put({"updates": [update_row(1)]})
    store.settle(PATIENCE)
    with (store.folder / "manifest.jsonl").open("ab") as file:
        file.write(b'{"shard": "upd')
    run = open_run(tmp_path)
    assert run.frame("updates")["update"].to_list() == [0, 1]
    assert [text for text in run.torn if text.startswith("manifest.jsonl")]
    store.close("closed")
    with pytest.raises(DamagedError, match=r"manifest.jsonl line 2"):
        open_run(tmp_path)


def test_all_that_was_only_logged_is_lost_with_a_deleted_directory_and_counted(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run")
    store.put({"updates": [update_row(0)], "episodes": [{"update": 0}] * 3})
    store.settle(PATIENCE)
    shutil.rmtree(tmp_path / "run")
    store.close("closed")
    assert store.lost_rows == 4


def test_rows_dropped_for_want_of_memory_are_found_again_while_the_log_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_WAITING_ROWS", 10)
    store = new_store(tmp_path)
    for number in range(8):
        store.put({"updates": [update_row(number)], "episodes": [{"update": number}] * 2})
        store.settle(PATIENCE)
    assert store.lost_rows == 14
    with monkeypatch.context() as broken:
        broken.setattr("esper_analyze.storage.shard_file.write_whole", no_space)
        store.close("closed")
    run = open_run(tmp_path)
    assert (run.rows["updates"], run.rows["episodes"], run.lost_rows) == (8, 16, 0)


def test_a_wrong_cell_in_the_log_of_a_killed_run_costs_its_row_only(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0), update_row(1, kl_k3="no number"), update_row(2)]})
    store.settle(PATIENCE)
    run = open_run(tmp_path)
    assert run.frame("updates")["update"].to_list() == [0, 2]
    assert run.lost_rows == 1
    store.close("closed")
    assert open_run(tmp_path).lost_rows == 1


class Sly:
    """A cell that raises what nobody expects."""

    def item(self) -> float:
        raise RuntimeError("no item")


def test_a_cell_that_raises_does_not_end_the_writer(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0, kl_k3=Sly())]})
    store.put({"updates": [update_row(1)]})
    store.settle(PATIENCE)
    assert open_run(tmp_path).frame("updates")["update"].to_list() == [1]
    store.close("closed")
    assert (open_run(tmp_path).rows["updates"], store.lost_rows) == (1, 1)


@pytest.mark.filterwarnings("ignore:Exception in thread")  # that is the harm
@pytest.mark.parametrize("name", ["_thread", "_sealer"])
def test_a_thread_that_died_is_replaced_and_told(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    store.settle(PATIENCE)
    _kill(store, name)
    store.put({"updates": [update_row(1)]})
    store.settle(PATIENCE)
    assert getattr(store, name).is_alive()
    assert open_run(tmp_path).frame("updates")["update"].to_list() == [0, 1]
    assert [record for record in caplog.records if "died" in record.getMessage()]
    store.close("closed")
    assert open_run(tmp_path).rows["updates"] == 2


def _kill(store: Store, name: str) -> None:
    thread = getattr(store, name)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_log_whose_first_bytes_are_wrong_is_told_and_costs_no_frame(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    store.settle(PATIENCE)
    data = bytearray(next(store.folder.glob(".wal-*")).read_bytes())
    store.close("closed")
    data[0] ^= 1
    found, faults = frames(bytes(data))
    assert len(found) == 1
    assert [(fault.start, fault.stop, fault.torn) for fault in faults] == [(0, len(MAGIC), False)]


def test_a_full_disk_has_room_for_the_mark_that_says_how_many_rows_it_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    reserve = store.folder / ".reserve"
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if reserve.exists():
            no_space()
        return write(descriptor, data)

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        store.put({"updates": [update_row(0)], "episodes": [{"update": 0}] * 3})
        store.settle(10.0)
        store.close("closed")
    assert store.lost_rows == 4
    assert open_run(tmp_path).lost_rows == 4
    verified = verify(tmp_path)
    assert (verified.lost_rows, verified.damage) == (4, [])
    assert [fault.reason for fault in verified.faults] == ["4 rows were lost, and counted"]
    assert not reserve.exists()


@pytest.mark.parametrize("harm", ["shards", "logs stay"])
def test_process_readers_and_verify_agree_on_rows_that_were_given_up_and_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(store_module, "MAX_WAITING_ROWS", 10)
    store = new_store(tmp_path)
    for number in range(8):
        store.put(
            {"updates": [update_row(number, dropped_rows=store.take_losses())], "episodes": [{"update": number}] * 2}
        )
        store.settle(10.0)
    assert store.lost_rows == 14
    with monkeypatch.context() as broken:
        if harm == "shards":
            broken.setattr("esper_analyze.storage.shard_file.write_whole", no_space)
        else:
            broken.setattr(Path, "unlink", lambda *_, **__: no_space())
        store.close("closed")
    run = open_run(tmp_path)
    assert run.rows["episodes"] == 16
    assert (store.lost_rows, run.lost_rows, verify(tmp_path).lost_rows) == (0, 0, 0)
    assert [fault.reason for fault in verify(tmp_path).faults if "lost" in fault.reason] == []


@pytest.mark.parametrize("closed", [True, False])
def test_an_error_of_the_recorder_is_not_counted_as_lost_rows_once_more(tmp_path: Path, closed: bool) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)], "losses_of_data": [{"update": 0, "kind": "recorder_error", "rows": 50}]})
    store.settle(10.0)
    if closed:
        store.close("closed")
    verified = verify(tmp_path)
    assert (open_run(tmp_path).lost_rows, verified.lost_rows, store.lost_rows) == (0, 0, 0)
    assert not [fault for fault in verified.faults if "rows were lost" in fault.reason]
    assert [fault.table for fault in verified.faults] == ["losses_of_data"]
    store.close("closed")


@contextmanager
def without_permission(folder: Path) -> Iterator[None]:
    """Take the permission to write in ``folder``; root, who needs none, becomes nobody meanwhile."""
    user = os.geteuid()
    folder.chmod(0o555)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_rows_lost_in_a_folder_whose_permission_never_returns_are_told_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No mark can be left on disk then: the log says how many, and the run is never one that was closed."""
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    store.flush()
    with without_permission(store.folder):
        store.put({"updates": [update_row(1)], "episodes": [{"update": 1}] * 3})
        store.flush()  # the log goes on in a new file, which cannot be made
        store.put({"updates": [update_row(2)]})
        store.close("closed")
    run = open_run(tmp_path)
    there = run.rows["updates"] + run.rows["episodes"]
    assert there < 6
    assert store.lost_rows == 6 - there
    assert f"recorder: {6 - there} rows were lost in {store.folder}" in caplog.messages
    assert [text for text in caplog.messages if text.startswith("recorder: cannot write closed.json")]
    assert end_of_run(run).end is End.UNCLOSED
