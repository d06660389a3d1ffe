"""Row 15: the manifest is lost, cut, edited; the run says so, and is made whole from the footers of its shards."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import polars as pl

from esper_analyze.errors import EsperError
from esper_analyze.runs.run import open_run
from esper_analyze.schema import TABLES
from esper_analyze.storage.layout import MANIFEST_FILE, ShardEntry
from esper_analyze.storage.maintenance.repair import repair
from esper_analyze.storage.maintenance.verify import verify
from tests.faults.children import SEAL_OFTEN
from tests.faults.outcome import Bench, TrialTally, facts
from tests.faults.tools import sealed_and_killed

UPDATES = 7
BYTES = (b"0", b"9", b"-", b".", b"a", b"_", b'"', b"\\", b"{", b"}", b"[", b":", b",", b" ", b"\n", b"\0", b"\xff")
"""One of each class of bytes that JSON, UTF-8 and the line take differently."""

Frames = dict[str, pl.DataFrame]
T = TypeVar("T")
Harm = tuple[str, bytes | None, bool]
"""What was done, the manifest afterwards (None: it is gone), whether every line vouches for itself all the same."""


def manifests(bench: Bench) -> TrialTally:
    """Lost, cut, edited, forged: named, or harmless; after ``repair`` every row is there and the run unverified."""
    outcome, told = TrialTally(), {"named": 0, "harmless": 0, "by_verify_only": 0}
    often = SEAL_OFTEN | {"SEAL_UPDATES": 4}
    closed = bench.nursery.run(UPDATES, constants=often, pace=0.05)
    for name, child in (("closed", closed), ("killed", sealed_and_killed(bench, UPDATES))):
        clean = _frames(child.run_dir)
        path = next(child.run_dir.rglob(MANIFEST_FILE))
        for label, content, forged in _harms(bench, path.read_bytes()):
            copy = Path(shutil.copytree(child.run_dir, child.run_dir.with_name("copy")))
            manifest = copy / path.relative_to(child.run_dir)
            manifest.unlink() if content is None else manifest.write_bytes(content)
            outcome.trials += 1
            told[_judge(outcome, f"{name} run, {label}", copy, clean, forged=forged)] += 1
            shutil.rmtree(copy)
        bench.discard(child, keep=not outcome.met)
    outcome.notes.append(facts(**told))
    return outcome


def _harms(bench: Bench, whole: bytes) -> Iterator[Harm]:
    lines = whole.splitlines(keepends=True)
    yield "lost", None, False
    yield "emptied", b"", False
    for cut in bench.random.sample(range(1, len(whole)), bench.trials(3, 150)):
        yield f"cut at {cut}", whole[:cut], False
    for number in _some(bench, range(len(lines)), 1):
        rest = [*lines[:number], *lines[number + 1 :]]
        yield f"line {number} gone", b"".join(rest), False
        yield f"line {number} twice", b"".join([*lines, lines[number]]), False
        yield f"line {number} last", b"".join([*rest, lines[number]]), False
        yield f"line {number} of zeros", whole.replace(lines[number], b"\0" * len(lines[number])), False
        for byte in _some(bench, BYTES, 3):
            at = bench.random.randrange(len(lines[number]) - 1)
            edited = lines[number][:at] + byte + lines[number][at + 1 :]
            yield f"line {number} byte {at} is {byte!r}", whole.replace(lines[number], edited), False
        for field, value, line in _some(bench, list(_forged(lines, number)), 3):
            yield f"line {number} forged, {field} {value!r}", whole.replace(lines[number], line), True


def _some(bench: Bench, among: Sequence[T], count: int) -> list[T]:
    """Return all of ``among``; in the short version ``count`` of them."""
    return list(among) if bench.long else bench.random.sample(list(among), min(count, len(among)))


def _forged(lines: list[bytes], number: int) -> Iterator[tuple[str, object, bytes]]:
    """Yield a line with one fact changed and a checksum that is right again."""
    entry, other = (ShardEntry.from_line(lines[n]) for n in (number, number - 1))
    for item in dataclasses.fields(ShardEntry):
        now = getattr(entry, item.name)
        values = [getattr(other, item.name)] if isinstance(now, str) else [now + 1, 0, -1, 2**63, 2**70]
        for value in values if item.name != "rebuilt" else [not now]:
            if value != now:
                facts = dataclasses.asdict(entry) | {item.name: value}
                yield item.name, value, ShardEntry(**facts).as_line()


def _judge(outcome: TrialTally, label: str, run_dir: Path, clean: Frames, *, forged: bool) -> str:
    """Count what is wrong; return how the harm was told."""
    told = _told(outcome, label, run_dir, clean)
    if told == "by_verify_only" and not forged:
        outcome.wrong[f"{label}: readers do not name it"] += 1
    repair(run_dir)
    left, damage = _frames(run_dir), verify(run_dir).damage
    if damage:
        outcome.wrong[f"{label}: damaged after repair: {damage[0].file} {damage[0].reason}"] += 1
    if not forged and not _same(left, clean):
        outcome.lost += sum(max(len(clean[name]) - len(left[name]), 0) for name in clean)
        outcome.wrong[f"{label}: other rows after repair"] += 1
    if not forged and told == "named" and "twice" not in label and not open_run(run_dir).unverified:
        outcome.wrong[f"{label}: not called unverified"] += 1
    return told


def _told(outcome: TrialTally, label: str, run_dir: Path, clean: Frames) -> str:
    try:
        same = _same(_frames(run_dir), clean)
    except EsperError as error:
        if not any(name in error.message for name in (MANIFEST_FILE, ".parquet")):
            outcome.wrong[f"{label}: refused without a file: {error.message}"] += 1
        return "named"
    told = "by_verify_only" if verify(run_dir).damage else "harmless"
    if not same:
        outcome.wrong[f"{label}: other rows in silence, {told}"] += 1
    return told


def _frames(run_dir: Path) -> Frames:
    run = open_run(run_dir)
    return {table.name: run.frame(table.name) for table in TABLES}


def _same(one: Frames, other: Frames) -> bool:
    return all(one[name].equals(other[name], null_equal=True) for name in one)
