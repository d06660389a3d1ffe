"""Atomic, durable writes: files and folders appear complete or not at all, a line is appended by one write."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from esper_analyze.storage.run_files import open_regular


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


def write_synced(path: Path, data: bytes) -> None:
    """Write ``data`` to the regular file at ``path`` and make it durable. Raises ``OSError``."""
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: temporary name, fsync, rename. Raises ``OSError``; then ``path`` is as before."""
    write_files(path.parent, {path.name: data})


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put ``files`` (name → content) into ``folder``, in this order, once all are written under temporary names.

    Raises ``OSError``; unless a rename itself failed, the files are then as before.
    """
    temporary = {folder / f".{name}.{os.getpid()}.tmp": name for name in files}
    try:
        for path, name in temporary.items():
            write_synced(path, files[name])
        for path, name in temporary.items():
            path.replace(folder / name)
    except BaseException:
        for path in temporary:
            path.unlink(missing_ok=True)
        raise
    sync_folder(folder)


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Yield a new hidden name beside ``out``, for a file or folder that becomes ``out`` when nothing was raised.

    Otherwise it is removed. Raises ``OSError``.
    """
    staging = out.parent / f".{out.stem[:80]}.{uuid.uuid4().hex[:8]}.tmp{out.suffix}"
    try:
        yield staging
        staging.replace(out)
        sync_folder(out.parent)
    finally:
        remove(staging)


def remove(path: Path) -> None:
    """Remove the file or folder at ``path``; errors are ignored."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


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
