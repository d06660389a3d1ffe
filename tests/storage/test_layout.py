"""Names on disk and lines of the manifest: there and back, and nothing that only looks like them."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from esper_analyze.storage import layout
from esper_analyze.storage.layout import ManifestError, ShardEntry

ENTRY = ShardEntry("heads-000012.parquet", "heads", 12, 4096, 0xFFFFFFFF, 7, 30, 36, 4, 5, "ab" * 32)


@pytest.mark.parametrize("number", [0, 1, 7, 99999])
def test_names_of_folders_and_files_give_their_numbers_back(number: int) -> None:
    assert layout.rank_of(Path("x") / layout.rank_folder(number)) == number
    assert layout.attempt_of(Path("x") / layout.attempt_folder(number % 10000, "0123abcd")) == number % 10000
    assert layout.shard_of(layout.shard_name("worst_transitions", number)) == ("worst_transitions", number)
    assert layout.log_of(layout.log_name(number)) == number


def test_names_are_as_wide_as_they_were_written() -> None:
    assert layout.rank_folder(3) == "rank00003"
    assert layout.attempt_folder(12, "0123abcd") == "attempt-0012-0123abcd"
    assert layout.shard_name("heads", 12) == "heads-000012.parquet"
    assert layout.shard_name("heads", 1234567) == "heads-1234567.parquet"
    assert layout.log_name(5) == ".wal-000005"


@pytest.mark.parametrize(
    ("read", "names"),
    [
        (layout.log_of, ["wal-000001", ".wal-00001", ".wal-000001.tmp", "x.wal-000001", ".wal-", ".wal-00000a"]),
        (layout.shard_of, ["heads-00012.parquet", "Heads-000012.parquet", "heads-000012.parquet.tmp", "-000012.parquet",
                           "a/heads-000012.parquet", "heads-000012", ".heads-000012.parquet"]),
    ],
)  # fmt: skip
def test_other_names_are_none(read: object, names: list[str]) -> None:
    assert callable(read)
    assert [read(name) for name in names] == [None] * len(names)


def test_other_folders_are_none() -> None:
    assert [layout.rank_of(Path(name)) for name in ("rank0000", "rank000000", "xrank00000", "rank0000a")] == [None] * 4
    names = ("attempt-0000", "attempt-000-00000000", "attempt-0000-0000000g", "attempt-0000-00000000.tmp")
    assert [layout.attempt_of(Path(name)) for name in names] == [None] * 4


@pytest.mark.parametrize("rebuilt", [False, True])
def test_a_line_gives_its_entry_back_and_ends_with_its_own_checksum(rebuilt: bool) -> None:
    entry = replace(ENTRY, rebuilt=rebuilt)
    line = entry.as_line()
    assert line.endswith(b"\n")
    assert ShardEntry.from_line(line) == entry
    facts = json.loads(line)
    assert list(facts)[-1] == "crc"
    crc = facts.pop("crc")
    assert crc == zlib.crc32(json.dumps(facts, sort_keys=True).encode())
    assert ("rebuilt" in facts) is rebuilt


def line_of(facts: dict[str, object]) -> bytes:
    return json.dumps({**facts, "crc": zlib.crc32(json.dumps(facts, sort_keys=True).encode())}).encode()


FACTS = {name: cell for name, cell in asdict(ENTRY).items() if name != "rebuilt"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "torn or malformed line"),
        (b"{", "torn or malformed line"),
        (b"[]", "torn or malformed line"),
        (b"3", "torn or malformed line"),
        (json.dumps(FACTS).encode(), "torn or malformed line"),
        (ENTRY.as_line().replace(b'"rows": 7', b'"rows": 8'), "line does not match its own checksum"),
        (line_of({**FACTS, "rows": 7.0}), "line has a field of the wrong type"),
        (line_of({**FACTS, "rows": True}), "line has a field of the wrong type"),
        (line_of({**FACTS, "table": 3}), "line has a field of the wrong type"),
        (line_of({**FACTS, "number": 13}), "line names the impossible shard 'heads-000012.parquet'"),
        (line_of({**FACTS, "table": "updates"}), "line names the impossible shard"),
        (line_of({**FACTS, "shard": "../heads-000012.parquet"}), "line names the impossible shard"),
        (line_of({**FACTS, "more": 1}), "torn or malformed line"),
        (line_of({name: cell for name, cell in FACTS.items() if name != "rows"}), "torn or malformed line"),
    ],
)
def test_any_other_line_is_refused_in_words(line: bytes, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        ShardEntry.from_line(line)


def test_a_manifest_is_read_line_by_line_with_their_numbers() -> None:
    other = replace(ENTRY, shard="heads-000013.parquet", number=13)
    content = ENTRY.as_line() + b"\n" + b"{torn\n" + other.as_line()
    numbered = list(layout.manifest_entries(content))
    assert [number for number, _ in numbered] == [1, 3, 4]
    assert [entry for _, entry in numbered if isinstance(entry, ShardEntry)] == [ENTRY, other]
    assert isinstance(numbered[1][1], ManifestError)
    assert list(layout.manifest_entries(b"")) == []
    assert list(layout.manifest_entries(ENTRY.as_line()[:-1])) == [(1, ENTRY)]
