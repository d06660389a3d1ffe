"""``python -m tests.bench.replay``: how fast a run is replayed, beside decoding alone and a per-row detector.

All three read the very same columns of the same Parquet files in the same process, one after the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from esper_analyze.detector.detector import Detector
from esper_analyze.replay.batches import read_batches
from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema.tables import BY_NAME
from tests.bench.machine import load, machine
from tests.bench.per_row import PerRow
from tests.bench.synthetic import TIMED, make_run

PER_ROW_UPDATES = 20_000
"""Updates the per-row detector is timed on: it takes as long for each of them."""
ONCE = """
import resource, sys
from pathlib import Path
from esper_analyze.detector.rules import RULES
from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import open_run
replay(open_run(Path(sys.argv[1])), rules=tuple(rule for rule in RULES if rule.table in ("updates", "heads")))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
"""A program that replays a run in a process of its own and says how much memory that took."""
TARGETS = {"times_per_row": 20.0, "decode_factor": 2.5, "peak_bytes": 1e9}


def columns() -> dict[str, list[str]]:
    """Return what the timed rules read, by table, with update and subject."""
    wanted = Detector(rules=TIMED).wanted
    subjects = {table: BY_NAME[table].subject for table in wanted}
    return {t: ["update", *([str(subjects[t])] if subjects[t] else []), *names] for t, names in wanted.items()}


def decode(run: RecordedRun) -> None:
    """Decode the columns shard by shard with pyarrow on one thread, and do nothing with them."""
    for table, names in columns().items():
        for path in run.files(table):
            with pq.ParquetFile(path) as file:
                file.read(columns=names, use_threads=False)


def batches(run: RecordedRun) -> None:
    """Decode them into the arrays that the detector takes."""
    for _ in read_batches(run, Detector(rules=TIMED).wanted):
        pass


def per_row(run: RecordedRun) -> int:
    """Judge the first updates row by row in plain Python, decoding included; return how many."""
    detector, taken = PerRow(), 0
    named = columns()
    files = {table: pq.ParquetFile(run.files(table)[0]) for table in ("heads", "updates")}
    heads = files["heads"].read(columns=named["heads"], use_threads=False).slice(0, 8 * PER_ROW_UPDATES).to_pylist()
    rows = files["updates"].read(columns=named["updates"], use_threads=False).slice(0, PER_ROW_UPDATES).to_pylist()
    for taken, row in enumerate(rows, 1):
        detector.update(row)
        detector.heads(heads[8 * taken - 8 : 8 * taken])
    return taken


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median CPU time of ``work``: what it takes when nobody else is at it."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return sorted(taken)[len(taken) // 2]


def measure(updates: int, folder: Path, repeats: int) -> dict[str, float]:
    """Make a run of so many updates, time all three on it, and delete it."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = make_run(Path(made) / "run", updates, lambda done: _tell(f"writing {done:,} of {updates:,}"))
        run = open_run(path)
        files = sum(file.stat().st_size for file in path.rglob("*.parquet"))
        _tell(f"timing {updates:,} updates …")
        peak = _peak(path)
        whole = seconds(lambda: replay(run, rules=TIMED), repeats)
        decoding, arrays = seconds(lambda: decode(run), repeats), seconds(lambda: batches(run), repeats)
        row = seconds(lambda: per_row(run), 1) / min(updates, PER_ROW_UPDATES)
    return {
        "updates": updates,
        "bytes": files,
        "replay_s": whole,
        "updates_per_s": updates / whole,
        "decode_s": decoding,
        "arrays_s": arrays,
        "decode_factor": whole / decoding,
        "per_row_updates_per_s": 1 / row,
        "times_per_row": updates * row / whole,
        "peak_bytes": peak,
    }


def _peak(path: Path) -> int:
    """Return the most memory, in bytes, that a process of its own takes to replay the run, imports included."""
    done = subprocess.run([sys.executable, "-c", ONCE, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def _tell(text: str) -> None:
    sys.stderr.write(f"\r\x1b[K{text}" if sys.stderr.isatty() else "")


def table(results: Iterable[dict[str, float]]) -> str:
    """Return the figures as Markdown."""
    lines = [
        f"{len(TIMED)} rules ({sum(rule.table == 'updates' for rule in TIMED)} on updates, "
        f"{sum(rule.table == 'heads' for rule in TIMED)} on each of 8 heads); CPU seconds, decode included",
        "",
        "| updates | Parquet | replay | updates/s | per-row Python | faster by (target ≥ 20) | decode alone |"
        " replay / decode (target ≤ 2.5) | peak memory (target < 1 GB) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['updates']:,.0f} | {one['bytes'] / 1e6:,.0f} MB | {one['replay_s']:.2f} s |"
        f" {one['updates_per_s']:,.0f} | {one['per_row_updates_per_s']:,.0f}/s | {one['times_per_row']:.1f} × |"
        f" {one['decode_s']:.2f} s | {one['decode_factor']:.2f} × | {one['peak_bytes'] / 1e6:,.0f} MB |"
        for one in results
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.replay", description=__doc__)
    parser.add_argument("--sizes", default="1e5,1e6,1e7", help="numbers of updates, separated by commas")
    parser.add_argument("--repeats", type=int, default=3, help="times each is measured; the median counts")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where runs are made for it")
    parser.add_argument("--json", type=Path, help="file the figures are written to as well")
    given = parser.parse_args(arguments)
    results = [measure(int(float(size)), given.folder, given.repeats) for size in given.sizes.split(",")]
    _tell("")
    sys.stdout.write(table(results) + "\n")
    if given.json:
        facts = {"machine": machine(), "load": load(), "targets": TARGETS, "results": results}
        given.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
