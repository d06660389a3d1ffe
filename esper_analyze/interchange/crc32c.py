"""CRC-32C (Castagnoli) as TensorBoard's records carry it, over many records at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_FEW = 16
"""Fewer records of one length are summed byte by byte in Python."""


def _table() -> list[int]:
    entries = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        entries.append(value)
    return entries


_TABLE = _table()
_ARRAY = np.array(_TABLE, np.uint32)


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of ``data``."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def masked(value: int) -> int:
    """Return a checksum as a record holds it: rotated and moved, so that sums of sums do not meet."""
    return (((value >> 15) | (value << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def masked_sums(records: Sequence[bytes]) -> list[int]:
    """Return the masked CRC-32C of each record; those of one length are summed together, a byte of each at a time."""
    results = [0] * len(records)
    lengths: dict[int, list[int]] = {}
    for index, record in enumerate(records):
        lengths.setdefault(len(record), []).append(index)
    for length, indices in lengths.items():
        if len(indices) < _FEW:
            sums = [crc32c(records[index]) for index in indices]
        else:
            joined = np.frombuffer(b"".join(records[index] for index in indices), np.uint8)
            sums = _sums(joined.reshape(len(indices), length)).tolist()
        for index, value in zip(indices, sums, strict=True):
            results[index] = masked(value)
    return results


def _sums(rows: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    value = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in np.ascontiguousarray(rows.T):
        value = _ARRAY[(value ^ column) & 0xFF] ^ (value >> 8)
    return value ^ np.uint32(0xFFFFFFFF)
