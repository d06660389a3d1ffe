"""TensorBoard event files: records of length | crc | protobuf Event | crc, read and written without TensorFlow.

Of an event only its scalars are taken: number (``simple_value``), or a tensor of one number as TensorFlow 2 writes it.
Records are those of TensorFlow's ``record_writer``; field numbers those of ``event.proto``, ``summary.proto`` and
``tensor.proto``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from esper_analyze.interchange.crc32c import masked_sums
from esper_analyze.storage.varint import VarintError, varint

_LENGTH = struct.Struct("<QI")
_SUM = struct.Struct("<I")
_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY = 1, 2, 3, 5
_VALUE, _TAG, _SIMPLE_VALUE, _TENSOR = 1, 1, 2, 8
_DTYPE, _CONTENT, _FLOATS, _DOUBLES, _INTS, _LONGS = 1, 4, 5, 6, 7, 10
_FORMATS = {1: "<f", 2: "<d", 3: "<i", 9: "<q"}
"""Numbers of tensors by their dtype."""
LARGEST_RECORD = 1 << 28
VERSION = b"brain.Event:2"


class EventError(ValueError):
    """A record that is not an event; the message says why."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One scalar of one event."""

    tag: str
    step: int
    wall_time: float
    value: float


@dataclass(frozen=True, slots=True)
class Records:
    """The sound records of a file, and of the first fault (None: there is none) where it is and what.

    ``torn``: the file ends within a record, as that of a killed training does. ``bad`` are places of records whose
    payload does not match its checksum; they are left out.
    """

    payloads: Sequence[bytes]
    fault: str | None
    torn: bool
    bad: Sequence[int]


def records(data: bytes) -> Records:
    """Return the payloads of all records of an event file. Beyond a bad length nothing can be found."""
    view, offset, payloads, sums, offsets = memoryview(data), 0, [], [], []
    heads: list[bytes] = []
    fault, torn = None, False
    while offset < len(data):
        if len(data) - offset < _LENGTH.size:
            fault, torn = f"ends within a record at byte {offset:,}", True
            break
        length, _ = _LENGTH.unpack_from(data, offset)
        if length > LARGEST_RECORD:
            fault = f"has a record of {length:,} bytes at byte {offset:,}"
            break
        end = offset + _LENGTH.size + length + _SUM.size
        if end > len(data):
            fault, torn = f"ends within a record at byte {offset:,}", True
            break
        heads.append(bytes(view[offset : offset + _LENGTH.size]))
        payloads.append(bytes(view[offset + _LENGTH.size : end - _SUM.size]))
        sums.append(_SUM.unpack_from(data, end - _SUM.size)[0])
        offsets.append(offset)
        offset = end
    return _checked(heads, payloads, sums, offsets, fault, torn=torn)


def _checked(
    heads: list[bytes], payloads: list[bytes], sums: list[int], offsets: list[int], fault: str | None, *, torn: bool
) -> Records:
    """Keep records whose length and payload match their checksums; what follows a wrong length is not a record."""
    lengths = masked_sums([head[:8] for head in heads])
    stop = next((i for i, head in enumerate(heads) if _SUM.unpack(head[8:])[0] != lengths[i]), len(heads))
    if stop < len(heads):
        fault, torn = f"has a record at byte {offsets[stop]:,} whose length does not match its checksum", False
    computed = masked_sums(payloads[:stop])
    sound = [payload for i, payload in enumerate(payloads[:stop]) if computed[i] == sums[i]]
    return Records(sound, fault, torn, [offsets[i] for i in range(stop) if computed[i] != sums[i]])


def scalars(payload: bytes) -> Iterator[Scalar]:
    """Yield the scalars of one event. Raises ``EventError``."""
    try:
        wall, step, summaries = _parts(payload)
        for summary in summaries:
            for number, value in _fields(summary):
                if number == _VALUE and isinstance(value, bytes):
                    yield from _scalar(value, step, wall)
    except (IndexError, struct.error, UnicodeDecodeError, VarintError) as error:
        raise EventError(f"is not an event ({type(error).__name__})") from error


