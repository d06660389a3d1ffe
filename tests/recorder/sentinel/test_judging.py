"""What the process beside a training makes of what it sees: counters, logs and statuses written by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.storage import layout
from recorder.sentinel import launch, progress
from recorder.sentinel.death import cause_of_death, fault_signal
from recorder.sentinel.memory_kills import LASTING, MemoryKills, counting_file, oom_kills
from recorder.sentinel.progress import LogGrowth, UpdateTimes
from recorder.sentinel.watch import Sentinel
from recorder.sentinel.watched_process import WatchedProcess, start_time
from tests.patience import PATIENCE

KILL, SEGV, TERM = int(signal.SIGKILL), int(signal.SIGSEGV), int(signal.SIGTERM)


@pytest.mark.parametrize(
    ("status", "memory_kill", "fault", "kind", "name", "out_of_memory"),
    [
        (KILL, False, None, "killed", "SIGKILL", False),
        (KILL, True, None, "out_of_memory", "SIGKILL", True),
        (KILL, None, None, "killed", "SIGKILL", None),
        (KILL, None, SEGV, "killed", "SIGKILL", None),
        (TERM, True, None, "killed", "SIGTERM", True),
        (SEGV | 0x80, True, None, "fatal_signal", "SIGSEGV", None),
        (None, None, SEGV, "fatal_signal", "SIGSEGV", None),
        (None, True, None, "out_of_memory", "SIGKILL", True),
        (None, None, None, "killed", None, None),
        (3 << 8, True, None, "exited", None, None),
        (0, None, None, "exited", None, None),
        (64, None, None, "killed", "SIGRTMAX", None),
        (50, None, None, "killed", "signal 50", None),
    ],
)
def test_the_cause_of_a_death(
    status: int | None, memory_kill: bool | None, fault: int | None, kind: str, name: str | None, out_of_memory: object
) -> None:
    cause = cause_of_death(status, memory_kill=memory_kill, fault=fault)
    assert (cause["kind"], cause["signal"], cause["out_of_memory"]) == (kind, name, out_of_memory)
    assert cause["exit_code"] == (None if kind != "exited" or status is None else status >> 8)


def test_a_traceback_names_its_signal() -> None:
    assert fault_signal("Fatal Python error: Segmentation fault\n\nCurrent thread") == SEGV
    assert fault_signal("Fatal Python error: Bus error\n") == signal.SIGBUS
    assert fault_signal("Segmentation fault\n") is None
    assert fault_signal("") is None


def cgroup(tmp_path: Path, mount: str, kind: str, lines: str) -> str:
    """Write what /proc says of process 7, whose cgroups are ``lines``; return the folder of processes."""
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text(lines)
    mounts = f"22 1 0:21 / /proc rw - proc proc rw\n31 22 0:29 {mount} rw,nosuid - {kind}\n"
    (tmp_path / "proc/7/mountinfo").write_text(mounts)
    return str(tmp_path / "proc")


@pytest.mark.parametrize(
    ("root", "line", "inner"),
    [
        ("/", "0::/user/a.scope", "user/a.scope"),
        ("/docker/abc", "0::/docker/abc", ""),
        ("/docker/abc", "0::/docker/abc/job", "job"),
        ("/", "0::/", ""),
    ],
)
def test_the_count_of_memory_kills_is_that_of_the_process_s_own_cgroup(
    tmp_path: Path, root: str, line: str, inner: str
) -> None:
    folder = tmp_path / "cgroup" / inner
    folder.mkdir(parents=True)
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    processes = cgroup(tmp_path, f"{root} {tmp_path}/cgroup", "cgroup2 cgroup2 rw", f"12:cpuset:/\n{line}\n")
    file = counting_file(7, processes)
    assert file == str(folder / "memory.events")
    assert oom_kills(file) == 2


def test_cgroups_of_version_1_are_counted_too_and_without_a_count_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "memory/job").mkdir(parents=True)
    control = tmp_path / "memory/job/memory.oom_control"
    control.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    processes = cgroup(tmp_path, f"/ {tmp_path}/memory", "cgroup cgroup rw,memory", "4:cpu,memory:/job\n0::/\n")
    assert counting_file(7, processes) == str(control)
    control.write_text("oom_kill_disable 0\nunder_oom 0\n")
    assert counting_file(7, processes) is None
    assert counting_file(8, processes) is None
    assert MemoryKills(None).rose(0.0) is None


def test_a_memory_kill_counts_for_a_while(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 1\n")
    kills = MemoryKills(str(events))
    kills.check(10.0)
    assert kills.rose(10.0) is False
    events.write_text("oom_kill 2\n")
    kills.check(11.0)
    events.unlink()
    kills.check(12.0)
    assert kills.rose(12.0) is True
    assert kills.rose(11.0 + LASTING + 1) is False, "it was another process of the cgroup"


def test_a_pause_is_judged_by_the_run_s_own_past() -> None:
    times = UpdateTimes(0.0)
    assert not times.stalled(progress.UNKNOWN)
    assert times.stalled(progress.UNKNOWN + 1), "before the first update"
    for second in range(100, 120):
        times.note(float(second))
    assert times.limit == progress.LEAST, "the time until the first update is no pause between updates"
    assert not times.stalled(119.0 + progress.LEAST)
    assert times.stalled(120.0 + progress.LEAST)
    times.note(219.0)
    assert times.limit == progress.LONGEST * 100
    slow = UpdateTimes(0.0)
    for number in range(5):
        slow.note(30.0 * number)
    assert slow.limit == progress.TYPICAL * 30


def test_the_log_grows_by_appending_and_by_new_files_and_not_by_sealing(tmp_path: Path) -> None:
    log = LogGrowth(str(tmp_path), ".wal-", 6)
    first, second, fifth = (tmp_path / layout.log_name(number) for number in (1, 2, 5))
    assert not log.grown()
    first.write_bytes(b"12")
    assert (log.grown(), log.grown()) == (True, False)
    first.write_bytes(b"123")
    assert log.grown()
    first.unlink()
    assert not log.grown()
    second.write_bytes(b"1")
    assert log.grown()
    second.unlink()
    fifth.write_bytes(b"1")
    assert (log.grown(), log.position) == (True, (5, 1))


def plan(folder: Path, pid: int) -> dict[str, Any]:
    (folder / layout.LOCK_FILE).write_text("pid 1")
    digits = len(layout.log_name(0)) - len(launch._NAMES["log"])
    return {
        **{"folder": str(folder), "names": launch._NAMES, "digits": digits, "pid": pid, "started": start_time(pid)},
        **{"began": 100.0, "host": "here", "traceback": layout.FAULT_FILE},
    }


def test_a_stall_is_noted_once_and_taken_back_when_the_log_grows(tmp_path: Path) -> None:
    sentinel = Sentinel(plan(tmp_path, os.getpid()))
    log, note = tmp_path / layout.log_name(1), tmp_path / layout.STALLED_FILE
    start = sentinel._times.last
    for second in range(3):
        log.write_bytes(b"x" * (second + 1))
        sentinel._note_progress(start + second)
    sentinel._note_progress(start + 2 + progress.LEAST)
    assert not note.exists()
    sentinel._note_progress(start + 3 + progress.LEAST)
    facts = json.loads(note.read_text())
    assert (facts["log_number"], facts["log_bytes"], facts["typical_s"], facts["suspended"]) == (1, 3, 1.0, False)
    sentinel._note_progress(start + 100)
    assert json.loads(note.read_text()) == facts
    log.write_bytes(b"xxxx")
    sentinel._note_progress(start + 101)
    assert not note.exists()


def test_a_process_that_is_no_child_is_watched_with_and_without_a_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_descriptor in (True, False):
        if not has_descriptor:
            monkeypatch.delattr(os, "pidfd_open", raising=False)
        with subprocess.Popen(["sleep", str(PATIENCE)]) as process:
            watched = WatchedProcess(process.pid, start_time(process.pid))
            assert not watched.wait(0.0)
            assert not watched.is_suspended()
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert watched.wait(0.0)
            assert watched.exit_status() == KILL, "not reaped yet"


def test_another_process_of_the_same_id_is_not_taken_for_the_training() -> None:
    other = WatchedProcess(os.getpid(), "1")
    assert other.wait(0.0)
    assert other.exit_status() is None


def test_a_full_disk_gives_its_reserve_to_how_the_training_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentinel = Sentinel(plan(tmp_path, os.getpid()))
    reserve = tmp_path / layout.RESERVE_FILE
    reserve.write_bytes(b"0")
    write = Sentinel._write

    def full(self: Sentinel, name: str, facts: dict[str, object]) -> None:
        if reserve.exists():
            raise OSError(28, "No space left on device")
        write(self, name, facts)

    monkeypatch.setattr(Sentinel, "_write", full)
    sentinel._note_death()
    assert json.loads((tmp_path / layout.ENDED_FILE).read_text())["kind"] == "killed"
