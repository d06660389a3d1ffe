"""The fault bench: ``python -m tests.faultbench OUT --count 100`` trains what is missing, ``… --report`` judges it.

Peers (see ``peers.py``) are judged beside the detector where ``pip install esper-analyze[peers]`` has brought them.

Every training is drawn from its number: task, network, settings, length. It is made as it is, and again with one
fault put in at a drawn update (some a third time, with a harmless change): the first is the twin of the others.
Bounds are chosen on ``--split tune`` alone: known tasks, known kinds of fault. ``--split held`` is judged once per
release: tasks of its own, and beside the known kinds some that were not there when the rules were written.
What was held back in a release is known in the next. For each new release OUT is a new folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from esper_analyze.strict_json import strict_json
from esper_analyze.terminal import say, show_table
from tests.faultbench.draw import SPLITS, Setup
from tests.faultbench.make import is_made, make, setups
from tests.faultbench.report import DETECTORS, everything, tables
from tests.faultbench.score import OURS, judge_with


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or report; return 1 when a training failed."""
    options = _options(arguments)
    if options.report:
        if not any(options.out.glob(f"{options.split}-*/outcome.json")):
            say(f"{options.out} holds no training of {options.split}: train some first, without --report")
            return 2
        report(options)
        return 0
    return int(not train(options.out, list(setups(options.split, options.first, options.count)), options.processes))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faultbench", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the runs")
    parser.add_argument("--split", choices=SPLITS, default="tune", help="tasks and kinds of fault (default tune)")
    parser.add_argument("--first", type=int, default=0, help="number of the first training (default 0)")
    parser.add_argument("--count", type=int, default=10, help="how many numbers, each of 2 or 3 trainings (default 10)")
    parser.add_argument("--processes", type=int, default=2, help="trainings, or judgements, at a time (default 2)")
    parser.add_argument("--report", action="store_true", help="judge what is there")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="with --report: this detector only")
    parser.add_argument("--json", type=Path, help="with --report: write everything to this file")
    parser.add_argument("--markdown", type=Path, help="with --report: write the tables to this file")
    return parser.parse_args(arguments)


def train(out: Path, wanted: Sequence[Setup], processes: int) -> bool:
    """Train what is not there yet; return whether all of them could be made."""
    missing = [setup for setup in wanted if not is_made(out, setup)]
    say(f"{len(wanted) - len(missing)} of {len(wanted)} runs are there")
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        names: dict[Future[str], str] = {pool.submit(make, out, setup): setup.name for setup in missing}
        for place, done in enumerate(as_completed(names), 1):
            error = done.exception()
            failed += error is not None
            line = done.result() if error is None else f"{names[done]} failed: {type(error).__name__}: {error}"
            say(f"[{place}/{len(missing)}] {line}")
    return not failed


def report(options: argparse.Namespace) -> None:
    """Print the tables of a split; write them as Markdown, and all figures as JSON, where that is asked for."""
    detectors = DETECTORS if options.peers else (OURS,)
    judged = judge_with(detectors, options.out, options.split, options.processes)
    shown = tables(judged, detectors, options.split)
    for table in shown:
        show_table(table.columns, table.rows)
    if options.json is not None:
        options.json.write_text(strict_json(everything(judged, options.split)))
    if options.markdown is not None:
        options.markdown.write_text("\n".join(table.as_markdown() for table in shown), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
