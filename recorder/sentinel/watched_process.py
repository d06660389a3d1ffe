"""Watch a process that is not a child: whether it lives, how it ended, how much memory it took at most."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time

_PROCESSES = "/proc"
_STATE, _START, _EXIT = 0, 19, 49
"""Fields of /proc/PID/stat, counted after the name of the process."""
_GET_INFO = 0xC040FF0B
"""PIDFD_GET_INFO for a ``struct pidfd_info`` of 64 bytes, its first version."""
_INFO = struct.Struct("=QQ12i")
_EXIT_KNOWN = 8
"""PIDFD_INFO_EXIT, from Linux 6.15 on: the exit status stays known after the parent has reaped the process."""
_SUSPENDED = "T"


class WatchedProcess:
    """The process ``pid`` that began at ``started`` (of ``start_time``; None: not known), and no later one of that id.

    Where the kernel has no pidfd the process is asked for at each ``wait``. ``processes``: where /proc is mounted.
    """

    def __init__(self, pid: int, started: str | None, processes: str = _PROCESSES) -> None:
        self.pid, self._started, self._processes = pid, started, processes
        self.peak_rss: int | None = None
        """Most memory it had resident, in bytes; None before ``measure``, and without /proc."""
        try:
            self._descriptor: int | None = os.pidfd_open(pid)
        except (OSError, AttributeError):  # gone, a kernel without, or a filter that forbids it
            self._descriptor = None
        if self._descriptor is not None and not self._is_same():  # ended before, and its id has another process
            os.close(self._descriptor)
            self._descriptor = None

    def wait(self, seconds: float) -> bool:
        """Return whether it has ended, after ``seconds`` at most."""
        if self._descriptor is None:
            if not self._is_alive():
                return True
            time.sleep(seconds)
            return not self._is_alive()
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(round(1000 * seconds)))

    def exit_status(self) -> int | None:
        """Return how it ended, as ``os.waitpid`` says it; None where that cannot be known from outside.

        The kernel tells it from Linux 6.15 on; an older one only until the parent has asked for it.
        """
        if self._descriptor is not None:
            info = bytearray(_INFO.size)
            _INFO.pack_into(info, 0, _EXIT_KNOWN, *[0] * 13)
            try:
                fcntl.ioctl(self._descriptor, _GET_INFO, info)
            except OSError:
                pass
            else:
                mask, *_, status = _INFO.unpack(info)
                if mask & _EXIT_KNOWN:
                    return int(status)
        fields = _stat(self.pid, self._processes)
        if len(fields) <= _EXIT or fields[_STATE] != "Z" or fields[_START] != self._started:
            return None
        return int(fields[_EXIT]) or None  # 0 is also what a reader without permission gets

    def is_suspended(self) -> bool:
        """Whether it is stopped by SIGSTOP or Ctrl-Z."""
        return self._is_same() and _stat(self.pid, self._processes)[:1] == [_SUSPENDED]

    def measure(self) -> None:
        """Read ``peak_rss``; it is gone with the process."""
        try:
            with open(f"{self._processes}/{self.pid}/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - pathlib takes memory
                lines = [line for line in file if line.startswith("VmHWM:")]
            self.peak_rss = int(lines[0].split()[1]) * 1024
        except (OSError, ValueError, IndexError):
            return

    def _is_same(self) -> bool:
        return self._started is None or start_time(self.pid, self._processes) in (self._started, None)

    def _is_alive(self) -> bool:
        fields = _stat(self.pid, self._processes)
        if self._started is not None and len(fields) > _START:
            return fields[_START] == self._started and fields[_STATE] not in "ZX"
        try:
            os.kill(self.pid, 0)
        except OSError:  # gone, or the id belongs to a process of another user
            return False
        return True


def start_time(pid: int, processes: str = _PROCESSES) -> str | None:
    """Return when a process began, in ticks since the boot; None where /proc does not say."""
    fields = _stat(pid, processes)
    return fields[_START] if len(fields) > _START else None


def _stat(pid: int, processes: str) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may hold spaces and brackets; none if unreadable."""
    try:
        with open(f"{processes}/{pid}/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []
