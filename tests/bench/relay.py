"""Two processes take turns, a few milliseconds each, so that both meet the same machine.

A shared or virtual machine is easily a tenth faster or slower from one second to the next, which drowns a cost of one
percent between trainings run one after the other. Here the training with a recorder and the one without go through
the same optimizer steps alternately, on the same core; only the time of one's own turns is counted. For everybody in
the process ``time.perf_counter`` stands still in the other's turn, so that a recorder that keeps to a share of the time
sees the time of its own training.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import perf_counter_ns
from unittest.mock import patch

YOURS, DONE = b"yours", b"done"


@dataclass
class Relay:
    """One process's end: its turns' wall time and the training thread's CPU time in seconds.

    ``begins`` holds the number of turns before each update and after the last. ``background`` is the CPU time of all
    other threads over the whole run.
    """

    other: Connection
    first: bool
    core: int
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    background: float = 0.0
    _alone: bool = False
    _began: tuple[int, float] = (0, 0.0)
    _ended_ns: int = 0
    _waited_ns: int = 0

    @contextmanager
    def run(self) -> Iterator[None]:
        """Take the first turn; at the end wait for the other process, which then finishes alone."""
        cores = os.sched_getaffinity(0)
        before = time.process_time() - time.thread_time()
        if not self.first:
            self._wait()
        self._resume()
        try:
            with patch.multiple(time, perf_counter=self._seconds, perf_counter_ns=self._nanoseconds):
                yield
            self._pause()
        finally:
            self.other.send_bytes(DONE)
            while not self._alone:
                self._wait()
            self.background = time.process_time() - time.thread_time() - before
            os.sched_setaffinity(0, cores)

    def swap(self) -> None:
        """Let the other process have its turn."""
        if self._alone:
            return
        self._pause()
        self.other.send_bytes(YOURS)
        self._wait()
        self._resume()

    def update(self) -> None:
        """Note that an update begins, or that the last has ended, and swap."""
        if not self.begins:
            os.sched_setaffinity(0, {self.core})  # this thread alone: a writer's thread exists by now
        self.begins.append(len(self.wall) + 1)
        if self._alone:  # the turn ends here all the same
            self._pause()
            self._resume()
        self.swap()

    def _wait(self) -> None:
        self._alone = self.other.recv_bytes() == DONE

    def _nanoseconds(self) -> int:
        return perf_counter_ns() - self._waited_ns

    def _seconds(self) -> float:
        return self._nanoseconds() / 1e9

    def _resume(self) -> None:
        self._began = perf_counter_ns(), time.thread_time()
        if self._ended_ns:
            self._waited_ns += self._began[0] - self._ended_ns

    def _pause(self) -> None:
        began_ns, cpu = self._began
        self._ended_ns = perf_counter_ns()
        self.wall.append((self._ended_ns - began_ns) / 1e9)
        self.cpu.append(time.thread_time() - cpu)
