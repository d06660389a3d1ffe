"""Event files byte by byte: fields of protobuf as TensorFlow writes them, tensors of one number, damaged records."""

from __future__ import annotations

import math
import struct

import pytest

from esper_analyze.interchange.crc32c import crc32c, masked, masked_sums
from esper_analyze.interchange.event_file import (
    LARGEST_RECORD,
    EventError,
    Scalar,
    event_file,
    records,
    scalars,
    single,
    too_large,
)


def number(value: int) -> bytes:
    """Return a whole number in sevens of bits."""
    value %= 1 << 64
    coded = b""
    while value >= 128:
        coded, value = coded + bytes([value % 128 + 128]), value // 128
    return coded + bytes([value])


def field(tag: int, value: bytes | int | float, *, fixed: str = "") -> bytes:
    """Return a field of protobuf: a whole number, bytes, or a ``fixed`` number of 4 or 8 bytes."""
    if fixed:
        kind = {4: 5, 8: 1}[struct.calcsize(fixed)]
        return number(8 * tag + kind) + struct.pack(fixed, value)
    if isinstance(value, bytes):
        return number(8 * tag + 2) + number(len(value)) + value
    return number(8 * tag) + number(int(value))


def event(value: bytes, step: int = 3, wall: float = 9.5) -> bytes:
    """Return an event with one value of a summary."""
    return field(1, wall, fixed="<d") + field(2, step) + field(5, field(1, value))


def record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked(crc32c(length))) + payload + struct.pack("<I", masked(crc32c(payload)))


def read(payload: bytes) -> list[Scalar]:
    return list(scalars(payload))


def tensor(*fields: bytes) -> bytes:
    return field(1, b"t") + field(8, b"".join(fields))


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        (field(1, b"t") + field(2, 0.5, fixed="<f"), 0.5),
        (tensor(field(1, 1), field(4, struct.pack("<f", 0.5))), 0.5),
        (tensor(field(1, 1), field(5, struct.pack("<f", -2.0))), -2.0),
        (tensor(field(1, 2), field(6, struct.pack("<d", 0.1))), 0.1),
        (tensor(field(1, 2), field(4, struct.pack("<d", math.inf))), math.inf),
        (tensor(field(1, 3), field(4, struct.pack("<i", -7))), -7.0),
        (tensor(field(1, 9), field(4, struct.pack("<q", -(1 << 40)))), -float(1 << 40)),
        (tensor(field(1, 3), field(7, number(12))), 12.0),
        (tensor(field(1, 3), field(7, number(-3))), -3.0),
        (tensor(field(1, 9), field(10, number(1 << 62))), float(1 << 62)),
        (tensor(field(1, 1), field(3, 2), field(4, struct.pack("<f", 1.5))), 1.5),  # 3: the version
        (tensor(field(2, b"shape"), field(1, 1), field(4, struct.pack("<f", 1.5))), 1.5),
    ],
)
def test_a_scalar_is_a_number_or_a_tensor_of_one_number(value: bytes, read_as: float) -> None:
    assert read(event(value)) == [Scalar("t", 3, 9.5, read_as)]


@pytest.mark.parametrize(
    "value",
    [
        field(1, b"t"),
        tensor(field(1, 1)),
        tensor(field(1, 1), field(4, struct.pack("<ff", 1, 2))),
        tensor(field(1, 1), field(4, struct.pack("<f", 1)), field(5, struct.pack("<f", 2))),
        tensor(field(1, 7), field(8, b"text")),
        tensor(field(1, 7), field(4, struct.pack("<f", 1))),
        tensor(field(4, struct.pack("<f", 1))),
        tensor(field(1, 3), field(7, number(1) * 11)),
        field(1, b"t") + field(4, b"histogram"),
    ],
)
def test_what_is_not_one_number_is_no_scalar(value: bytes) -> None:
    assert read(event(value)) == []


@pytest.mark.parametrize("step", [0, 1, 127, 128, 1 << 40, (1 << 63) - 1, -1, -(1 << 63)])
def test_a_step_is_signed(step: int) -> None:
    value = field(1, b"t") + field(2, 1.0, fixed="<f")
    assert read(event(value, step))[0].step == step
    payload = records(event_file([(step, 2.0, [("t", 1.0)])], 1.0)).payloads[1]
    assert payload == field(1, 2.0, fixed="<d") + field(2, step) + field(5, field(1, value))


def test_an_event_without_step_or_clock_has_zeros_and_several_values_keep_their_order() -> None:
    one, other = (field(1, tag) + field(2, 1.0, fixed="<f") for tag in (b"a", "é".encode()))
    payload = (
        field(5, field(1, one) + field(9, 5) + field(2, one) + field(1, other)) + field(3, b"version") + field(7, 4)
    )
    assert read(payload) == [Scalar("a", 0, 0.0, 1.0), Scalar("é", 0, 0.0, 1.0)]
    assert read(field(5, field(1, field(2, 1.0, fixed="<f")))) == [Scalar("", 0, 0.0, 1.0)]
    assert read(b"") == []


