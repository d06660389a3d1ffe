"""The folder of one attempt of one rank, made and locked for its writer."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from esper_analyze.storage import layout
from esper_analyze.storage.atomic import sync_folder
from esper_analyze.storage.lock import WriterLock

RESERVE_BYTES = 1 << 14
"""Disk space reserved for the marker that says how many rows a full disk cost."""


@dataclass(frozen=True, slots=True)
class FolderClaim:
    """A claimed folder, for a process that inherits its locks: their paths and descriptors.

    ``training``: the id of the process that is recorded.
    """

    path: Path
    rank: int
    attempt: int
    locks: tuple[tuple[Path, int], ...]
    training: int


class ClaimedFolder:
    """A new folder for ``attempt`` of ``rank``, with the locks of rank and attempt. Raises ``LockedError``."""

    def __init__(self, run_dir: Path, *, rank: int = 0, attempt: int = 0) -> None:
        rank_folder = run_dir / layout.rank_folder(rank)
        rank_folder.mkdir(parents=True, exist_ok=True)
        rank_lock = WriterLock(rank_folder / layout.LOCK_FILE)
        self.rank, self.attempt, self.path = rank, attempt, _new_folder(rank_folder, attempt)
        self.locks: Sequence[WriterLock] = (rank_lock, WriterLock(self.path / layout.LOCK_FILE))
        self.training = os.getpid()

    @classmethod
    def adopted(cls, claim: FolderClaim) -> ClaimedFolder:
        """Return a folder that another process has claimed."""
        folder = cls.__new__(cls)
        folder.rank, folder.attempt, folder.path = claim.rank, claim.attempt, claim.path
        folder.locks = tuple(WriterLock.adopted(*lock) for lock in claim.locks)
        folder.training = claim.training
        return folder

    def described(self) -> FolderClaim:
        """Return the claim as it is handed to another process."""
        locks = tuple((lock.path, lock.descriptor) for lock in self.locks)
        return FolderClaim(self.path, self.rank, self.attempt, locks, self.training)

    def next(self) -> ClaimedFolder:
        """Return a folder for the next attempt, under the same lock of the rank; that of this attempt is released."""
        rank_lock, lock = self.locks
        lock.release()
        folder = ClaimedFolder.__new__(ClaimedFolder)
        folder.rank, folder.attempt, folder.training = self.rank, self.attempt + 1, self.training
        folder.path = _new_folder(self.path.parent, folder.attempt)
        folder.locks = (rank_lock, WriterLock(folder.path / layout.LOCK_FILE))
        return folder

    def release(self) -> None:
        """Unlock, for all processes that share the locks."""
        for lock in reversed(self.locks):
            lock.release()

    def close(self) -> None:
        """Close this process's copies of the locks; another one has them."""
        for lock in self.locks:
            lock.close()


def _new_folder(rank_folder: Path, attempt: int) -> Path:
    folder = rank_folder / layout.attempt_folder(attempt, uuid.uuid4().hex[:8])
    folder.mkdir(parents=True)
    sync_folder(folder.parent)
    with contextlib.suppress(OSError):  # the disk is full already
        (folder / layout.RESERVE_FILE).write_bytes(os.urandom(RESERVE_BYTES))  # random: no file system compresses it
    return folder
