"""The sentinel: a process that watches a training, outlives it, and notes how it died or that it has stalled.

It writes only while the recording is open or was never closed, and ends within seconds of either. The names of all
files come with the plan: a process without numpy and pyarrow cannot import the modules that declare them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from recorder.sentinel.death import cause_of_death, fault_signal
from recorder.sentinel.memory_kills import MemoryKills, counting_file
from recorder.sentinel.progress import LogGrowth, UpdateTimes
from recorder.sentinel.watched_process import WatchedProcess

TICK = 1.0
"""Seconds between two looks at the training; its end is noticed at once where the kernel has a pidfd."""
MEASURE_EVERY = 30
"""Ticks between two readings of its peak memory."""
FAULT_SECONDS = 60.0
"""A traceback older than this at the death of the training is that of something it survived."""
LARGEST_TITLE = 200
"""Bytes of a traceback that name its signal."""


class Sentinel:
    """Watches the training of ``plan``; see ``recorder.sentinel.launch`` for what it says. Times are monotonic."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan, self._folder, self._names = plan, str(plan["folder"]), plan["names"]
        self._process = WatchedProcess(plan["pid"], plan["started"])
        self._process.measure()
        self._kills = MemoryKills(counting_file(plan["pid"]))
        self._log = LogGrowth(self._folder, self._names["log"], plan["digits"])
        self._times = UpdateTimes(time.monotonic())
        self._stalled_since: float | None = None  # seconds of the epoch

    def watch(self) -> None:
        """Watch until the recording is closed or the training has died, and note which; then remove what is spent."""
        ticks, died = 0, False
        while not (died or self._is_closed()):
            ticks += 1
            if ticks % MEASURE_EVERY == 0:
                self._process.measure()
            died = self._process.wait(TICK)
            now = time.monotonic()
            self._kills.check(now)
            if not died:
                self._note_progress(now)
        if (died or self._process.wait(0.0)) and not self._has_marker():  # the box unlocks what a dead training left
            self._note_death()
            self._remove_if_empty(self._names["fault"])
        self._remove(self._names["stalled"])

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _is_closed(self) -> bool:
        """Whether the recording was closed, its marker written or not; one that was deleted counts as closed."""
        if self._has_marker():
            return True
        try:
            return os.stat(self._path(self._names["lock"])).st_size == 0  # noqa: PTH116 - pathlib takes memory
        except OSError:
            return True

    def _has_marker(self) -> bool:
        return os.path.lexists(self._path(self._names["closed"]))

    def _note_progress(self, now: float) -> None:
        if self._log.grown():
            self._times.note(now)
            self._stalled_since = None
            self._remove(self._names["stalled"])
        elif self._stalled_since is None and self._times.stalled(now):
            self._stalled_since = time.time() - (now - self._times.last)
            facts = {
                "since": self._stalled_since,
                "typical_s": self._times.typical,
                "longest_s": self._times.longest,
                "log_number": self._log.position[0],
                "log_bytes": self._log.position[1],
                "suspended": self._process.is_suspended(),
            }
            with contextlib.suppress(OSError):  # a full disk; it will be noted should the training die
                self._write(self._names["stalled"], facts)

    def _note_death(self) -> None:
        at, now = time.time(), time.monotonic()
        status = self._process.exit_status()
        cause = cause_of_death(status, memory_kill=self._kills.rose(now), fault=self._fault(at))
        facts = {
            **cause,
            "at": at,
            "began": self._plan["began"],
            "uptime_s": at - self._plan["began"],
            "peak_rss_bytes": self._process.peak_rss,
            "stalled_since": self._stalled_since,
            "pid": self._plan["pid"],
            "host": self._plan["host"],
            "traceback": self._plan["traceback"],
        }
        try:
            self._write(self._names["ended"], facts)
        except OSError:
            self._remove(self._names["reserve"])  # it is there for what is written last on a full disk
            with contextlib.suppress(OSError):
                self._write(self._names["ended"], facts)

    def _fault(self, at: float) -> int | None:
        """Return the signal that the traceback in the attempt's folder names; None without a new one."""
        try:
            with open(self._path(self._names["fault"]), encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                changed = os.fstat(file.fileno()).st_mtime
                return fault_signal(file.read(LARGEST_TITLE)) if at - changed <= FAULT_SECONDS else None
        except OSError:
            return None

    def _write(self, name: str, facts: Mapping[str, object]) -> None:
        """Put ``facts`` as JSON at ``name``, complete or not at all. Raises ``OSError``."""
        temporary = self._path(f".{name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "w", encoding="ascii") as file:  # noqa: PTH123
                file.write(json.dumps(facts, indent=1))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path(name))  # noqa: PTH105
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path(name))  # noqa: PTH108

    def _remove_if_empty(self, name: str) -> None:
        with contextlib.suppress(OSError):
            if os.stat(self._path(name)).st_size == 0:  # noqa: PTH116
                self._remove(name)


def main(text: str) -> None:
    """Watch the training of a plan, as JSON, in a process of its own; this one prints its id and ends.

    The training is then not its parent: it has no child that it could wait for, and none to reap. The watch has begun
    when the id is printed.
    """
    sentinel = Sentinel(json.loads(text))
    child = os.fork()
    if child:
        os.write(1, f"{child}\n".encode())
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to all of a job: it ends with the training
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(19)
    sentinel.watch()


if __name__ == "__main__":
    main(sys.argv[1])
