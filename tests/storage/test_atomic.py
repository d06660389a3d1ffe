"""Files appear complete or not at all, and what failed leaves nothing behind."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from esper_analyze.storage import atomic
from esper_analyze.storage.atomic import append_line, remove, staged, write_all, write_files, write_once, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(monkeypatch: pytest.MonkeyPatch, function: str, after: int = 0) -> None:
    """Let a function of ``os`` fail with a full disk, but for the first ``after`` calls."""
    real, calls = getattr(os, function), []

    def fail(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **options)

    monkeypatch.setattr(os, function, fail)


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = os.write, []
    descriptor = os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT)

    def short(written: int, data: bytes) -> int:
        if written != descriptor:  # a thread that another test has left behind
            return real(written, data)
        sizes.append(len(data))
        return real(descriptor, bytes(data)[:3])

    monkeypatch.setattr(os, "write", short)
    write_all(descriptor, b"0123456789")
    write_all(descriptor, b"")
    os.close(descriptor)
    assert (tmp_path / "x").read_bytes() == b"0123456789"
    assert sizes == [10, 7, 4, 1]


def test_files_are_put_in_place_once_all_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    write_files(tmp_path, {"a": b"new", "b": b"more"})
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"new", b"more")
    assert names(tmp_path) == ["a", "b"]
    write_whole(tmp_path / "a", b"shorter"[:2])
    assert (tmp_path / "a").read_bytes() == b"sh"
    failing(monkeypatch, "write", 1)
    with pytest.raises(OSError, match="No space"):
        write_files(tmp_path, {"a": b"x", "c": b"y"})
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == b"sh"


def test_a_failed_sync_is_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "fsync")
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"x")
    assert names(tmp_path) == []


def test_names_are_made_durable_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync_folder", synced.append)
    write_whole(tmp_path / "a", b"x")
    assert synced == [tmp_path]
    synced.clear()
    write_once(tmp_path / "b", b"x")
    assert synced[-1] == tmp_path
    synced.clear()
    with staged(tmp_path / "c") as place:
        place.mkdir()
    assert synced == [tmp_path]


def test_a_staged_folder_or_file_becomes_the_output_or_is_gone(tmp_path: Path) -> None:
    with staged(tmp_path / "out.html") as place:
        assert place.parent == tmp_path
        assert place.name.startswith(".out.")
        assert place.suffix == ".html"
        place.write_text("page")
        assert not (tmp_path / "out.html").exists()
    assert (tmp_path / "out.html").read_text() == "page"
    assert names(tmp_path) == ["out.html"]

    def interrupted() -> None:
        with staged(tmp_path / "folder") as place:
            (place / "file").mkdir(parents=True)
            (place / "file").mkdir()

    with pytest.raises(FileExistsError):
        interrupted()
    assert names(tmp_path) == ["out.html"]
    with staged(tmp_path / ("x" * 200)) as place:
        assert len(place.name) < 120
        place.write_text("")


def test_removing_is_silent(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file", "nothing"):
        remove(tmp_path / name)
    assert names(tmp_path) == []


def test_of_two_writers_the_first_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_once(tmp_path / "a", b"first")
    assert not write_once(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert names(tmp_path) == ["a"]
    failing(monkeypatch, "link")
    assert not write_once(tmp_path / "a", b"third")
    assert write_once(tmp_path / "b", b"no links here")
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"first", b"no links here")
    assert names(tmp_path) == ["a", "b"]
    failing(monkeypatch, "fsync")
    with pytest.raises(OSError, match="No space"):
        write_once(tmp_path / "c", b"x")
    assert names(tmp_path) == ["a", "b"]


def test_lines_are_appended_each_by_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real, written = tmp_path / "log", os.write, []

    def spy(descriptor: int, data: bytes) -> int:
        written.append(bytes(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", spy)
    before = os.umask(0o022)
    append_line(path, b"one\n")
    append_line(path, b"two\n")
    os.umask(before)
    assert written == [b"one\n", b"two\n"]
    assert path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.write_bytes(b"one\ntor")
    append_line(path, b"three\n")
    assert path.read_bytes() == b"one\ntor\nthree\n"
    path.write_bytes(b"")
    append_line(path, b"four\n")
    assert path.read_bytes() == b"four\n"


@pytest.mark.parametrize("function", ["write", "fsync"])
def test_a_line_that_cannot_be_appended_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    path = tmp_path / "log"
    append_line(path, b"one\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    failing(monkeypatch, function)
    with pytest.raises(OSError, match="No space"):
        append_line(path, b"two\n")
    assert path.read_bytes() == b"one\n"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_files_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"):
        atomic.write_synced(tmp_path / "link", b"y")
    assert (tmp_path / "target").read_bytes() == b"x"
    atomic.write_synced(tmp_path / "target", b"")
    assert (tmp_path / "target").read_bytes() == b""
