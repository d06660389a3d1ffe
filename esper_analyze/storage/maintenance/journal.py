"""A change to one writer's folder that happens wholly or not at all, however often it is killed.

Everything new is first written under staged names. Then one rename puts the journal in place: from there on the
change is decided. What follows are only renames and removals that can be done again: whoever comes next finishes.
A reader between any two of them sees each row once, because the manifest is replaced by one rename.
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
from esper_analyze.storage.atomic import sync_folder, write_all
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.run_files import RefusedFileError, open_regular, read_file

_ASIDE = re.compile(re.escape(layout.ASIDE) + r"/[A-Za-z0-9._-]{1,120}\Z")
_AGAIN = "move it away and repair again"
_STAGED = re.compile(re.escape(layout.STAGED) + r"[A-Za-z0-9._-]{1,160}\Z")


@dataclass(slots=True)
class Change:
    """What is to happen in ``folder``: staged files put in place, files moved aside, files removed; in this order."""

    folder: Path
    what: str
    puts: list[tuple[str, str]] = field(default_factory=list)
    moves: list[tuple[str, str]] = field(default_factory=list)
    removes: list[str] = field(default_factory=list)

    def stage(self, name: str, content: bytes) -> None:
        """Write ``content`` so that it will be ``name`` once the change is decided. Raises ``OSError``."""
        staged = layout.STAGED + name.replace("/", "-")
        descriptor = open_regular(self.folder / staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.puts.append((staged, name))

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Within it files are staged; when it is left by an exception before ``decide``, they are deleted."""
        try:
            yield
        except BaseException:
            if not os.path.lexists(self.folder / layout.JOURNAL_FILE):
                with contextlib.suppress(OSError):
                    forget_staged(self.folder)
            raise

    def decide(self) -> None:
        """Put the journal in place: from here on the change will happen. Raises ``OSError``; then it will not."""
        facts: dict[str, Any] = {
            "what": self.what, "puts": self.puts, "moves": self.moves, "removes": self.removes
        }  # fmt: skip
        facts["crc"] = zlib.crc32(json.dumps(facts).encode())
        staged = Change(self.folder, self.what)
        staged.stage(layout.JOURNAL_FILE, json.dumps(facts).encode())
        sync_folder(self.folder)
        (self.folder / staged.puts[0][0]).replace(self.folder / layout.JOURNAL_FILE)
        sync_folder(self.folder)

    def carry_out(self) -> None:
        """Do what was decided; every step that is already done is passed over. Raises ``OSError``."""
        aside = self.folder / layout.ASIDE
        if any(to.startswith(f"{layout.ASIDE}/") for _, to in [*self.puts, *self.moves]):
            if aside.is_symlink():
                raise DamagedError(f"{aside} is a link to somewhere else", hint="remove it")
            aside.mkdir(exist_ok=True)
        for come, go in [*self.puts, *self.moves]:
            with contextlib.suppress(FileNotFoundError):  # done before
                (self.folder / come).replace(self.folder / go)
        sync_folder(self.folder)
        if aside.is_dir():
            sync_folder(aside)
        for name in self.removes:
            (self.folder / name).unlink(missing_ok=True)
        sync_folder(self.folder)
        (self.folder / layout.JOURNAL_FILE).unlink(missing_ok=True)
        sync_folder(self.folder)


def pending(folder: Path) -> Change | None:
    """Return the change that was decided and not finished, None when there is none.

    Raises ``DamagedError`` when the journal is not what ``decide`` writes: nothing it says is then done.
    """
    path = folder / layout.JOURNAL_FILE
    try:
        facts = json.loads(read_file(path, LARGEST_TEXT))
        crc = facts.pop("crc")
        puts = [(str(come), str(go)) for come, go in facts["puts"]]
        moves = [(str(come), str(go)) for come, go in facts["moves"]]
        change = Change(folder, str(facts["what"]), puts, moves, [str(name) for name in facts["removes"]])
        sound = crc == zlib.crc32(json.dumps(facts).encode()) and _harmless(change)
    except FileNotFoundError:
        return None
    except RefusedFileError as error:
        raise DamagedError(f"{path} {error.strerror}", hint=_AGAIN) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise DamagedError(f"{path} is no journal of an interrupted change", hint=_AGAIN)
    return change


def _harmless(change: Change) -> bool:
    """Whether a journal names only files that such a change may touch: a run may come from a stranger."""
    known = (layout.MANIFEST_FILE, layout.CLOSED_FILE, layout.RESERVE_FILE)

    def own(name: str) -> bool:
        return name in known or layout.shard_of(name) is not None or layout.log_of(name) is not None

    return (
        all(_STAGED.match(come) and (own(go) or _ASIDE.match(go)) for come, go in change.puts)
        and all(own(come) and _ASIDE.match(go) for come, go in change.moves)
        and all(own(name) for name in change.removes)
    )


def forget_staged(folder: Path) -> None:
    """Delete what was staged for a change that was never decided: all of it is in other files too."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(layout.STAGED):
            path.unlink()


def cannot_write(error: OSError) -> UsageError:
    """Return a failed write as an error in words."""
    where = error.filename or "the run"
    return UsageError(f"cannot write {where} ({error.strerror})", hint="nothing is lost; make room and run it again")
