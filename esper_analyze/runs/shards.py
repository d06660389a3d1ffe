"""Find the shards of a run by its manifests, and check every one before anybody reads it.

A glob hides damage (a zero-length shard is skipped, a foreign column is cast), so files are never found by one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from esper_analyze.schema import layout
from esper_analyze.schema.arrow import fingerprint
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
    """One writer's folder: its sound shards, what is broken, and its clean-close marker if there is one."""

    folder: Path
    rank: int
    number: int
    shards: list[tuple[Path, ShardEntry]] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    closed: dict[str, object] | None = None


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
    return attempts


def _read_attempt(folder: Path, rank: int, number: int) -> Attempt:
    attempt = Attempt(folder, rank, number)
    for entry in _manifest(attempt):
        path = folder / entry.shard
        reason = shard_fault(path, entry)
        if reason is None:
            attempt.shards.append((path, entry))
        else:
            attempt.broken.append(Broken(path, reason))
    _read_marker(attempt)
    return attempt


def _manifest(attempt: Attempt) -> Iterator[ShardEntry]:
    path = attempt.folder / layout.MANIFEST_FILE
    if not path.is_file():
        return
    seen = set()
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
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
        if listed != rows and not attempt.broken:
            attempt.broken.append(Broken(path, f"counts {rows} rows of {table}, the sound shards hold {listed}"))
