"""Hold a run so that nobody writes to it: as long as it is repaired or compacted no writer can begin."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.storage import layout
from esper_analyze.storage.attempts import Attempt
from esper_analyze.storage.lock import LockedError, WriterLock, holder
from esper_analyze.storage.maintenance.verify import places
from esper_analyze.storage.run_files import RefusedFileError, refusal

_MOVE = "move it away and run it again"
_NEXT = "wait until that process has ended, or end it"


@contextlib.contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Hold the lock of every rank.

    Raises ``UsageError`` naming who writes to the run, ``DamagedError`` for a lock that is not a regular file.
    """
    found = places(run_dir)
    with contextlib.ExitStack() as stack:
        for folder in dict.fromkeys(one.folder.parent for one in found):
            try:
                lock = WriterLock(folder / layout.LOCK_FILE)
            except LockedError as error:
                raise UsageError(str(error), hint=_NEXT) from error
            except RefusedFileError as error:
                raise DamagedError(str(error), hint=_MOVE) from error
            stack.callback(lock.release)
        for one in found:
            reason = refusal(one.folder / layout.LOCK_FILE)
            if reason is not None:
                raise DamagedError(f"{one.folder / layout.LOCK_FILE} {reason}", hint=_MOVE)
            if Attempt(one.folder, one.rank, one.number).alive():
                raise UsageError(f"{one.folder} is being written by {holder(one.folder)}", hint=_NEXT)
        yield
