"""One writer a folder: who holds the lock, who held it, and whether that process lives."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from esper_analyze.storage import lock as module
from esper_analyze.storage.lock import LockedError, WriterLock, holder, is_held, is_orphaned
from esper_analyze.storage.run_files import RefusedFileError

HOST = socket.gethostname()
GONE = 2**22 + 7
"""A process id above all that Linux gives."""


def names(pid: int, host: str = HOST, namespace: str | None = None) -> str:
    return f"pid {pid} on {host}\n{module._namespace() if namespace is None else namespace}"


def test_a_lock_is_held_until_it_is_released_and_names_its_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert is_held(path) is None, "there is none"
    assert holder(tmp_path) == "an unknown process"
    lock = WriterLock(path)
    assert is_held(path) is True
    assert holder(tmp_path) == f"pid {os.getpid()} on {HOST}"
    assert path.read_text() == names(os.getpid())
    with pytest.raises(LockedError) as caught:
        WriterLock(path)
    assert str(caught.value) == f"{tmp_path} is being written by pid {os.getpid()} on {HOST}"
    assert is_held(path) is True, "who was refused takes nothing away"
    lock.release()
    assert is_held(path) is False
    assert path.read_text() == ""
    lock.release()
    again = WriterLock(path)
    assert is_held(path) is True
    again.release()


def test_a_refused_lock_leaves_no_descriptor_open(tmp_path: Path) -> None:
    path = tmp_path / ".lock"

    def open_ones() -> int:  # of others some may close meanwhile: those that an earlier test left to be collected
        return sum(os.path.realpath(one) == str(path.resolve()) for one in Path("/proc/self/fd").iterdir())

    lock = WriterLock(path)
    with pytest.raises(LockedError):
        WriterLock(path)
    assert open_ones() == 1
    lock.release()
    assert open_ones() == 0


def test_a_longer_text_of_an_earlier_holder_is_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("x" * 150)
    lock = WriterLock(tmp_path / ".lock")
    assert (tmp_path / ".lock").read_text() == names(os.getpid())
    lock.release()


def test_a_reader_that_looks_for_an_instant_does_not_keep_a_writer_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pauses = tmp_path / ".lock", list[float]()
    for lets_go in (1, 5, 99):
        pauses.clear()
        with path.open("w") as reader:
            fcntl.flock(reader, fcntl.LOCK_SH)

            def pause(seconds: float, reader: object = reader, lets_go: int = lets_go) -> None:
                pauses.append(seconds)
                if len(pauses) == lets_go:
                    fcntl.flock(reader, fcntl.LOCK_UN)  # type: ignore[arg-type]

            monkeypatch.setattr(time, "sleep", pause)
            if lets_go <= 5:
                WriterLock(path).release()
                assert pauses == [0.02] * lets_go
            else:
                with pytest.raises(LockedError):
                    WriterLock(path)
                assert pauses == [0.02] * 5


def test_where_there_are_no_locks_the_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    lock = WriterLock(tmp_path / ".lock")
    assert holder(tmp_path) == f"pid {os.getpid()} on {HOST}"
    assert is_held(tmp_path / ".lock") is None
    lock.release()
    assert (tmp_path / ".lock").read_text() == ""


def test_a_lock_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "x")
    with pytest.raises(RefusedFileError):
        WriterLock(tmp_path / ".lock")
    assert is_held(tmp_path / ".lock") is None
    assert holder(tmp_path) == "an unknown process"


@pytest.mark.parametrize(
    ("content", "named"),
    [("", "an unknown process"), (" \n", "an unknown process"), (" pid 1 on x \n ns \n", "pid 1 on x"), ("a", "a")],
)
def test_who_held_it_last(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / ".lock").write_text(content)
    assert holder(tmp_path) == named


def test_only_a_process_of_this_host_that_is_gone_or_let_go_of_it_is_certainly_dead(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    for text, orphaned in (
        (names(GONE), True),
        (names(10**30), True),
        (names(GONE, "elsewhere"), False),
        (names(GONE, namespace="pid:[1]"), False),
        (f"pid {GONE} on {HOST}", False),  # of no namespace
        (f"pid x{GONE} on {HOST}\n{module._namespace()}", False),
        (f"pid {GONE} {HOST}\n{module._namespace()}", False),
        (f"pid {GONE} on {HOST} now\n{module._namespace()}", False),
        ("", False),
        (names(os.getpid()), True),  # it lives, and does not have the file open
        (names(1), False) if not os.access("/proc/1/fd", os.R_OK) else (names(os.getppid()), True),
    ):
        path.write_text(text)
        assert is_orphaned(path) is orphaned, text
    path.write_text(names(os.getpid()))
    with path.open():
        assert not is_orphaned(path)
    path.unlink()
    assert not is_orphaned(path)


def test_without_a_list_of_open_files_a_process_that_lives_may_be_the_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".lock").write_text(f"pid {os.getpid()} on {HOST}\npid")
    monkeypatch.setattr(module, "_PROCESSES", tmp_path / "nowhere")
    assert module._namespace() == "pid"
    assert not is_orphaned(tmp_path / ".lock")
    assert module._processes_with(tmp_path / ".lock") == []


def test_a_process_that_may_not_be_signalled_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    (tmp_path / ".lock").write_text(names(os.getpid()))
    monkeypatch.setattr(os, "kill", refuse)
    with (tmp_path / ".lock").open():
        assert not is_orphaned(tmp_path / ".lock")
    assert is_orphaned(tmp_path / ".lock"), "and has it not open"


def test_which_processes_have_a_file_open(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("")
    assert module._has_open(os.getpid(), path) is False
    assert module._has_open(GONE, path) is False
    assert module._has_open(os.getpid(), tmp_path / "nothing") is False
    code = "import sys; file = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with path.open():
            assert module._has_open(child.pid, path) is True
            assert module._has_open(os.getpid(), path) is True
            assert module._processes_with(path) == [child.pid], "but for this one"
        assert child.stdin is not None
        child.stdin.close()
    assert module._processes_with(path) == []


def test_a_lock_kept_by_a_process_that_a_dead_writer_started_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    path.write_text(names(GONE))
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        assert is_held(path) is False
        with pytest.raises(LockedError) as caught:
            WriterLock(path)
        assert str(caught.value) == (
            f"{tmp_path} is locked though the training that wrote it (pid {GONE} on {HOST}) is dead: pid {child.pid}, "
            "which it started, still has its lock open; end that process"
        )
        path.write_text(names(child.pid))
        assert is_held(path) is True
        path.write_text(names(GONE, "elsewhere"))
        assert is_held(path) is True, "nobody knows"
        assert child.stdin is not None
        child.stdin.close()


FORKING = """
import os, sys
from pathlib import Path
from esper_analyze.storage.lock import WriterLock, is_held
path = Path(sys.argv[1])
lock = WriterLock(path)
child = os.fork()
if not child:
    lock.release()  # of its copy, which is closed already
    os._exit(0)
os.waitpid(child, 0)
print(is_held(path), path.read_text().split()[1] == str(os.getpid()))
lock.release()
print(is_held(path))
"""


def test_a_forked_process_takes_no_lock_away(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKING, str(tmp_path / ".lock")], capture_output=True, check=True)
    assert done.stdout.split() == [b"True", b"True", b"False"]


def test_a_closed_copy_keeps_the_lock_with_who_has_another(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    lock = WriterLock(path)
    copy = os.dup(lock._descriptor)
    lock.close()
    assert is_held(path) in (True, False)
    with path.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(copy)
    assert is_held(path) is False
