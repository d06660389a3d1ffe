"""Shards that this process has found sound and that nobody has touched since: looking again would find the same.

A program that opens a growing run every second checks what is new. A file counts as untouched while its place on disk,
length, time of writing and time of change are as they were; the last is set by the system alone. One that was changed
a moment ago is not remembered: within a tick of the clock it could change once more.
"""

from __future__ import annotations

import time
from pathlib import Path

from esper_analyze.storage.layout import ShardEntry

SETTLED_SECONDS = 2.0
"""Clocks of file systems tick in up to 2 s (FAT); those of others in milliseconds."""
MOST = 200_000
"""Files remembered, some hundred bytes each; beyond, all are looked at once more."""

_Mark = tuple[int, int, int, int, int, ShardEntry]
_sound: dict[str, _Mark] = {}


def mark_of(path: Path, entry: ShardEntry) -> _Mark | None:
    """Return what says that the shard at ``path`` was not touched since, None when it cannot be looked at."""
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, entry


def is_sound(path: Path, mark: _Mark | None) -> bool:
    """Whether the shard was found sound as ``mark`` has it."""
    return mark is not None and _sound.get(str(path)) == mark


def remember(path: Path, mark: _Mark | None) -> None:
    """Keep in mind that the shard was found sound; ``mark`` is of before it was looked at."""
    if mark is None or not _settled(mark):
        return
    if len(_sound) >= MOST:
        _sound.clear()
    _sound[str(path)] = mark


def forget() -> None:
    """Look at every file once more from here on."""
    _sound.clear()


def _settled(mark: _Mark) -> bool:
    now = time.time_ns()
    return all(0 <= moment <= now - SETTLED_SECONDS * 1e9 for moment in mark[3:5])
