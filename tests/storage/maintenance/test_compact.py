"""``compact`` joins shards and changes no row; stopped anywhere, readers see the old shards or the new."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from esper_analyze.errors import DamagedError
from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.run import open_run
from esper_analyze.storage import shard_file
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.exclusive import exclusive
from esper_analyze.storage.maintenance.repair import repair
from esper_analyze.storage.maintenance.verify import verify
from tests.runs.killing import killed_by_strace, stopped_at, strace_works
from tests.runs.stored import copied, files, folder, frames, same, write

OWN = """
import sys
from pathlib import Path
from esper_analyze.storage.maintenance.exclusive import exclusive
from esper_analyze.storage.maintenance.compact import compact
with exclusive(Path(sys.argv[1])):
    compact(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("closed") / "run")


def test_many_shards_become_one_a_table_with_the_same_rows(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    with exclusive(run):
        done = compact(run)
    assert done.shards == (len(list(folder(closed).glob("*.parquet"))), 6)
    assert done.rows[0] == done.rows[1]
    assert done.bytes[1] < done.bytes[0] / 2
    assert len(list(folder(run).glob("*.parquet"))) == 6
    assert same(frames(run), frames(closed))
    assert verify(run).faults == []
    opened = open_run(run)
    assert differences(replay(opened), recorded(opened)) == []


def test_compacting_again_changes_nothing(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    compact(run, cells=3_000)
    before = files(run)
    assert len(set(compact(run, cells=3_000).shards)) == 1
    assert files(run) == before


def test_a_long_run_stays_in_stretches_that_every_table_shares(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    compact(run, cells=3_000)
    opened = open_run(run)
    spans = {
        table: [(p.first_update, p.last_update) for p in opened.row_sources(table)] for table in ("updates", "heads")
    }
    assert spans["updates"] == spans["heads"]
    assert 1 < len(spans["updates"]) < 14
    assert same(frames(run), frames(closed))


def test_row_groups_are_small_enough_to_stream(closed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_file, "GROUP_ROWS", 10)
    run = copied(closed, tmp_path / "run")
    compact(run)
    found = pq.ParquetFile(open_run(run).files("updates")[0]).metadata
    assert [found.row_group(k).num_rows for k in range(found.num_row_groups)] == [10, 4]


def test_what_was_unverified_stays_so(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    (folder(run) / "manifest.jsonl").unlink()
    repair(run)
    compact(run)
    assert len(open_run(run).unverified) == 6


def test_a_damaged_run_and_one_with_rows_in_its_log_are_refused(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    (folder(run) / "heads-000002.parquet").write_bytes(b"")
    before = files(run)
    with pytest.raises(DamagedError, match=r"heads-000002.parquet: has 0 bytes"):
        compact(run)
    assert files(run) == before
    with pytest.raises(DamagedError, match="was not closed: rows are in its log only"):
        compact(write(tmp_path / "killed", close=False))


def test_a_full_disk_leaves_the_run_as_it_was(closed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = copied(closed, tmp_path / "run")
    write_for_real, left = os.write, [60_000]

    def full(descriptor: int, data: bytes) -> int:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return write_for_real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        compact(run)
    monkeypatch.undo()
    assert same(frames(run), frames(closed))
    assert not verify(run).damage
    compact(run)
    assert same(frames(run), frames(closed))


@pytest.mark.parametrize("finish", [compact, repair])
def test_stopped_at_any_step_readers_see_the_same_rows(
    finish: Callable[[Path], object], closed: Path, tmp_path: Path
) -> None:
    whole = copied(closed, tmp_path / "whole")
    compact(whole)
    wanted, seen = files(whole), frames(closed)
    step = 1 if finish is compact else 2
    while stopped_at(step, partial(compact, run := copied(closed, tmp_path / "run"))):
        assert same(frames(run), seen), step
        assert not verify(run).damage, step
        finish(run)
        assert same(frames(run), seen), step
        if finish is compact:
            assert files(run) == wanted, step
        step += 2
    assert step > 30


@pytest.mark.skipif(not strace_works(), reason="strace is not installed, or may not trace here")
@pytest.mark.parametrize(("call", "every"), [("rename", 1), ("unlink", 4), ("fsync", 2)])
def test_killed_at_a_system_call_readers_see_the_same_rows(call: str, every: int, closed: Path, tmp_path: Path) -> None:
    whole = copied(closed, tmp_path / "whole")
    compact(whole)
    wanted, seen = files(whole), frames(closed)
    number = 1
    while killed_by_strace(call, number, OWN, run := copied(closed, tmp_path / "run")):
        assert same(frames(run), seen), number
        with exclusive(run):
            compact(run)
        assert files(run) == wanted, number
        number += every
    assert files(run) == wanted
    assert number > 4
