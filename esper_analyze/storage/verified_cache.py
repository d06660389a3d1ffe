"""Cache of shards that this process has verified and that have not changed since.

A program that opens a growing run every second then checks only new shards. A file counts as unchanged while its
device, inode, length, mtime and ctime are the same; only the system sets ctime. A file that changed a moment ago is
not cached: it could change again within one tick of the file system's clock.
"""

from __future__ import annotations

import time
from pathlib import Path

from esper_analyze.storage.layout import ShardEntry

SETTLED_SECONDS = 2.0
"""Timestamps of file systems have a resolution of up to 2 s (FAT); most of milliseconds."""
CAPACITY = 200_000
"""Cached files, some hundred bytes each; when full, the cache is cleared."""

_Stamp = tuple[int, int, int, int, int, ShardEntry]
_sound: dict[str, _Stamp] = {}


def stamp_of(path: Path, entry: ShardEntry) -> _Stamp | None:
    """Return what identifies this state of the shard at ``path``; None when it cannot be read."""
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, entry


def is_sound(path: Path, stamp: _Stamp | None) -> bool:
    """Whether the shard was verified in the state ``stamp``."""
    return stamp is not None and _sound.get(str(path)) == stamp


def remember(path: Path, stamp: _Stamp | None) -> None:
    """Remember that the shard was verified; ``stamp`` was taken before the check."""
    if stamp is None or not _settled(stamp):
        return
    if len(_sound) >= CAPACITY:
        _sound.clear()
    _sound[str(path)] = stamp


def forget() -> None:
    """Empty the cache: every file is checked again."""
    _sound.clear()


def _settled(stamp: _Stamp) -> bool:
    now = time.time_ns()
    return all(0 <= moment <= now - SETTLED_SECONDS * 1e9 for moment in stamp[3:5])
