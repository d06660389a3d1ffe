"""Find runs, and read the identity of one from its run.json."""

from __future__ import annotations

import difflib
import json
import os
from itertools import islice
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
"""Logs do not state their columns, so logs of a newer version, even a minor one, are refused."""


_MOST_SEARCHED, _MOST_NAMED = 100, 5
"""Runs that are searched for in a folder that is none, and of them those that are named."""
_MOST_COMPARED = 2000
"""Names that the name of a run that does not exist is compared with."""


def find_runs(directory: Path | str) -> list[Path]:
    """Return the run directories at or below ``directory``, sorted; runs inside a run are not searched for.

    An unreadable directory is returned as if it were a run, so that opening it reports the error.
    """
    directory = Path(directory)
    if os.path.lexists(directory / RUN_FILE):
        return [directory]
    runs: list[Path] = []
    try:
        children = listed(directory)
    except DamagedError:
        return [directory]  # opening it reports why it cannot be read
    for child in children:
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            runs += find_runs(child)
    return runs


def _not_utf8(path: Path) -> bool:
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        return True
    return False


def _exists(path: Path) -> bool:
    """Return whether ``path`` exists. Raises ``DamagedError`` when permission for a parent folder is missing."""
    try:
        path.stat()
    except PermissionError as error:
        raise DamagedError(f"{path} {why_unreadable(error)}", hint="make its parent folders readable") from error
    except (OSError, ValueError):
        return False
    return True


def identity(path: Path) -> dict[str, Any]:
    """Return run.json of the run at ``path``. Raises ``UsageError`` or ``DamagedError`` as ``open_run`` does."""
    file = path / RUN_FILE
    if _not_utf8(path):
        raise UsageError(f"{path} is not a UTF-8 name", hint="rename the directory: DuckDB cannot open it")
    if not _exists(path):
        raise UsageError(f"{path} does not exist", hint=_near(path) or "give a directory written by the recorder")
    if path.is_dir():
        listed(path)
    there = os.path.lexists(file)
    if not there and any(rank_of(child) is not None for child in path.glob("rank*")):
        raise DamagedError(
            f"{file} is missing, but there are rank folders next to it", hint="restore it from the original run"
        )
    if not there:
        raise UsageError(
            f"{path} is not a recorded run: it has no {RUN_FILE}",
            hint=_runs_below(path) or "give a directory written by the recorder",
        )
    info = _facts(file)
    version = str(info[VERSION_KEY])
    if is_newer_major(version) or (is_newer(version) and any(path.glob(_LOGS))):
        raise newer_schema(path, version)
    if not was_declared(version) and not is_newer(version):
        raise DamagedError(f"{file} has the unknown schema version {version[:40]!r}")
    return info


def _near(path: Path) -> str:
    """Ask for the file or folder beside ``path`` with the nearest name; empty without one that is near."""
    try:
        names = [child.name for child in islice(path.parent.iterdir(), _MOST_COMPARED)]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / close[0]}?" if close else ""


def _runs_below(path: Path) -> str:
    """Name the first runs in a folder, or in folders of it; empty without any."""
    patterns = (f"*/{RUN_FILE}", f"*/*/{RUN_FILE}")
    runs = sorted(file.parent for pattern in patterns for file in islice(path.glob(pattern), _MOST_SEARCHED))
    if not runs:
        return ""
    more = ", …" if len(runs) > _MOST_NAMED else ""
    return f"it holds runs: {', '.join(map(str, runs[:_MOST_NAMED]))}{more}; `esper-analyze ls {path}` lists them"


def _facts(file: Path) -> dict[str, Any]:
    try:
        info = dict(json.loads(read_file(file, LARGEST_TEXT)))
        info[VERSION_KEY]
    except OSError as error:
        raise DamagedError(f"{file} {why_unreadable(error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{file} cannot be read as a run's identity ({type(error).__name__})") from error
    return info
