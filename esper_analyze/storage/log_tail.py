"""Rows that were logged and not sealed: the tail of a run that is being written, or whose writer was killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import layout
from esper_analyze.storage.entries import Entry, fitting
from esper_analyze.storage.folders import listed
from esper_analyze.storage.limits import LARGEST_LOG
from esper_analyze.storage.log_frames import FrameFault, frames
from esper_analyze.storage.run_files import read_file, why_unreadable
from esper_analyze.storage.shapes import former_names, with_names


@dataclass(frozen=True, slots=True)
class LogFault:
    """Bytes of a log file that hold no valid frame. A torn tail shows where the writer stopped and is not damage."""

    file: Path
    fault: FrameFault
    missing: int | None = None
    """Rows missing between the log's frames before and after; None when that cannot be determined."""

    @property
    def text(self) -> str:
        """The fault in words: position and reason."""
        where = f"bytes {self.fault.start:,}–{self.fault.stop:,}"
        return f"{where}: {'torn tail, ' if self.fault.torn else ''}{self.fault.reason}"


@dataclass(slots=True)
class Tail:
    """Rows by table that are in no shard, in the order they were written; and the unreadable parts of the log."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    faults: list[LogFault] = field(default_factory=list)
    misfits: int = 0
    """Rows with a cell of a wrong type: the writer would have counted them as lost when sealing."""
    end: int = 0
    """The sequence number after that of the last logged row, whether it fits or not."""
    unusable: list[tuple[Path, str]] = field(default_factory=list)


Spans = Mapping[str, Sequence[tuple[int, int]]]
"""First and last sequence number of each sound shard, by table."""


def log_numbers(folder: Path) -> list[int]:
    """Return the numbers of the log files in ``folder``, sorted. Raises as ``listed`` does."""
    return sorted(number for path in listed(folder) if (number := layout.log_of(path.name)) is not None)


def read_logs(folder: Path) -> list[tuple[Path, bytes | OSError]]:
    """Return the log files in ``folder`` in order, each as bytes or as the error of reading it.

    Read them before the manifest: rows that a living writer seals in between are then read twice, never missed.
    """
    logs: list[tuple[Path, bytes | OSError]] = []
    for path in (folder / layout.log_name(number) for number in log_numbers(folder)):
        try:
            logs.append((path, read_file(path, LARGEST_LOG)))
        except FileNotFoundError:
            continue
        except OSError as error:
            logs.append((path, error))
    return logs


def tail_of(logs: Sequence[tuple[Path, bytes | OSError]], rank: int, sealed: Spans) -> Tail:
    """Return the logged rows that no shard has."""
    tail = Tail()
    entries: dict[str, list[Entry]] = {}
    for path, data in logs:
        if isinstance(data, OSError):
            tail.unusable.append((path, why_unreadable(data)))
            continue
        sound_frames, faults = frames(data)
        missing = _left_out(sound_frames) if len(faults) == 1 else None
        tail.faults += [LogFault(path, fault, None if fault.torn else missing) for fault in faults]
        for frame in sound_frames:
            for table, entry in frame.items():
                tail.end = max(tail.end, entry[0] + len(entry[1]))
                if not any(first <= entry[0] <= last for first, last in sealed.get(table, ())):
                    rows = with_names(entry[1], former_names(BY_NAME[table]))
                    entries.setdefault(table, []).append((entry[0], rows))
    for table, logged in entries.items():
        tail.tables[table], misfits = fitting(BY_NAME[table], _once(logged), rank)
        tail.misfits += misfits
    return tail


def _left_out(sound_frames: Sequence[Mapping[str, Entry]]) -> int:
    """Return how many sequence numbers between the first and the last row of a log are missing from it."""
    entries = [(seq, len(rows)) for frame in sound_frames for seq, rows in frame.values()]
    first, last = min((seq for seq, _ in entries), default=0), max((seq + n for seq, n in entries), default=0)
    return max(last - first - sum(n for _, n in entries), 0)


def _once(entries: list[Entry]) -> list[Entry]:
    """Return entries in order of their sequence numbers, each once."""
    return [entry for _, entry in sorted({entry[0]: entry for entry in entries}.items())]
