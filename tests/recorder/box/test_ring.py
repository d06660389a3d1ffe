"""The ring: frames come out as they went in, in order, and a writer without room is told so."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from recorder.box.ring import Ring, RingDamagedError, RingFullError

FRAMES = st.lists(st.tuples(st.binary(max_size=300), st.lists(st.binary(max_size=400), max_size=4)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(FRAMES, st.integers(1, 5))
def test_frames_come_out_as_they_went_in_around_the_end_as_well(
    frames: list[tuple[bytes, list[bytes]]], ahead: int
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ring"
        writer, reader = Ring(path, 4096), Ring(path)
        waiting: list[tuple[bytes, list[bytes]]] = []

        def read() -> None:
            frame = reader.next()
            assert frame is not None
            assert (bytes(frame.message), [bytes(buffer) for buffer in frame.buffers]) == waiting.pop(0)
            reader.release(frame)

        for message, buffers in frames:
            try:
                writer.write(message, [memoryview(buffer) for buffer in buffers])
            except RingFullError:
                assert waiting or sum(map(len, buffers)) > 1000
                continue
            waiting.append((message, buffers))
            while len(waiting) >= ahead:
                read()
        while waiting:
            read()
        assert reader.next() is None
        assert writer.waiting == 0


def test_without_room_nothing_is_written(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", 1024)
    ring.write(b"first", [memoryview(bytes(500))])
    before = ring.waiting
    with pytest.raises(RingFullError, match="are free"):
        ring.write(b"second", [memoryview(bytes(600))])
    assert ring.waiting == before
    frame = ring.next()
    assert frame is not None
    assert bytes(frame.message) == b"first"


def test_a_changed_message_is_noticed_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    ring = Ring(path, 1024)
    ring.write(b"a message", [])
    content = bytearray(path.read_bytes())
    content[content.index(b"a message")] ^= 1
    path.write_bytes(content)
    damaged = Ring(path)
    with pytest.raises(RingDamagedError, match="checksum"):
        damaged.next()
    assert damaged.skip_all() == 64
    assert damaged.next() is None


def test_another_file_is_no_ring(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    with pytest.raises(RingDamagedError, match="is not a ring"):
        Ring(path)
