"""Rows 43 to 45 and 49: what a training does to its own process: working directory, forks, numeric state, Ctrl-C."""

from __future__ import annotations

from tests.faults.children import SEAL_OFTEN
from tests.faults.outcome import UPDATES, Bench, Outcome


def changed_folder(bench: Bench) -> Outcome:
    """The run's directory is given relative to a working directory that the training leaves."""
    outcome = Outcome()
    other = bench.scratch / "elsewhere"
    other.mkdir(exist_ok=True)
    for constants in (SEAL_OFTEN, {}):
        for at in bench.random.sample(range(UPDATES), bench.trials(1, UPDATES)):
            harm = {"name": "chdir", "at": at, "to": str(other)}
            child = bench.nursery.run(UPDATES, harm=harm, cwd=str(bench.scratch), constants=constants)
            bench.judge_trained(child, outcome, UPDATES, f"chdir at {at}", complete=True)
    if any(other.iterdir()):
        outcome.wrong["files were written into the new working directory"] += 1
    return outcome
