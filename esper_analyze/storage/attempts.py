"""Find the shards of a run by its manifests, and check each before it is read.

Files are never found by a glob, which hides damage: a zero-length shard is skipped, a foreign column is cast.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import layout, verified_cache
from esper_analyze.storage.folders import attempt_folders, listed
from esper_analyze.storage.footer import footer_fault, unknown_table
from esper_analyze.storage.footer_crash_check import probe
from esper_analyze.storage.layout import ManifestError, ShardEntry
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.lock import is_held
from esper_analyze.storage.log_frames import FrameFault
from esper_analyze.storage.log_tail import LogFault, Spans, Tail, read_logs, tail_of
from esper_analyze.storage.run_files import RefusedFileError, is_regular, open_file, read_file, why_unreadable

_BLOCK = 1 << 20
_READ_AGAIN = 5


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be trusted, and why; the manifest's ``entry`` of it and the ``rows`` missing, where known."""

    file: Path
    reason: str
    entry: ShardEntry | None = None
    rows: int | None = None


Check = Callable[[Path, ShardEntry], str | None]
"""Returns why a shard with a right checksum is unusable all the same; None when it is usable."""


@dataclass(slots=True)
class Attempt:
    """One writer's folder: sound shards, what is logged beyond them, what is broken, the clean-close marker if any.

    ``until``: the first update that a later attempt recorded again; rows from there on are superseded.
    """

    folder: Path
    rank: int
    number: int
    shards: list[tuple[Path, ShardEntry]] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    closed: dict[str, object] | None = None
    tail: Tail = field(default_factory=Tail)
    until: int | None = None
    leftover: list[Path] = field(default_factory=list)
    """Shards that no manifest lists and whose rows are elsewhere: left by an interrupted seal or compaction."""

    @property
    def first_update(self) -> int | None:
        """The first update with a row in ``updates``; None without such rows."""
        sealed = [entry.first_update for _, entry in self.shards if entry.table == "updates"]
        logged = self.tail.tables.get("updates")
        return min([*sealed, *(logged["update"].to_pylist() if logged is not None else [])], default=None)

    @property
    def lost_rows(self) -> int:
        """Rows in no sound shard and no log: the writer's own count where it closed, else gaps in sequence numbers.

        Without a count, gaps that a damaged file or a living writer explains are not lost rows.
        """
        if self.closed is not None:
            return int(str(self.closed.get("lost_rows", 0)))
        if self.broken or self.alive():
            return self.tail.misfits
        entries, logged_tables = [entry for _, entry in self.shards], self.tail.tables.values()
        end = max([self.tail.end, *(entry.last_seq + 1 for entry in entries)])
        count = sum(entry.rows for entry in entries) + sum(map(len, logged_tables))
        return max(end - count, self.tail.misfits)

    def alive(self) -> bool:
        """Whether a process holds the writer's lock right now."""
        return is_held(self.folder / layout.LOCK_FILE) or False


def find_attempts(run_dir: Path) -> list[Attempt]:
    """Return every attempt of every rank under ``run_dir``, each shard checked against the manifest."""
    attempts = [read_attempt(folder.path, folder.rank, folder.number) for folder in attempt_folders(run_dir)]
    _leave_out_twins(attempts)
    supersede(attempts)
    return attempts


def _leave_out_twins(attempts: list[Attempt]) -> None:
    """Drop the rows of an attempt whose number another of the rank has: a recorder never uses a number twice."""
    for attempt, other in twins(attempts):
        attempt.shards, attempt.tail = [], Tail()
        attempt.broken.insert(0, Broken(attempt.folder, twin_fault(attempt, other)))


def twins(attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, Attempt]]:
    """Yield each attempt whose number an earlier one of its rank has, and that one."""
    first: dict[tuple[int, int], Attempt] = {}
    for attempt in attempts:
        other = first.setdefault((attempt.rank, attempt.number), attempt)
        if other is not attempt:
            yield attempt, other


def twin_fault(attempt: Attempt, other: Attempt) -> str:
    """Return the error for two attempts of one rank with the same number."""
    words = f"is attempt {attempt.number} of rank {attempt.rank}, and so is {other.folder.name}"
    return f"{words}: one of them is of another run, move it away"


class Resumed(Protocol):
    """What is known of an attempt when it is put in order with the later ones of its rank."""

    rank: int
    number: int
    until: int | None

    @property
    def first_update(self) -> int | None:
        """The first update with a row in ``updates``; None without such rows."""


def supersede(attempts: Iterable[Resumed]) -> None:
    """Set each attempt's ``until`` to the update from which a later attempt of its rank resumed."""
    first: dict[int, int] = {}
    for attempt in sorted(attempts, key=lambda attempt: attempt.number, reverse=True):
        attempt.until = first.get(attempt.rank)
        began = attempt.first_update
        if began is not None:
            first[attempt.rank] = min(began, first.get(attempt.rank, began))


