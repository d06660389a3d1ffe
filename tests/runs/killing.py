"""Stop code at each step it takes on the disk: in-process at each call, for real by strace at each system call."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE

CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir")
SYSTEM_CALLS = ("rename", "unlink", "mkdir", "fsync")
ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """The process is gone: nothing on the disk happens after it."""


def stopped_at(step: int, action: Callable[[], object]) -> bool:
    """Run ``action`` and stop it at its ``step``-th call that changes the disk; return whether it came so far.

    A write that is stopped leaves half of its bytes. What follows, clean-up included, does nothing. Other threads, such
    as those of a recorder that another test left open, go on undisturbed and uncounted.
    """
    count, thread = 0, threading.get_ident()
    with pytest.MonkeyPatch.context() as patch:

        def advance() -> int:
            nonlocal count
            if threading.get_ident() != thread:
                return 0
            count += 1
            return count

        for name in CALLS:
            patch.setattr(os, name, _stopping(name, getattr(os, name), advance, step))
        try:
            action()
        except Killed:
            return True
    return False


def _stopping(name: str, call: Callable[..., Any], advance: Callable[[], int], step: int) -> Callable[..., Any]:
    def stopping(*arguments: Any, **options: Any) -> Any:
        now = advance()
        if now == step and name == "write":
            call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
        if now >= step:
            raise Killed
        return call(*arguments, **options)

    return stopping


def killed_by_strace(call: str, number: int, code: str, *arguments: Path) -> bool:
    """Run ``code`` in a process that is killed at its ``number``-th ``call``; return whether it was."""
    strace = shutil.which("strace")
    assert strace is not None
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
    command = [strace, "-f", "-qq", "-o", os.devnull, *inject, sys.executable, "-B", "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=PATIENCE, check=False
    )
    dead = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert dead or done.returncode == 0, done.stderr.decode()
    return dead


def strace_works() -> bool:
    """Whether strace is installed and may trace here."""
    if shutil.which("strace") is None:
        return False
    done = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False)
    return done.returncode == 0
