"""Do the harm of the fault matrix and print what came of it: ``python -m tests.faults [--long] [--only ROW…]``."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from esper_analyze.strict_json import strict_json
from esper_analyze.terminal import escaped, say, show_table
from tests.faults.children import Nursery
from tests.faults.matrix import LATER, MATRIX
from tests.faults.outcome import Bench, Row, TrialTally

TITLES = ("row", "fault", "trials", "rows lost", "training harmed", "verdict", "what was seen")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows asked for, print the table; return 1 when a figure was not reached."""
    options = _options(arguments)
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="faults", ignore_cleanup_errors=True) as fresh:
        scratch = options.scratch or Path(fresh)
        scratch.mkdir(parents=True, exist_ok=True)
        scratch.chmod(0o755)
        asked = [row for row in MATRIX if not options.only or set(row[0].split("+")) & set(options.only)]
        with ThreadPoolExecutor(options.workers) as workers:
            done = workers.map(lambda row: _done(scratch, options, *row), asked)
            found += list(done)
    found += [
        {"row": row, "fault": fault, "verdict": f"not yet: {why}"} for row, fault, why in LATER if not options.only
    ]
    show_table(TITLES, [[escaped(one.get(_key(title), "")) for title in TITLES] for one in found], right=TITLES[2:5])
    if options.json is not None:
        options.json.write_text(strict_json({"long": options.long, "seed": options.seed, "rows": found}))
    return int(any(one["verdict"] == "FAILED" for one in found))


_own = threading.local()


def _bench(scratch: Path, options: argparse.Namespace) -> Bench:
    """Return the bench of this thread: each has children of its own."""
    if not hasattr(_own, "bench"):
        place = scratch / f"worker{threading.get_native_id()}"
        place.mkdir(mode=0o755)
        _own.bench = Bench(Nursery(place), place, options.long, random.Random(options.seed))
    bench: Bench = _own.bench
    return bench


def _done(scratch: Path, options: argparse.Namespace, numbers: str, fault: str, row: Row) -> dict[str, object]:
    began = time.monotonic()
    try:
        outcome = row(_bench(scratch, options))
    except Exception as error:
        outcome = TrialTally()
        outcome.wrong[f"the trial itself failed: {type(error).__name__}: {error}"] += 1
    seconds = time.monotonic() - began
    verdict = f"skipped: {outcome.skipped}" if outcome.skipped else "met" if outcome.met else "FAILED"
    seen = [*outcome.notes, *(f"{count} × {text}" for text, count in outcome.wrong.most_common(12))]
    say(f"{numbers:>6} {fault}: {verdict}, {outcome.trials} trials, {outcome.lost} rows lost, {seconds:.1f} s")
    for text in seen:
        say(f"         {text}")
    return {
        "row": numbers, "fault": fault, "trials": outcome.trials, "rows_lost": outcome.lost,
        "training_harmed": outcome.harmed, "verdict": verdict, "what_was_seen": "; ".join(seen),
        "seconds": round(seconds, 1),
    }  # fmt: skip


def _key(title: str) -> str:
    return title.replace(" ", "_")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--long", action="store_true", help="as many trials as the matrix asks for")
    parser.add_argument("--only", nargs="+", metavar="ROW", default=[], help="numbers of rows")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="rows done at a time")
    parser.add_argument("--scratch", type=Path, help="where runs are made; those that showed something wrong stay")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
