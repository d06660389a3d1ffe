"""Temporary files of ``sql``: the spill directory for results larger than memory, and unfinished output files.

Both are removed at the end, also when a thread ends the process; after a SIGKILL the next query removes the directory.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from esper_analyze.storage import atomic

_PREFIX = "esper-analyze-sql-"
"""Of ``sql`` alone: other commands have folders beside it that no lock holds."""
_NAME = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}\Z")


_temporary: set[Path] = set()


def remember(path: Path) -> None:
    """Register the file or directory ``path`` for ``remove_all``."""
    _temporary.add(path)


def remove(path: Path) -> None:
    """Remove the file or directory ``path``; errors are ignored."""
    atomic.remove(path)
    _temporary.discard(path)


def remove_all() -> None:
    """Remove all registered paths, before the process is ended without other clean-up."""
    for path in list(_temporary):
        remove(path)


class Spill:
    """A new directory at ``path``, locked while this process lives."""

    def __init__(self) -> None:
        sweep(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        remember(self.path)
        self._lock = _lock_folder(self.path)

    def remove(self) -> None:
        """Remove the directory and its contents; what cannot be removed is left for the next query."""
        remove(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep(folder: Path) -> None:
    """Remove this user's spill directories in ``folder`` whose processes are dead, that is, whose locks are free."""
    try:
        folders = [path for path in folder.iterdir() if _NAME.match(path.name) and _is_own(path)]
    except OSError:
        return
    for path in folders:
        lock = _lock_folder(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _is_own(path: Path) -> bool:
    try:
        facts = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()


def _lock_folder(path: Path) -> int | None:
    """Return a descriptor that holds the directory's lock, None if another process holds it or it is missing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
