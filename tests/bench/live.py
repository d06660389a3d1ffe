"""``python -m tests.bench.live``: what the detector costs an update while a training runs.

The rows are those of a recorded run of this repository, one update after the other as the recorder hands them over,
widened to 8 heads and 20 groups. Rules look when their guards say that there may be news, so most updates cost less
than the mean; both are told.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.signals import batch_from_rows
from esper_analyze.runs.run import open_run
from tests.bench.machine import load, machine

RUN = Path(__file__).parents[2] / "sample_runs" / "runs" / "lstm_masks"
HEADS, GROUPS = 8, 20
TARGET = 300.0
"""Microseconds an update, median."""

Rows = dict[str, list[Mapping[str, Any]]]


def updates(path: Path = RUN) -> dict[int, Rows]:
    """Return the rows of a run by update and table, heads and groups repeated under other names up to their number."""
    run, found = open_run(path), dict[int, Rows]()
    for table in Detector().wanted:
        for row in run.frame(table).to_dicts():
            found.setdefault(row["update"], {}).setdefault(table, []).append(row)
    for tables in found.values():
        tables["heads"] = _widened(tables["heads"], "head", HEADS)
        tables["groups"] = _widened(tables["groups"], "group", GROUPS)
    return dict(sorted(found.items()))


def _widened(rows: Sequence[Mapping[str, Any]], name: str, number: int) -> list[Mapping[str, Any]]:
    copies: Iterator[Mapping[str, Any]] = (
        row | {name: f"{row[name]}{i or ''}"}  # type: ignore[operator]
        for i in range(number)
        for row in rows
    )
    return [next(copies) for _ in range(number)]


def cost(found: Mapping[int, Rows]) -> list[float]:
    """Return the microseconds of the thread's CPU each update takes a fresh detector, rows to findings."""
    detector, taken = Detector(defer=True), []
    for update, tables in found.items():
        start = time.thread_time()
        detector.process(batch_from_rows(update, tables, detector.wanted))
        taken.append(1e6 * (time.thread_time() - start))
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.live", description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="times the run is judged (default 15)")
    parser.add_argument("--quick", action="store_true", help="a smoke run: the figures mean nothing")
    parser.add_argument("--json", type=Path, help="file the figures are written to as well")
    given = parser.parse_args(arguments)
    found = updates()
    cost(found)  # what is imported and cached once is not a cost of each update
    runs = [cost(found) for _ in range(2 if given.quick else given.repeats)]
    medians = sorted(statistics.median(run) for run in runs)
    every = sorted(one for run in runs for one in run)
    facts = {
        "updates": len(found), "rules": len(Detector().rules), "heads": HEADS, "groups": GROUPS,
        "median_us": statistics.median(every), "mean_us": statistics.fmean(every),
        "p99_us": every[int(0.99 * len(every))], "least_median_us": medians[0], "most_median_us": medians[-1],
        "target_median_us": TARGET,
    }  # fmt: skip
    sys.stdout.write(
        f"{facts['rules']} rules, {HEADS} heads, {GROUPS} groups, {len(runs)} times {len(found)} updates, CPU time of "
        f"the thread:\nmedian {facts['median_us']:.0f} µs an update (target ≤ {TARGET:.0f}; "
        f"{medians[0]:.0f} to {medians[-1]:.0f} from run to run), mean {facts['mean_us']:.0f} µs, "
        f"p99 {facts['p99_us']:.0f} µs\n"
    )
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "load": load(), **facts}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
