"""TensorBoard's event files: ours are read by it, its are read by us, and damage is never read in silence."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_analyze.interchange.crc32c import crc32c, masked_sums
from esper_analyze.interchange.event_file import EventError, Scalar, event_file, records, scalars

numbers = st.floats(width=32)
events = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.lists(st.tuples(st.text(min_size=1, max_size=8), numbers), max_size=3),
    ),
    max_size=5,
)
EXAMPLE = event_file([(step, 1.0, [("a", step / 3), ("b", math.nan)]) for step in range(40)], 1.0)


def read(data: bytes) -> list[Scalar]:
    return [scalar for payload in records(data).payloads for scalar in scalars(payload)]


def bits(number: float) -> bytes:
    return b"nan" if math.isnan(number) else struct.pack("<d", number)


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


@given(st.lists(st.binary(max_size=5), max_size=120))
def test_sums_of_many_records_are_those_of_each(found: list[bytes]) -> None:
    assert masked_sums(found) == [masked_sums([one])[0] for one in found]


@given(events)
def test_what_is_written_is_read_back(written: list[tuple[int, float, list[tuple[str, float]]]]) -> None:
    found = records(event_file(written, 1.0))
    assert (found.fault, found.bad) == (None, [])
    wanted = [(tag, step, wall, bits(value)) for step, wall, values in written for tag, value in values]
    assert [(s.tag, s.step, s.wall_time, bits(s.value)) for s in read(event_file(written, 1.0))] == wanted


@given(st.integers(1, len(EXAMPLE) - 1))
def test_a_file_cut_anywhere_gives_its_whole_records_and_says_so(end: int) -> None:
    found = records(EXAMPLE[:end])
    whole = records(EXAMPLE).payloads
    assert list(found.payloads) == list(whole[: len(found.payloads)])
    lengths = [16 + len(payload) for payload in whole]
    boundary = end in {sum(lengths[:count]) for count in range(len(lengths) + 1)}
    assert (found.fault is None) == boundary
    assert found.torn == (not boundary)


@given(st.integers(0, 8 * len(EXAMPLE) - 1))
def test_a_flipped_bit_is_always_told(place: int) -> None:
    damaged = bytearray(EXAMPLE)
    damaged[place // 8] ^= 1 << place % 8
    found = records(bytes(damaged))
    assert found.fault is not None or found.bad
    assert set(found.payloads) <= set(records(EXAMPLE).payloads)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_event_raise_only_what_says_so(payload: bytes) -> None:
    with suppress(EventError):
        assert all(isinstance(scalar.value, float) for scalar in scalars(payload))


def test_tensorboard_reads_what_we_write(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "events.out.tfevents.1.x").write_bytes(EXAMPLE)
    found = accumulators.EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    found.Reload()
    assert found.Tags()["scalars"] == ["a", "b"]
    assert [event.step for event in found.Scalars("a")] == list(range(40))
    assert found.Scalars("a")[1].value == struct.unpack("<f", struct.pack("<f", 1 / 3))[0]
    assert all(math.isnan(event.value) for event in found.Scalars("b"))


def test_we_read_what_tensorboard_writes_both_ways_of_a_scalar(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("words", "no scalar")
        writer.add_scalar("old", 0.5, 3)
        writer.add_scalar("new", math.inf, 4, new_style=True)
    data = next(tmp_path.iterdir()).read_bytes()
    assert [(s.tag, s.step, s.value) for s in read(data)] == [("old", 3, 0.5), ("new", 4, math.inf)]
