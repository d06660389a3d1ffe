"""A process that the training started and that outlives it keeps nothing of the run: it is read, resumed, repaired."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from esper_analyze.errors import UsageError
from esper_analyze.runs.run import open_run
from esper_analyze.storage.lock import LockedError, WriterLock, is_held
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.exclusive import exclusive
from esper_analyze.storage.maintenance.repair import repair
from esper_analyze.storage.maintenance.verify import verify
from esper_analyze.watch.writer import CRASHED, writer_of
from recorder import Recorder

PYTHON_FORK = "os.fork()"
LIBRARY_FORK = "ctypes.CDLL(None).fork()"
"""A fork behind Python's back: nothing of ours runs in the child."""
EXECUTED = "subprocess.Popen(['sleep', '60'], close_fds=False).pid"
TRAINING = """
import ctypes, os, signal, subprocess, sys, time
import torch
from recorder import Recorder
rec = Recorder(sys.argv[1], strict=True)
def update():
    rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), clip_range=0.2)
    rec.update()
update()
child = {fork}
if child == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
update()
{end}
print(os.getpid(), child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
ENDS = {"closed": "rec.close()", "killed": ""}


@contextmanager
def outlived(run_dir: Path, fork: str, end: str) -> Iterator[tuple[int, int]]:
    """Record two updates in a process that starts another one and ends; give the ids of both, the other one living."""
    code = TRAINING.format(fork=fork, end=ENDS[end])
    with subprocess.Popen([sys.executable, "-c", code, str(run_dir)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        dead, child = map(int, process.stdout.readline().split())
        assert process.wait(60) == -signal.SIGKILL
        process.stdout.close()
    try:
        os.kill(child, 0)
        yield dead, child
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    ("fork", "end"), [(PYTHON_FORK, "closed"), (PYTHON_FORK, "killed"), (EXECUTED, "killed"), (LIBRARY_FORK, "closed")]
)
def test_the_lock_is_free_although_a_child_lives(tmp_path: Path, fork: str, end: str) -> None:
    run_dir = tmp_path / "run"
    with outlived(run_dir, fork, end):
        assert not open_run(run_dir).written
        status = "closed, last complete update 1" if end == "closed" else "not closed, last complete update 1"
        assert verify(run_dir).status == status
        with exclusive(run_dir):
            repair(run_dir)
            compact(run_dir)
        with Recorder(run_dir, resume=True, strict=True):
            assert open_run(run_dir).written
    assert open_run(run_dir).frame("updates")["update"].to_list() == [0, 1]


def test_a_dead_training_whose_lock_another_process_keeps_is_not_running_and_the_other_is_named(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with outlived(run_dir, LIBRARY_FORK, "killed") as (dead, child):
        run = open_run(run_dir)
        (attempt,) = run.attempts
        assert (run.written, run.last_update) == (False, 1)
        assert writer_of(attempt.folder, time.time()).state == CRASHED
        assert verify(run_dir).status == "not closed, last complete update 1"
        words = rf"the training that wrote it \(pid {dead} on .*\) is dead: pid {child}, which it started, still has"
        with pytest.raises(UsageError, match=words), exclusive(run_dir):
            pass
        with pytest.raises(LockedError, match=words):
            Recorder(run_dir, resume=True)
    with exclusive(run_dir):
        repair(run_dir)
    assert open_run(run_dir).closed


def test_a_child_that_goes_on_does_not_unlock_the_run_of_its_parent(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / ".lock")
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert is_held(tmp_path / ".lock")
    with pytest.raises(LockedError, match=f"is being written by pid {os.getpid()} on "):
        WriterLock(tmp_path / ".lock")
    lock.release()
    assert is_held(tmp_path / ".lock") is False


def test_a_lock_whose_holder_cannot_be_judged_from_here_is_held(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    lock = WriterLock(path)
    for words in ("pid 999999999 on another-host", "pid 999999999 on", "", path.read_text().replace("[", "[9")):
        path.write_text(words)
        assert is_held(path)
    lock.release()
