"""What handing over one update costs: ``python -m tests.bench.handover``.

60 scalars and a 100 × 12 layer table, paced like a training, by our store and by its peers, each in a fresh process.
Peers are in the extra ``bench``; those not installed are left out, in words.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from esper_analyze.strict_json import strict_json
from esper_analyze.terminal import say, show_table
from tests.bench.machine import load, machine
from tests.bench.pace import Figures, paced
from tests.bench.writers import WRITERS, Entry

TITLES = ("writer", "updates", "back to back", "median", "p99", "p99.9", "max", "background CPU", "disk", "")


@dataclass(frozen=True)
class TimeTarget:
    """Something held against our store: an absolute bound (``peer`` None) or a multiple of a peer's figure."""

    figure: str
    most: float
    peer: str | None = None

    def verdict(self, found: dict[str, Figures | None]) -> str:
        """Return met, not met, or why neither can be said."""
        ours, theirs = found.get("recorder"), found.get(self.peer or "recorder")
        if ours is None or theirs is None:
            return "not judged: not measured" if ours is None else f"not judged: {self.peer} was not measured"
        value = getattr(ours, self.figure) / (getattr(theirs, self.figure) if self.peer else 1.0)
        return f"{value:.3g}: {'met' if value <= self.most else 'not met'}"

    def __str__(self) -> str:
        return f"{self.figure} ≤ {self.most:g}" + (f" × {self.peer}" if self.peer else "")


TARGETS = (
    TimeTarget("hot_us", 5.0),
    TimeTarget("median_us", 5.0),
    TimeTarget("p999_us", 50.0),
    TimeTarget("background_ms", 1.0, "rerun"),
    TimeTarget("disk_bytes", 0.6, "rerun"),
    TimeTarget("disk_bytes", 0.07, "tensorboard"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the writers asked for, print the table; return 1 when ``--strict`` and a target is not met."""
    options = _options(arguments)
    began, before = machine(), load()
    found: dict[str, Figures | None] = {}
    states: dict[str, str] = {}
    for entry in WRITERS:
        if not options.only or entry.name in options.only:
            count = 40 if options.quick else max(40, round(options.updates * entry.share))
            found[entry.name], states[entry.name] = measured(entry, count)
            say(f"{entry.name}: {states[entry.name]}")
    show_table(TITLES, [_row(name, figures, states[name]) for name, figures in found.items()], right=TITLES[1:9])
    verdicts = {str(target): target.verdict(found) for target in TARGETS}
    show_table(("target", "recorder"), list(verdicts.items()))
    if options.json is not None:
        writers = {
            name: {"state": states[name], **(asdict(figures) if figures else {})} for name, figures in found.items()
        }
        facts = began | {"load_before": before, "load_after": load()}
        options.json.write_text(strict_json({"machine": facts, "writers": writers, "targets": verdicts}))
    return int(options.strict and any("not met" in verdict for verdict in verdicts.values()))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.handover", description=__doc__)
    names = [entry.name for entry in WRITERS]
    parser.add_argument("--only", action="append", choices=names, metavar="WRITER", help=f"of {', '.join(names)}")
    parser.add_argument("--updates", type=int, default=4000, help="updates; slow peers take a share (default 4000)")
    parser.add_argument("--quick", action="store_true", help="40 updates each: does it run at all")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is not met")
    return parser.parse_args(arguments)


def measured(entry: Entry, count: int) -> tuple[Figures | None, str]:
    """Return the figures of one writer, measured in a fresh process, and how it went in words."""
    if entry.needs is not None and find_spec(entry.needs) is None:
        return None, "not installed"
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its idle threads spin for a while, which would count as background
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(in_folder, entry.module, count).result(), "measured"
        except Exception as error:  # a peer's failure is a line of the table, not the end of the others
            return None, f"failed: {type(error).__name__}: {error}"


def in_folder(module: str, count: int) -> Figures:
    """Measure one writer in a folder of its own; what it prints is dropped."""
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        make = import_module(f"tests.bench.writers.{module}").make
        return paced(make(Path(folder)), Path(folder), count)


def _row(name: str, figures: Figures | None, state: str) -> tuple[str, ...]:
    if figures is None:
        return (name, *[""] * 8, state)
    times = (figures.hot_us, figures.median_us, figures.p99_us, figures.p999_us, figures.max_us)
    return (
        name,
        f"{figures.updates:,}",
        *(f"{one:,.1f} µs" for one in times),
        f"{figures.background_ms:.3f} ms",
        f"{figures.disk_bytes / 1000:.1f} kB",
        "",
    )


if __name__ == "__main__":
    sys.exit(main())
