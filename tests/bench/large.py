"""``python -m tests.bench.large``: what large minibatches, many heads and large models cost, as ratios of one run.

Memory that recording one minibatch of two heads adds, over the size of what it hands over; the time to construct a
recorder of ten times as many heads, over that of the fewer; an update with the first detail sample of a large model,
over one without.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from recorder import Recorder
from tests.bench.machine import load, machine

MEMORY = """
import resource, sys, torch
from recorder import Recorder
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with Recorder(sys.argv[1], heads=("a", "b"), strict=True) as rec:
    for samples in (1000, int(sys.argv[2])):
        new, old = ({name: -torch.empty(samples).uniform_() for name in ("a", "b")} for _ in range(2))
        before = peak()
        rec.minibatch(log_prob=new, old_log_prob=old, clip_range=0.2)
        rec.update()
print((peak() - before) / (4 * 4 * samples))
"""


def memory(folder: Path, samples: int) -> float:
    """Return the bytes that recording a minibatch adds at its peak (Linux), over those of its log-probs."""
    line = [sys.executable, "-c", MEMORY, str(folder), str(samples)]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def construction(folder: Path, heads: int) -> float:
    """Return the CPU seconds that a recorder of so many heads takes to be made."""
    layers = nn.ModuleDict({f"h{number}": nn.Linear(2, 2) for number in range(heads)})
    start = time.process_time()
    rec = Recorder(folder, layers, heads=dict(layers.items()))
    taken = time.process_time() - start
    rec.close()
    return taken


def update(folder: Path, width: int, budget: float | None) -> float:
    """Return the CPU seconds of the third update of a model of one layer; without a ``budget`` it is sampled."""
    net = nn.Linear(width, width)
    with Recorder(folder, net, overhead_budget=budget) as rec:
        for _ in range(3):
            start = time.process_time()
            rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4))
            for parameter in net.parameters():
                parameter.grad = torch.ones_like(parameter)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            rec.update()
            taken = time.process_time() - start
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.large", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: the figures mean nothing")
    parser.add_argument("--json", type=Path, help="file the figures are written to as well")
    given = parser.parse_args(arguments)
    samples, heads, width = (100_000, 20, 64) if given.quick else (10**7, 1000, 7000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        added = memory(folder / "memory", samples)
        few, many = (construction(folder / f"heads{number}", number) for number in (heads, 10 * heads))
        plain, sampled = (update(folder / f"model{budget}", width, budget) for budget in (1e-9, None))
    facts = {
        "samples": samples, "memory_over_inputs": added, "heads": heads, "ten_times_the_heads": many / few,
        "parameters": width * (width + 1), "sampled_over_plain": sampled / plain,
    }  # fmt: skip
    sys.stdout.write("".join(f"{name} {value:.4g}\n" for name, value in facts.items()))
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "load": load(), **facts}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
