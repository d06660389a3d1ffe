"""Train every sample run for real and record it: ``python -m sample_runs.make [--only NAME] [--out DIR]``.

Needs the extra ``samples``. The trainings are seeded and use one thread: the same versions give the same numbers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from esper_analyze.storage.maintenance.compact import compact
from sample_runs import ddp_loop, growing_loop, lstm_loop, sb3_runs

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Fault:
    """What is wrong with a run from update ``onset`` on; any of ``rules`` counts as finding it.

    A ``hard`` fault is seen in the very update.
    """

    name: str
    onset: int
    rules: tuple[str, ...]
    hard: bool = False


@dataclass(frozen=True)
class Sample:
    """One run: how it is trained, what it shows, and its label for backtests (no fault: healthy)."""

    train: Callable[[Path, Callable[[int], None]], None]
    shows: str
    fault: Fault | None = None


SAMPLES = {
    "masked_healthy": Sample(sb3_runs.masked_healthy, "MaskablePPO learns four masked heads; nothing is wrong"),
    "kl_too_high": Sample(
        sb3_runs.kl_too_high,
        "learning rate 3e-2 and ten epochs: KL too high again and again",
        Fault("learning rate thirty times too high", 0, ("kl_spike",)),
    ),
    "one_update_collapse": Sample(
        sb3_runs.one_update_collapse,
        "the learning rate jumps for one update: KL and ratio explode, entropy is gone, then all looks calm",
        Fault("policy gone in one update", 40, ("kl_spike", "ratio_explosion", "entropy_collapse"), hard=True),
    ),
    "mask_mismatch": Sample(
        sb3_runs.mask_mismatch,
        "the update forgets the masks the rollout acted under",
        Fault("masks forgotten in the update", 30, ("first_ratio",), hard=True),
    ),
    "nan_reward": Sample(
        sb3_runs.nan_reward,
        "one NaN reward; the training raises in that update and the run is whole up to there",
        Fault("NaN reward", 25, ("numerical_instability",), hard=True),
    ),
    "recurrent_healthy": Sample(sb3_runs.recurrent_healthy, "RecurrentPPO learns to remember a cue"),
    "lstm_masks": Sample(
        lstm_loop.lstm_masks,
        "hand-written LSTM + masks loop: head slot never has a choice, head style learns that one answer always pays",
    ),
    "two_ranks": Sample(
        ddp_loop.two_ranks,
        "the same loop on two processes that average their gradients",
    ),
    "growing_healthy": Sample(
        growing_loop.growing_healthy, "LSTM and eight masked heads grow seeds in hosts that learn digits"
    ),
    "growing_exploding": Sample(
        growing_loop.growing_exploding,
        "a seed is scaled up a thousandfold in every update from 20 on",
        Fault("exploding seed in env 3, late", growing_loop.ONSET, ("slot_gradient_explosion",)),
    ),
    "growing_disconnected": Sample(
        growing_loop.growing_disconnected,
        "no gradient reaches a seed any more from update 20 on",
        Fault("seed of env 5, early, is detached", growing_loop.ONSET, ("seed_dormant",)),
    ),
    "growing_waits": Sample(
        growing_loop.growing_waits, "WAIT is all that is allowed: no head has a choice, there is nothing to learn"
    ),
}


def make(name: str, out: Path) -> None:
    """Train and record one sample into ``out/name``, replacing what is there."""
    sample = SAMPLES[name]
    run_dir = out / name
    if run_dir.exists():
        shutil.rmtree(run_dir)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    np.random.seed(1)  # Stable-Baselines3 draws minibatches from the global generator
    began = time.monotonic()

    def tell(update: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{name}: update {update} ")
            sys.stderr.flush()

    sample.train(run_dir, tell)
    compact(run_dir)
    name_no_machine(run_dir)
    (run_dir / "labels.toml").write_text(label(sample))
    size = sum(file.stat().st_size for file in run_dir.rglob("*") if file.is_file())
    sys.stderr.write(f"\r{name}: {time.monotonic() - began:.0f} s, {size / 1000:.0f} kB\n")


def label(sample: Sample) -> str:
    """Return labels.toml of a sample."""
    fault = sample.fault
    if fault is None:
        return "healthy = true\n"
    rules = ", ".join(f'"{rule}"' for rule in fault.rules)
    hard = "hard = true\n" if fault.hard else ""
    return f'[[fault]]\nname = "{fault.name}"\nonset = {fault.onset}\nrules = [{rules}]\n{hard}'


def name_no_machine(run_dir: Path) -> None:
    """Take out of run.json where it was recorded: samples are given away."""
    file = run_dir / "run.json"
    info = json.loads(file.read_text(encoding="utf-8"))
    del info["host"]
    info["argv"] = ["sample_runs/make.py"]
    file.write_text(json.dumps(info, indent=1), encoding="utf-8")


def main() -> None:
    """Make the samples that the command line asks for."""
    parser = argparse.ArgumentParser(description="Train and record the sample runs.")
    parser.add_argument("--only", action="append", choices=sorted(SAMPLES), metavar="NAME", help="make this one only")
    parser.add_argument("--out", type=Path, default=HERE / "runs", metavar="DIR", help="where (default: %(default)s)")
    chosen = parser.parse_args()
    for name in chosen.only or SAMPLES:
        make(name, chosen.out)


if __name__ == "__main__":
    main()
