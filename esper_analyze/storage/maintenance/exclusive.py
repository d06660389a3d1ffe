"""Exclusive access to a run: no writer can begin while it is repaired or compacted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.storage import layout
from esper_analyze.storage.attempts import Attempt
from esper_analyze.storage.folders import attempt_folders
from esper_analyze.storage.lock import LockedError, WriterLock, holder
from esper_analyze.storage.run_files import RefusedFileError, refusal

_MOVE = "move it away and run it again"
_NEXT = "wait until that process has ended, or end it"


@contextlib.contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """Hold the writer's lock of every rank.

    Raises ``UsageError`` naming who writes to the run, ``DamagedError`` for a lock that is not a regular file.
    """
    folders = attempt_folders(run_dir)
    with contextlib.ExitStack() as stack:
        for rank_folder in dict.fromkeys(attempt_folder.path.parent for attempt_folder in folders):
            try:
                lock = WriterLock(rank_folder / layout.LOCK_FILE)
            except LockedError as error:
                raise UsageError(str(error), hint=_NEXT) from error
            except RefusedFileError as error:
                raise DamagedError(str(error), hint=_MOVE) from error
            stack.callback(lock.release)
        for attempt_folder in folders:
            reason = refusal(attempt_folder.path / layout.LOCK_FILE)
            if reason is not None:
                raise DamagedError(f"{attempt_folder.path / layout.LOCK_FILE} {reason}", hint=_MOVE)
            if Attempt(attempt_folder.path, attempt_folder.rank, attempt_folder.number).alive():
                raise UsageError(f"{attempt_folder.path} is being written by {holder(attempt_folder.path)}", hint=_NEXT)
        yield
