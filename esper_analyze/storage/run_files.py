"""Open the files of a run: only regular files of bounded length; no FIFO, device or symbolic link.

A run may come from an untrusted source. Its directory may be reached through a symbolic link, its files may not.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_NOT_OPENED = (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EOPNOTSUPP, errno.ENODEV, errno.EISDIR)
"""Error codes for opening a link with O_NOFOLLOW, a socket, a device without a driver, a directory."""


class RefusedFileError(OSError):
    """A file that is refused; ``strerror`` says why, as the end of a sentence that begins with the file's name."""

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


def open_regular(path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
    """Return a descriptor of the regular file at ``path``; opening never waits and follows no link at the end.

    Raises ``RefusedFileError`` for anything else, ``OSError`` when the file cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        status = _status_at(path)
        if error.errno in _NOT_OPENED and status is not None and not stat.S_ISREG(status.st_mode):
            raise _refused(path, status) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _refused(path, status)
    return descriptor


def open_file(path: Path | str) -> BinaryIO:
    """Return the regular file at ``path``, open for reading and unbuffered. Raises as ``open_regular`` does."""
    return os.fdopen(open_regular(path), "rb", buffering=0)


def read_file(path: Path | str, most: int) -> bytes:
    """Return the content of the regular file at ``path``, at most ``most`` bytes.

    Raises ``RefusedFileError`` for a longer file too, and as ``open_regular`` does.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(most + 1) if size <= most else b""
    if size > most or len(data) > most:
        reason = f"has {max(size, len(data)):,} bytes, {most:,} are the most"
        raise RefusedFileError(errno.EFBIG, reason, str(path))
    return data


def is_regular(path: Path | str) -> bool:
    """Return whether a regular file, not a link to one, is at ``path``.

    The file may be replaced before it is opened: ``open_regular`` checks what was opened.
    """
    status = _status_at(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def refusal(path: Path | str) -> str | None:
    """Return why ``path`` would be refused, as the end of a sentence; None for a regular file or a missing one."""
    status = _status_at(path)
    return None if status is None or stat.S_ISREG(status.st_mode) else _refused(path, status).strerror


def why_unreadable(error: OSError) -> str:
    """Return ``error`` as the end of a sentence that begins with the file's name."""
    if isinstance(error, RefusedFileError):
        return str(error.strerror)
    return f"cannot be read ({error.strerror or error})"


def _status_at(path: Path | str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _refused(path: Path | str, status: os.stat_result) -> RefusedFileError:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    return RefusedFileError(errno.EINVAL, f"is {kind}, not a regular file", str(path))
