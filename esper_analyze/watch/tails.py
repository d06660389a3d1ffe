"""Files that grow: what was added to logs and manifest since the last look."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from esper_analyze.storage import layout
from esper_analyze.storage.entries import Entry
from esper_analyze.storage.folders import listed
from esper_analyze.storage.layout import ManifestError, ShardEntry
from esper_analyze.storage.limits import LARGEST_LOG, LARGEST_TEXT
from esper_analyze.storage.log_frames import MAGIC, frames
from esper_analyze.storage.run_files import is_regular, open_file, why_unreadable

_GRAIN = 2.0
"""Seconds within which two changes of a folder may have the same time."""


class RewrittenError(Exception):
    """Files that only grow were replaced (repaired, compacted), or rows came out of order: read all of it anew."""


@dataclass(slots=True)
class LogTail:
    """The write-ahead logs of one attempt. ``troubles``: what of them cannot be read, by file."""

    folder: Path
    troubles: dict[str, str] = field(default_factory=dict)
    _at: dict[str, int] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _numbers: set[int] = field(default_factory=set)
    _last: int = 0
    _listed_at: float | None = None

    def new(self) -> list[dict[str, Entry]]:
        """Return the sound frames that were not returned yet. Raises ``OSError`` when the folder is gone."""
        self._find()
        return [frame for number in sorted(self._numbers) for frame in self._of(number)]

    @property
    def touched(self) -> float:
        """When something was last written to the logs or the folder (seconds of the epoch)."""
        places = [self.folder, *(self.folder / layout.log_name(number) for number in self._numbers)]
        return max(place.stat().st_mtime for place in places if place.exists())

    def _find(self) -> None:
        """Find the files: they are numbered one after the other, so a folder of many shards is rarely listed."""
        if self._numbers or self._last:
            while (self.folder / layout.log_name(self._last + 1)).exists():
                self._last += 1
                self._numbers.add(self._last)
            return
        changed = self.folder.stat().st_mtime
        if changed == self._listed_at:
            return
        # a change within the clock's grain of the listing would not show in the folder's time
        self._listed_at = changed if time.time() - changed > _GRAIN else None
        self._numbers = {n for path in listed(self.folder) if (n := layout.log_of(path.name)) is not None}
        self._last = max(self._numbers, default=0)

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
        """Return what stands beyond the last sound frame; nothing while the file has not grown."""
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
        begun = len(MAGIC) if at else 0  # what is read from its middle is read as a log of its own
        found, faults = frames(MAGIC + data if at else data)
        end = begun + len(data)
        for fault in faults:
            if fault.torn:  # a frame on its way, or where the writer was stopped: the next look begins here
                end = fault.start
            else:
                where = f"bytes {at + fault.start - begun:,}–{at + fault.stop - begun:,}"
                self.troubles[name] = f"{name} {where}: {fault.reason}"
        self._at[name] = at + end - begun
        return found


@dataclass(slots=True)
class ManifestTail:
    """The manifest of one attempt. ``troubles``: lines that cannot be used."""

    path: Path
    troubles: list[str] = field(default_factory=list)
    _file: int | None = None
    _at: int = 0

    def replaced(self) -> bool:
        """Whether another file stands where the lines came from."""
        try:
            return self._file not in (None, self.path.lstat().st_ino)
        except FileNotFoundError:
            return self._file is not None

    def new(self) -> list[ShardEntry]:
        """Return the complete lines that were not returned yet. Raises ``RewrittenError`` when it was replaced."""
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
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return list(self._entries(whole.splitlines()))

    def _entries(self, lines: list[bytes]) -> Iterator[ShardEntry]:
        for line in lines:
            try:
                yield ShardEntry.from_line(line)
            except ManifestError as error:
                self.troubles.append(f"{self.path.name}: {error}")
