"""Rows 7 to 10 and 39: the disk is full, fails, writes short, is slow, goes away, or may no longer be written to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recorder.store.store import SETTLE_SECONDS
from tests.faults.children import SEAL_OFTEN, Child, traced
from tests.faults.judge import percentile
from tests.faults.kills import NO_STRACE
from tests.faults.outcome import UPDATES, Bench, TrialTally, facts

RECOVER_SOON = SEAL_OFTEN | {"LOG_BACK_OFF": 0.01, "FIRST_BACK_OFF": 0.01}
NOBODY = 65534
STREAMS_LOST = 120
"""Exit status of a Python that could not flush stdout or stderr."""
WHERE = ("writer", "sealer", "trained", "all")


def full_disk(bench: Bench) -> TrialTally:
    """A small tmpfs runs full while training, for good or until room is made; by injected ENOSPC without tmpfs."""
    outcome = TrialTally()
    place = bench.scratch / "small"
    place.mkdir(exist_ok=True)
    for kilobytes in bench.random.sample(range(40, 1200), bench.trials(3, 30)):
        with _tmpfs(place, kilobytes) as mounted:
            if not mounted:
                return _injected(bench, ("write", "openat"), "ENOSPC")
            child = bench.nursery.run(UPDATES, run_dir=place / "run", constants=RECOVER_SOON)
            _warned(child, outcome)
            if not bench.judge_trained(child, outcome, UPDATES, f"{kilobytes} kB").closed and child.lost:
                outcome.wrong["no mark on the disk says that rows were lost"] += 1
    for kilobytes in bench.random.sample(range(60, 400), bench.trials(2, 10)):
        with _tmpfs(place, 4000) as mounted:
            if mounted:
                child = _room_comes_back(bench, place, kilobytes)
                _warned(child, outcome)
                bench.judge_trained(child, outcome, UPDATES, f"room again after {kilobytes} kB", complete=True)
    return outcome


def _room_comes_back(bench: Bench, place: Path, kilobytes: int) -> Child:
    child = bench.nursery.start(UPDATES, run_dir=place / "run", constants=RECOVER_SOON, hold=["made", "u"])
    child.listen(lambda one: one.writer > 0)
    ballast = place / "ballast"
    ballast.write_bytes(bytes(1000 * (4000 - kilobytes)))
    child.go()
    child.train_until(UPDATES // 2)
    ballast.unlink()
    child.go(UPDATES)
    child.ended()
    return child


@contextmanager
def _tmpfs(place: Path, kilobytes: int) -> Iterator[bool]:
    line = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and subprocess.run(line, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def _warned(child: Child, outcome: TrialTally) -> None:
    """Count a flood of warnings as wrong: one a kind is told, and what was lost at the end."""
    told = [line for line in child.warnings if line.startswith("recorder:")]
    if len(told) > 10:
        outcome.wrong[f"{len(told)} warnings"] += 1


def failing_calls(bench: Bench) -> TrialTally:
    """EIO from each kind of system call, once at the N-th, and from the N-th on for good."""
    calls = ("write", "fsync", "fdatasync", "rename", "close", "openat", "unlink")
    return _injected(bench, calls, "EIO")


def read_only(bench: Bench) -> TrialTally:
    """EROFS, as a file system answers that was remounted read-only: writes, new files, renames and deletions fail."""
    return _injected(bench, ("write", "rename", "unlink", "openat"), "EROFS")


def _injected(bench: Bench, calls: tuple[str, ...], error: str) -> TrialTally:
    if shutil.which("strace") is None:
        return TrialTally(skipped=NO_STRACE)
    outcome, fired = TrialTally(), 0
    for call in calls:
        for where in WHERE if bench.long else bench.random.sample(WHERE, 2):
            for lasting in ("", "+") if bench.long else bench.random.sample(("", "+"), 1):
                for nth in (1, 2, 3, 4, 5, 7, 11, 17, 26) if bench.long else (bench.random.randrange(1, 6),):
                    if (call, where) == ("openat", "all"):
                        break  # that would fail imports of the training, too
                    child = _failing(bench, call, where, f"error={error}:when={nth}{lasting}")
                    if "INJECTED" not in child.errors.with_name("trace").read_text():
                        bench.discard(child, keep=False)
                        break
                    fired += 1
                    label = f"{error} from {call} {nth}{lasting} of {where}"
                    _warned(child, outcome)
                    bench.judge_trained(child, outcome, UPDATES, label, complete=not lasting)
    outcome.notes.append(facts(points=fired))
    return outcome


def _failing(bench: Bench, call: str, where: str, inject: str) -> Child:
    hold = "trained" if where == "trained" else "made"
    child = bench.nursery.start(UPDATES, constants=RECOVER_SOON, hold=[hold])
    child.listen((lambda one: one.sha is not None) if hold == "trained" else (lambda one: one.writer > 0))
    thread = {"writer": child.writer, "sealer": child.sealer}.get(where, child.pid)
    with traced(thread, call, inject, child.errors.with_name("trace"), follow=where == "all"):
        child.go()
        child.ended()
    if (call, where, child.status) == ("write", "all", STREAMS_LOST):
        child.status = 0  # its own stdout and stderr were refused, too: nothing the recorder did
    return child


def short_writes(bench: Bench) -> TrialTally:
    """Writes that reach the disk in part: go on in pieces, or end in an error after half; files that may not grow."""
    outcome = TrialTally()
    for pieces in (1000, 4096):
        harm = {"name": "torn_write", "nth": 10**9, "at_most": pieces}
        child = bench.nursery.run(UPDATES, harm=harm, constants=RECOVER_SOON)
        bench.judge_trained(child, outcome, UPDATES, f"pieces of {pieces}", complete=True)
    for nth in range(1, 80, 1 if bench.long else 17):
        child = bench.nursery.run(UPDATES, harm={"name": "torn_write", "nth": nth}, constants=RECOVER_SOON)
        bench.judge_trained(child, outcome, UPDATES, f"write {nth} torn", complete=True)
    for size in bench.random.sample(range(100, 60_000), bench.trials(3, 40)):
        harm = {"name": "small_files", "at": 4, "until": 14, "bytes": size}
        child = bench.nursery.run(UPDATES, harm=harm, constants=RECOVER_SOON)
        bench.judge_trained(child, outcome, UPDATES, f"files of at most {size} bytes", complete=True)
    return outcome


def taken_away(bench: Bench) -> TrialTally:
    """No descriptor left; the directory deleted; its permission taken from a process without privileges."""
    outcome = TrialTally()
    for until in (14, 10**9):
        harm = {"name": "no_descriptors", "at": 4, "until": until}
        child = bench.nursery.run(UPDATES, harm=harm, constants=RECOVER_SOON)
        _warned(child, outcome)
        bench.judge_trained(child, outcome, UPDATES, f"EMFILE until {until}", complete=until == 14)
    for what in ("attempt deleted", "run deleted"):
        _deleted(bench, outcome, what)
    for mode, back in ((0o555, True), (0o555, False), (0o000, True), (0o000, False)):
        _without_permission(bench, outcome, mode, back=back)
    return outcome


def _deleted(bench: Bench, outcome: TrialTally, what: str) -> None:
    """Nothing is sealed before, so that all that was handed over is gone, and must be counted as such."""
    child = bench.nursery.start(UPDATES, hold=["u"])
    child.train_until(6)
    gone = child.run_dir if what == "run deleted" else next(child.run_dir.glob("rank*/attempt*"))
    while gone.exists():  # the writer may put a file into it meanwhile
        shutil.rmtree(gone, ignore_errors=True)
    child.go(UPDATES)
    child.ended()
    outcome.trials += 1
    if child.status != 0 or child.sha != bench.sha(UPDATES):
        outcome.harmed += 1
    if child.lost != child.handed:
        outcome.wrong[f"{what}: {child.handed} rows handed over, {child.lost} counted as lost"] += 1
    if not any("cannot" in line for line in child.warnings):
        outcome.wrong[f"{what}: no warning"] += 1
    _warned(child, outcome)


def _without_permission(bench: Bench, outcome: TrialTally, mode: int, *, back: bool) -> None:
    uid = NOBODY if os.geteuid() == 0 else None
    child = bench.nursery.start(UPDATES, uid=uid, constants=RECOVER_SOON, hold=["u"])
    child.train_until(6)
    attempt = next(child.run_dir.glob("rank*/attempt*"))
    attempt.chmod(mode)
    child.train_until(UPDATES // 2)
    warned = child.warns()
    if back:
        attempt.chmod(0o755)
    child.go(UPDATES)
    child.ended()
    attempt.chmod(0o755)
    if not warned:
        outcome.wrong[f"mode {mode:03o}: no warning"] += 1
    _warned(child, outcome)
    bench.judge_trained(child, outcome, UPDATES, f"mode {mode:03o}, {back=}", complete=back)


def slow_disk(bench: Bench) -> TrialTally:
    """Each fsync of the sealing thread takes seconds: how long training steps take, with and without."""
    if shutil.which("strace") is None:
        return TrialTally(skipped=NO_STRACE)
    outcome, seconds = TrialTally(), 5.0 if bench.long else 1.0
    updates = 100 if bench.long else 30
    stalls = (("fsync", "sealer"), ("fdatasync", "sealer"), ("write", "writer"))
    for call, where in stalls if bench.long else stalls[:1]:
        times = {}
        for delay in (0.0, seconds):
            constants = SEAL_OFTEN | {"SYNC_SECONDS": 0.1, "SETTLE_SECONDS": SETTLE_SECONDS}
            child = bench.nursery.start(updates, constants=constants, hold=["made"], pace=0.02)
            child.listen(lambda one: one.writer > 0)
            thread = {"writer": child.writer, "sealer": child.sealer}[where]
            inject = f"delay_exit={round(1e6 * delay)}:when={'1..2' if call == 'fsync' else '1'}"
            with traced(thread, call, inject, child.errors.with_name("trace")):
                child.go()
                child.ended()
            times[delay] = child.seconds[1:]
            bench.judge_trained(child, outcome, updates, f"{call} {delay} s", complete=True)
        shown = {}
        for share in (50, 99):
            before, with_delay = (1e3 * percentile(times[delay], share / 100) for delay in (0.0, seconds))
            shown[f"p{share}"] = f"{before:.1f} → {with_delay:.1f} ms"
        longest = f"{1e3 * max(times[0.0]):.1f} → {1e3 * max(times[seconds]):.1f} ms"
        outcome.notes.append(f"{call} {seconds:.0f} s: " + facts(**shown, longest=longest))
        if max(times[seconds]) > max(times[0.0]) + seconds / 4:
            outcome.wrong[f"a step waited for {call}"] += 1
    return outcome
