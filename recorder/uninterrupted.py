"""Uninterruptible work: done in a separate thread while the caller waits.

Ctrl-C, and anything else raised into the training's thread, is raised there once the work is done. Rows are built,
judged and handed over, and the next update begun, either completely or not at all.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from recorder.process_state import ignored_errors

IDLE_SECONDS = 60.0
"""The thread ends after this idle time; the next job starts a new one."""
CHECK_SECONDS = 1.0
"""Interval at which a waiting caller checks that the thread is alive."""


@dataclass(slots=True)
class _Job:
    work: Callable[[], None]
    stream: torch.cuda.Stream | None
    bell: threading.Lock = field(default_factory=threading.Lock)
    begun: bool = False
    finished: bool = False
    error: BaseException | None = None

    def do(self) -> None:
        """Do the work unless it was begun before."""
        if self.begun:
            return
        self.begun = True
        try:
            stream_context = contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
            with torch.no_grad(), ignored_errors(), stream_context:
                self.work()
        except BaseException as error:
            self.error = error
        self.finished = True
        _ring(self.bell)


class Uninterrupted:
    """Runs jobs one after the other in the order of submission, each once."""

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._bell = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Do ``work`` and wait for its end, on the stream of the caller. What it raises is raised here."""
        if threading.current_thread() is self._thread:
            work()
            return
        on_device = torch.cuda.is_initialized()
        job = _Job(work, torch.cuda.current_stream() if on_device else None)
        try:
            self._hand_over(job)
            self._wait(job)
        except BaseException:
            self._hand_over(job)  # it may not have been submitted
            self._wait(job)
            raise
        if job.error is not None:
            raise job.error

    def _hand_over(self, job: _Job) -> None:
        self._jobs.append(job)
        if self._thread is None or not self._thread.is_alive():
            self._bell = threading.Lock()
            self._thread = threading.Thread(target=self._work, args=(self._bell,), name="recorder-rows", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is shutting down and starts no more threads
                self._do_all()
        _ring(self._bell)

    def _wait(self, job: _Job) -> None:
        while not job.finished:
            if not job.bell.acquire(timeout=CHECK_SECONDS):
                self._hand_over(job)

    def _work(self, bell: threading.Lock) -> None:
        self._do_all()
        while bell.acquire(timeout=IDLE_SECONDS):
            self._do_all()

    def _do_all(self) -> None:
        while self._jobs:
            self._jobs.popleft().do()


def _ring(bell: threading.Lock) -> None:
    with contextlib.suppress(RuntimeError):
        bell.release()
