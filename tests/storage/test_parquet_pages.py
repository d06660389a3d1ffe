"""Page headers in Thrift's compact protocol, decoded field by field, and pages added up against Arrow's own sums."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import parquet_pages
from esper_analyze.storage.entries import arrow_table
from esper_analyze.storage.parquet_pages import Page, PageError, pages_fault
from esper_analyze.storage.shard_file import parquet_bytes
from esper_analyze.storage.varint import VarintError, varint
from tests.storage.handmade import heads, updates

STRUCT, STOP = 12, b"\0"


def unsigned(number: int) -> bytes:
    """Return LEB128: seven bits a byte, the lowest first, the highest bit set but in the last one."""
    digits = []
    while True:
        digits.append(number & 127)
        number >>= 7
        if not number:
            return bytes([*(digit | 128 for digit in digits[:-1]), digits[-1]])


def zigzag(number: int) -> bytes:
    return unsigned(2 * number if number >= 0 else -2 * number - 1)


def fields(*listed: tuple[int, int, bytes]) -> bytes:
    """Return a struct of fields (number, kind, content), numbers as differences where they fit in four bits."""
    data, before = b"", 0
    for number, kind, content in listed:
        step = number - before
        data += bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + zigzag(number)
        data += content
        before = number
    return data + STOP


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16383, 16384, 2**31, 2**63, 2**64 - 1])
def test_integers_of_any_length_come_back(number: int) -> None:
    data = b"x" + unsigned(number) + b"\x05"
    assert varint(data, 1) == (number, len(data) - 1)


def test_an_integer_that_never_ends_is_refused() -> None:
    with pytest.raises(VarintError):
        varint(b"\xff" * 10 + b"\0", 0)
    assert varint(b"\x80" * 9 + b"\x01", 0) == (2**63, 10)
    for cut in (b"", b"\x80", b"\xff\xff"):
        with pytest.raises(IndexError):
            varint(cut, 0)


NUMBERS = (0, 1, -1, 63, 64, -64, -65, 8191, 8192, -8192, -8193, 2**31 - 1, -(2**31), 2**40)


@pytest.mark.parametrize("kind", [4, 5, 6])
@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_of_a_header_come_back(kind: int, number: int) -> None:
    data = fields((2, kind, zigzag(number)), (3, 5, zigzag(7)))
    assert parquet_pages._fields(data, 0, 0) == ({2: number, 3: 7}, len(data))
    assert parquet_pages._fields(b"xx" + data + b"yy", 2, 0) == ({2: number, 3: 7}, len(data) + 2)


def test_fields_of_every_kind_are_passed_over() -> None:
    inner = fields((1, 5, zigzag(9)), (4, 5, zigzag(2)))
    data = fields(
        (1, 1, b""),
        (2, 2, b""),
        (3, 3, b"\x55"),
        (5, 7, bytes(8)),
        (6, 8, unsigned(3) + b"abc"),
        (30, STRUCT, inner),
        (31, 5, zigzag(-3)),
        (1, 5, zigzag(5)),  # numbers may go back, written out
    )
    found, stop = parquet_pages._fields(data, 0, 0)
    assert found == {1: 5, 2: False, 3: None, 5: None, 6: None, 30: {1: 9, 4: 2}, 31: -3}
    assert stop == len(data)
    assert parquet_pages._fields(fields((1, 1, b"")), 0, 0)[0] == {1: True}


def test_lists_and_structs_within_structs_without_end_are_refused() -> None:
    for kind in (9, 10, 11, 13):
        with pytest.raises(PageError, match="its header has a list"):
            parquet_pages._fields(fields((1, kind, b"\0")), 0, 0)

    def nested(depth: int) -> bytes:
        return fields((1, STRUCT, nested(depth - 1))) if depth else STOP

    assert parquet_pages._fields(nested(8), 0, 0)[1] == len(nested(8))
    with pytest.raises(PageError, match="nested too deeply"):
        parquet_pages._fields(nested(9), 0, 0)
    with pytest.raises(IndexError):
        parquet_pages._fields(nested(3)[:-1], 0, 0)


def page(tmp_path: Path, data: bytes, offset: int = 0) -> Page:
    path = tmp_path / "page"
    path.write_bytes(data)
    with path.open("rb") as file:
        return parquet_pages._page(file.fileno(), offset)


def header(size: int | None, stored: int | None, kind: int | None = 5, encoding: int | None = 0) -> bytes:
    at = 4 if kind == 8 else 2
    inner = fields((1, 5, zigzag(10)), *([] if encoding is None else [(at, 5, zigzag(encoding))]))
    listed = [(1, 5, zigzag(0)), (2, 5, zigzag(size or 0)), (3, 5, zigzag(stored or 0))]
    listed = [one for one, cell in zip(listed, (0, size, stored), strict=True) if cell is not None]
    return fields(*listed, *([] if kind is None else [(kind, STRUCT, inner)]))


@pytest.mark.parametrize(("kind", "dictionary"), [(5, False), (7, True), (8, False), (None, False)])
def test_a_page_is_its_header_and_what_is_stored(tmp_path: Path, kind: int | None, dictionary: bool) -> None:
    data = header(1000, 300, kind)
    assert page(tmp_path, data) == Page(len(data) + 300, 1000, dictionary)
    assert page(tmp_path, b"zzz" + data, 3) == Page(len(data) + 300, 1000, dictionary)
    assert page(tmp_path, header(0, 0, kind)).size == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header(None, 3), "its header has no length"),
        (header(3, None), "its header has no length"),
        (header(-1, 3), "its header has no length"),
        (header(3, -1), "its header has no length"),
        (fields((2, 1, b""), (3, 5, zigzag(1))), ""),  # true is no length, and yet a number
        (fields((2, 8, unsigned(1) + b"a"), (3, 5, zigzag(1))), "its header has no length"),
        *((header(3, 3, kind, 7), "the recorder does not use its encoding") for kind in (5, 7, 8)),
        *((header(3, 3, kind, None), "the recorder does not use its encoding") for kind in (5, 7, 8)),
        (fields((2, 5, zigzag(3)), (3, 5, zigzag(3)), (5, 5, zigzag(0))), "the recorder does not use its encoding"),
    ],
)
def test_a_header_that_the_recorder_cannot_have_written_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    if words:
        with pytest.raises(PageError, match=words):
            page(tmp_path, data)
    else:
        assert page(tmp_path, data).size is True


@pytest.mark.parametrize("encoding", [0, 2, 3, 5, 8, 9])
def test_encodings_of_the_recorder_are_read(tmp_path: Path, encoding: int) -> None:
    for kind in (5, 7, 8):
        assert page(tmp_path, header(3, 3, kind, encoding)).size == 3


def test_a_header_longer_than_a_few_hundred_bytes_is_read_again(tmp_path: Path) -> None:
    long = fields((1, 8, unsigned(3000) + bytes(3000)), (2, 5, zigzag(5)), (3, 5, zigzag(6)))
    assert page(tmp_path, long) == Page(len(long) + 6, 5, False)
    with pytest.raises(IndexError):
        page(tmp_path, long[:-1])


def written(path: Path, table: pa.Table, name: str, **options: Any) -> tuple[Any, pq.FileMetaData]:
    path.write_bytes(parquet_bytes(BY_NAME[name], table)) if not options else pq.write_table(table, path, **options)
    return path.open("rb"), pq.read_metadata(path)


def fault(path: Path, table: pa.Table, name: str, **options: Any) -> str | None:
    file, metadata = written(path, table, name, **options)
    with file:
        return pages_fault(file, BY_NAME[name], metadata)


HEADS = arrow_table(BY_NAME["heads"], [(0, [row for i in range(50) for row in heads(i, "a", "b", "c")])])


@pytest.mark.parametrize("rows", [1, 150])
def test_pages_of_a_column_are_all_of_it(tmp_path: Path, rows: int) -> None:
    """Arrow says how many bytes a column takes, with its headers; the pages must be exactly that."""
    file, metadata = written(tmp_path / "x", HEADS.slice(0, rows), "heads")
    seen = set[bool]()
    with file:
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                column = metadata.row_group(group).column(number)
                pages = list(parquet_pages._pages(file.fileno(), column))
                assert sum(one.stored for one in pages) == column.total_compressed_size
                headers = column.total_uncompressed_size - sum(one.size for one in pages)
                assert 0 < headers < 200 * len(pages)
                assert sum(one.dictionary for one in pages) == bool(column.has_dictionary_page)
                seen.add(bool(column.has_dictionary_page))
        assert pages_fault(file, BY_NAME["heads"], metadata) is None
    assert seen == {True, False}


def test_a_shard_of_the_recorder_has_no_fault_in_any_table(tmp_path: Path) -> None:
    for name in ("updates", "heads"):
        rows: Sequence[Any] = updates(1, 2) if name == "updates" else heads(1, "a")
        assert fault(tmp_path / name, arrow_table(BY_NAME[name], [(0, rows)]), name) is None


def test_an_encoding_that_expands_is_refused_by_column(tmp_path: Path) -> None:
    encoding = {"head": "DELTA_BYTE_ARRAY"}
    words = fault(tmp_path / "x", HEADS, "heads", use_dictionary=False, column_encoding=encoding)
    assert words == "has a page of column head that cannot be read (the recorder does not use its encoding)"


def test_pages_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, metadata = written(tmp_path / "x", HEADS, "heads")
    with file:
        columns = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)]
        total = sum(one.size for column in columns for one in parquet_pages._pages(file.fileno(), column))
        monkeypatch.setattr(parquet_pages, "LARGEST_SHARD", total)
        assert pages_fault(file, BY_NAME["heads"], metadata) is None
        monkeypatch.setattr(parquet_pages, "LARGEST_SHARD", total - 1)
        words = f"unpacks to {total:,} bytes, {total - 1:,} are the most"
        assert pages_fault(file, BY_NAME["heads"], metadata) == words


def test_text_that_is_long_only_when_it_is_repeated_is_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [heads(i, "x" * 30 if i % 3 else "y" * 10)[0] for i in range(90)]
    size = 60 * 30 + 30 * 10
    table = arrow_table(BY_NAME["heads"], [(0, rows)])
    monkeypatch.setattr(parquet_pages, "LARGEST_COLUMN", size)
    assert fault(tmp_path / "x", table, "heads") is None
    monkeypatch.setattr(parquet_pages, "LARGEST_COLUMN", size - 1)
    words = f"holds {size:,} bytes of text in column head, {size - 1:,} are the most"
    assert fault(tmp_path / "x", table, "heads") == words
    monkeypatch.setattr(parquet_pages, "LARGEST_COLUMN", 90 * 48)  # so much it cannot be, whatever the words are
    monkeypatch.setattr(parquet_pages, "_text_fault", lambda *_: "looked")
    assert fault(tmp_path / "x", table, "heads") is None
    monkeypatch.setattr(parquet_pages, "LARGEST_COLUMN", 60)
    assert fault(tmp_path / "x", table, "heads") == "looked"


def test_a_file_cut_off_within_its_pages_is_told(tmp_path: Path) -> None:
    file, metadata = written(tmp_path / "x", HEADS, "heads")
    file.close()
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:60])
    with (tmp_path / "x").open("rb") as short:
        words = pages_fault(short, BY_NAME["heads"], metadata)
    assert words is not None
    assert words.startswith("has a page of column ")
