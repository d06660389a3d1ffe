"""Hand over updates at a training's pace; measure what it takes of the training thread, of other threads, of the disk.

Between two updates the thread sleeps 2 to 5 ms, in which background work is done, and then computes for a moment, as a
training does before it hands over: a call right after a sleep measures how the processor wakes. What a writer needs in
another shape is made before the clock starts. The writer ``nothing`` shows what is left of clock and machine.
"""

from __future__ import annotations

import gc
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tests.bench.payload import updates

PAUSE_S = (0.002, 0.005)
WARM_UP = 0.05
"""Share of the updates handed over first, back to back: with everything at hand in the caches."""


class UpdateWriter(Protocol):
    """One way to keep updates; everything it writes goes into the folder it was made with."""

    def prepare(self, update: Any) -> Any:
        """Return ``update`` in the shape the writer takes; not timed."""

    def hand_over(self, prepared: Any) -> None:
        """Take one update; timed."""

    def close(self) -> None:
        """Write what is left; counts as background."""


@dataclass(frozen=True)
class Figures:
    """Training-thread time of handing over one update [µs], background CPU [ms] and disk [bytes] for each update.

    ``hot_us``: median back to back; the other times are paced, and so with cold caches.
    """

    updates: int
    hot_us: float
    median_us: float
    p99_us: float
    p999_us: float
    max_us: float
    background_ms: float
    disk_bytes: float


def paced(writer: UpdateWriter, folder: Path, count: int) -> Figures:
    """Hand ``count`` updates over, close, and return the figures."""
    hot = max(20, round(WARM_UP * count))
    pauses = np.random.default_rng(1).uniform(*PAUSE_S, count)
    numbers = np.linspace(0.0, 1.0, 16_384)
    stream = updates(hot + count)
    gc.collect()
    gc.freeze()  # collections scan what the writer makes, not what its import left
    background = -_all_cpu() + time.thread_time()
    first = [_taken(writer, prepared) for prepared in [writer.prepare(next(stream)) for _ in range(hot)]]
    then = []
    for update, pause in zip(stream, pauses, strict=True):
        prepared = writer.prepare(update)
        time.sleep(pause)
        np.tanh(numbers).sum()  # 128 kB, some 0.1 ms: the writer's code and data leave the nearest cache
        then.append(_taken(writer, prepared))
    background -= time.thread_time()
    writer.close()
    background += _all_cpu()
    return _figures(first, then, background, used(folder))


def _taken(writer: UpdateWriter, prepared: Any) -> int:
    began = time.perf_counter_ns()
    writer.hand_over(prepared)
    return time.perf_counter_ns() - began


def _all_cpu() -> float:
    """Return CPU seconds of all threads and of children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def used(folder: Path) -> int:
    """Return the bytes of all files below ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _figures(hot_ns: list[int], paced_ns: list[int], background_s: float, size: int) -> Figures:
    median, p99, p999, most = (float(one) / 1000 for one in np.percentile(paced_ns, [50, 99, 99.9, 100]))
    count = len(hot_ns) + len(paced_ns)
    return Figures(
        updates=count,
        hot_us=float(np.median(hot_ns)) / 1000,
        median_us=median,
        p99_us=p99,
        p999_us=p999,
        max_us=most,
        background_ms=max(0.0, 1000 * background_s / count),
        disk_bytes=size / count,
    )
