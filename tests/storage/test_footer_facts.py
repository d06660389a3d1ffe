"""Footers against the declared table and the manifest, fault by fault, before any cell is decoded."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.errors import UsageError
from esper_analyze.schema.arrow import fingerprint
from esper_analyze.schema.history import VERSION, VERSION_KEY
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import footer, footer_crash_check
from esper_analyze.storage.entries import arrow_table
from esper_analyze.storage.footer import (
    footer_fault,
    footer_fingerprint,
    has_float_statistics,
    newer_schema,
    unknown_table,
)
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.shard_file import parquet_bytes, seal, shard_entry
from tests.storage.handmade import heads

HEADS = BY_NAME["heads"]
DATA = arrow_table(HEADS, [(4, heads(2, "a", "b")), (6, heads(3, "a"))])


@pytest.fixture(autouse=True)
def _no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Footers that end a process are a test of their own."""
    monkeypatch.setattr(footer, "crashes_reader", lambda _: False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "rank00000" / "attempt-0000-00000000"
    path.mkdir(parents=True)
    return path


def sealed(folder: Path) -> tuple[Path, ShardEntry]:
    entry = seal(folder, HEADS, 1, DATA)
    return folder / entry.shard, entry


def test_a_shard_of_the_recorder_has_no_fault(folder: Path) -> None:
    path, entry = sealed(folder)
    assert footer_fault(path, HEADS, entry) is None
    assert footer_fault(path, HEADS) is None
    assert footer_fingerprint(path) == entry.schema == fingerprint(HEADS)
    assert not has_float_statistics(path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rows": 4000}, "holds 3 rows, the manifest says 4,000"),
        ({"first_seq": 3}, "holds the sequence numbers 4–6, the manifest says 3–6"),
        ({"last_seq": 5000}, "holds the sequence numbers 4–6, the manifest says 4–5,000"),
        ({"first_update": 1}, "holds the updates 2–3, the manifest says 1–3"),
        ({"last_update": 4}, "holds the updates 2–3, the manifest says 2–4"),
        ({"schema": "0" * 64}, f"has the columns of schema {VERSION}, the manifest says it has others ('{'0' * 16}')"),
    ],
)
def test_a_line_that_says_otherwise_is_a_fault(folder: Path, changed: dict[str, Any], words: str) -> None:
    path, entry = sealed(folder)
    found = footer_fault(path, HEADS, replace(entry, **changed))
    assert found is not None
    if "schema" in changed:
        assert found.startswith("has the columns of schema ")
        assert found.endswith(words[words.index(", the manifest") :])
    else:
        assert found == words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PAR1", "is no Parquet file: 4 bytes are too few"),
        (b"x" * 11, "is no Parquet file: 11 bytes are too few"),
        (b"x" * 12, "is no Parquet file: it does not end as one"),
        (b"PAR1" + struct.pack("<I4s", (1 << 24) + 1, b"PAR1"), "has a footer of 16,777,217 bytes, 16,777,216 are"),
        (b"PAR1" + struct.pack("<I4s", 1 << 24, b"PAR1"), "has a footer that cannot be read"),
        (b"PAR1" + b"x" * 20 + struct.pack("<I4s", 20, b"PAR1"), "has a footer that cannot be read"),
    ],
)
def test_what_is_no_parquet_file_is_told(folder: Path, content: bytes, words: str) -> None:
    (folder / "x").write_bytes(content)
    found = footer_fault(folder / "x", HEADS)
    assert found is not None
    assert found.startswith(words)


def rewritten(folder: Path, data: pa.Table, **options: Any) -> Path:
    pq.write_table(data, folder / "x", **options)
    return folder / "x"


def test_other_columns_are_named(folder: Path) -> None:
    for data in (DATA.drop_columns(["head"]), DATA.append_column("more", pa.array([1, 2, 3]))):
        found = footer_fault(rewritten(folder, data), HEADS)
        assert found is not None
        assert found.startswith("is not a shard of heads: ")
        assert "more)" not in found
    found = footer_fault(rewritten(folder, DATA.drop_columns(["head", "seq", "kind"])), HEADS)
    assert found is not None
    assert found.endswith("(and 2 more)")
    nullable = DATA.cast(pa.schema([field.with_nullable(True) for field in DATA.schema]))
    found = footer_fault(rewritten(folder, nullable), HEADS)
    assert found is not None
    assert "differs in whether it may be null" in found


