"""Where a command may write: never into a recorded run, and only over regular files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.storage.layout import RUN_FILE

_WRITTEN = (".html", ".json", ".md", ".png", ".svg")
"""Suffixes of the files that a report writes into its directory."""


def refuse_inside_run(path: Path) -> None:
    """Raise ``UsageError`` when ``path`` is a recorded run or inside one, links followed."""
    resolved = Path(os.path.realpath(path))
    for folder in (resolved, *resolved.parents):
        if os.path.lexists(folder / RUN_FILE):
            where = "is" if folder == resolved else "lies inside"
            raise UsageError(f"{path} {where} a recorded run, which is only read", hint="write to another directory")


def refuse_file(path: Path) -> None:
    """Raise ``UsageError`` unless ``path`` is missing or a regular file, and outside every run."""
    refuse_inside_run(path)
    kind = _kind(path)
    if kind is not None:
        raise UsageError(f"{path} is {kind} and is not overwritten", hint="name a file; `> FILE` sends stdout to it")


def refuse_folder(path: Path) -> None:
    """Raise ``UsageError`` unless a report's files may be written into ``path``."""
    refuse_inside_run(path)
    try:
        inside = [file for file in path.iterdir() if file.suffix in _WRITTEN]
    except OSError:
        return  # it does not exist yet, or writing will raise
    for file in inside:
        kind = _kind(file)
        if kind is not None:
            raise UsageError(f"{file} is {kind} and is not overwritten", hint="choose another directory")


@contextmanager
def writing(out: Path, hint: str = "choose another --out") -> Iterator[None]:
    """Turn an error of the disk into ``UsageError``: ``out`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}", hint=hint) from error


def _kind(path: Path) -> str | None:
    """Return the kind of thing at ``path`` in words; None for a regular file or a missing one."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
