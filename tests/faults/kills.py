"""Rows 1, 2, 3, 5, 6: the process dies, at random, at each system call, or by its own doing; or it is stopped."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator

from tests.faults.children import SEAL_OFTEN, Child, traced
from tests.faults.outcome import LONGEST, UPDATES, Bench, TrialTally, facts

SYSCALLS = ("rename", "fsync", "fdatasync", "unlink", "ftruncate", "mkdir", "flock", "write", "openat", "close")
WHERE = ("ready", "writer", "sealer", "trained")
"""The main thread as it begins a run, the two of the store, the main thread as it closes."""
NO_STRACE = "strace is not installed"


def random_kills(bench: Bench) -> TrialTally:
    """SIGKILL at random moments of trainings of random pace, most of them often sealing."""
    outcome, in_progress, far = TrialTally(), 0, 0
    for _ in range(bench.trials(20, 200)):
        constants = SEAL_OFTEN if bench.random.random() < 0.8 else {}
        pace = bench.random.choice([0.0, 0.0, 0.002, 0.05])
        child = bench.nursery.start(LONGEST, pace=pace, constants=constants, hold=["trained"])
        last = bench.random.randrange(8 if pace > 0.01 else bench.trials(25, 60))
        child.listen(lambda one, last=last: one.done >= last)  # type: ignore[misc]
        time.sleep(bench.random.random() * 0.02)
        child.signal(signal.SIGKILL)
        child.ended()
        verdict = bench.judge(child, outcome, "killed")
        in_progress += verdict.last + 1 - (child.done + 1)
        far += child.done + 1
    outcome.notes.append(facts(updates_finished=far, found_beyond_these=in_progress))
    return outcome


def kills_at_calls(bench: Bench) -> TrialTally:
    """SIGKILL at the N-th system call of each kind, of each thread that touches the disk, until it fires no more."""
    outcome = TrialTally()
    if shutil.which("strace") is None:
        return TrialTally(skipped=NO_STRACE)
    fired: dict[str, int] = {}
    for syscall in SYSCALLS:
        for where in WHERE if bench.long else bench.random.sample(WHERE, 1):
            for nth in _numbers(bench):
                child = _killed_at(bench, syscall, where, nth)
                if child.status != -signal.SIGKILL:
                    bench.discard(child, keep=False)
                    break
                fired[where] = fired.get(where, 0) + 1
                bench.judge(child, outcome, f"{syscall} {nth} of {where}")
    outcome.notes.append("points: " + facts(**fired))
    return outcome


def _numbers(bench: Bench) -> Iterator[int]:
    """Yield 1, 2, 3 … and then ever wider apart; in the short version few."""
    nth = 1 if bench.long else bench.random.randrange(2, 12)
    while True:
        yield nth
        nth += 1 + nth // 30 if bench.long else 40


def _killed_at(bench: Bench, syscall: str, where: str, nth: int) -> Child:
    hold = where if where in ("ready", "trained") else "made"
    child = bench.nursery.start(8, constants=SEAL_OFTEN, hold=[hold])
    if hold == "made":
        child.listen(lambda one: one.writer > 0)
    if hold == "trained":
        child.listen(lambda one: one.sha is not None)
    thread = {"writer": child.writer, "sealer": child.sealer}.get(where, child.pid)
    with traced(thread, syscall, f"signal=KILL:when={nth}", child.errors.with_name("trace")):
        child.go()
        child.ended()
    return child


ENDINGS = {"SIGTERM": -15, "SIGINT": -2, "sys.exit": 3, "exception": 1}
CRASHES = {"os._exit": 4, "segfault": -11, "abort": -6}


def orderly_endings(bench: Bench) -> TrialTally:
    """Every end that lets Python speak once more: a closed run with every finished update, and the same exit status.

    Signals come at random moments too, not only between updates.
    """
    outcome = TrialTally()
    for how, status in ENDINGS.items():
        for _ in range(bench.trials(1, 5)):
            at = bench.random.randrange(2, UPDATES)
            child = bench.nursery.run(UPDATES, harm={"name": "end", "at": at, "how": how})
            _judge_ended(bench, child, outcome, how, status)
    for number in (signal.SIGTERM, signal.SIGINT):
        for _ in range(bench.trials(3, 50)):
            often = bench.random.choice([SEAL_OFTEN, {}])
            child = bench.nursery.start(LONGEST, constants=often, hold=["trained"])
            child.listen(lambda one: one.done >= bench.random.randrange(12))
            time.sleep(bench.random.random() * 0.02)
            child.signal(number)
            child.ended()
            _judge_ended(bench, child, outcome, f"{number.name} at random", -number)
    return outcome


def _judge_ended(bench: Bench, child: Child, outcome: TrialTally, how: str, status: int) -> None:
    from tests.faults.judge import judged

    verdict = judged(child.run_dir, bench.twin, child.done + 1, interrupted=True)
    if not verdict.closed:
        verdict.wrong.append("not closed")
    if child.status != status:
        verdict.wrong.append(f"exit status {child.status}, without recorder {status}")
    outcome.add(verdict, how)
    bench.discard(child, keep=not verdict.sound)


def crashes(bench: Bench) -> TrialTally:
    """The trainer ends without a word: os._exit, a segfault, abort."""
    outcome = TrialTally()
    for how, status in CRASHES.items():
        for _ in range(bench.trials(2, 20)):
            at = bench.random.randrange(2, UPDATES)
            order = {"name": "end", "at": at, "how": how}
            child = bench.nursery.run(UPDATES, harm=order, constants=bench.random.choice([SEAL_OFTEN, {}]))
            if child.status != status:
                outcome.wrong[f"{how}: exit status {child.status}"] += 1
            bench.judge(child, outcome, how)
    return outcome


def stopped(bench: Bench) -> TrialTally:
    """SIGSTOP, and SIGCONT seconds later: nothing is lost, and the training goes on to the same parameters."""
    outcome, seconds = TrialTally(), 10.0 if bench.long else 1.0
    for _ in range(bench.trials(1, 2)):
        child = bench.nursery.start(UPDATES, constants=SEAL_OFTEN, hold=["trained"])
        child.listen(lambda one: one.done >= 6)
        child.signal(signal.SIGSTOP)
        time.sleep(seconds)
        child.signal(signal.SIGCONT)
        child.go()
        child.ended()
        bench.judge_trained(child, outcome, UPDATES, "stopped", complete=True)
    outcome.notes.append(facts(seconds=seconds))
    return outcome