def test_rows_of_another_rank_are_named_by_statistics_or_cells(folder: Path) -> None:
    other = arrow_table(HEADS, [(0, heads(1, "a"))], rank=3)
    words = "holds rows of rank 3, its folder is of rank 0"
    (folder / "x").write_bytes(parquet_bytes(HEADS, other))
    assert footer_fault(folder / "x", HEADS) == words
    assert footer_fault(rewritten(folder, other, write_statistics=False), HEADS) == words
    assert footer_fault(rewritten(folder, DATA, write_statistics=False), HEADS) is None
    elsewhere = folder.parent.parent / "notes" / "inner"
    elsewhere.mkdir(parents=True)
    (elsewhere / "x").write_bytes(parquet_bytes(HEADS, other))
    assert footer_fault(elsewhere / "x", HEADS) is None, "its folder is of no rank"


def test_numbers_without_statistics_are_not_compared(folder: Path) -> None:
    path = rewritten(folder, DATA, write_statistics=False)
    entry = shard_entry(HEADS, 1, DATA, path.read_bytes())
    assert footer_fault(path, HEADS, replace(entry, first_seq=0)) is None


def test_several_row_groups_have_the_least_and_the_largest_of_all(folder: Path) -> None:
    path = rewritten(folder, DATA, row_group_size=1)
    entry = shard_entry(HEADS, 1, DATA, path.read_bytes())
    assert footer_fault(path, HEADS, entry) is None
    words = "holds the sequence numbers 4–6, the manifest says 5–6"
    assert footer_fault(path, HEADS, replace(entry, first_seq=5)) == words


