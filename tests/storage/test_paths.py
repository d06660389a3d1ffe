"""Which folders are runs, what of them may be opened, and where nothing may be written."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from pathlib import Path

import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.schema.history import VERSION, VERSION_KEY
from esper_analyze.storage import verified_cache
from esper_analyze.storage.folders import attempt_folders, attempts_of_rank, listed
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.output_path import refuse_file, refuse_folder, refuse_inside_run, writing
from esper_analyze.storage.run_files import (
    RefusedFileError,
    is_regular,
    open_file,
    open_regular,
    read_file,
    refusal,
    why_unreadable,
)
from esper_analyze.storage.run_info import find_runs, identity
from tests.storage.handmade import HandmadeAttempt, identify, updates


def things(folder: Path) -> dict[str, Path]:
    """Return one of each kind of thing that is no regular file, by the words for it."""
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(folder / "nowhere")
    (folder / "folder").mkdir()
    with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")  # a path of a socket has at most some hundred bytes
    named = {"a FIFO": "fifo", "a symbolic link": "link", "a directory": "folder", "a socket": "socket"}
    return {words: folder / name for words, name in named.items()} | {"a character device": Path("/dev/null")}


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    for words, path in things(tmp_path).items():
        with pytest.raises(RefusedFileError) as caught:
            open_file(path)
        assert caught.value.strerror == f"is {words}, not a regular file"
        assert str(caught.value) == f"{path} is {words}, not a regular file"
        assert why_unreadable(caught.value) == refusal(path) == caught.value.strerror
        assert not is_regular(path)
    (tmp_path / "file").write_bytes(b"abc")
    assert is_regular(tmp_path / "file")
    assert refusal(tmp_path / "file") is None
    assert refusal(tmp_path / "nothing") is None
    assert not is_regular(tmp_path / "nothing")
    with open_file(tmp_path / "file") as file:
        assert file.read() == b"abc"
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "nothing")


def test_no_descriptor_is_left_open_by_what_was_refused(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in things(tmp_path).values():
        with pytest.raises(RefusedFileError):
            open_regular(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_has_at_most_so_many_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    assert read_file(path, 1000) == b"x" * 1000
    with pytest.raises(RefusedFileError) as caught:
        read_file(path, 999)
    assert caught.value.strerror == "has 1,000 bytes, 999 are the most"
    assert caught.value.errno == errno.EFBIG
    path.write_bytes(b"")
    assert read_file(path, 0) == b""


def test_why_a_file_cannot_be_read_in_words() -> None:
    assert why_unreadable(PermissionError(errno.EACCES, "Permission denied")) == "cannot be read (Permission denied)"
    assert why_unreadable(OSError("odd")) == "cannot be read (odd)"


def test_runs_are_found_at_any_depth_but_not_within_runs_links_and_hidden_folders(tmp_path: Path) -> None:
    for name in ("b/run", "a", "c/d/run", ".hidden/run"):
        identify(tmp_path / name)
    identify(tmp_path / "a" / "inner")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)]
    assert found == ["a", "b/run", "c/d/run"]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]
    assert find_runs(str(tmp_path / "empty")) == []
    (tmp_path / "empty" / "run.json").symlink_to("nowhere")
    assert find_runs(tmp_path / "empty") == [tmp_path / "empty"], "opening it says what is wrong"


def test_the_identity_of_a_run_is_its_run_json(tmp_path: Path) -> None:
    path = identify(tmp_path / "run", notes="x")
    assert identity(path)["notes"] == "x"
    HandmadeAttempt(path).log(1, updates=updates(0))
    assert identity(path)["notes"] == "x"


@pytest.mark.parametrize(
    ("version", "logs", "error", "words"),
    [
        ("9999.0", False, UsageError, f"was recorded with schema 9999.0, this version reads up to {VERSION}"),
        (f"{VERSION.split('.', maxsplit=1)[0]}.9999", True, UsageError, "was recorded with schema"),
        (f"{VERSION.split('.', maxsplit=1)[0]}.9999", False, None, ""),
        ("0.0.1", False, DamagedError, "has the unknown schema version '0.0.1'"),
        ("x" * 50, False, DamagedError, f"has the unknown schema version '{'x' * 40}'"),
    ],
)
def test_versions_of_run_json(
    tmp_path: Path, version: str, logs: bool, error: type[Exception] | None, words: str
) -> None:
    path = identify(tmp_path / "run", **{VERSION_KEY: version})
    if logs:
        HandmadeAttempt(path).log(1, updates=updates(0))
    if error is None:
        assert identity(path)[VERSION_KEY] == version
    else:
        with pytest.raises(error) as caught:
            identity(path)
        assert words in str(caught.value)


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "nothing", "does not exist"),
        (tmp_path / "x\0y", "does not exist"),
        (tmp_path, "is not a recorded run: it has no run.json"),
        (tmp_path / "\udcff", "is not a UTF-8 name"),
    ):
        with pytest.raises(UsageError) as caught:
            identity(path)
        assert caught.value.message == f"{path} {words}"
    (tmp_path / "rankless").mkdir()
    (tmp_path / "rankless" / "ranking").mkdir()
    with pytest.raises(UsageError, match="is not a recorded run"):
        identity(tmp_path / "rankless")
    (tmp_path / "rankless" / "rank00003").mkdir()
    with pytest.raises(DamagedError) as damaged:
        identity(tmp_path / "rankless")
    words = "is missing, but there are rank folders next to it"
    assert damaged.value.message == f"{tmp_path / 'rankless' / 'run.json'} {words}"


@pytest.mark.parametrize("content", ["", "[]", "3", "{}", '{"schema_version": ', "[" * 100_000])
def test_a_run_json_that_says_nothing_is_damage(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DamagedError, match=r"cannot be read as a run's identity|has the unknown schema"):
        identity(tmp_path)


def test_folders_of_writers_by_rank_and_number(tmp_path: Path) -> None:
    for rank, number in ((2, 1), (0, 3), (2, 0)):
        HandmadeAttempt(tmp_path, rank, number)
    (tmp_path / "notes").mkdir()
    assert [(one.rank, one.number) for one in attempt_folders(tmp_path)] == [(0, 3), (2, 0), (2, 1)]
    assert attempts_of_rank(tmp_path / "rank00001") == []
    assert attempts_of_rank(tmp_path / "notes") == []
    assert [one.path.name[:12] for one in attempts_of_rank(tmp_path / "rank00002")] == ["attempt-0000", "attempt-0001"]
    assert [path.name for path in listed(tmp_path)] == ["notes", "rank00000", "rank00002"]
    with pytest.raises(FileNotFoundError):
        listed(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        listed(tmp_path / "file")


def test_nothing_is_written_into_a_run(tmp_path: Path) -> None:
    run = identify(tmp_path / "run")
    (run / "inner").mkdir()
    (tmp_path / "link").symlink_to(run / "inner")
    for path, where in ((run, "is"), (run / "inner" / "x", "lies inside"), (tmp_path / "link" / "y", "lies inside")):
        for refuse in (refuse_inside_run, refuse_file, refuse_folder):
            with pytest.raises(UsageError) as caught:
                refuse(path)
            assert caught.value.message == f"{path} {where} a recorded run, which is only read"
    refuse_inside_run(tmp_path)
    refuse_inside_run(tmp_path / "new" / "x")


def test_only_files_are_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file", "new"):
        refuse_file(tmp_path / name)
    for words, path in things(tmp_path).items():
        kind = words if words in ("a directory", "a symbolic link") else "no regular file"
        with pytest.raises(UsageError) as caught:
            refuse_file(path)
        assert caught.value.message == f"{path} is {kind} and is not overwritten"


@pytest.mark.parametrize("suffix", [".html", ".json", ".md", ".png", ".svg", ".txt"])
def test_a_folder_whose_files_could_not_be_overwritten_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_text("")
    refuse_folder(tmp_path)
    refuse_folder(tmp_path / "new")
    refuse_folder(tmp_path / f"a{suffix}")
    (tmp_path / f"b{suffix}").mkdir()
    if suffix == ".txt":
        refuse_folder(tmp_path)
    else:
        with pytest.raises(UsageError) as caught:
            refuse_folder(tmp_path)
        assert caught.value.message == f"{tmp_path / f'b{suffix}'} is a directory and is not overwritten"


def test_an_error_of_the_disk_names_the_output() -> None:
    def failing(error: Exception) -> None:
        with writing(Path("out.html"), "another hint"):
            raise error

    with pytest.raises(UsageError) as caught:
        failing(OSError(errno.ENOSPC, "No space left on device"))
    assert caught.value.message == "out.html cannot be written: No space left on device"
    assert caught.value.hint == "another hint"
    with pytest.raises(UsageError, match=r"out\.html cannot be written: odd"):
        failing(OSError("odd"))
    with pytest.raises(ValueError, match="other"):
        failing(ValueError("other"))
    with writing(Path("x")):
        pass


ENTRY = ShardEntry("heads-000001.parquet", "heads", 1, 3, 0, 1, 0, 0, 0, 0, "")


def test_a_shard_is_remembered_once_it_has_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified_cache.forget()
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert verified_cache.stamp_of(tmp_path / "nothing", ENTRY) is None
    stamp = verified_cache.stamp_of(path, ENTRY)
    assert stamp is not None
    second = 10**9
    for written, changed, now, settled in (
        (5, 5, 7, True),
        (5, 5, 6, False),
        (5, 4, 7, True),
        (5, 6, 7, False),
        (6, 5, 7, False),
        (5, 5, 4, False),
        (0, 0, 2, True),
        (-1, 0, 9, False),  # a time before all clocks is none
    ):
        verified_cache.forget()
        monkeypatch.setattr(time, "time_ns", lambda now=now: now * second)
        one = (*stamp[:3], written * second, changed * second, ENTRY)
        verified_cache.remember(path, one)
        assert verified_cache.is_sound(path, one) is settled
    monkeypatch.setattr(time, "time_ns", lambda: 7 * second - 1)
    one = (*stamp[:3], 5 * second, 5 * second, ENTRY)
    verified_cache.remember(path, one)
    assert not verified_cache.is_sound(path, one)
    monkeypatch.setattr(time, "time_ns", lambda: max(stamp[3:5]) + 10 * second)
    verified_cache.remember(path, None)
    assert not verified_cache.is_sound(path, None)
    verified_cache.remember(path, stamp)
    assert not verified_cache.is_sound(tmp_path / "other", stamp)
    assert verified_cache.is_sound(path, verified_cache.stamp_of(path, ENTRY))


def test_a_full_cache_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    verified_cache.forget()
    monkeypatch.setattr(verified_cache, "CAPACITY", 2)
    stamp = (0, 0, 0, 0, 0, ENTRY)
    for name, sound in (("a", "a"), ("b", "ab"), ("c", "c"), ("d", "cd")):
        verified_cache.remember(Path(name), stamp)
        assert "".join(one for one in "abcd" if verified_cache.is_sound(Path(one), stamp)) == sound
    verified_cache.forget()
    assert not verified_cache.is_sound(Path("d"), stamp)
