"""When the store seals, what it drops first, how long it is waited for, and what stands after it is closed."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from esper_analyze.runs.run import open_run
from esper_analyze.storage.block import Block, Rows
from esper_analyze.storage.lock import LockedError, WriterLock
from recorder.store import store as store_module
from recorder.store.store import Store
from tests.patience import PATIENCE
from tests.recorder.test_store import new_store, no_space, update_row

NOW = 1000.0


@pytest.mark.parametrize(
    ("counts", "age", "wait", "due"),
    [
        ({}, 9e9, -1.0, False),
        ({"steps": 32_767}, 0.0, -1.0, False),
        ({"steps": 32_768}, 0.0, -1.0, True),
        ({"updates": 1, "steps": 32_768}, 0.0, -1.0, True),
        ({"updates": 16}, 29.9, -1.0, False),
        ({"updates": 16}, 30.0, -1.0, True),
        ({"updates": 15, "steps": 30_000}, 30.0, -1.0, False),
        ({"updates": 1}, 299.9, -1.0, False),
        ({"updates": 1}, 300.0, -1.0, True),
        ({"steps": 1}, 300.0, -1.0, True),
        ({"updates": 16, "steps": 40_000}, 400.0, 0.1, False),  # a disk that failed is not tried again yet
        ({"updates": 16, "steps": 40_000}, 400.0, 0.0, True),
    ],
)
def test_rows_are_sealed_when_there_are_many_or_they_are_old(
    counts: dict[str, int], age: float, wait: float, due: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "time", SimpleNamespace(monotonic=lambda: NOW))
    store: Any = SimpleNamespace(_waiting=dict(counts), _counts=counts, _since=NOW - age, _retry_at=NOW + wait)
    assert Store._due(store) is due


def updates(rows: Rows) -> list[Any]:
    """Return the updates of rows that were handed over one by one."""
    assert not isinstance(rows, Block)
    return [row["update"] for row in rows]


def waiting(store: Store) -> dict[str, list[int]]:
    """Return the updates of what waits for sealing, by table."""
    with store._guard:
        return {
            table: [update for _, rows in entries for update in updates(rows)]
            for table, entries in store._waiting.items()
            if entries
        }


ORDER = ("layers", "tensors", "transitions", "steps", "groups", "lstm", "heads", "episodes")
CELLS: dict[str, dict[str, object]] = {
    "layers": {"layer": "a", "minibatch": 0},
    "steps": {"epoch": 0, "minibatch": 0},
    "groups": {"group": "all"},
    "heads": {"head": "op"},
    "lstm": {"phase": "update"},
    "episodes": {},
    "transitions": {},
    "tensors": {},
}


@pytest.mark.parametrize("bound", [9, 8, 7, 5, 3, 2, 1])
def test_of_what_waits_detail_is_dropped_first_and_of_that_the_oldest(
    bound: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_WAITING_ROWS", bound)
    store = new_store(tmp_path)
    tables = ("layers", "steps", "heads", "episodes")
    rows = {table: [{"update": 0, **CELLS[table]}] for table in tables}
    store.put({"updates": [update_row(0)]} | rows)
    store.put({"updates": [update_row(1)], "layers": [{"update": 1, **CELLS["layers"]}] * 2})
    store.settle(PATIENCE)
    # eight rows wait: two updates, three of layers in two hand-overs, one each of the others
    kept = {"updates": [0, 1], "layers": [0, 1, 1], "steps": [0], "heads": [0], "episodes": [0]}
    excess = 8 - bound
    for table in ("layers", "steps", "heads", "episodes"):
        while excess > 0 and kept[table]:
            first = kept[table][0]
            excess -= kept[table].count(first)
            kept[table] = [one for one in kept[table] if one != first]
    assert waiting(store) == {table: some for table, some in kept.items() if some}
    assert store.lost_rows == store.take_losses() == 8 - sum(map(len, kept.values()))
    assert sum(store._counts.values()) == sum(map(len, kept.values()))
    store.close("closed")
    assert open_run(tmp_path).rows["updates"] == 2


def test_the_order_in_which_detail_is_dropped() -> None:
    assert store_module.DROP_ORDER == ORDER


def test_a_failing_disk_is_left_alone_for_one_second_then_two_up_to_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = new_store(tmp_path)
    monkeypatch.setattr(store_module, "time", SimpleNamespace(monotonic=lambda: NOW, time=lambda: NOW))
    pauses = []
    for _ in range(8):
        store._disk_failed("updates", OSError("full"))
        pauses.append(store._retry_at - NOW)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert len([one for one in caplog.records if "cannot write updates" in one.getMessage()]) == 1, "told once"
    monkeypatch.undo()
    store.put({"updates": [update_row(0)]})
    store.flush()
    assert (store._retry_at, store._back_off) == (0.0, 1.0), "it works again"
    store.close("closed")


def test_a_log_that_fails_is_left_alone_for_five_seconds_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, clock, writes = new_store(tmp_path), SimpleNamespace(now=NOW), list[int]()

    def failing(*_: object) -> None:
        writes.append(1)
        no_space()

    monkeypatch.setattr(store_module, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: clock.now))
    with monkeypatch.context() as broken:
        broken.setattr("recorder.store.log.write_all", failing)
        for later, tried in ((0.0, 1), (4.9, 1), (5.0, 2), (9.9, 2), (10.0, 3)):
            clock.now = NOW + later
            store.put({"updates": [update_row(len(writes))]})
            with store._guard:
                store._take_up()
            assert len(writes) == tried
    assert len([one for one in caplog.records if "cannot log to" in one.getMessage()]) == 1
    assert store._unlogged == {0, 1, 2, 3, 4}
    clock.now = NOW + 15.0
    store.put({"updates": [update_row(9)]})
    with store._guard:
        store._take_up()
    assert store._unlogged == {0, 1, 2, 3, 4}, "the sixth is in the log"
    store.flush()
    assert (store._unlogged, store._log_fails_until) == (set(), 0.0)
    monkeypatch.undo()
    store.close("closed")
    assert open_run(tmp_path).rows["updates"] == 6


def test_a_writer_that_only_has_not_had_the_processor_is_waited_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    store.settle(PATIENCE)
    monkeypatch.setattr(store_module, "SETTLE_AT_MOST", PATIENCE)
    monkeypatch.setattr(store_module, "SETTLE_SECONDS", 0.1)
    held, let_go = threading.Event(), threading.Event()

    def busy() -> None:
        with store._guard:
            held.set()
            let_go.wait(0.2)

    other = threading.Thread(target=busy)
    other.start()
    assert held.wait(PATIENCE)
    store.put({"updates": [update_row(1)]})
    store.settle()
    assert (store._processed, store._handed, store._stalled) == (2, 2, False)
    let_go.set()
    other.join()
    store.close("closed")


def test_a_writer_whose_disk_stalls_is_not_waited_for_again_until_it_has_caught_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    store.put({"updates": [update_row(0)]})
    store.settle(PATIENCE)
    began, go_on, append = threading.Event(), threading.Event(), store._log.append

    def stalled(frame: bytes) -> None:
        began.set()
        go_on.wait(PATIENCE)
        append(frame)

    monkeypatch.setattr(store._log, "append", stalled)
    monkeypatch.setattr(store_module, "SETTLE_AT_MOST", PATIENCE)
    store.put({"updates": [update_row(1)]})
    store.settle(0.0)
    assert began.wait(PATIENCE)
    store.settle(0.001)
    assert store._stalled, "it is in the log's own write: the longer bound is not for that"
    store.put({"updates": [update_row(2)]})
    store.settle(PATIENCE)
    assert store._processed < store._handed, "it returned at once"
    go_on.set()
    for _ in range(1000):
        if store._processed == store._handed:
            break
        threading.Event().wait(0.01)
    assert not store._stalled
    store.close("closed")
    assert open_run(tmp_path).rows["updates"] == 3


def test_no_thread_of_a_store_keeps_a_process_alive_and_none_outlives_it(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    threads = [one for one in threading.enumerate() if one.name in ("recorder-writer", "recorder-sealer")]
    assert {store._thread, store._sealer} <= set(threads)
    assert all(one.daemon for one in threads)
    store.close("closed")
    assert not store._thread.is_alive()
    assert not store._sealer.is_alive()


def test_a_closed_store_frees_its_folder_and_its_rank(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    locks = [store.folder / ".lock", store.folder.parent / ".lock"]
    for path in locks:
        with pytest.raises(LockedError):
            WriterLock(path)
    with pytest.raises(LockedError):
        Store(tmp_path, attempt=1)
    store.close("closed")
    for path in locks:
        WriterLock(path).release()
    second = Store(tmp_path, attempt=1)
    assert second.folder != store.folder
    second.close("closed")
    assert open_run(tmp_path).closed


def test_what_is_handed_over_to_a_closed_store_is_not_taken(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.close("closed")
    store.put({"updates": [update_row(0)]})
    store.settle(PATIENCE)
    assert (store._handed, len(store._inbox), store.lost_rows) == (0, 0, 0)


def test_numbers_of_shards_and_sequence_go_up(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    for number in range(3):
        store.put({"updates": [update_row(number)], "episodes": [{"update": number}] * 2})
        store.flush()
    store.flush()
    names = sorted(path.name for path in store.folder.glob("*.parquet"))
    assert names == [f"{table}-{n:06d}.parquet" for table in ("episodes", "updates") for n in (1, 2, 3)]
    assert not list(store.folder.glob(".wal-*")), "sealed: the log is not needed any more"
    store.close("done")
    run = open_run(tmp_path)
    assert run.frame("updates")["seq"].to_list() == [0, 3, 6]
    assert run.frame("episodes")["seq"].to_list() == [1, 2, 4, 5, 7, 8]


def test_room_for_the_marker_is_kept_while_a_run_is_written(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    assert (store.folder / ".reserve").stat().st_size == 1 << 14
    store.close("closed")
    assert not (store.folder / ".reserve").exists()
