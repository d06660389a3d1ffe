"""The fault bench: ``python -m tests.faultbench OUT --count 100`` trains what is missing, ``… --report`` judges it.

Every training is drawn from its number: task, network, settings, length. It is made as it is, and again with one
fault put in at a drawn update (some a third time, with a harmless change): the first is the twin of the others.
Tasks and kinds of fault are split in two halves: bounds are chosen on ``tune``; ``held`` is judged once per release.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from esper_analyze.strict_json import strict_json
from esper_analyze.terminal import say, show_table
from tests.faultbench.draw import SPLITS, Setup
from tests.faultbench.make import is_made, make, setups
from tests.faultbench.score import Judged, judge, summary

KIND_TITLES = ("fault", "runs", "harmed", "found", "named", "found first by")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or report; return 1 when a training failed."""
    options = _options(arguments)
    if options.report:
        report(options.out, options.split, options.json)
        return 0
    return int(not train(options.out, list(setups(options.split, options.first, options.count)), options.processes))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faultbench", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the runs")
    parser.add_argument("--split", choices=SPLITS, default="tune", help="half of tasks and kinds (default tune)")
    parser.add_argument("--first", type=int, default=0, help="number of the first training (default 0)")
    parser.add_argument("--count", type=int, default=10, help="how many numbers (default 10)")
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time (default 2)")
    parser.add_argument("--report", action="store_true", help="judge what is there")
    parser.add_argument("--json", type=Path, help="with --report: write everything to this file")
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


def report(out: Path, split: str, json: Path | None) -> None:
    """Print the figures of a split, its faults by kind, and what alarmed sound trainings; write all to ``json``."""
    judged = judge(out, split)
    figures = summary(judged)
    show_table(("figure", split), [(name, _shown(value)) for name, value in figures.items()])
    by_kind = [_kind(kind, judged) for kind in sorted({one.kind for one in judged if one.is_fault})]
    show_table(KIND_TITLES, [tuple(str(cell) for cell in one.values()) for one in by_kind])
    false = Counter(
        (incident.rule, incident.peak_verdict)
        for one in judged
        if not one.kind and one.made.sound
        for incident in one.leading
    )
    show_table(("false alarm", "verdict", "times"), [(*what, str(times)) for what, times in false.most_common()])
    if json is not None:
        wrong = [{"rule": rule, "verdict": verdict, "times": times} for (rule, verdict), times in false.most_common()]
        json.write_text(strict_json({"split": split, "figures": figures, "kinds": by_kind, "false alarms": wrong}))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        low, high = 100 * value["low"], 100 * value["high"]
        share = 100 * value["hits"] / value["of"] if value["of"] else 0.0
        return f"{value['hits']} of {value['of']}: {share:.0f} % ({low:.0f}–{high:.0f})"
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _kind(kind: str, judged: Sequence[Judged]) -> dict[str, str | int]:
    runs = [one for one in judged if one.kind == kind]
    first = Counter("nothing" if one.found is None else one.found.rule for one in runs)
    return {
        "fault": kind,
        "runs": len(runs),
        "harmed": sum(one.harmed for one in runs),
        "found": sum(one.found is not None for one in runs),
        "named": sum(one.named for one in runs),
        "found first by": ", ".join(f"{rule} {count}" for rule, count in first.most_common()),
    }


if __name__ == "__main__":
    sys.exit(main())
