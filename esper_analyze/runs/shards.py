"""Find the shards of a run by its manifests, and check every one before anybody reads it.

A glob hides damage (a zero-length shard is skipped, a foreign column is cast), so files are never found by one.
"""

from __future__ import annotations

import fcntl
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from esper_analyze.runs.tail import LogFault, Tail, read_logs, tail_of
from esper_analyze.schema import layout
from esper_analyze.schema.arrow import fingerprint
from esper_analyze.schema.frames import Fault
from esper_analyze.schema.layout import ManifestError, ShardEntry
from esper_analyze.schema.tables import BY_NAME

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be trusted, and why."""

    file: Path
    reason: str


@dataclass(slots=True)
class Attempt:
    """One writer's folder: sound shards, what is logged beyond them, what is broken, the clean-close marker if any.

    ``until``: the first update that a later attempt recorded anew; rows from there on are superseded.
    """

    folder: Path
    rank: int
    number: int
    shards: list[tuple[Path, ShardEntry]] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    closed: dict[str, object] | None = None
    tail: Tail = field(default_factory=Tail)
    until: int | None = None

    @property
    def first_update(self) -> int | None:
        """The first update with a row in ``updates``, None when there is none."""
        sealed = [entry.first_update for _, entry in self.shards if entry.table == "updates"]
        logged = self.tail.tables.get("updates")
        return min([*sealed, *(logged["update"].to_pylist() if logged is not None else [])], default=None)

    def alive(self) -> bool:
        """Whether a process holds the writer's lock right now."""
        try:
            with (self.folder / layout.LOCK_FILE).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False


def find_attempts(run_dir: Path) -> list[Attempt]:
    """Return every attempt of every rank under ``run_dir``, each shard checked against the manifest."""
    attempts = []
    for rank_dir in sorted(run_dir.iterdir()):
        rank = layout.rank_of(rank_dir)
        if rank is None or not rank_dir.is_dir():
            continue
        for folder in sorted(rank_dir.iterdir()):
            number = layout.attempt_of(folder)
            if number is not None and folder.is_dir():
                attempts.append(_read_attempt(folder, rank, number))
    _supersede(attempts)
    return attempts


def _supersede(attempts: list[Attempt]) -> None:
    """Note where each attempt was resumed by a later one of its rank."""
    first: dict[int, int] = {}
    for attempt in sorted(attempts, key=lambda one: one.number, reverse=True):
        attempt.until = first.get(attempt.rank)
        began = attempt.first_update
        if began is not None:
            first[attempt.rank] = min(began, first.get(attempt.rank, began))


def _read_attempt(folder: Path, rank: int, number: int) -> Attempt:
    attempt = Attempt(folder, rank, number)
    logs = read_logs(folder)
    torn: list[LogFault] = []
    for entry in _manifest(attempt, torn if logs else None):
        path = folder / entry.shard
        reason = shard_fault(path, entry)
        if reason is None:
            attempt.shards.append((path, entry))
        else:
            attempt.broken.append(Broken(path, reason))
    attempt.shards = _sealed_once(attempt.shards)
    spans: dict[str, list[tuple[int, int]]] = {}
    for _, entry in attempt.shards:
        spans.setdefault(entry.table, []).append((entry.first_seq, entry.last_seq))
    attempt.tail = tail_of(logs, rank, spans)
    attempt.tail.faults += torn
    attempt.broken += [Broken(path, reason) for path, reason in attempt.tail.unusable]
    attempt.broken += [Broken(one.file, one.text) for one in attempt.tail.faults if not one.fault.torn]
    _read_marker(attempt)
    return attempt


def _sealed_once(shards: list[tuple[Path, ShardEntry]]) -> list[tuple[Path, ShardEntry]]:
    """Leave out shards that a later one holds as well: sealed again, because the disk failed in between."""
    kept: list[tuple[Path, ShardEntry]] = []
    for path, one in reversed(shards):
        again = (
            other.table == one.table and other.first_seq <= one.first_seq and one.last_seq <= other.last_seq
            for _, other in kept
        )
        if not any(again):
            kept.append((path, one))
    return kept[::-1]


def _manifest(attempt: Attempt, torn: list[LogFault] | None) -> Iterator[ShardEntry]:
    """Yield the manifest's lines; note in ``torn`` where writing stopped within the last one.

    Without ``torn`` that is damage: a writer deletes its logs only after the line is whole.
    """
    path = attempt.folder / layout.MANIFEST_FILE
    if not path.is_file():
        return
    seen = set()
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        if torn is not None and number == len(lines):
            end = sum(map(len, lines)) + len(lines) - 1
            torn.append(LogFault(path, Fault(end - len(line), end, torn=True, reason="ends within a line")))
            continue
        try:
            entry = ShardEntry.from_line(line)
        except ManifestError as error:
            attempt.broken.append(Broken(path, f"line {number}: {error}"))
            continue
        if entry.shard in seen:
            attempt.broken.append(Broken(path, f"line {number}: {entry.shard} is listed twice"))
            continue
        seen.add(entry.shard)
        yield entry


def shard_fault(path: Path, entry: ShardEntry) -> str | None:
    """Return why the shard at ``path`` is not the one ``entry`` describes, None when it is."""
    table = BY_NAME.get(entry.table)
    if table is None:
        return f"table {entry.table} is not known to this version"
    if entry.schema != fingerprint(table):
        return f"schema {entry.schema} is not the one this version declares for {entry.table}"
    try:
        size = path.stat().st_size
        if size != entry.size:
            return f"has {size} bytes, the manifest says {entry.size}"
        return None if _file_crc(path) == entry.crc32 else "does not match the checksum in the manifest"
    except FileNotFoundError:
        return "is missing, the manifest lists it"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _file_crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


def _read_marker(attempt: Attempt) -> None:
    path = attempt.folder / layout.CLOSED_FILE
    if not path.is_file():
        return
    try:
        marker = json.loads(path.read_bytes())
        tables = {str(name): int(facts["rows"]) for name, facts in marker["tables"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        attempt.broken.append(Broken(path, "is not a clean-close marker"))
        return
    attempt.closed = marker
    for table, rows in tables.items():
        listed = sum(entry.rows for _, entry in attempt.shards if entry.table == table)
        listed += len(attempt.tail.tables.get(table, ()))
        if listed != rows and not attempt.broken:
            attempt.broken.append(Broken(path, f"counts {rows} rows of {table}, the sound shards hold {listed}"))
