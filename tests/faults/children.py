"""The harness's hold on its children: order a training, listen to it, kill or trace it."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
SEAL_OFTEN = {"SEAL_SECONDS": 0.0, "SEAL_UPDATES": 3}
LOG_FIRST = {"SETTLE_SECONDS": PATIENCE}
"""An update is in the log before it counts as finished, however late the writer gets the processor."""


class HungError(RuntimeError):
    """A child neither ended nor said anything for very long."""


@dataclass
class Child:
    """One training in a process of its own, and what it has said so far."""

    run_dir: Path
    errors: Path
    nursery: Nursery
    pid: int = 0
    writer: int = 0
    sealer: int = 0
    done: int = -1
    seconds: list[float] = field(default_factory=list)
    sha: str | None = None
    lost: int = 0
    handed: int = 0
    status: int | None = None
    _lines: queue.Queue[list[str] | None] = field(default_factory=queue.Queue)
    _socket: socket.socket | None = None

    def listen(self, until: Callable[[Child], bool]) -> bool:
        """Take in what the child says until ``until`` holds; return False when it ended before."""
        while not until(self):
            try:
                words = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                raise HungError(f"process {self.pid} said nothing for {PATIENCE:.0f} s") from None
            if words is None:
                return until(self)
            self._take(words)
        return True

    def _take(self, words: list[str]) -> None:
        match words:
            case ["ready", pid]:
                self.pid = int(pid)
            case ["made", writer, sealer]:
                self.writer, self.sealer = int(writer), int(sealer)
            case ["u", number, seconds]:
                self.done = int(number)
                self.seconds.append(float(seconds))
            case ["trained", sha]:
                self.sha = sha
            case ["end", sha, *rest]:
                self.sha = sha
                self.lost, self.handed = (int(rest[0]), int(rest[1])) if rest else (0, 0)

    def go(self, times: int = 1) -> None:
        """Let a child that waits go on, at this point and at as many as make ``times``."""
        assert self._socket is not None
        self._socket.send(times * b"\n")

    def train_until(self, update: int) -> None:
        """Let a child that is held at ``u`` train on until it waits at the end of ``update``."""
        self.listen(lambda one: one.done >= 0)
        self.go(update - self.done)
        self.listen(lambda one: one.done >= update)

    def warns(self) -> bool:
        """Wait until the child has said on stderr that something cannot be done; False when it never does."""
        end = time.monotonic() + PATIENCE
        while not any("cannot" in line for line in self.warnings):
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def signal(self, number: int) -> None:
        """Send a signal, should the child still live."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def ended(self) -> int:
        """Wait for the end; return the exit status."""
        self.listen(lambda _: False)
        self.status = self.nursery.status(self.pid)
        return self.status

    @property
    def warnings(self) -> list[str]:
        """What the child wrote to stderr, line by line."""
        return self.errors.read_text(errors="replace").splitlines() if self.errors.exists() else []


class Nursery:
    """Starts children by forking a process that has imported everything."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._count = 0
        self._statuses: dict[int, int] = {}
        self._news = threading.Condition()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self._zygote.stdout is not None
        if self._zygote.stdout.readline() != "up\n":
            raise RuntimeError("the process that forks children did not start")
        threading.Thread(target=self._watch, args=(self._zygote.stdout,), daemon=True).start()

    def _watch(self, lines: IO[str]) -> None:
        for line in lines:
            _, pid, status = line.split()
            with self._news:
                self._statuses[int(pid)] = int(status)
                self._news.notify_all()

    def status(self, pid: int) -> int:
        """Wait for the exit status of a child."""
        with self._news:
            if not self._news.wait_for(lambda: pid in self._statuses, PATIENCE):
                raise HungError(f"process {pid} closed its socket and did not end")
            return self._statuses.pop(pid)

    def start(self, updates: int, **order: Any) -> Child:
        """Start a training; it waits at the points in ``hold`` until ``go``. Returns once it is ready.

        Held at ``trained``, it is alive for whatever is done to it meanwhile, however fast it trains; held at ``u``,
        it waits after each update.
        """
        self._count += 1
        folder = self.scratch / f"{self._count:05d}"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        child = Child(Path(order.pop("run_dir", folder / "run")), folder / "errors", self)
        with tempfile.TemporaryDirectory(prefix="esper") as place:
            Path(place).chmod(0o755)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"{place}/s")
            Path(f"{place}/s").chmod(0o777)
            listener.listen(1)
            listener.settimeout(PATIENCE)
            defaults = {"record": True, "pace": 0.0, "hold": [], "updates": updates}
            order["constants"] = LOG_FIRST | order.get("constants", {})
            told = {"run_dir": str(child.run_dir), "stderr": str(child.errors), "socket": f"{place}/s"}
            assert self._zygote.stdin is not None
            self._zygote.stdin.write(json.dumps(defaults | order | told) + "\n")
            self._zygote.stdin.flush()
            child._socket = listener.accept()[0]
            listener.close()
        threading.Thread(target=_hear, args=(child._socket, child._lines), daemon=True).start()
        child.listen(lambda one: one.pid > 0)
        return child

    def run(self, updates: int, **order: Any) -> Child:
        """Start a training and wait for its end."""
        child = self.start(updates, **order)
        child.ended()
        return child

    def close(self) -> None:
        """End the process that forks."""
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait(PATIENCE)


def _hear(connection: socket.socket, lines: queue.Queue[list[str] | None]) -> None:
    try:
        with connection.makefile("r") as file:
            for line in file:
                if line.endswith("\n"):
                    lines.put(line.split())
    except OSError:
        pass
    finally:
        lines.put(None)


@contextmanager
def traced(thread: int, syscall: str, inject: str, log: Path, *, follow: bool = False) -> Iterator[None]:
    """Inject into the system calls ``syscall`` of one thread; the trace is in place before the body runs.

    ``follow``: of all threads of the process ``thread``, each with a count of its own.
    """
    line = ["strace", "-p", str(thread), "-e", f"trace={syscall}", "-e", f"inject={syscall}:{inject}", "-o", str(log)]
    line += ["-f"] if follow else []
    tracer = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        if "attached" not in said:
            raise RuntimeError(f"strace: {said.strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGTERM)
        tracer.wait(PATIENCE)
        tracer.stderr.close()
