"""Sections that exclude each other, and locks that an interruption left behind."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from recorder import brief_lock, shutdown
from recorder.brief_lock import BriefLock
from tests.patience import PATIENCE
from tests.recorder.sick_loop import FaultyLoop


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brief_lock, "LONGEST_SECONDS", 0.02)


def elsewhere(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_no_two_threads_are_inside_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brief_lock, "LONGEST_SECONDS", PATIENCE)
    lock, count = BriefLock(), [0]

    def add() -> None:
        for _ in range(2000):
            with lock:
                count[0] += 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert count == [8000]


def test_a_thread_enters_again_what_it_is_in() -> None:
    lock = BriefLock()
    with lock, lock:
        pass
    elsewhere(lock.__enter__)


@pytest.mark.usefixtures("impatient")
def test_what_was_left_locked_is_waited_for_once() -> None:
    lock = BriefLock()
    elsewhere(lock.__enter__)
    left = lock._lock
    with lock:
        assert lock._lock is not left
    renewed = lock._lock

    def enter() -> None:
        with lock:
            pass

    elsewhere(enter)
    assert lock._lock is renewed


@pytest.mark.usefixtures("impatient")
def test_leaving_a_section_whose_lock_was_replaced_is_no_error() -> None:
    lock = BriefLock()
    with lock:
        elsewhere(lock.__enter__)


@pytest.mark.usefixtures("impatient")
def test_ctrl_c_at_the_end_of_a_section_does_not_keep_a_recording_from_closing(tmp_path: Path) -> None:
    loop = FaultyLoop()
    rec = loop.recorder(tmp_path / "run")
    loop.update(0)
    seen: list[int] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not shutdown.recording.__code__:
            return None
        if event == "line" and frame.f_lineno in seen:  # back on the line of ``with``: its exit is about to be called
            raise KeyboardInterrupt
        seen.extend([frame.f_lineno] if event == "line" else [])
        return trace

    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            shutdown.recording(rec)
    finally:
        sys.settrace(None)
    elsewhere(rec.close)
    assert rec._closed
