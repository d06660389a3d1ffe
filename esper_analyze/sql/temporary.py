"""What ``sql`` writes for a while: the directory for what does not fit in memory, and an output that is not finished.

Both are removed at the end, also of a process that is ended from a thread; after a SIGKILL the next query removes the
directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

_PREFIX = "esper-analyze-"
_NAME = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}\Z")


_there: set[Path] = set()


def remember(path: Path) -> None:
    """Let ``remove_all`` remove the file or directory ``path``."""
    _there.add(path)


def remove(path: Path) -> None:
    """Remove the file or directory ``path``; what cannot be removed stays."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    _there.discard(path)


def remove_all() -> None:
    """Remove what is still there, before the process is ended without any clean-up."""
    for path in list(_there):
        remove(path)


class Spill:
    """A new directory, locked while this process lives; ``path`` is where it is."""

    def __init__(self) -> None:
        sweep(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        remember(self.path)
        self._lock = _locked(self.path)

    def remove(self) -> None:
        """Remove the directory and all in it; what cannot be removed stays for the next query."""
        remove(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep(folder: Path) -> None:
    """Remove directories of this user in ``folder`` whose processes are dead: nobody holds their locks."""
    try:
        found = [path for path in folder.iterdir() if _NAME.match(path.name) and _is_own(path)]
    except OSError:
        return
    for path in found:
        lock = _locked(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _is_own(path: Path) -> bool:
    try:
        facts = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()


def _locked(path: Path) -> int | None:
    """Return a descriptor that holds the lock of the directory, None when another process has it or there is none."""
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
