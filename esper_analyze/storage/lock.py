"""One writer for one folder, held by flock for the writer's life: free again at once when the writer dies.

A process that the writer forked shares its lock. It closes its copy at once; the writer unlocks explicitly. What a
library forks behind Python's back can still keep the lock of a writer that died: readers recognise that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
import weakref
from pathlib import Path

from esper_analyze.schema.printable import LOG
from esper_analyze.storage.atomic import write_all
from esper_analyze.storage.layout import LOCK_FILE
from esper_analyze.storage.run_files import open_file, open_regular

UNKNOWN = "an unknown process"
ATTEMPTS, PAUSE = 6, 0.02
_CLOSED = -1
_PROCESSES = Path("/proc")
_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_HELD):
        lock.close()  # the parent's lock stays: unlocking here would take it away


os.register_at_fork(after_in_child=_close_in_child)


class LockedError(RuntimeError):
    """Another process is writing here; the message names its pid and host."""


class WriterLock:
    """Holds ``path`` locked until ``release``.

    Raises ``LockedError`` when somebody else holds it, ``RefusedFileError`` when it is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            self._take()
        except BlockingIOError as error:
            self.close()
            raise LockedError(_refusal(path)) from error
        except OSError as error:  # some network file systems have no locks
            LOG.warning("recorder: %s cannot be locked (%s); nothing keeps a second writer away", path, error)
        os.ftruncate(self._descriptor, 0)
        write_all(self._descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n{_namespace()}".encode())
        _HELD.add(self)

    @classmethod
    def adopted(cls, path: Path, descriptor: int) -> WriterLock:
        """Return the lock that another process holds on ``path``, by the descriptor inherited from it."""
        lock = cls.__new__(cls)
        lock.path, lock._descriptor = path, descriptor
        _HELD.add(lock)
        return lock

    @property
    def descriptor(self) -> int:
        """The descriptor of the lock file, for a process that shares the lock."""
        return self._descriptor

    def _take(self) -> None:
        """Lock the file, trying several times: a reader that tests the lock holds it for an instant."""
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(PAUSE)
        return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Release the lock and empty the file. Does nothing in a process forked by the holder."""
        if self._descriptor == _CLOSED:
            return
        with contextlib.suppress(OSError):  # the lock goes with the process at the latest
            os.ftruncate(self._descriptor, 0)
        with contextlib.suppress(OSError):  # a copy that a forked process has would keep it locked otherwise
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.close()

    def close(self) -> None:
        """Close this process's copy of the lock file; the lock itself stays with whoever has another copy."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        _HELD.discard(self)
        with contextlib.suppress(OSError):
            os.close(descriptor)


def holder(folder: Path) -> str:
    """Return the process that holds, or last held, the lock in ``folder``, as the lock file names it."""
    return _written_in(folder / LOCK_FILE)[0] or UNKNOWN


def _written_in(path: Path) -> tuple[str, str]:
    """Return the holder that a lock file names and the namespace of its process id; empty strings if it names none."""
    try:
        with open_file(path) as file:
            lines = file.read(200).decode(errors="replace").strip().split("\n")
    except OSError:
        return "", ""
    return lines[0].strip(), lines[1].strip() if len(lines) > 1 else ""


def _namespace() -> str:
    """Return the namespace of this process's id: in another container the same id is another process."""
    try:
        return str((_PROCESSES / "self/ns/pid").readlink())
    except OSError:  # a system without such namespaces
        return "pid"


def _refusal(path: Path) -> str:
    """Return why the folder of ``path`` cannot be written: another process holds the lock."""
    named = holder(path.parent)
    if not is_orphaned(path):
        return f"{path.parent} is being written by {named}"
    keepers = ", ".join(f"pid {pid}" for pid in _processes_with(path)) or "a process that cannot be seen from here"
    return (
        f"{path.parent} is locked though the training that wrote it ({named}) is dead: {keepers}, which it started, "
        "still has its lock open; end that process"
    )


def is_orphaned(path: Path) -> bool:
    """Whether the process that a lock file names is certainly dead: it ran on this host and does not have it open.

    Meant for a lock that is held: another process, which the dead one forked, then keeps it.
    """
    named, namespace = _written_in(path)
    words = named.split()
    if len(words) != 4 or not words[1].isdecimal() or words[3] != socket.gethostname() or namespace != _namespace():
        return False
    pid = int(words[1])
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # a process of another user
        pass
    return _PROCESSES.is_dir() and _has_open(pid, path) is False


def _processes_with(path: Path) -> list[int]:
    """Return the processes of this host that have ``path`` open, as far as permissions show them."""
    try:
        numbers = sorted(int(entry.name) for entry in _PROCESSES.iterdir() if entry.name.isdecimal())
    except OSError:
        return []
    return [pid for pid in numbers if pid != os.getpid() and _has_open(pid, path)]


def _has_open(pid: int, path: Path) -> bool | None:
    """Whether a process has ``path`` open; None when it cannot be determined."""
    try:
        status = path.stat()
        descriptors = list((_PROCESSES / str(pid) / "fd").iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return None
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if os.path.samestat(descriptor.stat(), status):
                return True
    return False


def is_held(path: Path) -> bool | None:
    """Return whether a living writer holds the lock file ``path`` right now; None when it cannot be determined.

    A shared lock is requested and released at once, which disturbs no holder. A lock kept only by a process that a
    dead writer forked counts as not held.
    """
    try:
        with open_file(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return not is_orphaned(path)
    except OSError:  # no lock file, or a file system without locks
        return None
    return False
