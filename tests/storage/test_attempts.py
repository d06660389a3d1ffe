"""What a writer left behind, read file by file: what is sound, what is broken and why, and what is missing."""

from __future__ import annotations

import fcntl
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from esper_analyze.errors import UsageError
from esper_analyze.storage import attempts, footer, verified_cache
from esper_analyze.storage.attempts import (
    Attempt,
    Broken,
    closed,
    find_attempts,
    read_attempt,
    shard_fault,
    supersede,
    twin_fault,
    twins,
    unlisted_fault,
)
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.log_tail import Tail
from esper_analyze.storage.row_source import row_sources
from tests.storage.handmade import HandmadeAttempt, heads, updates


@pytest.fixture(autouse=True)
def _no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Footers that end a process have tests of their own: no other process reads each footer first."""
    monkeypatch.setattr(attempts, "probe", lambda _: None)
    monkeypatch.setattr(footer, "crashes_reader", lambda _: False)


def written(run: Path, **options: Any) -> HandmadeAttempt:
    """Return a writer with two shards of each table sealed."""
    writer = HandmadeAttempt(run, **options)
    writer.seal(updates=updates(0, 1), heads=heads(0, "a", "b"))
    writer.seal(updates=updates(2), heads=heads(2, "a"))
    return writer


def read(writer: HandmadeAttempt) -> Attempt:
    return read_attempt(writer.folder, writer.rank, writer.number)


def broken(attempt: Attempt) -> list[tuple[str, str]]:
    return [(one.file.name, one.reason) for one in attempt.broken]


@contextmanager
def locked(writer: HandmadeAttempt) -> Iterator[None]:
    """Hold the writer's lock, as a writer that lives."""
    with (writer.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def counted(calls: list[Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``; the first argument of each call goes to ``calls``."""

    def spy(*arguments: Any) -> Any:
        calls.append(arguments[0])
        return function(*arguments)

    return spy


def test_sound_shards_the_log_and_the_marker_are_read(tmp_path: Path) -> None:
    writer = written(tmp_path, rank=1, number=2)
    writer.log(1, updates=updates(3))
    attempt = read(writer)
    assert [path.name for path, _ in attempt.shards] == [entry.shard for entry in writer.entries]
    assert [entry for _, entry in attempt.shards] == writer.entries
    assert attempt.tail.tables["updates"]["update"].to_pylist() == [3]
    assert (attempt.rank, attempt.number, attempt.broken, attempt.closed, attempt.leftover) == (1, 2, [], None, [])
    assert (attempt.first_update, attempt.lost_rows, attempt.until, attempt.alive()) == (0, 0, None, False)
    writer.close(lost=3)
    attempt = read(writer)
    assert attempt.broken == []
    assert attempt.closed is not None
    assert attempt.closed["reason"] == "closed"
    assert attempt.lost_rows == 3


def test_rows_lost_are_gaps_in_the_numbers_where_nobody_counted(tmp_path: Path) -> None:
    writer = written(tmp_path)
    writer.seq += 5
    writer.log(1, updates=[{"update": "x"}, *updates(3)])
    attempt = read(writer)
    assert attempt.lost_rows == 6, "the gap, and a row that does not fit"
    attempt.tail.misfits = 9
    assert attempt.lost_rows == 9
    attempt.broken.append(Broken(tmp_path, "why"))
    assert attempt.lost_rows == 9
    attempt.tail.misfits = 2
    assert attempt.lost_rows == 2, "what is missing may be in the broken file"
    attempt.broken.clear()
    with locked(writer):
        assert attempt.alive()
        assert attempt.lost_rows == 2, "the writer may have it"
    assert attempt.lost_rows == 6
    attempt.closed = {}
    assert attempt.lost_rows == 0
    assert Attempt(tmp_path, 0, 0).lost_rows == 0
    alone = HandmadeAttempt(tmp_path / "other", seq=4)
    alone.log(1, updates=updates(0))
    assert read(alone).lost_rows == 4
    alone.seq += 3
    alone.log(2, updates=[{"update": "x"}])
    assert read(alone).lost_rows == 8, "the last row logged does not fit, and a gap is before it"


def test_the_first_update_is_the_least_of_shards_and_log(tmp_path: Path) -> None:
    writer = HandmadeAttempt(tmp_path)
    writer.seal(heads=heads(0, "a"))
    assert read(writer).first_update is None
    writer.log(1, updates=updates(7, 5))
    assert read(writer).first_update == 5
    writer.seal(updates=updates(6))
    assert read(writer).first_update == 5
    writer.seal(updates=updates(3, 4))
    assert read(writer).first_update == 3


@pytest.mark.parametrize("harm", ["size", "bit", "gone", "link", "end"])
def test_a_shard_that_is_not_as_its_line_says_is_broken_and_the_others_are_there(tmp_path: Path, harm: str) -> None:
    writer = written(tmp_path)
    path = writer.folder / "heads-000001.parquet"
    data = bytearray(path.read_bytes())
    if harm == "size":
        path.write_bytes(bytes(data) + b"x")
    elif harm == "bit":
        data[40] ^= 1
        path.write_bytes(bytes(data))
    elif harm == "gone":
        path.unlink()
    elif harm == "link":
        path.rename(writer.folder / "other")
        path.symlink_to(writer.folder / "other")
    else:
        path.write_bytes(b"")
    attempt = read(writer)
    assert broken(attempt) == [
        (
            path.name,
            {
                "size": f"has {len(data) + 1} bytes, the manifest says {len(data)}",
                "bit": "does not match the checksum in the manifest",
                "gone": "is missing, the manifest lists it",
                "link": "is a symbolic link, not a regular file",
                "end": f"has 0 bytes, the manifest says {len(data)}",
            }[harm],
        )
    ]
    assert attempt.broken[0].entry == writer.entries[1]
    assert [entry.shard for _, entry in attempt.shards] == [
        "updates-000001.parquet",
        "updates-000002.parquet",
        "heads-000002.parquet",
    ]


def test_a_table_of_a_later_version_is_named(tmp_path: Path) -> None:
    writer = written(tmp_path)
    (writer.folder / "heads-000001.parquet").rename(writer.folder / "nothing-000001.parquet")
    facts = writer.entries[1]
    entry = ShardEntry("nothing-000001.parquet", "nothing", 1, facts.size, facts.crc32, 2, 2, 3, 0, 0, facts.schema)
    path = writer.folder / entry.shard
    assert shard_fault(path, entry) == "holds rows of 'nothing', a table this version does not know"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert shard_fault(path, entry) == "does not match the checksum in the manifest"


def test_checksums_are_of_the_bytes_that_the_line_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 5)
    with path.open("rb", buffering=0) as file:
        assert attempts._file_crc(file, 1000) == zlib.crc32((bytes(range(256)) * 5)[:1000])
    monkeypatch.setattr(attempts, "_BLOCK", 7)
    for size in (0, 6, 7, 8, 1280, 2000):
        with path.open("rb", buffering=0) as file:
            assert attempts._file_crc(file, size) == zlib.crc32((bytes(range(256)) * 5)[:size])


def test_an_examiner_is_asked_about_each_shard_that_is_sound_so_far(tmp_path: Path) -> None:
    writer = written(tmp_path)
    (writer.folder / "updates-000002.parquet").unlink()
    asked: list[str] = []

    def check(path: Path, entry: ShardEntry) -> str | None:
        assert path == writer.folder / entry.shard
        asked.append(entry.shard)
        return "looks odd" if entry.shard == "heads-000001.parquet" else None

    attempt = read_attempt(writer.folder, 0, 0, check)
    assert asked == ["updates-000001.parquet", "heads-000001.parquet", "heads-000002.parquet"]
    assert dict(broken(attempt))["heads-000001.parquet"] == "looks odd"
    assert len(attempt.shards) == 2


def test_lines_of_the_manifest_that_are_torn_doubled_or_edited_are_named_by_number(tmp_path: Path) -> None:
    writer = written(tmp_path)
    manifest = writer.folder / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(lines[0] + lines[0] + b"{}\n" + b"".join(lines[1:]))
    assert broken(read(writer))[:2] == [
        ("manifest.jsonl", "line 2: updates-000001.parquet is listed twice"),
        ("manifest.jsonl", "line 3: torn or malformed line (KeyError)"),
    ]
    assert len(read(writer).shards) == 4


def test_a_last_line_that_ends_too_early_is_damage_only_without_a_log(tmp_path: Path) -> None:
    writer = written(tmp_path)
    manifest = writer.folder / "manifest.jsonl"
    data = manifest.read_bytes()
    start = data[:-1].rfind(b"\n") + 1
    manifest.write_bytes(data[:-20])
    assert broken(read(writer))[0][0] == "manifest.jsonl"
    assert broken(read(writer))[0][1].startswith("line 4: torn or malformed line")
    writer.seq = 5
    writer.log(1, heads=heads(2, "a"))
    attempt = read(writer)
    assert [(fault.fault.start, fault.fault.stop, fault.fault.torn) for fault in attempt.tail.faults] == [
        (start, len(data) - 20, True)
    ]
    assert attempt.tail.faults[0].text == f"bytes {start}–{len(data) - 20}: torn tail, ends within a line"
    assert broken(attempt) == []
    assert [path.name for path in attempt.leftover] == ["heads-000002.parquet"], "its row is in the log"


@pytest.mark.parametrize("log", [False, True])
def test_a_manifest_that_cannot_be_read_is_broken(tmp_path: Path, log: bool) -> None:
    writer = written(tmp_path)
    if log:
        writer.log(1, updates=updates(3))
    (writer.folder / "manifest.jsonl").unlink()
    (writer.folder / "manifest.jsonl").mkdir()
    named = broken(read(writer))
    assert named[0] == ("manifest.jsonl", "is a directory, not a regular file")
    assert [name for name, _ in named[1:]] == sorted(entry.shard for entry in writer.entries)
    assert all(why == f"is listed by no manifest and holds {n} rows that are nowhere else" for (_, why), n in zip(
        named[1:], (2, 1, 2, 1), strict=True
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"), [(None, "is missing, and there are shards"), (b"", "lists no shard, and there are some")]
)
def test_a_manifest_that_is_gone_is_named_before_its_shards(tmp_path: Path, content: bytes | None, words: str) -> None:
    writer = written(tmp_path)
    manifest = writer.folder / "manifest.jsonl"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    named = broken(read(writer))
    assert named[0] == ("manifest.jsonl", words)
    assert len(named) == 5
    with locked(writer):
        assert broken(read(writer)) == [], "a writer may list them in a moment"


def test_a_shard_that_no_line_names_is_left_over_if_its_rows_are_elsewhere(tmp_path: Path) -> None:
    writer = written(tmp_path)
    shutil.copy(writer.folder / "heads-000001.parquet", writer.folder / "heads-000009.parquet")
    attempt = read(writer)
    assert ([path.name for path in attempt.leftover], attempt.broken) == (["heads-000009.parquet"], [])
    writer.seal(listed=False, heads=heads(3, "a"))
    attempt = read(writer)
    words = "is listed by no manifest and holds 1 rows that are nowhere else"
    assert broken(attempt) == [("heads-000003.parquet", words)]
    writer.close(heads=3)
    attempt = read(writer)
    assert [path.name for path in attempt.leftover] == ["heads-000003.parquet", "heads-000009.parquet"]
    assert attempt.broken == [], "the marker counts what is listed: all is there"


def test_where_an_unlisted_shard_s_rows_are(tmp_path: Path) -> None:
    writer = HandmadeAttempt(tmp_path, seq=10)
    writer.seal(listed=False, heads=heads(0, "a", "b", "c", "d"))
    path = writer.folder / "heads-000001.parquet"

    def fault(spans: list[tuple[int, int]], logged: list[int] | None = None) -> str | None:
        tail = Tail() if logged is None else Tail({"heads": pa.table({"seq": pa.array(logged, pa.int64())})})
        return unlisted_fault(path, {"heads": spans}, tail)

    assert fault([(10, 13)]) is None
    assert fault([(10, 11), (12, 13)]) is None
    assert fault([(10, 12)], [13]) is None
    assert fault([], [10, 11, 12, 13]) is None
    assert fault([(10, 12)]) == "holds 1 rows that are nowhere else"
    assert fault([(11, 13)]) == "holds 1 rows that are nowhere else"
    assert fault([(9, 9), (14, 20)], []) == "holds 4 rows that are nowhere else"
    assert unlisted_fault(path, {"updates": [(10, 13)]}, Tail()) == "holds 4 rows that are nowhere else"
    other = path.with_name("nothing-000001.parquet")
    path.rename(other)
    assert unlisted_fault(other, {}, Tail()) == "holds rows of 'nothing', a table this version does not know"
    path.symlink_to(other)
    assert unlisted_fault(path, {}, Tail()) == "is a symbolic link, not a regular file"
    path.unlink()
    path.write_bytes(b"")
    assert unlisted_fault(path, {}, Tail()) == "is empty"
    path.unlink()
    assert unlisted_fault(path, {}, Tail()) == "cannot be read (FileNotFoundError)"


def test_of_shards_whose_numbers_overlap_the_first_counts(tmp_path: Path) -> None:
    writer = HandmadeAttempt(tmp_path)
    writer.seal(heads=heads(0, "a", "b", "c"))
    writer.seq = 2
    writer.seal(heads=heads(1, "a", "b"))
    writer.seq = 2
    writer.seal(updates=updates(0))
    attempt = read(writer)
    assert broken(attempt) == [("heads-000002.parquet", "holds rows 2–3, and so does heads-000001.parquet in part")]
    assert attempt.broken[0].entry == writer.entries[1]
    assert [entry.shard for _, entry in attempt.shards] == ["heads-000001.parquet", "updates-000003.parquet"]


def test_rows_that_were_written_once_more_count_once(tmp_path: Path) -> None:
    """A disk that failed late: the same numbers, in a shard with a higher number that reaches at least as far."""
    writer = HandmadeAttempt(tmp_path)
    writer.seal(heads=heads(0, "a", "b"))
    writer.seq = 0
    writer.seal(heads=heads(0, "a", "b"))
    attempt = read(writer)
    assert [entry.shard for _, entry in attempt.shards] == ["heads-000002.parquet"]
    assert attempt.broken == []
    writer.seq = 0
    writer.seal(heads=heads(0, "a"))
    attempt = read(writer)
    assert [entry.shard for _, entry in attempt.shards] == ["heads-000001.parquet"], "the last one holds less"
    assert "holds rows" in attempt.broken[0].reason


MARKER = {"reason": "closed", "lost_rows": 0, "tables": {"updates": {"rows": 3}, "heads": {"rows": 3}}}


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        (MARKER, None),
        ({**MARKER, "tables": {}}, None),
        ({**MARKER, "tables": {"updates": {"rows": 3}, "steps": {"rows": 0}}}, None),
        (
            {**MARKER, "tables": {"updates": {"rows": 4}}},
            "counts 4 rows of updates, the sound shards hold 3",
        ),
        ({**MARKER, "tables": {"steps": {"rows": 1}}}, "counts 1 rows of steps, the sound shards hold 0"),
        ({**MARKER, "tables": 3}, "is not a clean-close marker"),
        ({**MARKER, "tables": {"updates": 3}}, "is not a clean-close marker"),
        ({**MARKER, "tables": {"updates": {"rows": "x"}}}, "is not a clean-close marker"),
        ({**MARKER, "lost_rows": "x"}, "is not a clean-close marker"),
        ({**MARKER, "lost_rows": float("inf")}, "is not a clean-close marker"),
        ({"reason": "closed"}, "is not a clean-close marker"),
        ([], "is not a clean-close marker"),
    ],
)
def test_the_marker_counts_what_the_sound_shards_hold(tmp_path: Path, marker: Any, words: str | None) -> None:
    writer = written(tmp_path)
    (writer.folder / "closed.json").write_text(json.dumps(marker))
    attempt = read(writer)
    assert broken(attempt) == ([] if words is None else [("closed.json", words)])
    assert (attempt.closed is None) is (words == "is not a clean-close marker")


def test_a_marker_without_a_count_of_losses_counts_none_and_logged_rows_count(tmp_path: Path) -> None:
    writer = written(tmp_path)
    writer.log(1, updates=updates(3))
    marker = {"reason": "closed", "tables": {"updates": {"rows": 4}}}
    (writer.folder / "closed.json").write_text(json.dumps(marker))
    attempt = read(writer)
    assert attempt.broken == []
    assert attempt.closed is not None
    assert (attempt.closed["lost_rows"], attempt.lost_rows) == (0, 0)


def test_of_a_broken_shard_and_a_marker_the_shard_is_named(tmp_path: Path) -> None:
    writer = written(tmp_path)
    writer.close()
    (writer.folder / "heads-000001.parquet").unlink()
    assert [name for name, _ in broken(read(writer))] == ["heads-000001.parquet"], "the counts follow from it"
    (writer.folder / "closed.json").write_text("[]")
    assert [name for name, _ in broken(read(writer))] == ["heads-000001.parquet", "closed.json"]
    (writer.folder / "closed.json").unlink()
    (writer.folder / "closed.json").mkdir()
    assert broken(read(writer))[-1] == ("closed.json", "is a directory, not a regular file")


def test_a_log_that_is_harmed_is_broken_and_a_torn_one_is_not(tmp_path: Path) -> None:
    writer = HandmadeAttempt(tmp_path)
    writer.log(1, updates=updates(0))
    path = writer.log(1, updates=updates(1))
    path.write_bytes(path.read_bytes()[:-1])
    attempt = read(writer)
    assert (attempt.broken, len(attempt.tail.faults)) == ([], 1)
    data = bytearray(writer.log(2, updates=updates(2, 3)).read_bytes())
    writer.log(2, updates=updates(4))
    whole = bytearray((writer.folder / ".wal-000002").read_bytes())
    whole[len(data) - 1] ^= 1
    (writer.folder / ".wal-000002").write_bytes(bytes(whole))
    (writer.folder / ".wal-000003").mkdir()
    attempt = read(writer)
    assert broken(attempt) == [
        (".wal-000003", "is a directory, not a regular file"),
        (".wal-000002", f"bytes 10–{len(data)}: does not match its checksum"),
    ]
    assert attempt.broken[1].rows == 0, "of a first frame nobody knows how many rows it had"
    assert attempt.tail.tables["updates"]["update"].to_pylist() == [0, 4]


def test_a_folder_that_a_writer_changes_meanwhile_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = written(tmp_path)
    path = writer.folder / "heads-000001.parquet"
    data, looked = path.read_bytes(), list[Any]()
    path.unlink()
    real = attempts._read_once

    def changing(*arguments: Any) -> Attempt:
        attempt = real(*arguments)
        looked.append(len(attempt.broken))
        if len(looked) == 2:
            path.write_bytes(data)
        with (writer.folder / "manifest.jsonl").open("ab") as manifest:
            manifest.write(b"\n")  # the folder is another
        return attempt

    monkeypatch.setattr(attempts, "_read_once", changing)
    assert read(writer).broken == []
    assert looked == [1, 1, 0]
    path.unlink()
    looked.clear()
    looked.extend([9, 9])
    assert len(read(writer).broken) == 1
    assert looked[2:] == [1] * 5, "five times, then it is so"
    monkeypatch.setattr(attempts, "_read_once", counted(looked, real))
    looked.clear()
    assert len(read(writer).broken) == 1
    assert len(looked) == 1, "nothing has changed"


def test_a_marker_that_comes_meanwhile_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = written(tmp_path)
    (writer.folder / "heads-000001.parquet").unlink()
    real, looked = attempts._read_once, []

    def changing(*arguments: Any) -> Attempt:
        looked.append(1)
        attempt = real(*arguments)
        writer.close()
        return attempt

    monkeypatch.setattr(attempts, "_read_once", changing)
    assert read(writer).closed is not None
    assert len(looked) == 2


def test_sound_shards_are_remembered_by_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified_cache.forget()
    writer = written(tmp_path)
    monkeypatch.setattr(verified_cache, "SETTLED_SECONDS", -1.0)  # as if they had been written long ago
    looked: list[Any] = []
    real = attempts.shard_fault
    monkeypatch.setattr(attempts, "shard_fault", counted(looked, real))
    assert len(read(writer).shards) == 4
    assert len(looked) == 4
    read(writer)
    assert len(looked) == 4
    (writer.folder / "heads-000001.parquet").touch()
    read(writer)
    assert [path.name for path in looked[4:]] == ["heads-000001.parquet"]
    (writer.folder / "heads-000002.parquet").unlink()
    for _ in range(2):
        assert len(read(writer).broken) == 1
    assert [path.name for path in looked[5:]] == ["heads-000002.parquet"] * 2
    verified_cache.forget()


def resumed(rank: int, number: int, first: int | None) -> Attempt:
    attempt = Attempt(Path(f"a{rank}{number}"), rank, number)
    if first is not None:
        attempt.tail = Tail({"updates": pa.table({"update": [first, first + 1]})})
    return attempt


def test_rows_from_the_update_at_which_a_later_attempt_resumed_are_superseded() -> None:
    listed = [
        resumed(0, 2, 7),
        resumed(0, 0, 0),
        resumed(0, 1, 5),
        resumed(1, 0, 0),
        resumed(1, 1, None),
        resumed(1, 2, 3),
        resumed(2, 0, 4),
        resumed(2, 1, 9),
        resumed(2, 2, 2),
    ]
    supersede(listed)
    untils = {(one.rank, one.number): one.until for one in listed}
    assert untils == {
        (0, 0): 5,
        (0, 1): 7,
        (0, 2): None,
        (1, 0): 3,
        (1, 1): 3,
        (1, 2): None,
        (2, 0): 2,
        (2, 1): 2,
        (2, 2): None,
    }


def test_two_attempts_of_one_number_are_told_and_the_second_is_not_read(tmp_path: Path) -> None:
    first, second = written(tmp_path), written(tmp_path, number=1)
    shutil.move(second.folder, second.folder.with_name("attempt-0000-ffffffff"))
    attempts_ = find_attempts(tmp_path)
    words = f"is attempt 0 of rank 0, and so is {first.folder.name}: one of them is of another run, move it away"
    assert [broken(one) for one in attempts_] == [[], [("attempt-0000-ffffffff", words)]]
    assert [len(one.shards) for one in attempts_] == [4, 0]
    assert list(twins(attempts_)) == [(attempts_[1], attempts_[0])]
    assert twin_fault(attempts_[1], attempts_[0]) == words
    others = [resumed(0, 0, None), resumed(1, 0, None), resumed(0, 1, None)]
    assert list(twins(others)) == []


def test_attempts_of_all_ranks_are_found_and_put_in_order(tmp_path: Path) -> None:
    for rank, number in ((1, 0), (0, 1), (0, 0)):
        writer = HandmadeAttempt(tmp_path, rank, number)
        writer.seal(updates=updates(number * 3, number * 3 + 1, number * 3 + 4))
    (tmp_path / "rank00000" / "attempt-0000-x").mkdir()
    (tmp_path / "rank0000x").mkdir()
    (tmp_path / "rank00002").write_text("")
    (tmp_path / "rank00000" / "attempt-0005-00000000").write_text("")
    found = find_attempts(tmp_path)
    assert [(one.rank, one.number, one.until) for one in found] == [(0, 0, 3), (0, 1, None), (1, 0, None)]


def test_a_run_is_closed_when_the_last_writer_of_each_rank_closed_it() -> None:
    def one(rank: int, number: int, ended: bool) -> Attempt:
        return Attempt(Path("x"), rank, number, closed={} if ended else None)

    assert not closed([])
    assert closed([one(0, 1, True), one(0, 0, False), one(1, 0, True)])
    assert not closed([one(0, 0, True), one(0, 1, False)])
    assert not closed([one(0, 0, True), one(1, 0, False)])


def test_rows_are_read_in_the_order_they_were_written_without_those_recorded_again(tmp_path: Path) -> None:
    writer = HandmadeAttempt(tmp_path)
    writer.seq = 4
    writer.seal(updates=updates(4, 5, 6))
    writer.seq = 0
    writer.seal(updates=updates(0, 1, 2, 3), heads=heads(1, "a"))
    writer.seq = 20
    writer.log(1, updates=updates(7, 8), heads=heads(7, "b"))
    later = HandmadeAttempt(tmp_path, number=1)
    later.seal(updates=updates(6, 7))
    other = HandmadeAttempt(tmp_path, rank=1)
    other.log(1, updates=updates(0))
    found = find_attempts(tmp_path)
    from esper_analyze.schema.tables import BY_NAME

    sources = row_sources(found[::-1], BY_NAME["updates"])
    assert [(s.attempt.rank, s.attempt.number, s.first_update, s.last_update, s.until) for s in sources] == [
        (0, 0, 0, 3, None),
        (0, 0, 4, 6, 6),
        (0, 1, 6, 7, None),
        (1, 0, 0, 0, None),
    ]
    assert [s.read(["update"])["update"].to_pylist() for s in sources] == [[0, 1, 2, 3], [4, 5], [6, 7], [0]]
    assert [s.count() for s in sources] == [4, 2, 2, 1]
    assert [s.frame(["update", "seq"])["update"].to_list() for s in sources] == [[0, 1, 2, 3], [4, 5], [6, 7], [0]]
    assert [s.frame(["update"])["attempt number"].to_list() for s in sources] == [[0] * 4, [0] * 2, [1] * 2, [0]]
    assert [(s.path is None, s.logged is None) for s in sources] == [(False, True)] * 3 + [(True, False)]
    (sealed,) = row_sources(found, BY_NAME["heads"])
    assert sealed.read(["head", "update"], ["head"]).to_pydict() == {"head": ["a"], "update": [1]}


def test_a_shard_of_a_newer_schema_is_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from esper_analyze.storage import shard_file

    monkeypatch.setattr(shard_file, "VERSION", "9999.0")
    verified_cache.forget()
    writer = written(tmp_path)
    with pytest.raises(UsageError, match=r"was recorded with schema 9999\.0"):
        read(writer)
