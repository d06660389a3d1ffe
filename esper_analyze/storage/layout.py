"""Names on disk and lines of the manifest, shared by writer and reader.

A name from outside never becomes a path: folders are numbers and random hex, shards are table and number.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

RUN_FILE = "run.json"
MANIFEST_FILE = "manifest.jsonl"
CLOSED_FILE = "closed.json"
REPAIRED = "repaired"
"""The reason in a clean-close marker that ``repair`` wrote for a run whose writer was dead."""
LOCK_FILE = ".lock"
RESERVE_FILE = ".reserve"
"""Reserves space while a run is written, so that on a full disk ``CLOSED_FILE`` can still be written."""
BOX_RING_FILE = ".box.ring"
"""Updates on their way from the training to the process beside it that records them."""
BOX_STATE_FILE = ".box.state"
"""The state from which another such process could continue."""
BOX_SETUP_FILE = ".box.setup"
"""What such a process begins with; it removes the file."""
BOX_FILES = (BOX_RING_FILE, BOX_STATE_FILE, BOX_SETUP_FILE)
JOURNAL_FILE = ".journal.json"
"""The change that an interrupted repair or compaction had committed; see ``storage.maintenance.journal``."""
STAGED = ".staged-"
"""Prefix of files that repair and compaction have written and not yet moved into place."""
ASIDE = "set-aside"
"""Folder within an attempt for files that repair removed from the run: nothing is deleted."""
CHECKPOINTS_FILE = "checkpoints.jsonl"
"""The checkpoints that a training told of, in an attempt's folder; missing without any."""
ENDED_FILE = "ended.json"
"""How a training died that did not close its recording, written by the process beside it."""
STALLED_FILE = "stalled.json"
"""Since when a living training has stored nothing; there only as long as that lasts."""
FAULT_FILE = "fatal_signal.txt"
"""The Python traceback of a fatal signal; empty while there is none, and removed at a clean close."""
ENDING_FILES = (ENDED_FILE, STALLED_FILE, FAULT_FILE)
LABELS_FILE = "labels.toml"

_RANK = re.compile(r"rank(\d{5})\Z")
_ATTEMPT = re.compile(r"attempt-(\d{4})-[0-9a-f]{8}\Z")
_LOG = re.compile(r"\.wal-(\d{6,})\Z")
_SHARD = re.compile(r"([a-z_]+)-(\d{6,})\.parquet\Z")


def rank_folder(rank: int) -> str:
    """Return the folder name of one process's data."""
    return f"rank{rank:05d}"


def attempt_folder(attempt: int, token: str) -> str:
    """Return the folder name of one writer; ``token`` is 8 hex digits."""
    return f"attempt-{attempt:04d}-{token}"


def shard_name(table: str, number: int) -> str:
    """Return the file name of a sealed shard; shards sealed together share their number."""
    return f"{table}-{number:06d}.parquet"


def log_name(number: int) -> str:
    """Return the file name of a write-ahead log."""
    return f".wal-{number:06d}"


def log_of(name: str) -> int | None:
    """Return the number of a write-ahead log's file name, None for any other name."""
    match = _LOG.match(name)
    return int(match[1]) if match else None


def rank_of(folder: Path) -> int | None:
    """Return the rank a folder belongs to, None for any other folder."""
    match = _RANK.match(folder.name)
    return int(match[1]) if match else None


def attempt_of(folder: Path) -> int | None:
    """Return the attempt a folder holds, None for any other folder."""
    match = _ATTEMPT.match(folder.name)
    return int(match[1]) if match else None


def shard_of(name: str) -> tuple[str, int] | None:
    """Return (table, number) of a shard's file name, None for any other name."""
    match = _SHARD.match(name)
    return (match[1], int(match[2])) if match else None


class ManifestError(ValueError):
    """A manifest line that is torn, edited or malformed; the message says which."""


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One line of the manifest: a sealed shard, its length, CRC-32 and what is in it.

    ``rebuilt``: the line was derived from the shard after the original line was lost, so its checksum proves nothing
    about what the recorder had written.
    """

    shard: str
    table: str
    number: int
    size: int
    crc32: int
    rows: int
    first_seq: int
    last_seq: int
    first_update: int
    last_update: int
    schema: str
    rebuilt: bool = False

    def as_line(self) -> bytes:
        """Return the line, newline included; its own CRC-32 is its last field."""
        facts = asdict(self)
        if not self.rebuilt:
            del facts["rebuilt"]
        return json.dumps({**facts, "crc": _crc(facts)}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> ShardEntry:
        """Read one line. Raises ``ManifestError`` when it is not exactly what ``as_line`` wrote."""
        try:
            facts = json.loads(line)
            crc = facts.pop("crc")
            entry = cls(**facts)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ManifestError(f"torn or malformed line ({type(error).__name__})") from error
        if crc != _crc(facts):
            raise ManifestError("line does not match its own checksum")
        if not all(type(facts[name]) is kind for name, kind in _KINDS.items()):
            raise ManifestError("line has a field of the wrong type")
        if shard_of(entry.shard) != (entry.table, entry.number):
            raise ManifestError(f"line names the impossible shard {entry.shard!r}")
        return entry


_WORDS = ("shard", "table", "schema")
_KINDS = {item.name: str if item.name in _WORDS else int for item in fields(ShardEntry) if item.name != "rebuilt"}


def _crc(facts: dict[str, object]) -> int:
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())


def manifest_entries(content: bytes) -> Iterator[tuple[int, ShardEntry | ManifestError]]:
    """Yield each line's number in a manifest and its entry, or why it has none."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line:
            try:
                yield number, _entry_of(line)
            except ManifestError as error:
                yield number, error


@lru_cache(maxsize=16_384)
def _entry_of(line: bytes) -> ShardEntry:
    """Parse one manifest line; cached, because a run that is opened every second has the same lines each time."""
    return ShardEntry.from_line(line)
