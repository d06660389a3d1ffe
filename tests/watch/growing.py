"""A run that grows as a test wants it: written by the real store, judged by the real detector."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from esper_analyze.schema.tables.events import RESUMED_FRESH
from recorder.online_detector import OnlineDetector
from recorder.store.run_file import create_run
from recorder.store.store import Store
from tests.patience import PATIENCE
from tests.reports.synthetic import Rows, quiet

ROOT = Path(__file__).parents[2]


class GrowingRun:
    """One run and its present writer, in this process."""

    def __init__(self, path: Path, planned: int = 200, **facts: object) -> None:
        self.path, self.planned = path, planned
        self.live = OnlineDetector(None, "NORMAL")
        thresholds = self.live.detector.thresholds.as_dict()
        known = {"name": path.name, "framework": "hand-written loop", "algorithm": "PPO", "level": "NORMAL"}
        create_run(path, known | {"total_updates": planned, "thresholds": thresholds} | facts)
        self.store = Store(path)
        self.next, self._fresh = 0, False
        self._noise = np.random.default_rng(7)

    @property
    def folder(self) -> Path:
        """The folder of the present writer."""
        return self.store.folder

    def add(self, count: int = 1, edit: Callable[[int, Rows], None] | None = None) -> None:
        """Hand over updates, and see them into the log."""
        for _ in range(count):
            rows = quiet(self.next, self.planned, self._noise)
            if edit is not None:
                edit(self.next, rows)
            if self._fresh:
                told = {"update": self.next, "kind": RESUMED_FRESH, "detail": "no state", "rows": 0}
                rows["losses_of_data"], self._fresh = [told], False
            self.store.put(self.live.judge(self.next, rows).rows)
            self.next += 1
        self.store._take_up()

    def seal(self) -> None:
        """Seal what waits; the log is deleted."""
        self.store.flush()

    def die(self) -> None:
        """Leave the run as a kill leaves it."""
        self.store.inert = True
        self.store.claimed.release()

    def resume(self, update: int) -> None:
        """Go on from ``update`` in another attempt, with a detector that remembers nothing."""
        self.die()
        self.live, self._fresh = OnlineDetector(None, "NORMAL"), True
        self.store = Store(self.path, attempt=self.store.attempt + 1)
        self.next = update


class WriterProcess:
    """A process of its own that adds one update whenever it is told to, and that can be killed."""

    def __init__(self, path: Path) -> None:
        line = [sys.executable, "-m", "tests.watch.growing", str(path)]
        self.process = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._heard()

    def add(self) -> int:
        """Let it add an update; return its number once it is in the log."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._heard()

    def _heard(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def main(path: str) -> None:
    """Add an update for each line of stdin; every third is sealed."""
    growing = GrowingRun(Path(path))
    sys.stdout.write("-1\n")
    sys.stdout.flush()
    for number, _ in enumerate(sys.stdin):
        growing.add(1)
        if number % 3 == 2:
            growing.seal()
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
