"""Change one operator of the code at a time and see whether the tests notice: ``python -m tests.mutants``.

For each package a sample of changes is drawn. The tests that concern the package run once without a change, to learn
which functions each calls; then, for each change, those that call the changed function, the quick ones first, up to
the first failure. Existing tools (mutmut, cosmic-ray) run a whole suite a change and write changed sources; a fork of a
process that has torch imported, with the changed module in memory, takes about a second.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import random
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.mutants.changes import Change, changed, changes
from tests.mutants.packages import PACKAGES, ROOT
from tests.mutants.process import Function, Test, ended, preload, start, unchanged, wait

EQUIVALENT = Path(__file__).with_name("equivalent.toml")
LIMIT = 10.0
"""Times the processor time of the tests without a change, from which on a change counts as endless, and as noticed."""
STUCK = 900.0
"""Seconds after which a fork that waits for nothing is ended; so large because other work may slow it down."""
NOTICED, SURVIVED, ENDLESS = "noticed", "survived", "endless"


@dataclass
class Job:
    """A change under test."""

    change: Change
    child: int
    scratch: Path
    deadline: float


@dataclass
class _Orders:
    """Which tests a change is tried with, and in which order."""

    tests: dict[str, Test]
    imports: set[Function]
    budget: float

    def of(self, change: Change) -> list[str]:
        """Return the tests to run: those that the change concerns, then others of their files; the quick ones first.

        It concerns tests that call the changed function. A module's own statements, and what they call, concern tests
        that call anything of the module first, and then all.
        """
        where = (change.file, change.first_line)
        concerned = {name for name, test in self.tests.items() if where in test.calls}
        everywhere = not change.first_line or where in self.imports
        if everywhere:
            calling = {name: {file for file, _ in test.calls} for name, test in self.tests.items()}
            concerned |= {name for name, modules in calling.items() if change.file in modules}
        files = {name.split("::")[0] for name in (self.tests if everywhere else concerned)}
        chosen, spent = list[str](), 0.0
        for name in sorted(self.tests, key=lambda name: (name not in concerned, self.tests[name].seconds)):
            if name.split("::")[0] in files and (spent + self.tests[name].seconds <= self.budget or not chosen):
                chosen.append(name)
                spent += self.tests[name].seconds
        return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the packages asked for; the exit code is 1 when one stays under ``--least``."""
    options = _options(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"random seed {seed}", flush=True)
    preload()
    low = False
    for name in options.package:
        low |= _measure(name, seed, options) < options.least
    return int(low)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--package", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--count", type=int, default=200, help="changes drawn from each package")
    parser.add_argument("--seed", type=int, help="of the draw; default: a new one, printed")
    parser.add_argument("--file", help="only changes of files whose path contains this")
    parser.add_argument("--budget", type=float, default=10.0, help="processor seconds of tests a change, without it")
    parser.add_argument("--jobs", type=int, default=1, help="changes tested side by side")
    parser.add_argument("--least", type=float, default=0.0, help="share that must be noticed")
    parser.add_argument("--json", type=Path, help="a line a change is added here; those already there are not repeated")
    return parser.parse_args(arguments)


def _measure(name: str, seed: int, options: argparse.Namespace) -> float:
    """Print the result for a package and return the share noticed."""
    package, began = PACKAGES[name], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        log = Path(folder) / "log"
        tests, imports = unchanged(package.files(), package.present_tests(), log)
        failed = [test for test, result in tests.items() if not result.passed]
        if failed or not tests:
            print(f"{name}: left out, because they fail without a change: {', '.join(failed) or 'all'}", flush=True)
            print(log.read_text()[-2000:] if not tests else "", flush=True)
        files = [file for file in package.files() if not options.file or options.file in file]
        sources = {file: (ROOT / file).read_text() for file in files}
        possible = [change for file, source in sources.items() for change in changes(file, source)]
        drawn = random.Random(f"{seed} {name}").sample(possible, min(options.count, len(possible)))
        results = _earlier(options.json)
        orders = _Orders({test: result for test, result in tests.items() if result.passed}, imports, options.budget)
        _control(package.files()[-1], orders, log)
        _run([one for one in drawn if one.key not in results], sources, orders, results, log, options)
    return _report(name, drawn, len(possible), results, time.monotonic() - began)


