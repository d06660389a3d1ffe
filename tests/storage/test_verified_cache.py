"""Shards that were found sound are not looked at again, unless anything touched them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from esper_analyze.errors import DamagedError
from esper_analyze.runs.run import open_run
from esper_analyze.storage import attempts, verified_cache
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.maintenance.verify import verify

SAMPLE = Path(__file__).parents[2] / "sample_runs" / "runs" / "masked_healthy"
HOUR = 3600 * 10**9
Check = Callable[[Path, ShardEntry], str | None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run that looks as if nobody had touched it for an hour: the clock says so, not the files."""
    verified_cache.forget()
    path = Path(shutil.copytree(SAMPLE, tmp_path / "run"))
    later = time.time_ns() + HOUR
    monkeypatch.setattr(time, "time_ns", lambda: later)
    return path


def listing(names: list[str], check: Check) -> Check:
    """Return ``check`` as it is, but the names of the shards it is asked about go to ``names``."""

    def spy(path: Path, entry: ShardEntry) -> str | None:
        names.append(path.name)
        return check(path, entry)

    return spy


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(attempts, "shard_fault", listing(names, attempts.shard_fault))
    return names


def test_an_untouched_run_is_looked_at_once(run: Path, looked: list[str]) -> None:
    first = open_run(run)
    count = len(looked)
    again = open_run(run)
    assert len(looked) == count > 0
    assert again.rows == first.rows


def test_a_flipped_bit_is_found_though_length_and_time_of_writing_are_as_before(run: Path) -> None:
    open_run(run)
    shard = next(run.rglob("updates-*.parquet"))
    facts, data = shard.stat(), bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(DamagedError, match="checksum"):
        open_run(run)


def test_a_shard_that_another_took_the_place_of_is_looked_at(run: Path, looked: list[str]) -> None:
    open_run(run)
    looked.clear()
    shard = next(run.rglob("heads-*.parquet"))
    copy = shard.with_suffix(".copy")
    shutil.copy2(shard, copy)
    copy.replace(shard)
    open_run(run)
    assert looked == [shard.name]


def test_a_shard_written_a_moment_ago_is_looked_at_every_time(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    verified_cache.forget()
    names: list[str] = []
    monkeypatch.setattr(attempts, "shard_fault", listing(names, attempts.shard_fault))
    for shard in run.rglob("*.parquet"):
        shard.touch()
    open_run(run)
    count = len(names)
    open_run(run)
    assert len(names) == 2 * count > 0


def test_verify_looks_at_every_shard_every_time(run: Path, looked: list[str]) -> None:
    open_run(run)
    count = len(looked)
    verify(run)
    assert len(looked) == 2 * count


def test_a_manifest_that_says_otherwise_is_not_believed_for_what_was_seen(run: Path) -> None:
    open_run(run)
    manifest = next(run.rglob("manifest.jsonl"))
    entries = [ShardEntry.from_line(line) for line in manifest.read_bytes().splitlines()]
    manifest.write_bytes(b"".join(replace(entry, crc32=entry.crc32 ^ 1).as_line() for entry in entries))
    with pytest.raises(DamagedError, match="checksum"):
        open_run(run)
