"""What a writer had logged and not sealed: the tail of a run that is still written, or whose writer was killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import layout
from esper_analyze.storage.entries import Entry, fitting
from esper_analyze.storage.limits import LARGEST_LOG
from esper_analyze.storage.log_frames import Fault, frames
from esper_analyze.storage.run_files import read_file, why_unreadable
from esper_analyze.storage.shapes import former_names, with_names


@dataclass(frozen=True, slots=True)
class LogFault:
    """Bytes of a log file that hold no sound frame. A torn tail is where the writer was stopped, and no damage."""

    file: Path
    fault: Fault
    missing: int | None = None
    """Rows that the log's frames before and after leave out; None when that is not known."""

    @property
    def text(self) -> str:
        """The fault in words: position and reason."""
        where = f"bytes {self.fault.start:,}–{self.fault.stop:,}"
        return f"{where}: {'torn tail, ' if self.fault.torn else ''}{self.fault.reason}"


@dataclass(slots=True)
class Tail:
    """Rows by table that are in no shard, in the order they were written; and what of the log could not be read."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    faults: list[LogFault] = field(default_factory=list)
    misfits: int = 0
    """Rows with a cell of a wrong type: the writer would have counted them as lost when sealing."""
    unusable: list[tuple[Path, str]] = field(default_factory=list)


Spans = Mapping[str, Sequence[tuple[int, int]]]
"""First and last sequence number of each sound shard, by table."""


def read_logs(folder: Path) -> list[tuple[Path, bytes | OSError]]:
    """Return the log files in ``folder`` in order, each as bytes or as why it cannot be read.

    Read them before the manifest: what a living writer seals meanwhile is then seen twice, and never not at all.
    """
    numbered = [(number, path) for path in folder.iterdir() if (number := layout.log_of(path.name)) is not None]
    found: list[tuple[Path, bytes | OSError]] = []
    for _, path in sorted(numbered):
        try:
            found.append((path, read_file(path, LARGEST_LOG)))
        except FileNotFoundError:
            continue
        except OSError as error:
            found.append((path, error))
    return found


def tail_of(logs: Sequence[tuple[Path, bytes | OSError]], rank: int, sealed: Spans) -> Tail:
    """Return what the logs hold and no shard has."""
    tail = Tail()
    entries: dict[str, list[Entry]] = {}
    for path, data in logs:
        if isinstance(data, OSError):
            tail.unusable.append((path, why_unreadable(data)))
            continue
        found, faults = frames(data)
        missing = _left_out(found) if len(faults) == 1 else None
        tail.faults += [LogFault(path, fault, None if fault.torn else missing) for fault in faults]
        for frame in found:
            for table, entry in frame.items():
                if not any(first <= entry[0] <= last for first, last in sealed.get(table, ())):
                    rows = with_names(entry[1], former_names(BY_NAME[table]))
                    entries.setdefault(table, []).append((entry[0], rows))
    for table, some in entries.items():
        tail.tables[table], misfits = fitting(BY_NAME[table], _once(some), rank)
        tail.misfits += misfits
    return tail


def _left_out(found: Sequence[Mapping[str, Entry]]) -> int:
    """Return how many sequence numbers between the first and the last row of a log are not in it."""
    entries = [(seq, len(rows)) for frame in found for seq, rows in frame.values()]
    first, last = min((seq for seq, _ in entries), default=0), max((seq + n for seq, n in entries), default=0)
    return max(last - first - sum(n for _, n in entries), 0)


def _once(entries: list[Entry]) -> list[Entry]:
    """Return entries in order of their sequence numbers, each once."""
    return [entry for _, entry in sorted({entry[0]: entry for entry in entries}.items())]
