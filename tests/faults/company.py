"""Rows 23 to 26, 28, 29, 38, 41, 46: forks, threads, processes, ranks, clocks, readers, bad arguments, own errors."""

from __future__ import annotations

import math
import shutil
import signal
from typing import Any

from esper_analyze.reports.listing import status_words
from esper_analyze.runs.run import open_run
from recorder.store.store import SETTLE_SECONDS
from tests.faults.children import SEAL_OFTEN, Child
from tests.faults.judge import judged
from tests.faults.outcome import UPDATES, Bench, TrialTally, facts
from tests.recorder import bad_arguments as bad
from tests.recorder.threads import TRAININGS, differences

WHERE = (
    "recorder.minibatch_reader:MinibatchReader.read",
    "recorder.capture.update_buffer:UpdateBuffer.add",
    "recorder.capture.update_buffer:UpdateBuffer.tensors",
    "recorder.capture.update_buffer:UpdateBuffer.snapshot_gradients",
    "recorder.capture.update_buffer:Minibatch.record_clip",
    "recorder.capture.update_buffer:UpdateBuffer.record_step",
    "recorder.capture.update_buffer:UpdateBuffer.stack",
    "recorder.recorder:rollout_inputs",
    "recorder.pipeline:rollout_tensors",
    "recorder.pipeline:rows_of",
    "recorder.pipeline:Transfer",
    "recorder.online_detector:OnlineDetector.judge",
    "recorder.diagnostics:Diagnostics.rows",
    "recorder.detail_schedule:DetailSchedule.begin",
    "recorder.detail_schedule:DetailSchedule.tensors",
    "recorder.detail_schedule:DetailSchedule.record_gates",
    "recorder.detail_schedule:DetailSchedule.end",
    "recorder.guard:ErrorGuard.take_losses",
    "recorder.store.store:Store.put",
    "recorder.store.store:Store.settle",
    "recorder.store.store:Store.take_losses",
    "recorder.store.store:Store.close",
    "recorder.store.store:Store._take_up",
    "recorder.store.store:Store._append",
    "recorder.store.store:Store._due",
    "recorder.store.store:Store._seal_waiting",
    "recorder.store.store:Store._seal_table",
    "recorder.store.store:fitting",
    "recorder.store.store:encode",
    "recorder.store.store:seal",
    "recorder.store.log:WriteAheadLog.append",
    "recorder.store.log:WriteAheadLog.sync",
    "recorder.store.log:WriteAheadLog.rotate",
    "recorder.store.log:WriteAheadLog.forget",
)
"""Functions of the recorder that are made to raise: in the training thread, in the writer's, in the sealer's."""
ODD = ("text for a number", "object", "item() raises", "huge integer", "surrogate", "unknown column", "list", "knot")


def forks(bench: Bench) -> TrialTally:
    """DataLoader workers, and a child that goes on with a copy of the training: no hang, no row of a child."""
    outcome = TrialTally()
    for workers, context in ((0, None), (2, "fork"), (8, "fork"), *([(2, "spawn")] if bench.long else [])):
        harm = {"name": "load_data", "workers": workers, "context": context}
        child = bench.nursery.run(UPDATES, harm=harm, constants=SEAL_OFTEN)
        bench.judge_trained(child, outcome, UPDATES, f"{workers} workers, {context}", complete=True)
    for how in ("_exit", "exit"):
        for _ in range(bench.trials(1, 10)):
            harm = {"name": "fork", "every": bench.random.randrange(3, 9), "how": how}
            child = bench.nursery.run(UPDATES, harm=harm, constants=SEAL_OFTEN)
            bench.judge_trained(child, outcome, UPDATES, f"forked, {how}", complete=True)
    return outcome


def threads(bench: Bench) -> TrialTally:
    """Eight threads hand over 10,000 rows each: every row once, every sequence number once."""
    outcome, rows = TrialTally(trials=1), 10_000 if bench.long else 1_000
    harm = {"name": "threads", "threads": 8, "rows": rows, "at": 4}
    child = bench.nursery.run(UPDATES, harm=harm, constants=SEAL_OFTEN)
    run = open_run(child.run_dir)
    found = run.frame("episodes").filter(run.frame("episodes")["episode_return"] < 50)
    seqs = [seq for name, count in run.rows.items() if count for seq in run.frame(name)["seq"].to_list()]
    outcome.lost = 8 * rows - len(found.select("episode_return", "length").unique())
    if len(seqs) != len(set(seqs)):
        outcome.wrong[f"{len(seqs) - len(set(seqs))} sequence numbers are there twice"] += 1
    if child.sha != bench.sha(UPDATES) or child.status:
        outcome.harmed += 1
    outcome.notes.append(facts(rows=len(found), sequence_numbers=len(set(seqs))))
    return outcome


