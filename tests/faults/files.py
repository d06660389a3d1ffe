"""Rows 11 to 14 and 16: files of a run are cut, flipped, exchanged, deleted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from esper_analyze.errors import EsperError
from esper_analyze.runs.run import open_run
from esper_analyze.schema.tables import TABLES
from esper_analyze.storage import log_frames as frames_module
from esper_analyze.storage.attempts import find_attempts, shard_fault
from esper_analyze.storage.log_frames import MAGIC, frames
from tests.faults.children import ROOT, SEAL_OFTEN, Child
from tests.faults.judge import judged
from tests.faults.outcome import Bench, TrialTally, facts


def _killed(bench: Bench, updates: int) -> Path:
    """Return the run of a training that was killed: a log and no shard."""
    child = bench.nursery.run(updates + 1, harm={"name": "end", "at": updates, "how": "os._exit"})
    return child.run_dir


def _log(run_dir: Path) -> Path:
    return next(run_dir.glob("rank*/attempt*/.wal-*"))


def _starts(data: bytes) -> list[int]:
    """Return where each frame of a sound log begins, and where the last one ends."""
    starts = [len(MAGIC)]
    while starts[-1] < len(data):
        _, length, _ = frames_module._HEADER.unpack_from(data, starts[-1])
        starts.append(starts[-1] + frames_module._HEADER.size + length)
    return starts


def cut_logs(bench: Bench) -> TrialTally:
    """The log is cut at every byte of its last three frames: exactly the frames before the cut, and a torn tail."""
    outcome = TrialTally()
    run_dir = _killed(bench, 6)
    log = _log(run_dir)
    whole = log.read_bytes()
    starts = _starts(whole)
    for cut in range(starts[-4], len(whole), 1 if bench.long else 41):
        found, faults = frames(whole[:cut])
        expected = sum(start <= cut for start in starts[1:])
        outcome.trials += 1
        if len(found) != expected or [fault.torn for fault in faults] != [True] * (cut not in starts):
            outcome.wrong[f"cut at {cut}: {len(found)} of {expected} frames, {faults}"] += 1
    opened = starts[-4:] + bench.random.sample(range(starts[-4], len(whole)), bench.trials(20, 300))
    for cut in opened:
        log.write_bytes(whole[:cut])
        expected = sum(start <= cut for start in starts[1:])
        verdict = judged(run_dir, bench.twin, expected)
        if verdict.torn != (cut not in starts):
            verdict.wrong.append("torn tail not told")
        outcome.add(verdict, f"run cut at {cut}")
    outcome.notes.append(facts(opened_as_runs=len(opened)))
    return outcome


def flipped_logs(bench: Bench) -> TrialTally:
    """One bit of the log is wrong: a fault that names bytes around it, and every other frame untouched."""
    outcome, torn = TrialTally(), 0
    run_dir = _killed(bench, 12)
    log = _log(run_dir)
    whole = log.read_bytes()
    starts, sound = _starts(whole), len(frames(whole)[0])
    for trial in range(bench.trials(200, 1000)):
        at = trial if trial < len(MAGIC) else bench.random.randrange(len(whole))
        harmed = bytearray(whole)
        harmed[at] ^= 1 << bench.random.randrange(8)
        found, faults = frames(bytes(harmed))
        outcome.trials += 1
        if not any(fault.start <= at < fault.stop for fault in faults):
            outcome.wrong[f"a flip at {at} not told"] += 1
        lost = sound - len(found)
        if lost > (at >= len(MAGIC)):  # a flip in the file's first bytes costs no frame
            outcome.wrong[f"a flip of byte {'of the magic' if at < len(MAGIC) else at} cost {lost} frames"] += 1
        torn += any(fault.torn for fault in faults)
        if trial % 20 == 0:
            _told(outcome, log, bytes(harmed), torn_tail=at >= starts[-2])
    log.write_bytes(whole)
    outcome.notes.append(facts(in_the_last_frame_told_as_torn_tail=torn))
    return outcome


def _told(outcome: TrialTally, log: Path, harmed: bytes, *, torn_tail: bool) -> None:
    """Count as wrong when the run with such a log is opened as if nothing were."""
    log.write_bytes(harmed)
    run_dir = log.parents[2]
    try:
        run = open_run(run_dir)
    except EsperError as error:
        if log.name not in error.message or "bytes" not in error.message:
            outcome.wrong[f"refused without a position: {error.message}"] += 1
    else:
        if not (torn_tail and run.torn):
            outcome.wrong["opened in silence"] += 1


def _sealed(bench: Bench) -> Child:
    return bench.nursery.run(12, constants=SEAL_OFTEN)


def flipped_shards(bench: Bench) -> TrialTally:
    """One bit of a shard is wrong, in its data and in its footer: found before anything is decoded."""
    outcome = TrialTally()
    child = _sealed(bench)
    shards = find_attempts(child.run_dir)[0].shards
    for part in ("data", "footer"):
        for trial in range(bench.trials(100, 1000)):
            path, entry = bench.random.choice(shards)
            whole = path.read_bytes()
            footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
            at = bench.random.randrange(footer) if part == "data" else bench.random.randrange(footer, len(whole))
            harmed = bytearray(whole)
            harmed[at] ^= 1 << bench.random.randrange(8)
            path.write_bytes(harmed)
            outcome.trials += 1
            if shard_fault(path, entry) is None:
                outcome.wrong[f"a flip in the {part} of {path.name} not found"] += 1
            if trial % 50 == 0:
                _named(bench, outcome, child.run_dir, [path], f"flip in the {part}")
            path.write_bytes(whole)
    bench.discard(child, keep=not outcome.met)
    return outcome


Harm = Callable[[Path, Path], list[Path]]
"""Harms a shard, with another one at hand; returns the files that must be named."""


def _swap(one: Path, other: Path) -> list[Path]:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return [one, other]


def _deleted(one: Path, _: Path) -> list[Path]:
    one.unlink()
    return [one]


def _emptied(one: Path, _: Path) -> list[Path]:
    one.write_bytes(b"")
    return [one]


def _halved(one: Path, _: Path) -> list[Path]:
    one.write_bytes(one.read_bytes()[: one.stat().st_size // 2])
    return [one]


def _one_byte_more(one: Path, _: Path) -> list[Path]:
    one.write_bytes(one.read_bytes() + b"\0")
    return [one]


def _a_directory(one: Path, _: Path) -> list[Path]:
    one.unlink()
    one.mkdir()
    return [one]


def _duplicated(one: Path, _: Path) -> list[Path]:
    shutil.copy(one, one.with_name(one.name[:-14] + "000099.parquet"))
    return []


def _listed_twice(one: Path, _: Path) -> list[Path]:
    manifest = one.with_name("manifest.jsonl")
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join([*lines, *(line for line in lines if one.name.encode() in line)]))
    return [manifest]


HARMS: dict[str, Harm] = {
    "zero length": _emptied,
    "half": _halved,
    "one byte more": _one_byte_more,
    "missing": _deleted,
    "a directory": _a_directory,
    "swapped": _swap,
    "duplicated": _duplicated,
    "listed twice": _listed_twice,
}


def broken_shards(bench: Bench) -> TrialTally:
    """Shards empty, cut, missing, swapped, duplicated: each named, all others read as before."""
    outcome = TrialTally()
    child = _sealed(bench)
    names = [path.relative_to(child.run_dir) for path, _ in find_attempts(child.run_dir)[0].shards]
    for label, harm in HARMS.items():
        for name in names if bench.long else bench.random.sample(names, 4):
            copy = child.run_dir.with_name("copy")
            shutil.copytree(child.run_dir, copy)
            other = next(one for one in names[::-1] if one != name)
            outcome.trials += 1
            _named(bench, outcome, copy, harm(copy / name, copy / other), label)
            shutil.rmtree(copy)
    bench.discard(child, keep=not outcome.met)
    return outcome


def _named(bench: Bench, outcome: TrialTally, run_dir: Path, bad: list[Path], label: str) -> None:
    """The run is refused by the name of a bad file; without these files the others are read as the twin has them."""
    if bad:
        try:
            open_run(run_dir)
            outcome.wrong[f"{label}: opened in silence"] += 1
        except EsperError as error:
            if not any(path.name in error.message for path in bad):
                outcome.wrong[f"{label}: {error.message}"] += 1
    run = open_run(run_dir, skip_broken=True)
    named = {broken.file for broken in run.broken if broken.file.name != "closed.json"}
    if named != set(bad):
        outcome.wrong[f"{label}: named are {sorted(path.name for path in named)}"] += 1
    hurt = {path.name[:-15] for path in bad}
    for table in TABLES:
        whole = bench.twin.frames[table.name].filter(bench.twin.frames[table.name]["update"] < 12)
        if table.name not in hurt and len(run.frame(table.name)) != len(whole):
            outcome.wrong[f"{label}: {table.name} has other rows than before"] += 1


def one_bad_run(bench: Bench) -> TrialTally:
    """One damaged run among a hundred: the others are listed, the exit code is 3, and each good one has its report."""
    outcome = TrialTally()
    child = _sealed(bench)
    place, runs = child.run_dir.parent / "hundred", bench.trials(100, 100)
    for number in range(runs):
        shutil.copytree(child.run_dir, place / f"run{number:03d}")
    bad = bench.random.randrange(runs)
    shard = next((place / f"run{bad:03d}").glob("rank*/attempt*/updates-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-9])
    listed = _command("ls", place, "--wide")
    outcome.trials += 1
    if listed.returncode != 3 or "1 of 100 runs" not in listed.stderr or listed.stdout.count("run0") < 99:
        outcome.wrong[f"ls: exit {listed.returncode}, {listed.stderr.strip()}"] += 1
    if shard.name not in listed.stdout:
        outcome.wrong["ls does not name the damaged file"] += 1
    for number in {bad, (bad + 1) % runs} | set(range(0, runs, bench.trials(100, 20))):
        done = _command("report", place / f"run{number:03d}", "--out", place / f"page{number}")
        outcome.trials += 1
        if done.returncode != (3 if number == bad else 0):
            outcome.wrong[f"report of a {'bad' if number == bad else 'good'} run: exit {done.returncode}"] += 1
    bench.discard(child, keep=not outcome.met)
    return outcome


def _command(*words: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    line = [sys.executable, "-m", "esper_analyze.cli", *map(str, words)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