def _control(file: str, orders: _Orders, log: Path) -> None:
    """Run the tests as for a change, but without one. Raises ``RuntimeError`` when they fail all the same."""
    source = (ROOT / file).read_text()
    order = orders.of(Change(file, 0, 0, "", 0, "", ""))
    child, scratch = start(file, ast.parse(source), order, math.inf, log)
    code = None
    while code is None:
        time.sleep(0.01)
        code = wait(child, math.inf)
    ended(child, scratch)
    if code:
        raise RuntimeError(f"the tests fail in a fork without a change (exit code {code}):\n{log.read_text()[-4000:]}")


def _run(
    drawn: Sequence[Change],
    sources: dict[str, str],
    orders: _Orders,
    results: dict[tuple[str, ...], str],
    log: Path,
    options: argparse.Namespace,
) -> None:
    waiting, running = list(reversed(drawn)), list[Job]()
    while waiting or running:
        while waiting and len(running) < options.jobs:
            change = waiting.pop()
            order = orders.of(change)
            if not order:
                _settle(change, SURVIVED, results, options.json)
                continue
            seconds = sum(orders.tests[test].seconds for test in order)
            tree = changed(sources[change.file], change.number)
            child, scratch = start(change.file, tree, order, LIMIT * (5 + seconds), log.with_suffix(f".{len(results)}"))
            running.append(Job(change, child, scratch, time.monotonic() + STUCK))
        time.sleep(0.01)
        for job in list(running):
            code = wait(job.child, job.deadline)
            if code is not None:
                running.remove(job)
                ended(job.child, job.scratch)
                outcome = ENDLESS if code < 0 else NOTICED if code else SURVIVED
                _settle(job.change, outcome, results, options.json)


def _settle(change: Change, outcome: str, results: dict[tuple[str, ...], str], store: Path | None) -> None:
    results[change.key] = outcome
    sys.stdout.write("." if outcome != SURVIVED else "s")
    sys.stdout.flush()
    if store is not None:
        with store.open("a") as file:
            file.write(json.dumps(asdict(change) | {"outcome": outcome}, ensure_ascii=False) + "\n")


def _earlier(store: Path | None) -> dict[tuple[str, ...], str]:
    if store is None or not store.exists():
        return {}
    rows = [json.loads(line) for line in store.read_text().splitlines()]
    return {(row["file"], row["function"], row["before"], row["after"]): row["outcome"] for row in rows}


def equivalent() -> dict[tuple[str, ...], str]:
    """Return why a change makes no difference, by its key."""
    listed: list[dict[str, Any]] = tomllib.loads(EQUIVALENT.read_text()).get("change", [])
    return {(one["file"], one["function"], one["before"], one["after"]): one["reason"] for one in listed}


def _report(
    name: str, drawn: Sequence[Change], possible: int, results: dict[tuple[str, ...], str], seconds: float
) -> float:
    counts = Counter(results[change.key] for change in drawn)
    noticed, known = counts[NOTICED] + counts[ENDLESS], equivalent()
    survivors = [change for change in drawn if results[change.key] == SURVIVED]
    stated = [change for change in survivors if change.key in known]
    share = noticed / len(drawn) if drawn else 1.0
    real = noticed / (len(drawn) - len(stated)) if len(drawn) > len(stated) else 1.0
    print(f"\n{name}: {noticed} of {len(drawn)} changes noticed ({share:.1%}), drawn from {possible}; {seconds:.0f} s")
    print(f"{name}: {len(stated)} of {len(survivors)} survivors are stated to be equivalent; without them {real:.1%}")
    for change in sorted(survivors, key=lambda one: (one.file, one.line)):
        reason = known.get(change.key)
        print(f"  {change}" + (f"\n    equivalent: {reason}" if reason else ""), flush=True)
    return real


if __name__ == "__main__":
    sys.exit(main())
