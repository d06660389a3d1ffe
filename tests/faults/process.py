"""Rows 43 to 45 and 49: what a training does to its own process: working directory, forks, numeric state, Ctrl-C."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from esper_analyze.errors import EsperError
from esper_analyze.runs.run import open_run
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.exclusive import exclusive
from esper_analyze.storage.maintenance.repair import repair
from tests.faults.children import SEAL_OFTEN
from tests.faults.outcome import UPDATES, Bench, TrialTally, facts
from tests.recorder.interruption import ENTRY
from tests.recorder.process_states import STATES


def changed_folder(bench: Bench) -> TrialTally:
    """The run's directory is given relative to a working directory that the training leaves."""
    outcome = TrialTally()
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


def outliving_children(bench: Bench) -> TrialTally:
    """A forked child outlives a trainer that closed, or was killed: readers, repair, compact and resume all work."""
    outcome = TrialTally()
    for die in (-1, UPDATES - 1):
        for at in bench.random.sample(range(UPDATES - 1), bench.trials(1, 10)):
            note = bench.scratch / "child"
            harm = {"name": "fork_and_stay", "at": at, "file": str(note), "die": die}
            child = bench.nursery.run(UPDATES, harm=harm, constants=SEAL_OFTEN)
            label = f"forked at {at}, {'closed' if die < 0 else 'killed'}"
            if child.status != (0 if die < 0 else -signal.SIGKILL):
                outcome.wrong[f"{label}: exit status {child.status}"] += 1
            try:
                _used(bench, outcome, child.run_dir, label)
            finally:
                os.kill(int(note.read_text()), signal.SIGKILL)
            bench.judge(child, outcome, label)
    return outcome


def _used(bench: Bench, outcome: TrialTally, run_dir: Path, label: str) -> None:
    if open_run(run_dir).written:
        outcome.wrong[f"{label}: readers take the run for running"] += 1
    try:
        with exclusive(run_dir):
            repair(run_dir)
            compact(run_dir)
    except EsperError as error:
        outcome.wrong[f"{label}: repair and compact are refused: {error.message}"] += 1
    resumed = bench.nursery.run(0, run_dir=run_dir, resume=True)
    if resumed.status != 0:
        outcome.wrong[f"{label}: resume is refused: {resumed.warnings[-1:]}"] += 1


def process_states(bench: Bench) -> TrialTally:
    """numpy's errors, default device and dtype, modes, warnings as errors and others in effect: the twin's rows."""
    outcome = TrialTally()
    for state in bench.random.sample(sorted(STATES), bench.trials(4, len(STATES))):
        child = bench.nursery.run(UPDATES, harm={"name": "process_state", "state": state}, constants=SEAL_OFTEN)
        bench.judge_trained(child, outcome, UPDATES, state, complete=True)
    return outcome


def interruptions(bench: Bench) -> TrialTally:
    """Ctrl-C at each line of ``minibatch``, ``update`` and ``close``, and the training goes on: the twin's rows."""
    outcome, points = TrialTally(), 0
    note = bench.scratch / "interrupted"
    for method in ("minibatch", "update", "close"):
        order = {"name": "interrupted", "method": method, "at": UPDATES if method == "close" else 8, "file": str(note)}
        child = bench.nursery.run(UPDATES, harm=order | {"nth": -1})
        bench.discard(child, keep=False)
        events = int(note.read_text().split()[1])
        points += events
        for nth in sorted(bench.random.sample(range(ENTRY + 1, events + 1), bench.trials(2, events - ENTRY))):
            child = bench.nursery.run(UPDATES, harm=order | {"nth": nth})
            label = f"{method} at {nth}"
            if note.read_text() != f"came {nth}":
                outcome.wrong[f"{label}: {note.read_text()}"] += 1
            told = [line for line in child.warnings if line.startswith(("Traceback", "recorder: error"))]
            if told:
                outcome.wrong[f"{label}: {told[0]}"] += 1
            bench.judge_trained(child, outcome, UPDATES, label, complete=True)
    outcome.notes.append(facts(points=points))
    return outcome
