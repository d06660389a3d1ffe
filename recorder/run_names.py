"""Directories of runs: one by script and time where none is given, and the first free number where one is taken."""

from __future__ import annotations

import itertools
import re
import sys
import time
from pathlib import Path

EXISTS = ("refuse", "number")
"""What to do with a directory that exists: refuse it if it holds a run, or take the next free number."""


def default_directory() -> Path:
    """Return ``runs/<script>-<date>-<time>`` below the current working directory, absolute, in local time."""
    return (Path("runs") / f"{script()}-{time.strftime('%Y%m%d-%H%M%S')}").absolute()


def script() -> str:
    """Return the name of the program that runs: of its file, of a package run with ``-m``, or "notebook"."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None:
        return "notebook" if "ipykernel" in sys.modules else "session"
    path = Path(file)
    if path.stem == "ipykernel_launcher":
        return "notebook"
    name = path.parent.name if path.stem == "__main__" else path.stem
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "session"


def claimed(directory: Path, *, number: bool) -> Path:
    """Return ``directory``; with ``number`` the first of it, ``directory-2``, … that does not exist, and create it."""
    if not number:
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    for count in itertools.count(1):
        candidate = directory if count == 1 else directory.with_name(f"{directory.name}-{count}")
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise AssertionError


def check(run_dir: object, exists: str, ranks: int, *, resume: bool) -> None:
    """Raise ``ValueError`` where no name can be chosen: for a run that is resumed, and for one rank of several."""
    if exists not in EXISTS:
        raise ValueError(f"exists must be one of {', '.join(EXISTS)}, not {exists!r}")
    chosen = "run_dir is not given" if run_dir is None else f"exists={exists!r}" if exists == "number" else ""
    if chosen and resume:
        raise ValueError(f"{chosen}, but resume=True needs the directory of the run to resume: pass run_dir")
    if chosen and ranks > 1:
        raise ValueError(
            f"{chosen}, but all {ranks} ranks need the same directory: choose one and pass run_dir to each"
        )