def trainings(bench: Bench) -> TrialTally:
    """Trainings in threads of one process: each record is that of the same training alone, cell by cell."""
    outcome = TrialTally()
    count, updates = (8, 40) if bench.long else (4, 6)
    for kind, training in TRAININGS.items():
        for trial in range(bench.trials(1, 10)):
            folder = bench.scratch / f"trainings-{kind}-{trial}"
            found = differences(training, folder, threads=count, updates=updates)
            outcome.trials += count
            outcome.harmed += sum("was changed" in one for one in found)
            for one in found:
                outcome.wrong[f"{kind}: {one}"] += 1
            if not found:
                shutil.rmtree(folder)
    outcome.notes.append(facts(kinds=", ".join(TRAININGS), threads=count, updates=updates))
    return outcome


def bad_arguments(bench: Bench) -> TrialTally:
    """Arguments that cannot be used: as good as not given, counted, and nothing else lost."""
    outcome = TrialTally()
    for method, argument in bad.OPTIONAL:
        shuffled = bench.random.sample(bad.VALUES, len(bad.VALUES))
        for trial in range(bench.trials(1, math.ceil(len(shuffled) / 4))):
            folder = bench.scratch / f"{method}-{argument}-{trial}"
            values = shuffled[4 * trial : 4 * trial + 4]
            for one in bad.differences(folder, method, argument, values):
                outcome.harmed += "changed" in one
                outcome.wrong[f"{method}({argument}): {one}"] += 1
            outcome.trials += len(values)
            shutil.rmtree(folder)
    return outcome


def two_processes(bench: Bench) -> TrialTally:
    """A second process on a run that is being written is refused by the first one's pid; the first does not notice."""
    outcome = TrialTally()
    for _ in range(bench.trials(1, 5)):
        first = bench.nursery.start(UPDATES, constants=SEAL_OFTEN, hold=["trained"])
        first.listen(lambda one: one.done >= 3)
        for resume, words in ((True, f"pid {first.pid} on "), (False, "already holds a run")):
            second = bench.nursery.run(3, run_dir=first.run_dir, resume=resume)
            if second.status != 1 or not any(words in line for line in second.warnings):
                outcome.wrong[f"second process, {resume=}: status {second.status}, {second.warnings[-1:]}"] += 1
        first.go()
        first.ended()
        bench.judge_trained(first, outcome, UPDATES, "first of two", complete=True)
    return outcome


def ranks(bench: Bench) -> TrialTally:
    """Eight ranks start at once, one is killed: seven are complete, one is whole up to there, and is named."""
    outcome, count = TrialTally(), 8
    for _ in range(bench.trials(2, 25)):
        dead = bench.random.randrange(count)
        children: list[Child] = []
        for rank in range(count):
            where: dict[str, Any] = {"run_dir": children[0].run_dir} if children else {}
            hold = ["trained"] if rank == dead else []  # so that it cannot have ended before it is killed
            place = _place(rank, count)
            order = {"constants": SEAL_OFTEN, "pace": 0.01, "place": place, "hold": hold, **where}
            children.append(bench.nursery.start(UPDATES, **order))
        first = children[0]
        until = bench.random.randrange(2, UPDATES - 4)
        children[dead].listen(lambda one, until=until: one.done >= until)  # type: ignore[misc]
        children[dead].signal(signal.SIGKILL)
        for child in children:
            child.ended()
        words = status_words(open_run(first.run_dir))
        died = ("not closed, last complete update", "killed by SIGKILL after update")  # by what the kernel says
        if not any(f"rank {dead} {how}" in words for how in died) or "7 ranks closed" not in words:
            outcome.wrong[f"rank {dead} was killed, the run says: {words}"] += 1
        for rank, child in enumerate(children):
            verdict = judged(first.run_dir, bench.twin, child.done + 1, rank=rank)
            if rank != dead and verdict.last + 1 != UPDATES:
                verdict.wrong.append(f"rank {rank} of {count} has updates up to {verdict.last}")
            outcome.add(verdict, f"rank {rank}, {dead} killed")
        for child in children:
            bench.discard(child, keep=bool(outcome.wrong))
    return outcome


def _place(rank: int, count: int) -> dict[str, int]:
    return {"rank": rank, "world_size": count}


def clock(bench: Bench) -> TrialTally:
    """The wall clock jumps an hour back and forth while training: same rows in the same order, and the jump is told."""
    outcome = TrialTally()
    for seconds in (-3600, 3600, 7200, -7200):
        harm = {"name": "clock_jumps", "at": 8, "seconds": seconds}
        child = bench.nursery.run(UPDATES, harm=harm, constants=SEAL_OFTEN)
        told = open_run(child.run_dir).frame("losses_of_data")
        if not any("clock" in kind for kind in told["kind"].to_list()):
            outcome.wrong["the jump is not recorded as an event"] += 1
        if not open_run(child.run_dir).frame("updates")["update"].is_sorted():
            outcome.wrong["updates are out of order"] += 1
        bench.judge_trained(child, outcome, UPDATES, f"clock {seconds:+} s", complete=True)
    return outcome


