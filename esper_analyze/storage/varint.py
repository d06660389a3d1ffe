"""Variable-length integers (LEB128), as in Parquet's page headers and protobuf messages."""

from __future__ import annotations

_LONGEST = 63


class VarintError(ValueError):
    """An integer of more than 64 bits."""


def varint(data: bytes, offset: int) -> tuple[int, int]:
    """Return the integer at ``offset`` and the offset after it. Raises ``IndexError`` beyond the data."""
    value = shift = 0
    while True:
        byte = data[offset]
        value |= (byte & 127) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 128:
            return value, offset
        if shift > _LONGEST:
            raise VarintError("has a number that is too long")
