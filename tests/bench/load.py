"""``python -m tests.bench.load``: how fast a run is read back, opened and asked, beside TensorBoard's EventAccumulator.

Read back: the same 60 numbers an update of as many updates, once as a run (one sealed shard, as `compact` leaves it)
and once as an event file with an event a scalar, as ``add_scalar`` writes it. Both sides end with every number in
memory by name. CPU seconds, the least of several turns; the accumulator keeps all points and is timed once where it
takes a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper_analyze.interchange.event_file import event_file
from esper_analyze.runs.run import open_run
from esper_analyze.storage import verified_cache
from tests.bench.machine import load, machine
from tests.bench.payload import COLUMNS
from tests.bench.shelves import layers_run, updates_run

NAMES = tuple(column.name for column in COLUMNS if column.name not in ("update", "rank", "seq"))
READ_BACK = {1_000: 150.0, 50_000: 400.0}
"""How many times faster than the accumulator a whole run must be read back, by updates."""
OPEN_S, AGGREGATE_S, QUANTILE_S = 0.02, 0.1, 1.5
ONCE_FROM = 20_000
"""Updates from which on the accumulator is timed once."""


@dataclass(frozen=True)
class Figure:
    """One thing measured, against its target: at most ``target`` seconds, or with ``times`` at least so many times."""

    what: str
    value: float
    target: float
    times: bool = False
    cpu: bool = True
    detail: Mapping[str, float] | None = None

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.target if self.times else self.value <= self.target


def seconds(work: Callable[[], object], repeats: int, clock: Callable[[], float] = time.process_time) -> float:
    """Return the least time of ``work``: what it takes when nobody else is at it."""
    taken = []
    for _ in range(repeats):
        start = clock()
        work()
        taken.append(clock() - start)
    return min(taken)


def walked(updates: int) -> dict[str, NDArray[np.float64]]:
    """Return a random walk for each name, as precise as float32, so that both sides hold the same numbers."""
    random = np.random.default_rng(0)
    steps = 0.05 * random.normal(size=(updates, len(NAMES)))
    table = np.cumsum(steps, axis=0).astype(np.float32).astype(np.float64)
    kinds = {column.name: column.kind.value for column in COLUMNS}
    return {
        name: np.full(updates, 64.0) if kinds[name] == "int" else table[:, place] for place, name in enumerate(NAMES)
    }


def read_back(updates: int, folder: Path, repeats: int) -> Figure | None:
    """Time both sides on ``updates`` updates; None where TensorBoard is not installed."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        return None
    numbers = walked(updates)
    run = updates_run(folder / f"run-{updates}", updates, numbers)
    events = folder / f"events-{updates}"
    events.mkdir()
    (events / "events.out.tfevents.1.bench").write_bytes(_events(updates, numbers))

    def theirs() -> dict[str, list[float]]:
        accumulator = EventAccumulator(str(events), size_guidance={"scalars": 0})
        accumulator.Reload()
        return {tag: [event.value for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}

    def ours() -> Any:
        verified_cache.forget()  # each turn is as the first one of a process
        return open_run(run).frame("updates")

    _same(theirs() if updates < ONCE_FROM else {}, ours())
    slow = seconds(theirs, 1 if updates >= ONCE_FROM else repeats)
    fast = seconds(ours, max(repeats, 5))
    detail = {"updates": updates, "accumulator_s": slow, "ours_s": fast, "numbers": updates * len(NAMES)}
    return Figure(
        f"read back {updates:,} updates, times faster", slow / fast, READ_BACK.get(updates, 1.0), True, detail=detail
    )


def _events(updates: int, numbers: Mapping[str, NDArray[np.float64]]) -> bytes:
    columns = {name: column.tolist() for name, column in numbers.items()}
    points = ((t, float(t), [(name, column[t])]) for t in range(updates) for name, column in columns.items())
    return event_file(points, 0.0)


def _same(theirs: Mapping[str, Sequence[float]], ours: Any) -> None:
    for name, values in theirs.items():
        if not np.array_equal(np.array(values), ours[name].to_numpy()):
            raise RuntimeError(f"the two sides do not read the same {name}")


def opening(shards: int, folder: Path, repeats: int) -> list[Figure]:
    """Time the opening of a run of many shards: for the first time in a process, and again."""
    run = updates_run(folder / "shards", shards * 100, walked(shards * 100), rows=100)
    time.sleep(3)  # a file that was just written is not taken for settled
    start = time.process_time()
    open_run(run)
    first = time.process_time() - start
    again = seconds(lambda: open_run(run), max(repeats, 5))
    return [
        Figure(f"open a run of {shards:,} shards", first, OPEN_S),
        Figure("open it again in the same process", again, OPEN_S),
    ]


def asked(updates: int, layer_rows: int, folder: Path, repeats: int) -> list[Figure]:
    """Time two queries over views: nothing is imported first. DuckDB takes several threads, so this is by the wall."""
    mean = "select avg(total_loss), max(ratio_max), min(entropy) from updates"
    connection = open_run(updates_run(folder / "long", updates, walked(updates))).connection()
    aggregate = seconds(lambda: connection.execute(mean).fetchall(), max(repeats, 5), time.perf_counter)
    tail = "select layer, update // 1000 as part, quantile_cont(grad_norm, 0.99) from layers group by all"
    connection = open_run(layers_run(folder / "layers", layer_rows)).connection()
    quantile = seconds(lambda: connection.execute(tail).fetchall(), repeats, time.perf_counter)
    cpu = {"cpu_s": seconds(lambda: connection.execute(tail).fetchall(), 2)}
    what = f"p99 norm by layer and 1,000 updates, {layer_rows:,} rows"
    return [
        Figure(f"3-column aggregate over {updates:,} updates", aggregate, AGGREGATE_S, cpu=False),
        Figure(what, quantile, QUANTILE_S, cpu=False, detail=cpu),
    ]


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as Markdown."""
    lines = ["| what | measured | target | |", "|---|---|---|---|"]
    for one in figures:
        unit = " ×" if one.times else (" s CPU" if one.cpu else " s")
        bound = f"≥ {one.target:g} ×" if one.times else f"≤ {one.target:g} s"
        lines.append(f"| {one.what} | {one.value:.3g}{unit} | {bound} | {'met' if one.met else 'NOT MET'} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="times each is measured; the least counts")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where runs are made for it")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--json", type=Path, help="file the figures are written to as well")
    given = parser.parse_args(arguments)
    sizes = (20, 50) if given.quick else tuple(READ_BACK)
    shards, updates, rows = (5, 1_000, 20_000) if given.quick else (1_000, 1_000_000, 20_000_000)
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        folder = Path(made)
        figures = [one for size in sizes if (one := read_back(size, folder, given.repeats)) is not None]
        figures += opening(shards, folder, given.repeats)
        figures += asked(updates, rows, folder, given.repeats)
    if not any(one.times for one in figures):
        sys.stderr.write("TensorBoard is not installed: reading back is not compared\n")
    sys.stdout.write(table(figures) + "\n")
    if given.json:
        facts = {"machine": machine(), "load": load(), "figures": [asdict(one) | {"met": one.met} for one in figures]}
        given.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0 if all(math.isfinite(one.value) for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