def _parts(payload: bytes) -> tuple[float, int, list[bytes]]:
    """Return wall time, step and summaries of an event."""
    wall, step, summaries = 0.0, 0, []
    for number, value in _fields(payload):
        if isinstance(value, int):
            step = _signed(value) if number == _STEP else step
        elif number == _WALL_TIME:
            wall = _DOUBLE.unpack(value)[0]
        elif number == _SUMMARY:
            summaries.append(value)
    return wall, step, summaries


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _scalar(value: bytes, step: int, wall: float) -> Iterator[Scalar]:
    tag, number = "", None
    for field, cell in _fields(value):
        if field == _TAG and isinstance(cell, bytes):
            tag = cell.decode()
        elif field == _SIMPLE_VALUE and isinstance(cell, bytes):
            number = _FLOAT.unpack(cell)[0]
        elif field == _TENSOR and isinstance(cell, bytes):
            number = _tensor(cell)
    if number is not None:
        yield Scalar(tag, step, wall, number)


def _tensor(data: bytes) -> float | None:
    """Return the number of a tensor that holds just one, else None."""
    kind, numbers = 0, []
    for field, cell in _fields(data):
        if field == _DTYPE and isinstance(cell, int):
            kind = cell
        elif field in (_CONTENT, _FLOATS, _DOUBLES) and isinstance(cell, bytes):
            numbers.append(cell)
        elif field in (_INTS, _LONGS) and isinstance(cell, bytes) and len(cell) <= 10:
            numbers.append(struct.pack("<q", _signed(varint(cell, 0)[0])))
            kind = 9
    layout = _FORMATS.get(kind)
    if layout is None or len(numbers) != 1 or len(numbers[0]) != struct.calcsize(layout):
        return None
    return float(struct.unpack(layout, numbers[0])[0])


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each protobuf field: whole numbers as int, all else as bytes."""
    offset, end = 0, len(data)
    while offset < end:
        key, offset = varint(data, offset)
        kind = key & 7
        if kind == _VARINT:
            value, offset = varint(data, offset)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, offset = varint(data, offset)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise EventError(f"has a field of unknown kind {kind}")
        if offset + size > end:
            raise EventError("has a field that is longer than it")
        yield key >> 3, data[offset : offset + size]
        offset += size


def event_file(events: Iterable[tuple[int, float, Sequence[tuple[str, float]]]], created: float) -> bytes:
    """Return an event file: of each event the step, wall time, and tags with their numbers as float32."""
    payloads = [_event(0, created, _field(_FILE_VERSION, _BYTES, VERSION))]
    for step, wall, values in events:
        summary = b"".join(_field(_VALUE, _BYTES, _value(tag, number)) for tag, number in values)
        payloads.append(_event(step, wall, _field(_SUMMARY, _BYTES, summary)))
    heads = [struct.pack("<Q", len(payload)) for payload in payloads]
    parts = zip(heads, masked_sums(heads), payloads, masked_sums(payloads), strict=True)
    return b"".join(
        head + _SUM.pack(head_sum) + payload + _SUM.pack(payload_sum) for head, head_sum, payload, payload_sum in parts
    )


def _event(step: int, wall: float, rest: bytes) -> bytes:
    return _field(_WALL_TIME, _FIXED64, _DOUBLE.pack(wall)) + _field(_STEP, _VARINT, _coded(step)) + rest


def _value(tag: str, number: float) -> bytes:
    return _field(_TAG, _BYTES, tag.encode()) + _field(_SIMPLE_VALUE, _FIXED32, single(number))


def single(number: float) -> bytes:
    """Return ``number`` as float32: what is too large for it is infinite."""
    try:
        return _FLOAT.pack(number)
    except OverflowError:
        return _FLOAT.pack(float("inf") if number > 0 else float("-inf"))


def too_large(number: float) -> bool:
    """Whether ``number`` is finite and float32 has no finite one for it."""
    return math.isfinite(number) and not math.isfinite(_FLOAT.unpack(single(number))[0])


def _field(number: int, kind: int, value: bytes) -> bytes:
    key = _coded(number << 3 | kind)
    return key + _coded(len(value)) + value if kind == _BYTES else key + value


def _coded(number: int) -> bytes:
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
