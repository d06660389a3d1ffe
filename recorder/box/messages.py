"""What the box says to the training: pickled, each after its length, over a socket that nobody waits for."""

from __future__ import annotations

import contextlib
import pickle
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class FromBox:
    """One message: a line to log with its level, heads of a wrong size, why to stop, or the answer to a request.

    An answer is a pipeline's state under the number of the request: a box may answer one that another has answered.
    """

    log: tuple[int, str] | None = None
    contradicted: tuple[str, ...] = ()
    stop: str | None = None
    state: dict[str, Any] | None = None
    number: int = -1


class Inbox:
    """Reads messages from a socket that does not block. ``ended``: the other side has closed it."""

    def __init__(self, connection: socket.socket) -> None:
        self.ended = False
        self._socket = connection
        self._bytes = bytearray()

    def messages(self, wait: float = 0.0) -> Iterator[FromBox]:
        """Yield the complete messages, after at most ``wait`` seconds."""
        if wait and not self.ended:
            select.select([self._socket], [], [], wait)
        with contextlib.suppress(BlockingIOError):
            while not self.ended:
                self._read()
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                return
            message = pickle.loads(self._bytes[_LENGTH.size : end])
            del self._bytes[:end]
            yield message

    def _read(self) -> None:
        try:
            received = self._socket.recv(1 << 16)
        except BlockingIOError:
            raise
        except OSError:
            received = b""
        self.ended = not received
        self._bytes += received


def sent(message: FromBox) -> bytes:
    """Return a message as it is sent."""
    content = pickle.dumps(message)
    return _LENGTH.pack(len(content)) + content
