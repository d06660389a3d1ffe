"""Frames of the log: what was encoded is decoded to the bit, and of what was harmed the sound rest is found."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esper_analyze.storage import log_frames
from esper_analyze.storage.block import Block
from esper_analyze.storage.log_frames import MAGIC, MARKER, FrameError, FrameFault, decode, encode, frames
from esper_analyze.storage.log_tail import LogFault, log_numbers, read_logs, tail_of
from tests.storage.handmade import HandmadeAttempt, heads, updates


def payload_of(frame: bytes) -> bytes:
    return frame[12:]


def there_and_back(entries: Any) -> Any:
    return decode(payload_of(encode(entries)))


def test_a_frame_is_its_marker_length_checksum_and_payload() -> None:
    frame = encode({"updates": (3, updates(1))})
    marker, length, crc = struct.unpack_from("<4sII", frame)
    assert (marker, length, crc) == (MARKER, len(frame) - 12, zlib.crc32(frame[12:]))


def test_rows_come_back_as_they_were() -> None:
    rows = [
        {"update": 1, "kl_k3": math.inf, "a": None, "b": "ü", "c": np.float64(0.5), "d": np.int64(3), "e": np.True_}
    ]
    assert there_and_back({"updates": (3, rows)}) == {
        "updates": (3, [{"update": 1, "kl_k3": math.inf, "a": None, "b": "ü", "c": 0.5, "d": 3, "e": True}])
    }
    nan = there_and_back({"updates": (3, [{"kl_k3": math.nan}])})["updates"][1][0]["kl_k3"]
    assert math.isnan(nan)
    assert there_and_back({"updates": (3, []), "heads": (4, heads(1, "a"))}) == {"heads": (4, heads(1, "a"))}


@pytest.mark.parametrize("kind", ["<f8", "<f4", "<i8", "<i4", "|b1"])
def test_arrays_come_back_to_the_bit_with_their_nulls(kind: str) -> None:
    values = np.arange(4).astype(kind)
    masked = np.ma.array(values, mask=[True, False, True, False])
    cells = {"a": values, "b": masked, "c": 7, "d": "text", "e": [1, None, 3, 4], "f": values[::-1], "g": None}
    back = there_and_back({"updates": (0, Block(4, cells)), "heads": (4, Block(4, {"a": values}))})
    block = back["updates"][1]
    assert (len(block), list(block.cells)) == (4, list("abcdefg"))
    assert block.cells["a"].tobytes() == values.tobytes()
    assert block.cells["a"].dtype == np.dtype(kind)
    assert block.cells["b"].data.tobytes() == values.tobytes()
    assert block.cells["b"].mask.tolist() == [True, False, True, False]
    assert block.cells["f"].tolist() == values[::-1].tolist()
    assert [block.cells[name] for name in "cdeg"] == [7, "text", [1, None, 3, 4], None]
    assert back["heads"][1].cells["a"].tobytes() == values.tobytes()


def test_an_array_of_another_kind_is_stored_as_numbers() -> None:
    for values in (np.arange(2, dtype=np.int16), np.array(["a", "b"]), np.arange(2, dtype=">f8")):
        assert there_and_back({"updates": (0, Block(2, {"a": values}))})["updates"][1].cells["a"] == values.tolist()


def test_what_is_neither_number_text_nor_array_is_refused() -> None:
    for cell in (object(), {1}, b"bytes"):
        with pytest.raises(TypeError, match="cannot be logged"):
            encode({"updates": (0, [{"a": cell}])})


def test_a_frame_has_a_largest_size_and_most_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: Any = {"updates": (0, Block(5, {"a": np.zeros(5)})), "heads": (5, Block(2, {}))}
    size = len(payload_of(encode(entries)))
    monkeypatch.setattr(log_frames, "LARGEST_FRAME", size)
    monkeypatch.setattr(log_frames, "LARGEST_FRAME_ROWS", 7)
    frame = encode(entries)
    assert frames(MAGIC + frame)[1] == []
    monkeypatch.setattr(log_frames, "LARGEST_FRAME_ROWS", 6)
    with pytest.raises(ValueError, match="more rows at once"):
        encode(entries)
    monkeypatch.setattr(log_frames, "LARGEST_FRAME_ROWS", 4)
    with pytest.raises(FrameError, match="a block of 5 rows, 4 are the most"):
        decode(payload_of(frame))
    monkeypatch.setattr(log_frames, "LARGEST_FRAME_ROWS", 7)
    monkeypatch.setattr(log_frames, "LARGEST_FRAME", size - 1)
    with pytest.raises(ValueError, match=f"{size} bytes at once are more than a frame may have"):
        encode(entries)
    assert [fault.reason for fault in frames(MAGIC + frame)[1]] == ["no frame begins here"]


def payload(head: object, rest: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return struct.pack("<I", len(text)) + text + rest


BLOCK = {"table": "updates", "seq": 0, "n": 2}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a frame of rows"),
        (b"\0\0\0", "is not a frame of rows"),
        (struct.pack("<I", 3) + b"[[[", "is not a frame of rows"),
        (payload({"table": 1}), "is not a frame of rows"),
        (payload([{"table": "updates"}]), "is not a frame of rows"),
        (payload([{"table": "updates", "seq": "x", "rows": []}]), "is not a frame of rows"),
        (payload([{"table": "updates", "seq": 0}]), "is not a frame of rows"),
        (payload([{"table": "updates", "seq": 0, "rows": {}}]), "rows are not a list of objects"),
        (payload([{"table": "updates", "seq": 0, "rows": [3]}]), "rows are not a list of objects"),
        (
            payload([{"table": "nothing", "seq": 0, "rows": []}]),
            "holds rows of 'nothing', a table this version does not",
        ),
        (payload([{"table": "updates", "seq": -1, "rows": []}]), "numbers rows of updates from -1"),
        (payload([{**BLOCK, "n": -1, "cells": {}}]), "a block of -1 rows"),
        (payload([{**BLOCK, "cells": {"a": {"@array": "<f2"}}}]), "an array of '<f2'"),
        (payload([{**BLOCK, "cells": {"a": {"@array": "<f8"}}}], bytes(15)), "an array ends beyond its frame"),
        (payload([{**BLOCK, "cells": {"a": {"@masked": "<f8"}}}], bytes(17)), "an array ends beyond its frame"),
        (payload([{**BLOCK, "cells": {"a": {}}}]), "is not a frame of rows"),
    ],
)
def test_a_payload_that_encode_did_not_write_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(FrameError) as caught:
        decode(data)
    assert words in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_arrays_that_just_fit_are_read() -> None:
    block = decode(payload([{**BLOCK, "cells": {"a": {"@array": "<f8"}}}], bytes(16)))["updates"][1]
    assert isinstance(block, Block)
    assert block.cells["a"].tolist() == [0.0, 0.0]
    assert decode(payload([{"table": "updates", "seq": 0, "rows": []}])) == {"updates": (0, [])}
    assert decode(payload([{**BLOCK, "n": 0, "cells": {}}]))["updates"][1] == Block(0, {})


ONE, TWO, THREE = (encode({"updates": (number, updates(number))}) for number in range(3))


def found(data: bytes) -> tuple[list[int], list[tuple[int, int, bool, str]]]:
    sound, faults = frames(data)
    return [frame["updates"][0] for frame in sound], [(f.start, f.stop, f.torn, f.reason) for f in faults]


def test_frames_are_found_in_order() -> None:
    assert found(b"") == ([], [])
    assert found(MAGIC) == ([], [])
    assert found(MAGIC + ONE + TWO + THREE) == ([0, 1, 2], [])
    assert frames(memoryview(MAGIC + ONE))[0] == frames(MAGIC + ONE)[0]


@pytest.mark.parametrize("length", range(1, len(MAGIC)))
def test_a_log_of_a_few_bytes_is_torn(length: int) -> None:
    assert found(MAGIC[:length]) == ([], [(0, length, True, "ends within its first bytes")])


def test_a_tail_that_is_cut_anywhere_is_torn_and_what_is_before_it_is_there() -> None:
    start = len(MAGIC + ONE)
    for cut in range(1, len(TWO)):
        data = MAGIC + ONE + TWO[:cut]
        assert found(data) == ([0], [(start, len(data), True, "ends within a frame")])


def test_a_frame_that_is_harmed_is_passed_over_to_the_next_sound_one() -> None:
    start, stop = len(MAGIC + ONE), len(MAGIC + ONE + TWO)
    for at, reason in (
        (0, "no frame begins here"),
        (12, "does not match its checksum"),
        (len(TWO) - 1, "does not match its checksum"),
    ):
        harmed = bytearray(TWO)
        harmed[at] ^= 1
        assert found(MAGIC + ONE + bytes(harmed) + THREE) == ([0, 2], [(start, stop, False, reason)])
        assert found(MAGIC + ONE + bytes(harmed)) == ([0], [(start, stop, True, reason)])


def test_a_log_that_does_not_begin_as_one_is_read_from_its_first_sound_frame() -> None:
    for begin in (b"x" * 10, MAGIC[1:] + b"x", b"x"):
        words = "does not begin as a log does"
        assert found(begin + ONE + TWO) == ([0, 1], [(0, len(begin), False, words)])
        assert found(begin) == ([], [(0, len(begin), False, words)])
    assert found(ONE + TWO) == ([0, 1], [(0, 0, False, "does not begin as a log does")])


def test_a_frame_with_a_right_checksum_and_wrong_rows_is_named() -> None:
    wrong = payload([{"table": "nothing", "seq": 0, "rows": []}])
    frame = struct.pack("<4sII", MARKER, len(wrong), zlib.crc32(wrong)) + wrong
    numbers, faults = found(MAGIC + frame + ONE)
    assert numbers == [0]
    assert faults == [
        (len(MAGIC), len(MAGIC + frame), False, "holds rows of 'nothing', a table this version does not know")
    ]


def test_a_marker_within_a_harmed_frame_is_no_frame() -> None:
    harmed = bytearray(encode({"updates": (0, [{"b": "x" * 40}])}))
    harmed[20:24] = MARKER
    start = len(MAGIC)
    assert found(MAGIC + bytes(harmed) + TWO) == (
        [1],
        [(start, start + len(harmed), False, "does not match its checksum")],
    )


def test_rows_in_no_shard_are_the_tail_each_once_in_order(tmp_path: Path) -> None:
    writer = HandmadeAttempt(tmp_path, rank=2)
    writer.log(1, updates=updates(0, 1), heads=heads(0, "a"))
    writer.log(1, updates=updates(2))
    writer.log(2, updates=updates(3), heads=heads(3, "a", "b"))
    (writer.folder / ".wal-000002").write_bytes(
        (writer.folder / ".wal-000002").read_bytes() + encode({"updates": (3, updates(2))})
    )
    assert log_numbers(writer.folder) == [1, 2]
    logs = read_logs(writer.folder)
    assert [path.name for path, _ in logs] == [".wal-000001", ".wal-000002"]
    tail = tail_of(logs, 2, {})
    assert tail.tables["updates"]["seq"].to_pylist() == [0, 1, 3, 4]
    assert tail.tables["updates"]["update"].to_pylist() == [0, 1, 2, 3]
    assert tail.tables["heads"]["seq"].to_pylist() == [2, 5, 6]
    assert set(tail.tables["heads"]["rank"].to_pylist()) == {2}
    assert (tail.faults, tail.misfits, tail.unusable) == ([], 0, [])
    sealed = {"updates": [(0, 2), (9, 9)], "heads": [(5, 5)]}
    tail = tail_of(logs, 2, sealed)
    assert tail.tables["updates"]["seq"].to_pylist() == [3, 4]
    assert tail.tables["heads"]["seq"].to_pylist() == [2]


def test_a_log_that_cannot_be_read_and_one_with_misfits_are_told(tmp_path: Path) -> None:
    writer = HandmadeAttempt(tmp_path)
    writer.log(1, updates=[*updates(0), {"update": "x"}])
    (writer.folder / ".wal-000002").mkdir()
    (writer.folder / ".wal-000003.tmp").write_bytes(b"")
    tail = tail_of(read_logs(writer.folder), 0, {})
    assert tail.misfits == 1
    assert tail.tables["updates"]["seq"].to_pylist() == [0]
    assert [(path.name, why) for path, why in tail.unusable] == [(".wal-000002", "is a directory, not a regular file")]
    assert tail_of([], 0, {}).tables == {}


@pytest.mark.parametrize(("harmed", "missing"), [((), ()), ((1,), (3,)), ((0,), (0,)), ((1, 3), (None, None))])
def test_rows_between_the_frames_of_a_log_are_counted_as_missing(
    tmp_path: Path, harmed: tuple[int, ...], missing: tuple[int | None, ...]
) -> None:
    """Frames of 2, 3, 1, 4 and 1 rows. Of a bad first frame nobody knows how many; of two, not which had how many."""
    path, counts, parts, seq = tmp_path / ".wal-000001", (2, 3, 1, 4, 1), [], 0
    for number, count in enumerate(counts):
        frame = bytearray(encode({"updates": (seq, updates(*range(count)))}))
        frame[-1] ^= number in harmed
        parts.append(bytes(frame))
        seq += count
    tail = tail_of([(path, MAGIC + b"".join(parts))], 0, {})
    assert tuple(fault.missing for fault in tail.faults) == missing
    assert all(not fault.fault.torn for fault in tail.faults)


def test_a_torn_tail_misses_nothing_and_says_where_it_is(tmp_path: Path) -> None:
    (fault,) = tail_of([(tmp_path / "x", MAGIC + ONE + TWO[:5])], 0, {}).faults
    assert fault.missing is None
    start, stop = len(MAGIC + ONE), len(MAGIC + ONE) + 5
    assert fault.text == f"bytes {start}–{stop}: torn tail, ends within a frame"
    far = LogFault(tmp_path / "x", FrameFault(1000, 2000, torn=False, reason="why"))
    assert far.text == "bytes 1,000–2,000: why"
