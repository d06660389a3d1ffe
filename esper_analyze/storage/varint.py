"""Whole numbers of as many bytes as they need, as Parquet's page headers and protobuf messages hold them."""

from __future__ import annotations

_LONGEST = 63


class VarintError(ValueError):
    """A number of more bits than any has."""


def varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number at ``place`` and where the next thing is. Raises ``IndexError`` beyond the data."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > _LONGEST:
            raise VarintError("has a number that is too long")
