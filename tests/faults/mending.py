"""The process that forks a ``repair`` or ``compact`` which the harness traces and kills; it has imported everything.

It reads orders, one JSON line each, and says ``pid N``; the child waits until it is told to go on (an empty line).
After the child's end it says ``end STATUS``. The clock stands still, so that two repairs write the same bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from esper_analyze.errors import EsperError
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.exclusive import exclusive
from esper_analyze.storage.maintenance.repair import repair
from tests.faults.children import ROOT, traced
from tests.patience import PATIENCE

WORK: dict[str, Callable[[Path], object]] = {"repair": repair, "compact": compact}


def main() -> None:
    """Fork a child for each order on stdin."""
    for line in sys.stdin:
        order = json.loads(line)
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            _child(order, readable)
        _tell("pid", child)
        sys.stdin.readline()
        os.write(writable, b"\n")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(readable)
        os.close(writable)
        _tell("end", status)


def _tell(word: str, number: int) -> None:
    sys.stdout.write(f"{word} {number}\n")
    sys.stdout.flush()


def _child(order: dict[str, str], readable: int) -> None:
    time.time = lambda: 0.0
    os.read(readable, 1)
    run_dir, status = Path(order["run"]), 0
    try:
        with exclusive(run_dir):
            WORK[order["what"]](run_dir)
    except EsperError as error:
        os.write(2, f"{error.message}\n".encode())
        status = error.exit_code
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        status = 70
    os._exit(status)


class Mender:
    """The harness's end: does one piece of work at a time, disturbed or not."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.mending"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def work(self, what: str, run_dir: Path, syscalls: str = "", inject: str = "", log: Path = Path(os.devnull)) -> int:
        """Repair or compact ``run_dir``, with ``inject`` done to ``syscalls`` if there are any. Return the exit."""
        self._say(json.dumps({"what": what, "run": str(run_dir)}))
        child = int(self._hear("pid"))
        if syscalls:
            tracing = traced(child, syscalls, inject, log)
        with tracing if syscalls else nullcontext():
            self._say("")
            return int(self._hear("end"))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self, word: str) -> str:
        assert self._process.stdout is not None
        said = self._process.stdout.readline().split()
        if said[:1] != [word]:
            raise RuntimeError(f"the process that repairs said {said}")
        return said[1]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)


if __name__ == "__main__":
    main()
