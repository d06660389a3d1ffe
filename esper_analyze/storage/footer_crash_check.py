"""Probe the footers of files without a checksum in a child process first: some footers crash the reader.

In pyarrow, C++ exceptions from damaged size statistics terminate the interpreter; no ``try`` catches them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from esper_analyze.storage.run_files import is_regular

_TIMEOUT_SECONDS = 60.0
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
_crashes_by_file: dict[tuple[str, int, int], bool] = {}
"""Whether reading a file's footer crashes the process, by path, length and time of modification."""


def probe(paths: Sequence[Path]) -> None:
    """Read the footers of ``paths`` in one child process and remember the outcome for ``crashes_reader``."""
    unchecked = [path for path in paths if is_regular(path) and _key(path) not in _crashes_by_file]
    while unchecked:
        survived = _last_survived(unchecked)
        for path in unchecked[: survived + 1]:
            _crashes_by_file[_key(path)] = False
        if survived + 1 < len(unchecked):
            _crashes_by_file[_key(unchecked[survived + 1])] = True
        unchecked = unchecked[survived + 2 :]


def crashes_reader(path: Path) -> bool:
    """Return whether reading the footer of ``path`` crashes the process."""
    probe([path])
    return is_regular(path) and _crashes_by_file.get(_key(path), False)


def _key(path: Path) -> tuple[str, int, int]:
    facts = path.lstat()
    return str(path.absolute()), facts.st_size, facts.st_mtime_ns


def _last_survived(paths: Sequence[Path]) -> int:
    """Return the index of the last file whose footer was read without a crash, −1 when the first one crashed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    try:
        output = process.communicate(b"\0".join(os.fsencode(path.absolute()) for path in paths), _TIMEOUT_SECONDS)[
            0
        ].split()
    except subprocess.TimeoutExpired:
        process.kill()
        output = process.communicate()[0].split()
    if output[-1:] == [b"all"]:
        return len(paths) - 1
    return (
        int(output[-1]) - 1 if output else len(paths) - 1
    )  # a Python that does not start proves nothing about the files