def read_attempt(folder: Path, rank: int, number: int, check: Check | None = None) -> Attempt:
    """Read one writer's folder. ``check`` may examine each shard that passed the checks so far.

    Files that look broken because a writer changed them during the read are read again.
    """
    for _ in range(_READ_AGAIN):
        before = _stamp(folder)
        attempt = _read_once(folder, rank, number, check)
        if not attempt.broken or _stamp(folder) == before:
            break
    return attempt


def _stamp(folder: Path) -> tuple[bytes, bool]:
    """Return what differs after a folder was written to or compacted: its manifest, and whether it is closed."""
    try:
        lines = read_file(folder / layout.MANIFEST_FILE, LARGEST_TEXT)
    except OSError:
        lines = b""
    return lines, is_regular(folder / layout.CLOSED_FILE)


def _read_once(folder: Path, rank: int, number: int, check: Check | None) -> Attempt:
    attempt = Attempt(folder, rank, number)
    listed(folder)
    logs = read_logs(folder)
    torn: list[LogFault] = []
    entries = list(_manifest(attempt, torn if logs else None))
    for entry in _written_again(entries):
        path = folder / entry.shard
        reason = _remembered_fault(path, entry) if check is None else shard_fault(path, entry) or check(path, entry)
        if reason is None:
            attempt.shards.append((path, entry))
        else:
            attempt.broken.append(Broken(path, reason, entry))
    _leave_out_overlaps(attempt)
    spans: dict[str, list[tuple[int, int]]] = {}
    for _, entry in attempt.shards:
        spans.setdefault(entry.table, []).append((entry.first_seq, entry.last_seq))
    attempt.tail = tail_of(logs, rank, spans)
    attempt.tail.faults += torn
    attempt.broken += [Broken(path, reason) for path, reason in attempt.tail.unusable]
    attempt.broken += [
        Broken(fault.file, fault.text, rows=fault.missing) for fault in attempt.tail.faults if not fault.fault.torn
    ]
    _read_marker(attempt)
    _look_for_unlisted(attempt, spans, {entry.shard for entry in entries})
    attempt.broken.sort(key=lambda broken: broken.file.name == layout.CLOSED_FILE)  # its counts follow from the others
    return attempt


def _remembered_fault(path: Path, entry: ShardEntry) -> str | None:
    """Return the shard's fault; a shard that was sound and has not changed since is not checked again."""
    mark = verified_cache.stamp_of(path, entry)
    if verified_cache.is_sound(path, mark):
        return None
    reason = shard_fault(path, entry)
    if reason is None:
        verified_cache.remember(path, mark)
    return reason


def _written_again(entries: list[ShardEntry]) -> list[ShardEntry]:
    """Return ``entries`` without those whose rows were written once more: a disk that failed late was not trusted."""
    newest: dict[tuple[str, int], ShardEntry] = {}
    for entry in sorted(entries, key=lambda entry: entry.number):
        newest[entry.table, entry.first_seq] = entry
    return [
        entry
        for entry in entries
        if newest[entry.table, entry.first_seq].last_seq < entry.last_seq
        or newest[entry.table, entry.first_seq] is entry
    ]


def _leave_out_overlaps(attempt: Attempt) -> None:
    """Move to ``broken`` each shard whose sequence numbers overlap those of another sound shard of its table."""
    last: dict[str, ShardEntry] = {}
    for path, entry in sorted(attempt.shards, key=lambda shard: (shard[1].first_seq, shard[1].number)):
        other = last.get(entry.table)
        if other is None or other.last_seq < entry.first_seq:
            last[entry.table] = entry
        else:
            attempt.shards.remove((path, entry))
            reason = f"holds rows {entry.first_seq:,}–{entry.last_seq:,}, and so does {other.shard} in part"
            attempt.broken.append(Broken(path, reason, entry))


def _look_for_unlisted(attempt: Attempt, spans: Spans, listed: set[str]) -> None:
    """Report shards that the manifest does not list: rows stored only there must not be skipped in silence."""
    unlisted = [path for path in sorted(attempt.folder.iterdir()) if layout.shard_of(path.name)]
    unlisted = [path for path in unlisted if path.name not in listed]
    if not unlisted or attempt.alive():
        return
    complete = attempt.closed is not None and not attempt.broken
    before = len(attempt.broken)
    if not complete:
        probe(unlisted)
    for path in unlisted:
        reason = None if complete else unlisted_fault(path, spans, attempt.tail)
        if reason is None:
            attempt.leftover.append(path)
        else:
            attempt.broken.append(Broken(path, f"is listed by no manifest and {reason}"))
    manifest = attempt.folder / layout.MANIFEST_FILE
    manifest_is_broken = any(broken.file == manifest for broken in attempt.broken)
    if not listed and not manifest_is_broken and len(attempt.broken) > before:
        words = "lists no shard, and there are some" if is_regular(manifest) else "is missing, and there are shards"
        attempt.broken.insert(0, Broken(manifest, words))


