"""Files that no checksum vouches for are looked into by a process of its own first: some footers end the reader.

pyarrow lets C++ exceptions of damaged size statistics end the interpreter; no ``try`` helps against that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from esper_analyze.storage.run_files import is_regular

_PATIENCE = 60.0
_CODE = """
import os
import sys
import pyarrow.parquet as pq
for number, path in enumerate(sys.stdin.buffer.read().split(b"\\0")):
    print(number, flush=True)
    try:
        found = pq.read_metadata(open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb"))
        for group in range(found.num_row_groups):
            for column in range(found.num_columns):
                found.row_group(group).column(column).statistics
    except Exception:
        pass
print("all", flush=True)
"""
_known: dict[tuple[str, int, int], bool] = {}
"""Whether a file, by path, length and time of change, ends the process that looks into it."""


def look_into(paths: Sequence[Path]) -> None:
    """Look into all of ``paths`` in one process, so that ``ends_its_reader`` knows of them."""
    left = [path for path in paths if is_regular(path) and _key(path) not in _known]
    while left:
        done = _last_seen(left)
        for path in left[: done + 1]:
            _known[_key(path)] = False
        if done + 1 < len(left):
            _known[_key(left[done + 1])] = True
        left = left[done + 2 :]


def ends_its_reader(path: Path) -> bool:
    """Return whether a process that looks into the footer of ``path`` dies of it."""
    look_into([path])
    return is_regular(path) and _known.get(_key(path), False)


def _key(path: Path) -> tuple[str, int, int]:
    facts = path.lstat()
    return str(path.absolute()), facts.st_size, facts.st_mtime_ns


def _last_seen(paths: Sequence[Path]) -> int:
    """Return the number of the last file that was looked into and did no harm, −1 when the first one did."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    try:
        said = process.communicate(b"\0".join(os.fsencode(path.absolute()) for path in paths), _PATIENCE)[0].split()
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[0].split()
    if said[-1:] == [b"all"]:
        return len(paths) - 1
    return int(said[-1]) - 1 if said else len(paths) - 1  # a Python that does not start says nothing of the files
