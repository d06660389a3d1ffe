"""Start the sentinel of a recording. Never waits for it, never forks, and a training without one goes on as well."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from esper_analyze.schema.printable import LOG
from esper_analyze.storage import layout
from recorder.sentinel.fatal_traceback import TracebackFile
from recorder.sentinel.watched_process import start_time

START_AFTER = 0.9
"""Seconds that a recording must last: what ends sooner needs no sentinel, and a process costs 20 ms of a core."""
_PATIENCE = 30.0
_BOOTSTRAP = """
import sys
package = type(sys)("recorder")
package.__path__ = [sys.argv[1]]
sys.modules["recorder"] = package
from recorder.sentinel.watch import main
main(sys.argv[2])
"""
"""Makes ``recorder`` a package without its own module, which would import torch."""
_NAMES = {
    "closed": layout.CLOSED_FILE,
    "lock": layout.LOCK_FILE,
    "reserve": layout.RESERVE_FILE,
    "ended": layout.ENDED_FILE,
    "stalled": layout.STALLED_FILE,
    "fault": layout.FAULT_FILE,
    "log": layout.log_name(0).rstrip("0"),
}
_adopted: list[int] = []
"""Sentinels that became children of a training with process id 1, as in a container."""


class DeathWatch:
    """What watches one recording from outside: the file for the traceback of a fatal signal, and the sentinel.

    Creating it takes microseconds; ``start_if_due`` is called now and then by a thread that is not the training's.
    ``training``: the id of the process that is recorded. Where that is another one than this, it has its traceback
    written itself.
    """

    def __init__(self, folder: Path, training: int) -> None:
        self._traceback = TracebackFile(folder / layout.FAULT_FILE) if training == os.getpid() else None
        self._training = training
        self._folder = os.path.abspath(folder)  # noqa: PTH100 - the working directory may change
        self._began, self._due = time.time(), time.monotonic() + START_AFTER
        self._started = False
        self.sentinel: int | None = None
        """Its process id; None before it watches, and where it could not be started."""

    def start_if_due(self) -> None:
        """Start the sentinel, once, in a thread of its own, if the recording has lasted ``START_AFTER``."""
        if self._started or time.monotonic() < self._due:
            return
        self._started = True
        try:
            threading.Thread(target=self._start, name="recorder-sentinel", daemon=True).start()
        except Exception as error:
            LOG.debug("recorder: no sentinel for %s (%s)", self._folder, error)

    def close(self) -> None:
        """End the watch: no sentinel is started any more, and one that runs ends by itself."""
        self._started = True
        if self._traceback is not None:
            self._traceback.close()

    def _plan(self) -> dict[str, object]:
        return {
            "folder": self._folder,
            "names": _NAMES,
            "digits": len(layout.log_name(0)) - len(_NAMES["log"]),
            "pid": self._training,
            "started": start_time(self._training),
            "began": self._began,
            "host": os.uname().nodename,
            "traceback": layout.FAULT_FILE if (Path(self._folder) / layout.FAULT_FILE).exists() else "elsewhere",
        }

    def _start(self) -> None:
        try:
            self.sentinel = start_sentinel(self._plan())
        except Exception as error:  # no process, no descriptor, no interpreter: the recording goes on without
            LOG.debug("recorder: no sentinel for %s (%s)", self._folder, error)
            return
        if os.getpid() == 1:
            _reap()
            _adopted.append(self.sentinel)


def start_sentinel(plan: dict[str, object]) -> int:
    """Start the process that watches ``plan`` and return its id.

    Raises ``OSError`` or ``subprocess.SubprocessError`` where no process can be started, ``ValueError`` where what was
    started is no Python.
    """
    if not sys.executable:
        raise ValueError("this Python does not know its own executable")
    flags = ["-I", "-S", *(["-B"] if sys.dont_write_bytecode else [])]
    package = str(Path(__file__).resolve().parents[1])
    with subprocess.Popen(
        [sys.executable, *flags, "-c", _BOOTSTRAP, package, json.dumps(plan)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # a Ctrl-C in the terminal is not for it
    ) as process:
        try:
            answer, _ = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return int(answer)


def _reap() -> None:
    """Reap the sentinels that ended as children of this process."""
    for sentinel in list(_adopted):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(sentinel, os.WNOHANG)[0] == 0:
                continue
        _adopted.remove(sentinel)
