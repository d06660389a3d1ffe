"""Atomic, durable writes: a file appears complete or not at all, a line is appended by one write."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``: a short write (disk nearly full) is continued or raises ``OSError``."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: temporary name, fsync, rename. Raises ``OSError``; then ``path`` is as before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_once(path: Path, data: bytes) -> bool:
    """Put ``data`` at ``path`` unless it exists; return whether it was put. Of concurrent callers one succeeds."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write_whole(temporary, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: two concurrent callers could both succeed
            if path.exists():
                return False
            temporary.replace(path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def append_line(path: Path, line: bytes) -> None:
    """Append one line with a single write and make it durable. Raises ``OSError``; then ``path`` is as before.

    If even truncating fails, the partial line is ended by a line break before the next one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    end = os.fstat(descriptor).st_size
    try:
        torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        write_all(descriptor, b"\n" + line if torn else line)
        os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, end)
        raise
    finally:
        with contextlib.suppress(OSError):  # fsync has already reported any error that close could
            os.close(descriptor)
