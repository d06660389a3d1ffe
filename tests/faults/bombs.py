"""Row 33: small Parquet files that are large inside, each listed by the manifest with the right checksum."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.schema import BY_NAME
from tests.faults.commands import measured
from tests.faults.forged import copied, filled, listed, parquet
from tests.faults.outcome import Bench, TrialTally, facts

MOST = 300 << 20
"""Bytes a command may take to refuse a bomb."""
COMMANDS = {
    "report": ("{run}", "--out", "{out}"),
    "replay": ("{run}",),
    "sql": ("{run}", "select count(*), max(length(head)) from heads, updates"),
    "ls": ("{run}",),
    "verify": ("{run}",),
}
_HEADS = BY_NAME["heads"]


def _varint(value: int, length: int = 0) -> bytes:
    """Return a positive number as Thrift's compact protocol has it, in at least ``length`` bytes."""
    coded, found = value << 1, b""
    while coded > 127 or len(found) < length - 1:
        found += bytes([(coded & 127) | 128])
        coded >>= 7
    return found + bytes([coded])


def _texts(rows: int, length: int, **options: object) -> bytes:
    """Return a shard of heads whose names are one long text, over and over."""
    name = pa.repeat(pa.scalar("x" * length), rows)
    return parquet(filled(_HEADS, rows, head=name), **options)


def many_rows() -> bytes:
    """Nothing in a million rows of 95 columns: a file of some kilobytes."""
    return parquet(filled(BY_NAME["updates"], 1_000_000), use_dictionary=True)


def long_texts() -> bytes:
    """Text that compresses well, spelled out; the footer says how much."""
    return _texts(400, 1_000_000, use_dictionary=False)


def footer_lies() -> bytes:
    """The same and more, and the footer says that it is little."""
    whole = _texts(800, 1_000_000, use_dictionary=False)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    true = _varint(_column(whole).total_uncompressed_size)
    return whole[:footer] + whole[footer:].replace(true, _varint(1000, len(true)))


def one_word() -> bytes:
    """One long word in the dictionary, and every row has it."""
    return _texts(1000, 900_000, use_dictionary=["head"], dictionary_pagesize_limit=1 << 30)


def prefixes() -> bytes:
    """Each text as the one before and nothing more: an encoding that the recorder does not use."""
    return _texts(800, 1_000_000, use_dictionary=False, column_encoding={"head": "DELTA_BYTE_ARRAY"})


def page_claims() -> bytes:
    """A page whose header claims to unpack to 2 GB."""
    whole = _texts(200, 1_000_000, use_dictionary=False, data_page_size=1 << 30)
    size = _column(whole).data_page_offset + 3  # after the page's kind and the field's number
    end = size + next(place for place in range(9) if whole[size + place] < 128) + 1
    return whole[:size] + _varint((1 << 31) - 1, end - size) + whole[end:]


def declared_text() -> bytes:
    """A text that declares a length of 2 GB and is not there."""
    whole = _texts(8, 10, use_dictionary=False, compression="none")
    return whole.replace(struct.pack("<I", 10) + b"x" * 10, struct.pack("<I", (1 << 31) - 1) + b"x" * 10)


def _column(content: bytes) -> pq.ColumnChunkMetaData:
    return pq.read_metadata(pa.BufferReader(content)).row_group(0).column(_HEADS.names.index("head"))


BOMBS: dict[str, Callable[[], bytes]] = {
    "a million wide rows": many_rows,
    "texts spelled out": long_texts,
    "a footer that lies": footer_lies,
    "one word in every row": one_word,
    "prefixes": prefixes,
    "a page that claims 2 GB": page_claims,
    "a text that claims 2 GB": declared_text,
}


ONLY_DECODED = declared_text
"""Nothing but decoding shows it, and ``ls`` decodes no heads."""


def parquet_bombs(bench: Bench) -> TrialTally:
    """Each is refused by the name of its file with exit code 3, by every command, in little memory."""
    outcome, most, largest = TrialTally(), 0, 0
    for name, build in BOMBS.items():
        content = build()
        run_dir = copied(bench.scratch / "bombs" / "run")
        table = BY_NAME["updates"] if build is many_rows else _HEADS
        path = listed(run_dir, table, content)
        largest = max(largest, len(content))
        asked = [command for command in COMMANDS if command != "ls" or build is not ONLY_DECODED]
        for command in asked if bench.long else bench.random.sample(asked, 1):
            words = [str(word).format(run=run_dir, out=bench.scratch / "page") for word in COMMANDS[command]]
            done = measured(command, *words)
            outcome.trials += 1
            most = max(most, done.peak)
            wrong = "" if done.code == 3 and "Traceback" not in done.err else f"exit {done.code}: {done.err[-200:]}"
            if path.name not in done.out + done.err:
                wrong += "the file is not named"
            if done.peak > MOST:
                wrong += f"{done.peak / 2**20:.0f} MB"
            if wrong:
                outcome.wrong[f"{name}, {command}: {wrong}"] += 1
    outcome.notes.append(facts(largest_file=f"{largest:,} bytes", most_memory=f"{most / 2**20:.0f} MB"))
    return outcome
