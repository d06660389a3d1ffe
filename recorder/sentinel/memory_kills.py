"""How often the kernel killed a process of a cgroup because memory had run out."""

from __future__ import annotations

import os

LASTING = 60.0
"""Seconds for which a kill may be that of the process: one with much memory takes its time to end."""
_FILES = {"memory": "memory.oom_control", "": "memory.events"}
"""The file that counts, by controller of version 1; the empty one is version 2."""


class MemoryKills:
    """Counts of ``file``, read at intervals; None: there is no such file, and nothing can be said."""

    def __init__(self, file: str | None) -> None:
        self._file = file
        self._count = oom_kills(file)
        self._rose_at: float | None = None

    def check(self, now: float) -> None:
        """Read the count at ``now``, a monotonic time in seconds."""
        count = oom_kills(self._file)
        if count is not None and self._count is not None and count > self._count:
            self._rose_at = now
        self._count = count if count is not None else self._count

    def rose(self, now: float) -> bool | None:
        """Return whether a process was killed within the ``LASTING`` seconds before ``now``; None: not known."""
        if self._count is None:
            return None
        return self._rose_at is not None and now - self._rose_at <= LASTING


def oom_kills(file: str | None) -> int | None:
    """Return the count in memory.events or memory.oom_control; None where it cannot be read or has none."""
    if file is None:
        return None
    try:
        with open(file, encoding="ascii", errors="replace") as lines:  # noqa: PTH123 - pathlib takes memory
            counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
        return int(counts[0])
    except (OSError, ValueError, IndexError):
        return None


def counting_file(pid: int, processes: str = "/proc") -> str | None:
    """Return the file that counts the memory kills in the cgroup of a process, of version 2 or 1; None without one."""
    try:
        with open(f"{processes}/{pid}/cgroup", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        with open(f"{processes}/{pid}/mountinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            mounts = [mount for line in file if (mount := _mount(line)) is not None]
    except OSError:
        return None
    paths = {name: line[2] for line in lines if len(line) == 3 for name in line[1].split(",")}
    for controller, root, folder in mounts:
        name, path = _FILES[controller], paths.get(controller)
        if path is None:
            continue
        inner = os.path.relpath(path, root) if path.startswith(root.rstrip("/") + "/") else path.lstrip("/")
        for candidate in (os.path.join(folder, inner, name), os.path.join(folder, name)):  # noqa: PTH118
            if oom_kills(candidate) is not None:
                return os.path.normpath(candidate)
    return None


def _mount(line: str) -> tuple[str, str, str] | None:
    """Return controller, root and folder of a mounted hierarchy that counts memory kills; None for another mount."""
    before, _, after = line.partition(" - ")
    fields, kind = before.split(), after.split()
    if len(fields) < 5 or len(kind) < 3:
        return None
    if kind[0] == "cgroup2":
        return "", fields[3], fields[4]
    return ("memory", fields[3], fields[4]) if kind[0] == "cgroup" and "memory" in kind[2].split(",") else None
