"""What recording costs a whole training: ``python -m tests.bench.record``.

Pairs of real trainings without and with a recorder, one torch thread, the same seeds, in turns of one optimizer step
(see ``relay``). The added share of wall time and of CPU time (all threads, the writer's too): median, smallest and
largest of the pairs. "noise" is the same where neither side is recorded.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from esper_analyze.strict_json import strict_json
from esper_analyze.terminal import say, show_table
from tests.bench.figures import Pair, RecordingCost, added, case_of
from tests.bench.machine import load, machine
from tests.bench.sides import Sides, TrainingOrder
from tests.bench.trainings import TRAININGS

LEVELS = ("NORMAL", "DEBUG")
CONTROLS = 2
"""Pairs without a recorder on either side, at most."""
TITLES = (
    "case",
    "s a side",
    "wall, whole run",
    "CPU, whole run",
    "CPU, updates only",
    "noise, CPU",
    "open + close",
    "own share",
    "own ms/update",
    "sampled",
    "parameters",
    "target",
    "verdict",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases asked for, print the table; return 1 when ``--strict`` and a target is not met."""
    options = _options(arguments)
    facts = machine() | {"load_before": load()}
    sides = Sides()
    try:
        cases = [case for training in TRAININGS for case in measured(sides, training, options)]
    finally:
        sides.close()
    show_table(TITLES, [_row(case) for case in cases], right=TITLES[1:10])
    if options.json is not None:
        found = [{"case": case.name, **asdict(case), "met": case.met, "verdict": case.verdict} for case in cases]
        options.json.write_text(strict_json({"machine": facts | {"load_after": load()}, "cases": found}))
    return int(options.strict and not all(case.met and case.parameters_equal for case in cases))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.record", description=__doc__)
    names = [*TRAININGS, *(f"{training}-{level.lower()}" for training in TRAININGS for level in LEVELS)]
    parser.add_argument("--only", action="append", choices=names, metavar="CASE", help=f"of {', '.join(names)}")
    parser.add_argument("--pairs", type=int, default=5, help="pairs a case, twice as many of recurrent (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many updates a side (default 1)")
    parser.add_argument("--quick", action="store_true", help="one pair of two small updates: does it run at all")
    parser.add_argument(
        "--box", choices=("spare", "pinned"), help="record beside the training: on other cores, or its own"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is not met")
    return parser.parse_args(arguments)


def measured(sides: Sides, name: str, options: argparse.Namespace) -> list[RecordingCost]:
    """Return the cases of one training that are asked for."""
    wanted = set(options.only or TRAININGS)
    levels = [level for level in LEVELS if {name, f"{name}-{level.lower()}"} & wanted]
    if not levels:
        return []
    training, count = TRAININGS[name], 1 if options.quick else options.pairs * TRAININGS[name].repeats
    updates = 2 if options.quick else max(2, round(training.updates * options.scale))
    for warmed in () if options.quick else levels:  # warm up both processes, recorded and not
        for number in range(2):
            pair(sides, TrainingOrder(name, 1, warmed, options.quick, box=options.box), number)
    found: dict[str | None, list[Pair]] = {level: [] for level in (None, *levels)}
    for number in range(count):
        for level in levels if number >= CONTROLS else (None, *levels):
            found[level].append(
                pair(sides, TrainingOrder(name, updates, level, options.quick, box=options.box), number)
            )
            say(f"{name} at {level or 'nothing'}: {added(found[level][-1:], 'cpu').median:+.1%} CPU")
    return [case_of(name, level, training.targets[level], found[level], found[None]) for level in levels]


def pair(sides: Sides, order: TrainingOrder, number: int) -> Pair:
    """Train one pair; from pair to pair the processes change roles, who begins, and the core."""
    cores = sorted(os.sched_getaffinity(0))
    place: dict[str, Any] = {
        "training": order.training,
        "updates": order.updates,
        "small": order.small,
        "box": order.box,
    }
    turned, core = number % 2 == 1, cores[number // 2 % len(cores)]
    orders = [
        TrainingOrder(**place, level=level, first=level_first, core=core)
        for level, level_first in _roles(order, number)
    ]
    found = sides.train(orders[::-1] if turned else orders)
    without, recorded = found[::-1] if turned else found
    return without, recorded


def _roles(order: TrainingOrder, number: int) -> list[tuple[str | None, bool]]:
    begins = number // 2 % 2 == 0
    return [(None, begins), (order.level, not begins)]


def _row(case: RecordingCost) -> tuple[str, ...]:
    own = case.account
    share, cost = own["recorder_fraction"], own["recorder_ms"]
    return (
        case.name,
        f"{case.seconds:.1f}",
        str(case.added["wall"]),
        str(case.added["cpu"]),
        str(case.added["updates_cpu"]),
        "" if case.noise is None else str(case.noise["cpu"]),
        f"{case.once_ms:.0f} ms",
        "" if share is None else f"{share:.1%}",
        "" if cost is None else f"{cost:.1f}",
        f"{own['sampled_steps']:g} of {own['optimizer_steps']:g}",
        "equal" if case.parameters_equal else "DIFFER",
        f"≤ {case.target:.0%}",
        case.verdict,
    )


if __name__ == "__main__":
    sys.exit(main())