def live_reads(bench: Bench) -> TrialTally:
    """The run is opened again and again while it is written: no error, and never fewer rows than before."""
    outcome, reads, rows = TrialTally(), bench.trials(100, 1000), 0
    child = bench.nursery.start(100_000, constants=SEAL_OFTEN | {"SEAL_UPDATES": 40})
    child.listen(lambda one: one.done >= 0)
    for _ in range(reads):
        outcome.trials += 1
        try:
            run = open_run(child.run_dir)
            found = sum(run.rows.values())
        except Exception as error:
            outcome.wrong[f"{type(error).__name__}: {error}"] += 1
            continue
        if found < rows:
            outcome.wrong[f"{found} rows after {rows}"] += 1
        outcome.wrong.update(["said not to be written"] if not run.written else [])
        rows = max(rows, found)
    child.signal(9)
    child.ended()
    outcome.notes.append(facts(updates_meanwhile=child.done + 1, rows_at_last=rows))
    return outcome


def own_errors(bench: Bench) -> TrialTally:
    """A function of the recorder raises, for some updates or for good: the parameters are those without recorder."""
    outcome = TrialTally()
    # A writer that cannot take up anything is not waited for until the end of patience, but as in any training.
    constants = SEAL_OFTEN | {"FIRST_BACK_OFF": 0.01, "SETTLE_SECONDS": SETTLE_SECONDS}
    errors = ("RuntimeError", "MemoryError", "OSError") if bench.long else ("RuntimeError",)
    for where in WHERE if bench.long else bench.random.sample(WHERE, 8):
        for error in errors:
            for until in (9, 10**9) if bench.long else (9,):
                harm = {"name": "recorder_raises", "at": 5, "until": until, "where": where, "error": error}
                child = bench.nursery.run(12, harm=harm, constants=constants)
                outcome.trials += 1
                if child.status != 0 or child.sha != bench.sha(12):
                    outcome.harmed += 1
                    outcome.wrong[f"{where} {error}: {(child.warnings or ['?'])[-1]}"] += 1
                if until == 9:
                    _goes_on(bench, outcome, child, f"{where} {error}")
    for cell in ODD if bench.long else ODD[:3]:
        child = bench.nursery.run(12, harm={"name": "odd_cell", "at": 5, "cell": cell}, constants={})
        outcome.trials += 1
        if child.status != 0 or child.sha != bench.sha(12):
            outcome.harmed += 1
            outcome.wrong[f"{cell}: {(child.warnings or ['?'])[-1]}"] += 1
        _goes_on(bench, outcome, child, cell)
        killed = bench.nursery.run(13, harm={"name": "odd_cell", "at": 5, "cell": cell, "die": 10}, constants={})
        _goes_on(bench, outcome, killed, f"{cell}, killed at 10")
    return outcome


def _goes_on(bench: Bench, outcome: TrialTally, child: object, label: str) -> None:
    """The run can be opened, and updates before and after the trouble are there."""
    from tests.faults.children import Child

    assert isinstance(child, Child)
    try:
        updates = open_run(child.run_dir).frame("updates")["update"].to_list()
    except Exception as error:
        outcome.wrong[f"{label}: {type(error).__name__}: {str(error)[-120:]}"] += 1
        return
    missing = [number for number in (0, 1, 2, 3, 9) if number not in updates]
    if missing and "Store.close" not in label:
        outcome.wrong[f"{label}: updates {missing} are missing"] += 1
    bench.discard(child, keep=bool(missing))


def writer_dies(bench: Bench) -> TrialTally:
    """The writer thread, or the sealer, dies of an exception from outside: training goes on and nothing is lost."""
    outcome = TrialTally()
    for thread in ("writer", "sealer"):
        for kill in (False, True):
            for _ in range(bench.trials(1, 5)):
                harm = {"name": "writer_dies", "at": 5, "thread": thread, "die": 18 if kill else None}
                child = bench.nursery.run(UPDATES, harm=harm, constants=SEAL_OFTEN)
                if not any("died and was restarted" in line for line in child.warnings) and not kill:
                    outcome.wrong[f"{thread} died in silence"] += 1
                if kill:
                    bench.judge(child, outcome, f"{thread} died, then killed")
                else:
                    bench.judge_trained(child, outcome, UPDATES, f"{thread} died", complete=True)
    return outcome
