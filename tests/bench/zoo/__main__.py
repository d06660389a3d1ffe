"""The zoo: ``python -m tests.bench.zoo OUT`` trains what is missing, ``… OUT --report`` says what the detector finds.

Healthy families show false alarms, hard-to-look-at ones are healthy too and counted apart, faulty ones show whether
a fault is found, by which rule and how late. A run is ``OUT/family-seed`` with ``labels.toml`` beside ``run.json``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from esper_analyze.terminal import say
from tests.bench.zoo.families import FAMILIES, Order, make, seeds_of

LOOK_EVERY_S = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or report; return 1 when a training failed."""
    options = _options(arguments)
    if options.report:
        from tests.bench.zoo.report import report

        report(options.out, options.only, options.json)
        return 0
    families = options.only or list(FAMILIES)
    orders = [
        Order(family, seed, options.out)
        for family in families
        for seed in range(options.first, options.first + (options.seeds or seeds_of(family)))
    ]
    return int(not train(orders, options.processes))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.zoo", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="FAMILY", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--seeds", type=int, help="seeds a family (default 5, of faulty ones 3)")
    parser.add_argument("--first", type=int, default=1, help="first seed (default 1); others are a zoo not tuned on")
    parser.add_argument("--processes", type=int, default=2, choices=(1, 2), help="trainings at a time (default 2)")
    parser.add_argument("--report", action="store_true", help="replay what is there and say what was found")
    parser.add_argument("--json", type=Path, help="with --report: write everything to this file")
    return parser.parse_args(arguments)


def train(orders: Sequence[Order], processes: int) -> bool:
    """Train the orders that are not made yet, each in a fresh process; return whether all of them ended well."""
    missing = [order for order in orders if not order.made]
    say(f"{len(orders) - len(missing)} of {len(orders)} runs are there")
    failed = 0
    context = get_context("spawn")
    with (
        TemporaryDirectory() as folder,
        ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1) as pool,
    ):
        for order in missing:
            order.out.mkdir(parents=True, exist_ok=True)
        waiting = {pool.submit(make, order, Path(folder) / order.run_dir.name): order for order in missing}
        while waiting:
            done, _ = wait(waiting, LOOK_EVERY_S, return_when="FIRST_COMPLETED")
            for one in done:
                failed += not _told(waiting.pop(one), one)
            _show(Path(folder), len(waiting))
    return failed == 0


def _told(order: Order, done: Future[str]) -> bool:
    error = done.exception()
    say(done.result() if error is None else f"{order.run_dir.name} failed: {type(error).__name__}: {error}")
    return error is None


def _show(folder: Path, left: int) -> None:
    if sys.stderr.isatty():
        now = ", ".join(sorted(file.read_text() for file in folder.iterdir()))
        sys.stderr.write(f"\r{left} to do: {now} \033[K")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
