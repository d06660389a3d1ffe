"""Growing files: what was added to logs and manifest since the last poll."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from esper_analyze.storage import layout
from esper_analyze.storage.entries import Entry
from esper_analyze.storage.layout import ManifestError, ShardEntry
from esper_analyze.storage.limits import LARGEST_LOG, LARGEST_TEXT
from esper_analyze.storage.log_frames import MAGIC, frames
from esper_analyze.storage.log_tail import log_numbers
from esper_analyze.storage.run_files import is_regular, open_file, why_unreadable

CLOCK_GRAIN = 2.0
"""Seconds within which two changes of a folder may have the same modification time."""


class RewrittenError(Exception):
    """Append-only files were replaced (repaired, compacted), or rows came out of order: read everything again."""


@dataclass(slots=True)
class LogTail:
    """The write-ahead logs of one attempt. ``troubles``: why a file cannot be read, by name."""

    folder: Path
    troubles: dict[str, str] = field(default_factory=dict)
    _at: dict[str, int] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _numbers: set[int] = field(default_factory=set)
    _last: int = 0
    _listed_at: float | None = None

    def new(self) -> list[dict[str, Entry]]:
        """Return the new intact frames. Raises ``OSError`` when the folder is gone."""
        self._find()
        new = self._read()
        if not self._numbers and self._last:  # all logs followed so far are sealed: a later one may lie beyond a gap
            self._find()
            new += self._read()
        return new

    def _read(self) -> list[dict[str, Entry]]:
        return [frame for number in sorted(self._numbers) for frame in self._of(number)]

    @property
    def touched(self) -> float:
        """Time of the last write to the logs or the folder (seconds of the epoch)."""
        paths = [self.folder, *(self.folder / layout.log_name(number) for number in self._numbers)]
        return max(path.stat().st_mtime for path in paths if path.exists())

    def _find(self) -> None:
        """Find the files: they are numbered consecutively, so a folder of many shards is rarely listed."""
        if self._numbers:
            while (self.folder / layout.log_name(self._last + 1)).exists():
                self._last += 1
                self._numbers.add(self._last)
            return
        changed = self.folder.stat().st_mtime
        if changed == self._listed_at:
            return
        # a change within the clock's grain of the listing would not show in the folder's time
        self._listed_at = changed if time.time() - changed > CLOCK_GRAIN else None
        self._numbers = set(log_numbers(self.folder))
        self._last = max(self._numbers, default=self._last)

    def _of(self, number: int) -> list[dict[str, Entry]]:
        path = self.folder / layout.log_name(number)
        try:
            data = self._added(path)
        except FileNotFoundError:  # all of it is sealed
            self._numbers.discard(number)
            return []
        except OSError as error:
            self.troubles[path.name] = f"{path.name} {why_unreadable(error)}"
            return []
        return self._parsed(path.name, data) if data else []

    def _added(self, path: Path) -> bytes:
        """Return the bytes after the last intact frame; nothing while the file has not grown."""
        size, at = path.lstat().st_size, self._at.get(path.name, 0)
        if is_regular(path) and (size == self._sizes.get(path.name) or size <= at):
            return b""
        if size > LARGEST_LOG:
            self.troubles[path.name] = f"{path.name} has {size:,} bytes, {LARGEST_LOG:,} are the most"
            return b""
        self._sizes[path.name] = size
        with open_file(path) as file:
            file.seek(at)
            return file.read(size - at)

    def _parsed(self, name: str, data: bytes) -> list[dict[str, Entry]]:
        at = self._at.get(name, 0)
        begun = len(MAGIC) if at else 0  # a log read from its middle is parsed with a header put in front
        entries, faults = frames(MAGIC + data if at else data)
        end = begun + len(data)
        for fault in faults:
            if fault.torn:  # a frame being written, or where the writer was stopped: the next poll begins here
                end = fault.start
            else:
                where = f"bytes {at + fault.start - begun:,}–{at + fault.stop - begun:,}"
                self.troubles[name] = f"{name} {where}: {fault.reason}"
        self._at[name] = at + end - begun
        return entries


@dataclass(slots=True)
class ManifestTail:
    """The manifest of one attempt. ``troubles``: lines that cannot be used."""

    path: Path
    troubles: list[str] = field(default_factory=list)
    _file: int | None = None
    _at: int = 0

    def replaced(self) -> bool:
        """Whether the file that was read was replaced by another."""
        try:
            return self._file not in (None, self.path.lstat().st_ino)
        except FileNotFoundError:
            return self._file is not None

    def new(self) -> list[ShardEntry]:
        """Return the new complete lines. Raises ``RewrittenError`` when the file was replaced."""
        if self.replaced():
            raise RewrittenError(str(self.path))
        try:
            with open_file(self.path) as file:
                self._file = os.fstat(file.fileno()).st_ino
                file.seek(self._at)
                data = file.read(LARGEST_TEXT)
        except FileNotFoundError:
            return []
        except OSError as error:
            trouble = f"{self.path.name} {why_unreadable(error)}"
            if trouble not in self.troubles:
                self.troubles.append(trouble)
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._at += len(complete)
        entries = [entry for _, entry in layout.manifest_entries(complete)]
        self.troubles += [f"{self.path.name}: {entry}" for entry in entries if isinstance(entry, ManifestError)]
        return [entry for entry in entries if isinstance(entry, ShardEntry)]
