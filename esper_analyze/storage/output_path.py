"""Where a command may write: never into a recorded run, never over anything but a regular file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.storage.layout import RUN_FILE

_WRITTEN = (".html", ".json", ".md", ".png", ".svg")
"""Endings of the files that a page's directory gets."""


def refuse_inside_run(path: Path) -> None:
    """Raise ``UsageError`` when ``path`` is a recorded run or lies inside one, links followed."""
    whole = Path(os.path.realpath(path))
    for folder in (whole, *whole.parents):
        if os.path.lexists(folder / RUN_FILE):
            where = "is" if folder == whole else "lies inside"
            raise UsageError(f"{path} {where} a recorded run, which is only read", hint="write to another place")


def refuse_file(path: Path) -> None:
    """Raise ``UsageError`` unless a file may be put at ``path``: a regular one or nothing is there, and no run."""
    refuse_inside_run(path)
    kind = _kind(path)
    if kind is not None:
        raise UsageError(f"{path} is {kind} and is not written over", hint="name a file; `> FILE` sends stdout to it")


def refuse_folder(path: Path) -> None:
    """Raise ``UsageError`` unless the files of a page may be put into ``path``."""
    refuse_inside_run(path)
    try:
        inside = [one for one in path.iterdir() if one.suffix in _WRITTEN]
    except OSError:
        return  # it is not there yet, or writing tells
    odd = next(((one, kind) for one in inside if (kind := _kind(one)) is not None), None)
    if odd is not None:
        raise UsageError(f"{odd[0]} is {odd[1]} and is not written over", hint="choose another directory")


def _kind(path: Path) -> str | None:
    """Return what is at ``path`` in words, None for a regular file or nothing."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
