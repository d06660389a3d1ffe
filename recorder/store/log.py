"""The write-ahead log: rows that wait for sealing, in files that survive a kill of the process.

A frame is one ``write`` at the end of the file; once it has returned, the kernel has it, whatever happens to the
process. A file is deleted only after everything in it is sealed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

from esper_analyze.storage.atomic import write_all
from esper_analyze.storage.layout import log_name
from esper_analyze.storage.log_frames import MAGIC

SYNC_SECONDS = 2.0
"""Seconds of rows that a power failure may cost: the log is synced this often."""


class WriteAheadLog:
    """The log files of one attempt; one is open for writing, older ones wait for their rows to be sealed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self._descriptor: int | None = None
        self._end = 0
        self._dirty = False
        self._synced = time.monotonic()
        self._files: list[int] = []

    def append(self, frame: bytes) -> None:
        """Write one frame. Raises ``OSError``; then no part of it remains, or the file is not written to again."""
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        try:
            write_all(self._descriptor, frame)
        except OSError:
            self._take_back()
            raise
        self._end += len(frame)
        self._dirty = True

    def _open(self) -> None:
        self.number += 1
        path = self.folder / log_name(self.number)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._files.append(self.number)
        self._end = 0
        try:
            write_all(self._descriptor, MAGIC)
        except OSError:
            self.rotate()
            raise
        self._end = len(MAGIC)

    def _take_back(self) -> None:
        """Truncate a partly written frame; if that fails, the file is not written to again."""
        assert self._descriptor is not None
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError:
            self.rotate()

    def rotate(self) -> int:
        """Continue in a new file; return the number of the file that ends here."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # sync has reported any write error already
                os.close(self._descriptor)
            self._descriptor = None
        return self.number

    def forget(self, number: int) -> bool:
        """Delete the files up to ``number``, whose rows are all sealed. Return whether none of them is left.

        A file that cannot be deleted is tried again at the next call; readers skip rows that a shard has as well.
        """
        for old in [logged for logged in self._files if logged <= number]:
            with contextlib.suppress(OSError):
                (self.folder / log_name(old)).unlink(missing_ok=True)
                self._files.remove(old)
        return not any(old <= number for old in self._files)

    def sync(self, *, now: bool = False) -> None:
        """Sync the written frames against power failure, if that is due. Raises ``OSError``: then rotate.

        May be called while another thread appends.
        """
        descriptor = self._descriptor
        if descriptor is None or not self._dirty:
            return
        if not now and time.monotonic() - self._synced < SYNC_SECONDS:
            return
        self._dirty, self._synced = False, time.monotonic()
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the log was deleted")
        os.fdatasync(descriptor)

    def exists(self) -> bool:
        """Return whether all files with unsealed rows exist; a file that cannot be checked counts as existing."""
        for number in self._files:
            try:
                (self.folder / log_name(number)).stat()
            except FileNotFoundError:
                return False
            except OSError:
                continue
        return True
