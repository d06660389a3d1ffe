"""One writer for one folder, held by flock for the writer's life: free again at once when the writer dies."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import time
from pathlib import Path

from esper_analyze.schema.files import write_all
from esper_analyze.schema.layout import LOCK_FILE

LOG = logging.getLogger("recorder")
UNKNOWN = "an unknown process"
ATTEMPTS, PAUSE = 6, 0.02


class LockedError(RuntimeError):
    """Another process is writing here; the message names its pid and host."""


class WriterLock:
    """Holds ``path`` locked until ``release``. Raises ``LockedError`` when somebody else holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._take()
        except BlockingIOError as error:
            holder = os.read(self._descriptor, 200).decode(errors="replace").strip() or UNKNOWN
            os.close(self._descriptor)
            raise LockedError(f"{path.parent} is being written by {holder}") from error
        except OSError as error:  # some network file systems have no locks
            LOG.warning("recorder: %s cannot be locked (%s); nothing keeps a second writer away", path, error)
        os.ftruncate(self._descriptor, 0)
        write_all(self._descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode())

    def _take(self) -> None:
        """Lock the file. A reader that looks whether somebody writes holds it for an instant: that is no writer."""
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(PAUSE)
        return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let go of the lock; the file no longer names anybody."""
        with contextlib.suppress(OSError):  # the lock goes with the process at the latest
            os.ftruncate(self._descriptor, 0)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def holder(folder: Path) -> str:
    """Return who holds, or held, the lock in ``folder``, as the lock file says."""
    try:
        return (folder / LOCK_FILE).read_bytes()[:200].decode(errors="replace").strip() or UNKNOWN
    except OSError:
        return UNKNOWN


def is_held(path: Path) -> bool | None:
    """Return whether a process holds the lock file ``path`` right now; None where that cannot be known.

    A shared lock is asked for and let go at once: of a lock that is held nothing is taken.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or a file system without locks
        return None
    return False
