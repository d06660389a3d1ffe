"""Atomic changes to one writer's folder: complete or not at all, however often the process is killed.

New files are first written under staged names. One rename then puts the journal in place, which commits the change.
Only idempotent renames and removals follow: after a crash the next repair or compaction finishes them. A reader
between any two of them sees each row once, because the manifest is replaced by one rename.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.storage import layout
from esper_analyze.storage.atomic import sync_folder, write_synced
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.run_files import RefusedFileError, read_file

_ASIDE = re.compile(re.escape(layout.ASIDE) + r"/[A-Za-z0-9._-]{1,120}\Z")
_AGAIN = "move it away and repair again"
_STAGED = re.compile(re.escape(layout.STAGED) + r"[A-Za-z0-9._-]{1,160}\Z")


@dataclass(slots=True)
class FolderChange:
    """A change in ``folder``: staged files moved into place, files set aside, files removed; in this order."""

    folder: Path
    what: str
    puts: list[tuple[str, str]] = field(default_factory=list)
    moves: list[tuple[str, str]] = field(default_factory=list)
    removes: list[str] = field(default_factory=list)

    def stage(self, name: str, content: bytes) -> None:
        """Write ``content`` to a staged file that becomes ``name`` when the change is applied. Raises ``OSError``."""
        staged = layout.STAGED + name.replace("/", "-")
        write_synced(self.folder / staged, content)
        self.puts.append((staged, name))

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Stage files within this context; an exception before ``commit`` deletes them."""
        try:
            yield
        except BaseException:
            if not os.path.lexists(self.folder / layout.JOURNAL_FILE):
                with contextlib.suppress(OSError):
                    forget_staged(self.folder)
            raise

    def commit(self) -> None:
        """Put the journal in place: from here on the change will be applied. Raises ``OSError``; then it will not."""
        facts: dict[str, Any] = {
            "what": self.what, "puts": self.puts, "moves": self.moves, "removes": self.removes
        }  # fmt: skip
        facts["crc"] = zlib.crc32(json.dumps(facts).encode())
        staged = FolderChange(self.folder, self.what)
        staged.stage(layout.JOURNAL_FILE, json.dumps(facts).encode())
        sync_folder(self.folder)
        (self.folder / staged.puts[0][0]).replace(self.folder / layout.JOURNAL_FILE)
        sync_folder(self.folder)

    def apply(self) -> None:
        """Carry out a committed change; steps already done are skipped. Raises ``OSError``."""
        aside = self.folder / layout.ASIDE
        if any(to.startswith(f"{layout.ASIDE}/") for _, to in [*self.puts, *self.moves]):
            if aside.is_symlink():
                raise DamagedError(f"{aside} is a symbolic link", hint="remove it")
            aside.mkdir(exist_ok=True)
        for source, target in [*self.puts, *self.moves]:
            with contextlib.suppress(FileNotFoundError):  # already done
                (self.folder / source).replace(self.folder / target)
        sync_folder(self.folder)
        if aside.is_dir():
            sync_folder(aside)
        for name in self.removes:
            (self.folder / name).unlink(missing_ok=True)
        sync_folder(self.folder)
        (self.folder / layout.JOURNAL_FILE).unlink(missing_ok=True)
        sync_folder(self.folder)


def pending(folder: Path) -> FolderChange | None:
    """Return the change that was committed and not finished; None without a journal.

    Raises ``DamagedError`` for a journal that ``commit`` cannot have written; nothing of it is then carried out.
    """
    path = folder / layout.JOURNAL_FILE
    try:
        facts = json.loads(read_file(path, LARGEST_TEXT))
        crc = facts.pop("crc")
        puts = [(str(source), str(target)) for source, target in facts["puts"]]
        moves = [(str(source), str(target)) for source, target in facts["moves"]]
        change = FolderChange(folder, str(facts["what"]), puts, moves, [str(name) for name in facts["removes"]])
        sound = crc == zlib.crc32(json.dumps(facts).encode()) and _touches_only_run_files(change)
    except FileNotFoundError:
        return None
    except RefusedFileError as error:
        raise DamagedError(f"{path} {error.strerror}", hint=_AGAIN) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise DamagedError(f"{path} is not the journal of an interrupted change", hint=_AGAIN)
    return change


def _touches_only_run_files(change: FolderChange) -> bool:
    """Whether a journal names only files that a change may touch: a run may come from an untrusted source."""
    recorder_files = (layout.MANIFEST_FILE, layout.CLOSED_FILE, layout.RESERVE_FILE)

    def belongs_to_run(name: str) -> bool:
        return name in recorder_files or layout.shard_of(name) is not None or layout.log_of(name) is not None

    return (
        all(
            _STAGED.match(source) and (belongs_to_run(target) or _ASIDE.match(target)) for source, target in change.puts
        )
        and all(belongs_to_run(source) and _ASIDE.match(target) for source, target in change.moves)
        and all(belongs_to_run(name) for name in change.removes)
    )


def forget_staged(folder: Path) -> None:
    """Delete files staged for a change that was never committed: their rows are in other files too."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(layout.STAGED):
            path.unlink()


def cannot_write(error: OSError) -> UsageError:
    """Return the user's error for a failed write."""
    where = error.filename or "the run"
    return UsageError(f"cannot write {where} ({error.strerror})", hint="nothing is lost; make room and run it again")
