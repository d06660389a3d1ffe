"""Frames of the write-ahead log: the rows of one hand-over, protected by a checksum.

A file is ``MAGIC`` and then frames: marker, length and CRC-32 of the payload (little endian), payload. A payload is
the length of its head, the head (JSON), and the arrays that the head describes. Decoding creates only numbers, text
and arrays, so a foreign file can be wrong but not harmful.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage.block import Block, Rows
from esper_analyze.storage.entries import Entry
from esper_analyze.storage.limits import LARGEST_FRAME, LARGEST_FRAME_ROWS

MAGIC = b"ESPERLOG1\n"
MARKER = b"\xf5ES\xfa"
_HEADER = struct.Struct("<4sII")
_HEAD = struct.Struct("<I")
_DTYPES = ("<f8", "<f4", "<i8", "<i4", "|b1")
_ARRAY, _MASKED = "@array", "@masked"


class FrameError(ValueError):
    """A payload that ``encode`` did not write; the message says where it differs."""


def encode(entries: Mapping[str, Entry]) -> bytes:
    """Return rows of several tables, with their first sequence numbers, as one frame.

    Raises ``TypeError`` or ``ValueError`` for a cell that is neither number, text nor array.
    """
    arrays: list[bytes] = []
    head = [
        {"table": table, "seq": seq, **_encoded(rows, arrays)} for table, (seq, rows) in entries.items() if len(rows)
    ]
    text = json.dumps(head, separators=(",", ":"), default=_plain).encode()
    payload = b"".join((_HEAD.pack(len(text)), text, *arrays))
    if len(payload) > LARGEST_FRAME:
        raise ValueError(f"{len(payload):,} bytes at once are more than a frame may have ({LARGEST_FRAME:,})")
    if sum(item["n"] for item in head if "n" in item) > LARGEST_FRAME_ROWS:
        raise ValueError("more rows at once than a frame holds")
    return _HEADER.pack(MARKER, len(payload), zlib.crc32(payload)) + payload


def _encoded(rows: Rows, arrays: list[bytes]) -> dict[str, Any]:
    if not isinstance(rows, Block):
        return {"rows": list(rows)}
    return {"n": len(rows), "cells": {name: _encoded_cell(cell, arrays) for name, cell in rows.cells.items()}}


def _encoded_cell(cell: Any, arrays: list[bytes]) -> Any:
    if not isinstance(cell, np.ndarray):
        return cell
    values = np.ascontiguousarray(cell if not isinstance(cell, np.ma.MaskedArray) else cell.data)
    if values.dtype.str not in _DTYPES:
        return cell.tolist()
    arrays.append(values.tobytes())
    if not isinstance(cell, np.ma.MaskedArray):
        return {_ARRAY: values.dtype.str}
    arrays.append(np.ascontiguousarray(np.ma.getmaskarray(cell)).tobytes())
    return {_MASKED: values.dtype.str}


def _plain(cell: object) -> object:
    """Return a numpy scalar as a JSON value."""
    item = getattr(cell, "item", None)
    if callable(item):
        return item()
    raise TypeError(f"a cell of type {type(cell).__name__} cannot be logged")


def decode(payload: bytes) -> dict[str, Entry]:
    """Return the entries of one payload whose checksum was right. Raises ``FrameError``."""
    try:
        (length,) = _HEAD.unpack_from(payload)
        head = json.loads(payload[_HEAD.size : _HEAD.size + length])
        arrays = _Arrays(payload, _HEAD.size + length)
        entries = {str(item["table"]): (int(item["seq"]), _decoded(item, arrays)) for item in head}
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FrameError(f"is not a frame of rows ({type(error).__name__}: {error})"[:300]) from error
    for table, (seq, _) in entries.items():
        if table not in BY_NAME:
            raise FrameError(f"holds rows of {table[:60]!r}, a table this version does not know")
        if seq < 0:
            raise FrameError(f"numbers rows of {table} from {seq}")
    return entries


def _decoded(item: Mapping[str, Any], arrays: _Arrays) -> Rows:
    if "rows" in item:
        rows = item["rows"]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise FrameError("rows are not a list of objects")
        return rows
    count = int(item["n"])
    if not 0 <= count <= LARGEST_FRAME_ROWS:
        raise FrameError(f"a block of {count:,} rows, {LARGEST_FRAME_ROWS:,} are the most")
    return Block(count, {str(name): _decoded_cell(cell, count, arrays) for name, cell in item["cells"].items()})


def _decoded_cell(cell: Any, count: int, arrays: _Arrays) -> Any:
    if not isinstance(cell, dict):
        return cell
    if _ARRAY in cell:
        return arrays.take(cell[_ARRAY], count)
    values = arrays.take(cell[_MASKED], count)
    return np.ma.array(values, mask=arrays.take("|b1", count))


class _Arrays:
    """Reads the arrays of a payload one after the other."""

    def __init__(self, payload: bytes, at: int) -> None:
        self._payload, self._at = payload, at

    def take(self, dtype: object, count: int) -> np.ndarray[Any, Any]:
        """Return the next array of ``count`` cells. Raises ``FrameError`` where the payload ends before."""
        if dtype not in _DTYPES:
            raise FrameError(f"an array of {dtype!r}")
        kind = np.dtype(str(dtype))
        stop = self._at + count * kind.itemsize
        if stop > len(self._payload):
            raise FrameError("an array ends beyond its frame")
        array = np.frombuffer(self._payload, kind, count, self._at)
        self._at = stop
        return array


@dataclass(frozen=True, slots=True)
class FrameFault:
    """Bytes ``start`` to ``stop`` of a log that hold no valid frame; ``torn``: at the end, where writing stopped."""

    start: int
    stop: int
    torn: bool
    reason: str


def frames(data: bytes | memoryview) -> tuple[list[dict[str, Entry]], list[FrameFault]]:
    """Return the valid frames of a log file in order, and the faults between them.

    After a bad frame, reading continues at the next marker with a right checksum; without one the rest is a torn tail.
    """
    data = bytes(data)
    sound: list[dict[str, Entry]] = []
    faults: list[FrameFault] = []
    if not data.startswith(MAGIC):
        if MAGIC.startswith(data):  # the writer was stopped before its first frame
            return sound, [FrameFault(0, len(data), torn=True, reason="ends within its first bytes")] if data else []
        first = _next_sound(data, 0)
        begin = len(data) if first is None else first
        faults.append(FrameFault(0, begin, torn=False, reason="does not begin as a log does"))
    at = faults[0].stop if faults else len(MAGIC)
    while at < len(data):
        entry, stop, reason = _frame_at(data, at)
        if entry is not None:
            sound.append(entry)
            at = stop
            continue
        after = _next_sound(data, at + 1)
        faults.append(FrameFault(at, len(data) if after is None else after, torn=after is None, reason=reason))
        at = len(data) if after is None else after
    return sound, faults


def _frame_at(data: bytes, at: int) -> tuple[dict[str, Entry] | None, int, str]:
    """Return the frame at ``at`` and its end; or None, ``at``, and why it is not a frame."""
    if at + _HEADER.size > len(data):
        return None, at, "ends within a frame"
    marker, length, crc = _HEADER.unpack_from(data, at)
    start, stop = at + _HEADER.size, at + _HEADER.size + length
    if marker != MARKER or length > LARGEST_FRAME:
        return None, at, "no frame begins here"
    if stop > len(data):
        return None, at, "ends within a frame"
    payload = data[start:stop]
    if zlib.crc32(payload) != crc:
        return None, at, "does not match its checksum"
    try:
        return decode(payload), stop, ""
    except FrameError as error:
        return None, at, str(error)


def _next_sound(data: bytes, at: int) -> int | None:
    while (at := data.find(MARKER, at)) >= 0:
        if _frame_at(data, at)[0] is not None:
            return at
        at += 1
    return None
