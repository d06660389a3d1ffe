"""Rows of one writer, as Arrow and as polars; and what a library raises over them, with the file's name."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from esper_analyze.errors import DamagedError, EsperError
from esper_analyze.schema.column import Column, Kind
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import row_source
from esper_analyze.storage.attempts import find_attempts
from esper_analyze.storage.decode_errors import decoding
from esper_analyze.storage.row_source import in_memory, last_update, row_sources
from tests.faults.forged import copied, filled, listed, parquet
from tests.storage.handmade import HandmadeAttempt, heads, updates

HEADS, UPDATES = BY_NAME["heads"], BY_NAME["updates"]


def failing(path: Path | None, error: BaseException) -> None:
    with decoding(path):
        raise error


def is_text(column: Column) -> bool:
    return column.kind in (Kind.TEXT, Kind.CHOICE)


class Panic(BaseException):
    """What a library raises that is no ``Exception``."""


def test_what_a_decoder_raises_names_the_file() -> None:
    for error in (ValueError("x"), pa.ArrowInvalid("x"), Panic("x"), OSError("x")):
        with pytest.raises(DamagedError) as caught:
            failing(Path("a/b"), error)
        assert caught.value.message == f"a/b cannot be decoded ({type(error).__name__})"
        assert caught.value.hint is not None
        assert "--skip-broken" in caught.value.hint
        with pytest.raises(type(error)):
            failing(None, error)
    for passed in (EsperError("x"), MemoryError(), KeyboardInterrupt(), SystemExit(), GeneratorExit()):
        with pytest.raises(type(passed)):
            failing(Path("a/b"), passed)
    with decoding(Path("a/b")):
        pass


def coded(indices: list[int | None], words: list[str]) -> pa.ChunkedArray:
    array = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(words), safe=False)
    return pa.chunked_array([array])


def test_codes_are_within_their_dictionary() -> None:
    sound: list[list[int | None]] = [[], [None], [0, 1, None, 1]]
    for indices in sound:
        row_source._validate_text(coded(indices, ["a", "b"]))
    beyond: list[tuple[list[int | None], int]] = [([0, 2], 2), ([-1, 0], 0), ([9, None], 9)]
    for indices, code in beyond:
        with pytest.raises(pa.ArrowInvalid, match=f"code {code} in a dictionary of 2 words"):
            row_source._validate_text(coded(indices, ["a", "b"]))
    row_source._validate_text(pa.chunked_array([["plain", "words"]]))
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    with pytest.raises(pa.ArrowInvalid):
        row_source._validate_text(pa.chunked_array([bad]))
    with pytest.raises(pa.ArrowInvalid):
        row_source._validate_text(pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), bad)]))


def test_rows_of_a_shard_and_of_the_log_as_arrow_and_polars(tmp_path: Path) -> None:
    writer = HandmadeAttempt(tmp_path)
    writer.seal(heads=heads(0, "a", "b", entropy=0.5))
    writer.log(1, heads=heads(1, "c", entropy=1.5), updates=updates(1, 4))
    attempts = find_attempts(tmp_path)
    shard, log = row_sources(attempts, HEADS)
    for part, names in ((shard, ["a", "b"]), (log, ["c"])):
        rows = part.read(["head", "entropy"], ["head"])
        assert rows.column_names[:2] == ["head", "entropy"]
        assert rows["head"].to_pylist() == names
        frame = part.frame(["entropy", "head"])
        assert frame.columns == ["entropy", "head", "attempt number"]
        assert frame["head"].to_list() == names
        assert (part.count(), part.shape.current if part.path else True) == (len(names), True)
    (only,) = row_sources(attempts, UPDATES)
    assert (only.first_update, only.last_update, only.until) == (1, 4, None)
    assert row_sources(attempts, BY_NAME["steps"]) == []
    assert last_update([shard, log, only]) == 4
    assert last_update([]) is None
    made = in_memory(UPDATES, only.read(["update", "seq"]), attempts[0])
    assert (made.first_update, made.last_update, made.path) == (1, 4, None)


@pytest.mark.parametrize(("until", "left"), [(None, [3, 4, 5]), (6, [3, 4, 5]), (5, [3, 4]), (4, [3]), (3, None)])
def test_rows_from_an_update_on_that_was_recorded_again_are_left_out(
    tmp_path: Path, until: int | None, left: list[int] | None
) -> None:
    writer = HandmadeAttempt(tmp_path)
    writer.seal(updates=updates(3, 4, 5))
    (attempt,) = find_attempts(tmp_path)
    attempt.until = until
    sources = row_sources([attempt], UPDATES)
    if left is None:
        assert sources == []
        return
    (part,) = sources
    assert part.until == (until if until is not None and until <= 5 else None)
    assert part.read(["update"])["update"].to_pylist() == left
    assert part.frame(["update"])["update"].to_list() == left
    assert part.count() == len(left)
    assert isinstance(part.frame(["update"]), pl.DataFrame)


def test_a_shard_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    writer = HandmadeAttempt(tmp_path)
    writer.seal(heads=heads(0, "a"))
    (part,) = row_sources(find_attempts(tmp_path), HEADS)
    assert part.path is not None
    part.path.write_bytes(b"PAR1")
    for read in (part.read, part.frame):
        with pytest.raises(DamagedError, match=r"heads-000001\.parquet cannot be decoded"):
            read(["head"])


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("name", sorted(name for name, table in BY_NAME.items() if any(map(is_text, table.columns))))
def test_text_that_is_no_utf8_is_damage_in_arrow_and_in_polars(tmp_path: Path, name: str, dictionary: bool) -> None:
    table, word = BY_NAME[name], "wörd"
    run_dir = copied(tmp_path / "run")
    for column in filter(is_text, table.columns):
        rows = filled(table, 3, **{column.name: pa.array([word] * 3)})
        content = parquet(rows, compression="none", use_dictionary=dictionary, write_statistics=False)
        at = content.index(word.encode())
        path = listed(run_dir, table, content[:at] + b"\xff" + content[at + 1 :])
        (attempt,) = find_attempts(run_dir)
        (part,) = (part for part in row_sources([attempt], table) if part.path == path)
        for read in (part.frame, part.read):
            with pytest.raises(DamagedError, match="cannot be decoded"):
                read(["update", column.name])
        for read in (part.frame, part.read):
            read([other.name for other in table.columns if other is not column])
        path.unlink()
        run_dir = copied(tmp_path / "run")
