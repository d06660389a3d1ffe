"""Where runs are, and what run.json says of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.schema.history import VERSION_KEY, is_newer, is_newer_major, was_declared
from esper_analyze.storage.folders import listed
from esper_analyze.storage.footer import newer_schema
from esper_analyze.storage.layout import RUN_FILE, rank_of
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.run_files import read_file, why_unreadable

_LOGS = "rank*/attempt-*/.wal-*"
"""Logs do not say what columns they hold: those of a newer version, even a minor one, are left to its own program."""


def find_runs(directory: Path | str) -> list[Path]:
    """Return the run directories at or below ``directory``, sorted; a run inside a run is not looked for.

    A directory that cannot be read is returned as if it were a run: there may be one in it.
    """
    directory = Path(directory)
    if os.path.lexists(directory / RUN_FILE):
        return [directory]
    found: list[Path] = []
    try:
        children = listed(directory)
    except DamagedError:
        return [directory]  # whoever opens it learns why it cannot be read
    for child in children:
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            found += find_runs(child)
    return found


def _no_text(path: Path) -> bool:
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        return True
    return False


def _exists(path: Path) -> bool:
    """Return whether ``path`` exists. Raises ``DamagedError`` when a folder above it may not be entered."""
    try:
        path.stat()
    except PermissionError as error:
        raise DamagedError(f"{path} {why_unreadable(error)}", hint="make what is above it readable") from error
    except (OSError, ValueError):
        return False
    return True


def identity(path: Path) -> dict[str, Any]:
    """Return run.json of the run at ``path``. Raises ``UsageError`` or ``DamagedError`` as ``open_run`` does."""
    file = path / RUN_FILE
    if _no_text(path):
        raise UsageError(f"{path} is a name that is no UTF-8 text", hint="rename the directory: DuckDB cannot open it")
    if not _exists(path):
        raise UsageError(f"{path} does not exist", hint="give the directory a recorder wrote: it holds run.json")
    if path.is_dir():
        listed(path)
    there = os.path.lexists(file)
    if not there and any(rank_of(child) is not None for child in path.glob("rank*")):
        raise DamagedError(
            f"{file} is missing, though what was recorded lies beside it", hint="bring it back from where it was made"
        )
    if not there:
        raise UsageError(
            f"{path} is not a recorded run: it has no {RUN_FILE}",
            hint="give the directory a recorder wrote; `esper-analyze ls DIR` lists the runs below a directory",
        )
    info = _facts(file)
    version = str(info[VERSION_KEY])
    if is_newer_major(version) or (is_newer(version) and any(path.glob(_LOGS))):
        raise newer_schema(path, version)
    if not was_declared(version) and not is_newer(version):
        raise DamagedError(f"{file} names the impossible schema version {version[:40]!r}")
    return info


def _facts(file: Path) -> dict[str, Any]:
    try:
        info = dict(json.loads(read_file(file, LARGEST_TEXT)))
        info[VERSION_KEY]
    except OSError as error:
        raise DamagedError(f"{file} {why_unreadable(error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{file} cannot be read as a run's identity ({type(error).__name__})") from error
    return info
