"""Labels of the bench's runs for ``esper-analyze backtest``: ``python -m tests.faultbench.labels OUT``.

What was put in and how a training went is in the ``outcome.json`` beside each run. From the file that this writes,
``esper-analyze backtest OUT --labels FILE --defaults`` computes the tables of the report from the recordings alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from esper_analyze.strict_json import strict_json
from esper_analyze.terminal import say
from tests.faultbench.draw import SPLITS
from tests.faultbench.outcome import FILE, read
from tests.faultbench.score import Judged, with_twins


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the labels of one split; return 2 without a training."""
    parser = argparse.ArgumentParser(prog="python -m tests.faultbench.labels", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the runs")
    parser.add_argument("--split", choices=SPLITS, default="tune", help="tasks and kinds of fault (default tune)")
    parser.add_argument("--file", type=Path, help="where to write the labels (default OUT/labels-SPLIT.json)")
    options = parser.parse_args(arguments)
    file = options.file or options.out / f"labels-{options.split}.json"
    labels = labels_of(options.out, options.split, file.parent)
    file.write_text(strict_json(labels), encoding="utf-8")
    say(f"{file}: labels of {len(labels)} runs")
    return 0 if labels else 2


def labels_of(out: Path, split: str, folder: Path) -> dict[str, Any]:
    """Return the labels of every run of a split that has its twin; paths are relative to ``folder``."""
    made = [read(file.parent) for file in sorted(out.glob(f"{split}-*/{FILE}"))]

    def path(name: str) -> str:
        return os.path.relpath(out / name, folder)

    return {path(run.made.setup.name): _label(run, path) for run in with_twins([Judged(one, ()) for one in made])}


def _label(run: Judged, path: Callable[[str], str]) -> dict[str, Any]:
    labels = run.labels
    label: dict[str, Any] = {"groups": labels.groups}
    if run.twin is not None:
        label["twin"] = path(run.twin.made.setup.name)
    if not labels.faults:
        return {"healthy": labels.healthy, **({"change": labels.change} if labels.change else {}), **label}
    keys = ("name", "onset", "rules", "hard", "harm")
    return {"fault": [{key: getattr(fault, key) for key in keys} for fault in labels.faults], **label}


if __name__ == "__main__":
    sys.exit(main())
