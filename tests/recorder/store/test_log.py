"""The log by itself: which files there are, what stands in them after a failed write, when it is synced."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.storage.atomic import write_all
from esper_analyze.storage.log_frames import MAGIC, encode, frames
from recorder.store import log as log_module
from recorder.store.log import WriteAheadLog


def frame(number: int) -> bytes:
    return encode({"episodes": (number, [{"update": number}])})


def updates(read: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the updates of the rows in some frames."""
    return [row["update"] for one in read for row in one["episodes"][1]]


def files(folder: Path) -> dict[str, list[Any]]:
    """Return the log files by name with the updates of their frames, in order. None may be damaged."""
    found = {}
    for path in sorted(folder.iterdir()):
        read, faults = frames(path.read_bytes())
        assert not faults
        found[path.name] = updates(read)
    return found


NAMES = [f".wal-{number:06d}" for number in range(6)]
"""The log files of an attempt; there is none of number 0."""


def test_each_rotation_begins_a_file_of_the_next_number(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path)
    assert log.rotate() == 0, "nothing was written: there is no file"
    assert files(tmp_path) == {}
    log.append(frame(0))
    log.append(frame(1))
    assert log.rotate() == 1
    assert log.rotate() == 1, "nothing was written since"
    log.append(frame(2))
    assert log.rotate() == 2
    assert files(tmp_path) == {NAMES[1]: [0, 1], NAMES[2]: [2]}
    assert log.forget(1)
    assert files(tmp_path) == {NAMES[2]: [2]}
    log.append(frame(3))
    assert log.forget(2)
    assert files(tmp_path) == {NAMES[3]: [3]}, "the file that is written to is kept"


def torn(after: int, failing: list[bool]) -> Callable[[int, bytes], None]:
    """Return a write that leaves ``after`` bytes of its data behind and fails, while ``failing`` says so."""

    def write(descriptor: int, data: bytes) -> None:
        if not failing[0]:
            write_all(descriptor, data)
            return
        os.write(descriptor, data[:after])
        raise OSError(28, "No space left on device")

    return write


@pytest.mark.parametrize("before", [0, 1, 3])
def test_of_a_write_that_failed_nothing_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    failing = [False]
    monkeypatch.setattr(log_module, "write_all", torn(5, failing))
    log = WriteAheadLog(tmp_path)
    for number in range(before):
        log.append(frame(number))
    failing[0] = True
    with pytest.raises(OSError, match="No space"):
        log.append(frame(77))
    failing[0] = False
    log.append(frame(before))
    log.append(frame(before + 1))
    expected = [*range(before + 2)]
    if before:
        assert files(tmp_path) == {NAMES[1]: expected}
    else:  # not even its first bytes could be written: the file is left alone, and the next one used
        (tmp_path / NAMES[1]).unlink()
        assert files(tmp_path) == {NAMES[2]: expected}


def test_a_file_that_cannot_be_cut_back_is_not_written_to_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [False]
    monkeypatch.setattr(log_module, "write_all", torn(5, failing))
    log = WriteAheadLog(tmp_path)
    log.append(frame(0))
    failing[0] = True
    with monkeypatch.context() as broken:
        broken.setattr(os, "ftruncate", no_space)
        with pytest.raises(OSError, match="No space"):
            log.append(frame(77))
    failing[0] = False
    log.append(frame(1))
    whole, faults = frames((tmp_path / NAMES[1]).read_bytes())
    assert updates(whole) == [0]
    assert [fault.torn for fault in faults] == [True]
    (tmp_path / NAMES[1]).unlink()
    assert files(tmp_path) == {NAMES[2]: [1]}


def no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_that_cannot_be_deleted_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = WriteAheadLog(tmp_path)
    for number in range(3):
        log.append(frame(number))
        log.rotate()
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", no_space)
        assert not log.forget(2)
    assert set(files(tmp_path)) == {NAMES[1], NAMES[2], NAMES[3]}
    assert log.forget(1)
    assert set(files(tmp_path)) == {NAMES[2], NAMES[3]}
    (tmp_path / NAMES[2]).unlink()
    assert log.forget(3), "one that is gone already counts as deleted"
    assert files(tmp_path) == {}


class HandClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    clock = HandClock()
    monkeypatch.setattr(log_module, "time", clock)
    return clock


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one number at each sync."""
    done: list[int] = []
    monkeypatch.setattr(os, "fdatasync", done.append)
    return done


def test_what_was_written_is_synced_every_two_seconds(tmp_path: Path, clock: HandClock, synced: list[int]) -> None:
    log = WriteAheadLog(tmp_path)
    clock.now = 500.0
    log.sync()
    assert not synced, "nothing is open"
    log.append(frame(0))
    log.sync()
    assert len(synced) == 1, "it has been long"
    log.append(frame(1))
    for later, number in ((501.9, 1), (502.0, 2), (502.0, 2), (510.0, 2)):
        clock.now = later
        log.sync()
        assert len(synced) == number, "not before 2 seconds, and not where nothing is new"
    log.append(frame(2))
    log.sync()
    log.append(frame(3))
    log.sync()
    assert len(synced) == 3
    log.sync(now=True)
    assert len(synced) == 4
    log.rotate()
    log.sync(now=True)
    assert len(synced) == 4, "a closed file is none"


def test_a_deleted_log_cannot_be_synced_and_does_not_stand(tmp_path: Path, clock: HandClock) -> None:
    log = WriteAheadLog(tmp_path)
    assert log.exists()
    log.append(frame(0))
    assert log.exists()
    (tmp_path / NAMES[1]).unlink()
    assert not log.exists()
    clock.now += 10
    with pytest.raises(FileNotFoundError, match="the log was deleted"):
        log.sync()
    log.rotate()
    assert log.forget(1)
    assert log.exists(), "it is not needed any more"


def test_a_log_that_may_not_be_looked_at_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = WriteAheadLog(tmp_path)
    log.append(frame(0))
    log.rotate()
    log.append(frame(1))
    monkeypatch.setattr(Path, "stat", no_space)
    assert log.exists()


def test_a_log_begins_with_its_magic_and_no_other_process_inherits_it(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path)
    log.append(frame(0))
    assert (tmp_path / NAMES[1]).read_bytes() == MAGIC + frame(0)
    assert log._descriptor is not None
    assert not os.get_inheritable(log._descriptor)