def test_a_shard_has_at_most_so_many_cells_and_bytes_a_column(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = sealed(folder)
    columns = len(HEADS.columns)
    monkeypatch.setattr(footer, "LARGEST_SHARD_CELLS", 3 * columns)
    assert footer_fault(path, HEADS) is None
    monkeypatch.setattr(footer, "LARGEST_SHARD_CELLS", 3 * columns - 1)
    assert footer_fault(path, HEADS) == "says to hold 3 rows, 2 are the most"
    monkeypatch.undo()
    monkeypatch.setattr(footer, "crashes_reader", lambda _: False)
    group = pq.read_metadata(path).row_group(0)
    sizes = {group.column(i).path_in_schema: group.column(i).total_uncompressed_size for i in range(columns)}
    name = max(sizes, key=lambda one: sizes[one])
    monkeypatch.setattr(footer, "LARGEST_COLUMN", sizes[name])
    assert footer_fault(path, HEADS) is None
    monkeypatch.setattr(footer, "LARGEST_COLUMN", sizes[name] - 1)
    found = footer_fault(path, HEADS)
    assert found is not None
    assert found.endswith(f" takes {sizes[name]:,} bytes, {sizes[name] - 1:,} are the most")


def test_statistics_of_floats_are_noticed(folder: Path) -> None:
    assert has_float_statistics(rewritten(folder, DATA))
    assert not has_float_statistics(rewritten(folder, DATA, write_statistics=["seq"]))
    assert has_float_statistics(rewritten(folder, DATA, row_group_size=1, write_statistics=["entropy", "seq"]))


def versioned(folder: Path, number: str, data: pa.Table = DATA) -> Path:
    return rewritten(folder, data.replace_schema_metadata({VERSION_KEY: number}))


def test_a_newer_schema_is_refused_where_it_matters(folder: Path) -> None:
    major = int(VERSION.split(".", maxsplit=1)[0])
    minor = f"{major}.9999"
    words = f"was recorded with schema {major + 1}.0, this version reads up to {VERSION}"
    with pytest.raises(UsageError, match=words):
        footer_fault(versioned(folder, f"{major + 1}.0"), HEADS)
    assert footer_fault(versioned(folder, minor), HEADS) is None, "all its columns are known"
    with pytest.raises(UsageError, match="was recorded with schema"):
        footer_fault(versioned(folder, minor, DATA.append_column("more", pa.array([1, 2, 3]))), HEADS)
    error = newer_schema(Path("x"), "9.9")
    assert (error.message, error.hint) == (
        f"x was recorded with schema 9.9, this version reads up to {VERSION}",
        "install a newer esper-analyze",
    )


def test_a_shard_of_an_unknown_table_is_of_a_newer_version_or_a_fault(folder: Path) -> None:
    words = "holds rows of 'nothing', a table this version does not know"
    assert unknown_table(versioned(folder, VERSION), "nothing") == words
    for number in ("9999.0", f"{VERSION.split('.', maxsplit=1)[0]}.9999"):
        with pytest.raises(UsageError, match=f"was recorded with schema {number}"):
            unknown_table(versioned(folder, number), "nothing")
    (folder / "x").write_bytes(b"x" * 40)
    assert unknown_table(folder / "x", "nothing") == words
    assert unknown_table(folder / "x", "n" * 80) == words.replace("nothing", "n" * 60)


def test_a_footer_that_ends_its_reader_is_told_unless_a_line_vouches_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, entry = sealed(folder)
    monkeypatch.setattr(footer, "crashes_reader", lambda _: True)
    assert footer_fault(path, HEADS) == "has a footer that ends the process that reads it"
    assert footer_fault(path, HEADS, entry) is None


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace the child process: it ends at files named ``bad…``. Return the names that each was given."""
    given: list[list[str]] = []

    def survived(paths: list[Path]) -> int:
        given.append([path.name for path in paths])
        bad = [i for i, path in enumerate(paths) if path.name.startswith("bad")]
        return bad[0] - 1 if bad else len(paths) - 1

    monkeypatch.setattr(footer_crash_check, "_last_survived", survived)
    monkeypatch.setattr(footer_crash_check, "_crashes_by_file", {})
    return given


def test_files_after_one_that_ends_the_child_are_tried_in_another(tmp_path: Path, children: list[list[str]]) -> None:
    paths = [tmp_path / name for name in ("a", "bad1", "b", "c", "bad2", "bad3", "d")]
    for path in paths:
        path.write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "bad1")
    footer_crash_check.probe([*paths, tmp_path / "link", tmp_path / "nothing"])
    assert children == [
        ["a", "bad1", "b", "c", "bad2", "bad3", "d"],
        ["b", "c", "bad2", "bad3", "d"],
        ["bad3", "d"],
        ["d"],
    ]
    assert [footer_crash_check.crashes_reader(path) for path in paths] == [
        path.name.startswith("bad") for path in paths
    ]
    assert not footer_crash_check.crashes_reader(tmp_path / "link")
    assert not footer_crash_check.crashes_reader(tmp_path / "nothing")
    assert len(children) == 4, "each is tried once"
    (tmp_path / "a").write_text("changed")
    assert not footer_crash_check.crashes_reader(tmp_path / "a")
    assert children[4:] == [["a"]]
    children.clear()
    (tmp_path / "bad9").write_text("")
    assert footer_crash_check.crashes_reader(tmp_path / "bad9")
    assert children == [["bad9"]]


@pytest.mark.parametrize(
    ("output", "last"), [(b"0\n1\n2\nall\n", 2), (b"0\n1\n", 0), (b"0\n", -1), (b"0\n1\n2\n", 1), (b"", 2)]
)
def test_the_last_file_that_the_child_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: bytes, last: int
) -> None:
    class FakeProcess:
        def __init__(self, *_: object, **options: Any) -> None:
            assert options["env"]["PYTHONWARNINGS"] == "ignore"

        def communicate(self, given: bytes, timeout: float) -> tuple[bytes, None]:
            assert given == b"\0".join(str(tmp_path / name).encode() for name in "abc")
            assert timeout == 60.0
            return output, None

    monkeypatch.setattr(subprocess, "Popen", FakeProcess)
    assert footer_crash_check._last_survived([tmp_path / name for name in "abc"]) == last


@pytest.mark.parametrize("text", [VERSION_KEY, VERSION])
def test_a_footer_s_texts_are_utf_8_since_polars_refuses_others(folder: Path, text: str) -> None:
    path, _ = sealed(folder)
    harmed = bytearray(path.read_bytes())
    harmed[harmed.rindex(text.encode())] = 0xFF
    path.write_bytes(harmed)
    assert footer_fault(path, HEADS) == "has a text in its footer that is not UTF-8"
    with pytest.raises(pl.exceptions.ComputeError):
        pl.read_parquet(path)
