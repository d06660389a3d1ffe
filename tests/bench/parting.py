"""``python -m tests.bench.parting [ZOO …]``: how often ``compare`` is wrong, on made-up noise and on real trainings.

ZOO are directories that ``python -m tests.bench.zoo`` filled. Sound runs of a family are compared with each other: each
pair, groups of three, of five, and all. Faulty runs are compared with the sound runs of their kind that have no seed in
common with them: with each, and as one more of a group of five.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.comparison.divergence import find_divergences
from esper_analyze.comparison.side_by_side import SideBySide, side_by_side
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Floats
from esper_analyze.replay.labels import read_labels
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.storage.run_info import find_runs
from esper_analyze.strict_json import strict_json
from esper_analyze.terminal import say, show_table
from tests.bench.zoo.faulty import FAULTY
from tests.bench.zoo.healthy import HEALTHY

EARLY = 50
"""Updates before which a parting counts as early."""
SIZES = (2, 3, 5, 10)
MEMORIES = (0.0, 0.5, 0.9, 0.97, 1.0)
NAMES = tuple(rule.name for rule in RULES)
Named = tuple[str, RecordedRun]


def noise(runs: int, updates: int, memory: float, seed: int) -> Floats:
    """Return noise whose values remember ``memory`` of the one before; 1.0 is a random walk."""
    steps = np.random.default_rng(seed).normal(size=(runs, updates + 200))
    found = np.zeros_like(steps)
    for update in range(1, steps.shape[1]):
        found[:, update] = memory * found[:, update - 1] + steps[:, update]
    return found[:, 200:] if memory < 1 else found[:, 200:] - found[:, 200:201]


def simulated(trials: int, updates: int = 300) -> list[dict[str, Any]]:
    """Return, for each size and memory, the share of runs that leave in one metric of nothing but noise."""
    found = []
    for size in SIZES:
        for memory in MEMORIES:
            left = 0
            for seed in range(trials):
                values = noise(size, updates, memory, seed)
                blank = np.zeros(values.shape, bool)
                left += sum(one is not None for one in find_divergences(MetricMatrix(values, blank, blank)).divergences)
            found.append({"runs": size, "memory": memory, "left": left, "of": size * trials})
    return found


def firsts(found: SideBySide) -> list[int | None]:
    """Return the first update where each run parts."""
    return [None if (one := found.first(run)) is None else one.update for run in range(len(found.labels))]


def sound(runs: Sequence[Named]) -> dict[str, dict[str, int]]:
    """Return how often sound runs part: of pairs, and of the members of groups."""
    cuts: dict[str, Iterable[Sequence[Named]]] = {
        "pairs": combinations(runs, 2),
        "of 3": [runs[at : at + 3] for at in range(0, len(runs) - 2, 3)],
        "of 5": [runs[at : at + 5] for at in range(0, len(runs) - 4, 5)],
        "of all": [runs] if len(runs) > 5 else [],
    }
    counts = {}
    for name, groups in cuts.items():
        each = [firsts(side_by_side(group)) for group in groups]
        if name == "pairs":
            each = [[min((one for one in pair if one is not None), default=None)] for pair in each]
        flat = [one for group in each for one in group]
        left = [one for one in flat if one is not None]
        counts[name] = {"left": len(left), "early": sum(one < EARLY for one in left), "of": len(flat)}
    return counts


def faulty(name: str, run: RecordedRun, others: Sequence[Named]) -> dict[str, Any] | None:
    """Return the delays with which a faulty run parts from each of ``others`` and from all of them."""
    labels = read_labels(run.path, NAMES)
    onset = None if labels is None else labels.first_onset
    if onset is None or not others:
        return None
    pairs = [firsts(side_by_side([other, (name, run)]))[1] for other in others]
    group = firsts(side_by_side([*others, (name, run)]))[-1]
    return {
        "family": name.rsplit("-", 1)[0],
        "pairs": [None if one is None else one - onset for one in pairs],
        "group": None if group is None else group - onset,
    }


def _shape(run: RecordedRun) -> tuple[object, ...]:
    info = run.info
    return info.get("algorithm"), str(info.get("heads")), str(info.get("head_kinds")), info.get("action_space")


def tried(paths: Sequence[Path]) -> dict[str, Any]:
    """Return what became of every run below ``paths``."""
    runs = [(path.name, open_run(path)) for top in paths for path in find_runs(top)]
    healthy: dict[str, list[Named]] = defaultdict(list)
    bad = []
    for name, run in runs:
        family = name.rsplit("-", 1)[0]
        if family in HEALTHY:
            healthy[family].append((name, run))
        elif family in FAULTY:
            bad.append((name, run))
    found = []
    for name, run in bad:
        kind = next((own for own in healthy.values() if _shape(own[0][1]) == _shape(run)), [])
        found.append(faulty(name, run, kind[-5:]))
        say(f"{name}: {None if found[-1] is None else found[-1]['group']}")
    return {
        "sound": {family: sound(own) for family, own in healthy.items()},
        "faulty": [one for one in found if one is not None],
    }


def main(arguments: Sequence[str]) -> None:
    """Print the tables, and write them to ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo", nargs="*", type=Path)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    noise_found = simulated(chosen.trials)
    real = tried(chosen.zoo) if chosen.zoo else {"sound": {}, "faulty": []}
    _show(noise_found, real)
    if chosen.json is not None:
        chosen.json.write_text(strict_json({"noise": noise_found, **real}), encoding="utf-8")


def _show(simulations: Sequence[dict[str, Any]], real: dict[str, Any]) -> None:
    rows = [[str(one["runs"]), f"{one['memory']:g}", f"{one['left']} of {one['of']:,}"] for one in simulations]
    show_table(("runs", "memory", "left, one metric of noise"), rows)
    cuts = ("pairs", "of 3", "of 5", "of all")
    rows = [
        [family, *(f"{own[cut]['left']} ({own[cut]['early']} early) of {own[cut]['of']}" for cut in cuts)]
        for family, own in real["sound"].items()
    ]
    show_table(("sound", *cuts), rows)
    by_family: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in real["faulty"]:
        by_family[one["family"]].append(one)
    rows = [[family, *_delays(own)] for family, own in by_family.items()]
    show_table(("faulty", "found in pairs", "median delay", "found in a group", "median delay", "before onset"), rows)


def _delays(own: Sequence[dict[str, Any]]) -> list[str]:
    pairs = [delay for one in own for delay in one["pairs"]]
    group = [one["group"] for one in own]
    told = []
    for many in (pairs, group):
        known = [one for one in many if one is not None]
        told += [f"{len(known)} of {len(many)}", f"{statistics.median(known):g}" if known else "–"]
    return [*told, str(sum(one is not None and one < 0 for one in group))]


if __name__ == "__main__":
    main(sys.argv[1:])
