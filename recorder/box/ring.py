"""A ring of frames in a mapped file, from one writing process to one reading process.

What was written survives the death of either process. Neither waits for the other: a writer without room is told so.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HEADER = 128
"""Bytes before the first frame: the words below, 8 bytes each."""
_MAGIC, _WRITTEN, _READ, DEBUG_UNTIL, AS_CLIPPED, FINISHED, STOP = range(7)
"""Words: of the writer, bytes written; of the reader, bytes read and what it says about the updates so far."""
_ID = 0x31676E6972727065
_FRAME = struct.Struct("<IIQ")
"""Of each frame: number of buffers, CRC-32 of the message, and bytes of the entire frame."""
_SIZE = struct.Struct("<Q")
_WRAP = 0xFFFFFFFF
"""Number of buffers that says: the next frame is at the beginning."""
ALIGNED = 64


class RingFullError(RuntimeError):
    """There is no room for a frame now, or it is larger than the ring."""


class RingDamagedError(RuntimeError):
    """A frame is not what was written."""


@dataclass(frozen=True, slots=True)
class RingFrame:
    """A message and its buffers, as views of the ring that are valid until ``Ring.release``."""

    message: memoryview
    buffers: Sequence[memoryview]
    end: int


class Ring:
    """One end of a ring; the file is created by the writer.

    Frames are contiguous. Positions only grow: bytes written, bytes read. The writer moves its position when a frame is
    complete, so a frame cut short by its death is never read.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        """Open the ring at ``path``, or create it with ``size`` bytes for frames. Raises ``OSError``."""
        mode = "r+b" if size is None else "w+b"
        with path.open(mode) as file:
            if size is not None:
                file.truncate(HEADER + _aligned(size))
            self._map = mmap.mmap(file.fileno(), 0)
        self.path = path
        self._view = memoryview(self._map)
        self._words = self._view[:HEADER].cast("q")
        self._frames = self._view[HEADER:]
        self.size = len(self._frames)
        if size is not None:
            self._words[DEBUG_UNTIL] = self._words[AS_CLIPPED] = self._words[FINISHED] = -1
            self._words[_MAGIC] = _ID
        elif self._words[_MAGIC] != _ID:
            raise RingDamagedError(f"{path} is not a ring")

    def word(self, index: int) -> int:
        """Return a word of the header."""
        return self._words[index]

    def set_word(self, index: int, number: int) -> None:
        """Set a word of the header; each has one writer."""
        self._words[index] = number

    @property
    def waiting(self) -> int:
        """Bytes written and not read yet."""
        return self._words[_WRITTEN] - self._words[_READ]

    def write(self, message: bytes, buffers: Sequence[memoryview]) -> None:
        """Append a frame. Raises ``RingFullError`` and writes nothing if there is no room for it."""
        start = _FRAME.size + _SIZE.size * (1 + len(buffers))
        length = _aligned(start + len(message)) + sum(_aligned(buffer.nbytes) for buffer in buffers)
        written = self._words[_WRITTEN]
        at = written % self.size
        skipped = self.size - at if at + length > self.size else 0
        if length + skipped > self.size - self.waiting or length > self.size:
            raise RingFullError(f"{length} bytes, {self.size - self.waiting} of {self.size} are free")
        if skipped:
            _FRAME.pack_into(self._frames, at, _WRAP, 0, skipped)
            at = 0
        _FRAME.pack_into(self._frames, at, len(buffers), zlib.crc32(message), length)
        sizes = [len(message), *(buffer.nbytes for buffer in buffers)]
        struct.pack_into(f"<{len(sizes)}Q", self._frames, at + _FRAME.size, *sizes)
        self._frames[at + start : at + start + len(message)] = message
        position = at + _aligned(start + len(message))
        for buffer in buffers:
            self._frames[position : position + buffer.nbytes] = buffer
            position += _aligned(buffer.nbytes)
        self._words[_WRITTEN] = written + skipped + length

    def next(self) -> RingFrame | None:
        """Return the next frame; None if there is none. Raises ``RingDamagedError``."""
        read = self._words[_READ]
        while read < self._words[_WRITTEN]:
            at = read % self.size
            count, checksum, length = _FRAME.unpack_from(self._frames, at)
            if count != _WRAP:
                return self._frame(at, count, checksum, read + length)
            read += length
        return None

    def _frame(self, at: int, count: int, checksum: int, end: int) -> RingFrame:
        if end > self._words[_WRITTEN] or _FRAME.size + _SIZE.size * (1 + count) > self.size - at:
            raise RingDamagedError(f"{self.path}: a frame ends beyond what was written")
        size, *sizes = struct.unpack_from(f"<{1 + count}Q", self._frames, at + _FRAME.size)
        start = at + _FRAME.size + _SIZE.size * (1 + count)
        message = self._frames[start : start + size]
        if zlib.crc32(message) != checksum:
            raise RingDamagedError(f"{self.path}: a frame's checksum differs")
        buffers, position = [], at + _aligned(start - at + size)
        for buffer_size in sizes:
            buffers.append(self._frames[position : position + buffer_size])
            position += _aligned(buffer_size)
        return RingFrame(message, buffers, end)

    def release(self, frame: RingFrame) -> None:
        """Make room: the frame, and what was read of it, is no longer needed."""
        self._words[_READ] = frame.end

    def skip_all(self) -> int:
        """Drop what is waiting, after damage; return its bytes."""
        waiting = self.waiting
        self._words[_READ] = self._words[_WRITTEN]
        return waiting


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
