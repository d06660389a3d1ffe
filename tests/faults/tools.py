"""Row 4: ``repair`` and ``compact`` are killed at each of their system calls, and run again."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from esper_analyze.errors import EsperError
from esper_analyze.runs.run import open_run
from esper_analyze.schema import TABLES
from esper_analyze.storage.layout import LOCK_FILE, MANIFEST_FILE
from tests.faults.children import SEAL_OFTEN, Child
from tests.faults.kills import NO_STRACE
from tests.faults.mending import Mender
from tests.faults.outcome import Bench, TrialTally, facts

CALLS = ("rename", "unlink", "mkdir", "fsync", "ftruncate", "flock", "write", "openat", "close")
KILLED = -9
UPDATES = 10

Frames = dict[str, pl.DataFrame]


@dataclass
class Subject:
    """A run to work on, what readers see of it before and after nobody disturbed the work, and its files then."""

    name: str
    what: str
    run_dir: Path
    before: Frames
    after: Frames
    wanted: dict[str, bytes]
    calls: Counter[str]


def killed_tools(bench: Bench) -> TrialTally:
    """SIGKILL at each system call of a repair or compaction; readers see what they saw, and the next comes to the same.

    Locks are taken over from the killed ones: the next finds no lock held.
    """
    if shutil.which("strace") is None:
        return TrialTally(skipped=NO_STRACE)
    outcome, mender = TrialTally(), Mender()
    try:
        for subject in _subjects(bench, mender):
            points = [(call, nth) for call in CALLS for nth in range(1, subject.calls[call] + 1)]
            for call, nth in points if bench.long else bench.random.sample(points, 6):
                _kill(bench, outcome, mender, subject, call, nth)
            outcome.notes.append(facts(work=f"{subject.what} of a {subject.name} run", points=len(points)))
    finally:
        mender.close()
    return outcome


def sealed_and_killed(bench: Bench, updates: int) -> Child:
    """Return a training that ended in the middle, with shards of its first updates and a log of its last."""
    ended, often = {"name": "end", "at": updates, "how": "os._exit"}, SEAL_OFTEN | {"SEAL_UPDATES": 4}
    for pace in (0.05, 0.2, 1.0):  # a busy machine seals late
        child = bench.nursery.run(updates + 1, harm=ended, constants=often, pace=pace)
        if next(child.run_dir.rglob(MANIFEST_FILE), None) is not None:
            return child
    raise RuntimeError("nothing was sealed in many seconds")


def _subjects(bench: Bench, mender: Mender) -> list[Subject]:
    place = bench.scratch / "tools"
    closed = bench.nursery.run(UPDATES, constants=SEAL_OFTEN).run_dir
    killed = sealed_and_killed(bench, UPDATES).run_dir
    harmed = Path(shutil.copytree(killed, place / "harmed"))
    _harm(harmed)
    made = [("killed", "repair", killed), ("harmed", "repair", harmed), ("closed", "compact", closed)]
    return [_undisturbed(mender, place, *one) for one in made]


def _harm(run_dir: Path) -> None:
    """Flip a bit of a shard, tear the log's tail, spoil the manifest's last line."""
    shard = next(run_dir.glob("rank*/attempt*/heads-*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    log = sorted(run_dir.glob("rank*/attempt*/.wal-*"))[-1]
    log.write_bytes(log.read_bytes()[:-5])
    manifest = shard.with_name("manifest.jsonl")
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b'"rows": ', b'"rows": 1')]))


def _undisturbed(mender: Mender, place: Path, name: str, what: str, run_dir: Path) -> Subject:
    whole, log = place / f"{name}-whole", place / f"{name}-calls"
    shutil.copytree(run_dir, whole)
    status = mender.work(what, whole, ",".join(CALLS), "delay_enter=1:when=1", log)
    if status != 0:
        raise RuntimeError(f"{what} of the {name} run ended with {status} though nobody disturbed it")
    calls = Counter(re.findall(r"^([a-z]+)\(", log.read_text(), re.MULTILINE))
    return Subject(name, what, run_dir, _frames(run_dir), _frames(whole), _files(whole), calls)


def _kill(bench: Bench, outcome: TrialTally, mender: Mender, subject: Subject, call: str, nth: int) -> None:
    label = f"{subject.what} of a {subject.name} run killed at {call} {nth}"
    copy = bench.scratch / "tools" / "copy"
    shutil.copytree(subject.run_dir, copy)
    status = mender.work(subject.what, copy, call, f"signal=KILL:when={nth}", copy.with_name("trace"))
    outcome.trials += 1
    if status != KILLED:
        outcome.wrong[f"{label}: not killed, exit {status}"] += 1
    _compare(outcome, label, copy, subject)
    if bench.long and nth % 3 == 0:  # whoever comes next is killed, too
        mender.work(subject.what, copy, call, f"signal=KILL:when={1 + nth // 2}", copy.with_name("trace"))
        _compare(outcome, f"{label}, then again", copy, subject)
    status = mender.work(subject.what, copy)
    if status != 0:
        outcome.wrong[f"{label}: run again it ends with {status}"] += 1
    left = _files(copy)
    if left != subject.wanted:
        other = sorted(name for name in left.keys() | subject.wanted if left.get(name) != subject.wanted.get(name))
        outcome.wrong[f"{label}: run again it comes to other files: {', '.join(other[:3])}"] += 1
    shutil.rmtree(copy)


def _compare(outcome: TrialTally, label: str, run_dir: Path, subject: Subject) -> None:
    """Readers see in between what they saw before, or what they will see afterwards."""
    try:
        now = _frames(run_dir)
    except EsperError as error:
        outcome.wrong[f"{label}: readers are refused: {error.message}"] += 1
        return
    for name, before in subject.before.items():
        outcome.lost += max(len(before) - len(now[name]), 0)
        if not any(now[name].equals(one, null_equal=True) for one in (before, subject.after[name])):
            outcome.wrong[f"{label}: readers see {len(now[name])} rows of {name}, before {len(before)}"] += 1


def _frames(run_dir: Path) -> Frames:
    run = open_run(run_dir, skip_broken=True)
    return {table.name: run.frame(table.name) for table in TABLES}


def _files(run_dir: Path) -> dict[str, bytes]:
    found = [path for path in run_dir.rglob("*") if path.is_file() and path.name != LOCK_FILE]
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in found}