def unlisted_fault(path: Path, spans: Spans, tail: Tail) -> str | None:
    """Return why a shard that no manifest lists cannot be ignored; None when all its rows are stored elsewhere."""
    name, _ = layout.shard_of(path.name) or ("", 0)
    table = BY_NAME.get(name)
    if table is None:
        return unknown_table(path, name)
    try:
        reason = footer_fault(path, table)
        if reason is not None:
            return reason
        with open_file(path) as opened, pq.ParquetFile(opened) as file:
            seqs = file.read(columns=["seq"], use_threads=False)["seq"]
    except RefusedFileError as error:
        return why_unreadable(error)
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read ({type(error).__name__})"
    logged = tail.tables[name]["seq"] if name in tail.tables else pa.chunked_array([], pa.int64())
    elsewhere = pc.is_in(seqs, value_set=logged.combine_chunks())
    for first, last in spans.get(name, ()):
        elsewhere = pc.or_(elsewhere, pc.and_(pc.greater_equal(seqs, first), pc.less_equal(seqs, last)))
    missing = len(seqs) - (pc.sum(elsewhere).as_py() or 0)
    return f"holds {missing:,} rows that are nowhere else" if missing else None


def _manifest(attempt: Attempt, torn: list[LogFault] | None) -> Iterator[ShardEntry]:
    """Yield the manifest's entries; a last line that ends too early is added to ``torn``.

    Without ``torn`` such a line is damage: a writer deletes its logs only after the line is complete.
    """
    path = attempt.folder / layout.MANIFEST_FILE
    try:
        content = read_file(path, LARGEST_TEXT)
    except FileNotFoundError:
        return
    except OSError as error:
        attempt.broken.append(Broken(path, why_unreadable(error)))
        return
    last_line, listed_shards = content.count(b"\n") + 1, set()
    for number, entry in layout.manifest_entries(content):
        if torn is not None and number == last_line:
            start = content.rfind(b"\n") + 1
            torn.append(LogFault(path, FrameFault(start, len(content), torn=True, reason="ends within a line")))
        elif isinstance(entry, ManifestError):
            attempt.broken.append(Broken(path, f"line {number}: {entry}"))
        elif entry.shard in listed_shards:
            attempt.broken.append(Broken(path, f"line {number}: {entry.shard} is listed twice"))
        else:
            listed_shards.add(entry.shard)
            yield entry


def shard_fault(path: Path, entry: ShardEntry) -> str | None:
    """Return why the shard at ``path`` is not the one ``entry`` describes, None when it is.

    Raises ``UsageError`` when it is of a newer schema.
    """
    table = BY_NAME.get(entry.table)
    try:
        reason = _file_fault(path, entry)
        if reason is None and table is None:
            return unknown_table(path, entry.table)
        return reason or footer_fault(path, BY_NAME[entry.table], entry)
    except FileNotFoundError:
        return "is missing, the manifest lists it"
    except OSError as error:
        return why_unreadable(error)


def _file_fault(path: Path, entry: ShardEntry) -> str | None:
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.size:
            return f"has {size} bytes, the manifest says {entry.size}"
        return None if _file_crc(file, size) == entry.crc32 else "does not match the checksum in the manifest"


def _file_crc(file: BinaryIO, size: int) -> int:
    """Return the CRC-32 of the file's first ``size`` bytes; bytes appended during the read are ignored."""
    crc = 0
    while size > 0 and (block := file.read(min(_BLOCK, size))):
        crc = zlib.crc32(block, crc)
        size -= len(block)
    return crc


def _read_marker(attempt: Attempt) -> None:
    path = attempt.folder / layout.CLOSED_FILE
    try:
        marker = json.loads(read_file(path, LARGEST_TEXT))
        tables = {str(name): int(facts["rows"]) for name, facts in marker["tables"].items()}
        marker["lost_rows"] = int(marker.get("lost_rows", 0))
    except FileNotFoundError:
        return
    except OSError as error:
        attempt.broken.append(Broken(path, why_unreadable(error)))
        return
    except (ArithmeticError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        attempt.broken.append(Broken(path, "is not a clean-close marker"))
        return
    attempt.closed = marker
    for table, rows in tables.items():
        listed = sum(entry.rows for _, entry in attempt.shards if entry.table == table)
        listed += len(attempt.tail.tables.get(table, ()))
        if listed != rows and not attempt.broken:
            attempt.broken.append(Broken(path, f"counts {rows} rows of {table}, the sound shards hold {listed}"))


def closed(attempts: Sequence[Attempt]) -> bool:
    """Return whether the last writer of every rank left its clean-close marker."""
    last = {attempt.rank: attempt for attempt in sorted(attempts, key=lambda attempt: attempt.number)}
    return bool(last) and all(attempt.closed is not None for attempt in last.values())