@pytest.mark.parametrize(
    "payload",
    [
        number(8 * 5 + 2) + number(9) + b"short",
        number(8 * 5 + 3),
        number(8 * 1 + 1) + b"1234567",
        b"\x80" * 12,
        event(field(1, b"\xff") + field(2, 1.0, fixed="<f")),
        event(field(1, b"t") + field(2, b"12345")),
        event(field(1, b"t") + field(8, field(7, b""))),
    ],
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(EventError):
        read(payload)


def test_a_field_may_end_with_its_event() -> None:
    assert read(event(field(1, b"t") + field(2, 1.0, fixed="<f"))[:-1] + b"\x3f") != []
    with pytest.raises(EventError, match="longer than it"):
        read(field(5, b"abc")[:-1])


def test_sound_records_around_a_damaged_payload_are_kept() -> None:
    parts = [record(b"one"), record(b"two"), record(b"three")]
    parts[1] = parts[1][:12] + b"twO" + parts[1][15:]
    found = records(b"".join(parts))
    assert (found.payloads, found.fault, found.torn, found.bad) == ([b"one", b"three"], None, False, [len(parts[0])])


def test_beyond_a_damaged_length_nothing_is_read() -> None:
    parts = [record(b"one"), record(b"two"), record(b"three")]
    broken = parts[1][:8] + bytes([parts[1][8] ^ 1]) + parts[1][9:]
    found = records(parts[0] + broken + parts[2][:5])
    assert (list(found.payloads), found.bad, found.torn) == ([b"one"], [], False)
    assert found.fault == f"has a record at byte {len(parts[0])} whose length does not match its checksum"


@pytest.mark.parametrize("cut", [1, 11, 12, 13, 18])
def test_a_cut_record_is_torn(cut: int) -> None:
    whole = record(b"one") * 60
    found = records(whole + record(b"two")[:cut])
    assert (len(found.payloads), found.fault, found.torn) == (60, "ends within a record at byte 1,140", True)


def test_a_length_beyond_any_record_is_a_fault_and_no_cut() -> None:
    length = struct.pack("<Q", LARGEST_RECORD + 1)
    found = records(record(b"one") + length + struct.pack("<I", masked(crc32c(length))) + b"x" * 50)
    assert (found.payloads, found.torn) == ([b"one"], False)
    assert found.fault == "has a record of 268,435,457 bytes at byte 19"
    alone = records(length + struct.pack("<I", masked(crc32c(length))))
    assert (alone.fault, alone.torn) == ("has a record of 268,435,457 bytes at byte 0", False)
    largest = records(struct.pack("<Q", LARGEST_RECORD) + b"x" * 50)
    assert (largest.fault, largest.torn) == ("ends within a record at byte 0", True)
    assert LARGEST_RECORD == 2**28


def test_a_file_begins_with_the_version_and_its_records_are_tensorboard_s() -> None:
    data = event_file([(5, 2.5, [("a", 1.0), ("b", -1.0)])], 1.5)
    first = field(1, 1.5, fixed="<d") + field(2, 0) + field(3, b"brain.Event:2")
    values = [field(1, field(1, tag) + field(2, value, fixed="<f")) for tag, value in ((b"a", 1.0), (b"b", -1.0))]
    assert data == record(first) + record(field(1, 2.5, fixed="<d") + field(2, 5) + field(5, b"".join(values)))


@pytest.mark.parametrize(
    ("value", "held", "large"),
    [
        (0.0, 0.0, False), (1e300, math.inf, True), (-1e300, -math.inf, True),
        (3.4028235e38, 3.4028234663852886e38, False), (3.4028236e38, math.inf, True),
        (math.inf, math.inf, False), (-math.inf, -math.inf, False),
    ],
)  # fmt: skip
def test_what_float32_cannot_hold_is_infinite_and_counted(value: float, held: float, large: bool) -> None:
    assert struct.unpack("<f", single(value)) == (held,)
    assert too_large(value) is large
    assert not too_large(math.nan)


def bitwise(data: bytes) -> int:
    """Return CRC-32C by its definition: the remainder of the reflected polynomial 1EDC6F41."""
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (int(f"{0x1EDC6F41:032b}"[::-1], 2) if rest & 1 else 0)
    return rest ^ 0xFFFFFFFF


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_sums_of_records_alike_in_length_are_those_of_the_definition(count: int) -> None:
    rows = [bytes([index, 255 - index, index * 7 % 256]) for index in range(count)] + [b"x", b""]
    rotated = [(sum_ >> 15 | sum_ << 17 & 0xFFFFFFFF) for sum_ in map(bitwise, rows)]
    assert masked_sums(rows) == [(sum_ + 0xA282EAD8) % 2**32 for sum_ in rotated]
    assert [crc32c(row) for row in rows] == [bitwise(row) for row in rows]
    assert masked_sums([]) == []
