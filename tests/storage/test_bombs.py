"""Files that a checksum vouches for and no recorder wrote: refused before they are unpacked, or named when decoded."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.exceptions import PanicException

from esper_analyze.errors import DamagedError
from esper_analyze.replay.evidence import gather
from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import open_run
from esper_analyze.schema import BY_NAME
from esper_analyze.storage.maintenance.verify import verify
from tests.commands.conftest import Command
from tests.faults import bombs
from tests.faults.forged import copied, filled, listed, parquet, shards, vouched

HEADS = BY_NAME["heads"]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (bombs.footer_lies, "unpacks to 8.* bytes, 536,870,912 are the most"),
        (bombs.one_word, "holds 900,000,000 bytes of text in column head"),
        (bombs.prefixes, "page of column head that cannot be read .the recorder does not use its encoding"),
        (bombs.page_claims, "unpacks to 2,14.* bytes"),
    ],
)
def test_what_unpacks_to_more_than_the_footer_says_is_refused_before_it_is_unpacked(
    build: Callable[[], bytes], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(tmp_path / "run")
    path = listed(run, HEADS, build())
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(DamagedError, match=f"{path.name} .*{words}"):
        open_run(run)


def test_many_long_names_are_no_bomb(tmp_path: Path) -> None:
    run = copied(tmp_path / "run")
    names = [f"{k:05d}" + "x" * 295 for k in range(5_000)]
    data = filled(HEADS, 200_000, head=pa.array(names * 40))
    listed(run, HEADS, parquet(data, use_dictionary=["head"], row_group_size=100_000))
    assert open_run(run).frame("heads", ["head"])["head"].n_unique() > 5_000


def test_a_cell_that_cannot_be_decoded_names_its_file(command: Command, tmp_path: Path) -> None:
    run = copied(tmp_path / "run")
    path = listed(run, HEADS, bombs.declared_text())
    for words in (["report", run, "--out", tmp_path / "out"], ["replay", run], ["sql", run, "from heads"]):
        said = command(*words)
        assert (said.code, said.out) == (3, "")
        assert f"{path.name} cannot be decoded" in said.err
        assert said.err.count("\n") == 1


def test_a_code_beyond_its_dictionary_is_damage_and_not_another_word(tmp_path: Path) -> None:
    run = copied(tmp_path / "run")
    path = next(one for one in shards(run) if one.name.startswith("groups"))
    with pq.ParquetFile(path) as file:
        whole = parquet(file.read(), compression="none", use_dictionary=["group"])
    column = pq.read_metadata(pa.BufferReader(whole)).row_group(0).column(BY_NAME["groups"].names.index("group"))
    end = column.dictionary_page_offset + column.total_compressed_size
    chance, refused = random.Random(0), 0
    for _ in range(20):
        harmed = bytearray(whole)
        harmed[chance.randrange(column.data_page_offset + 20, end)] ^= 255
        vouched(path, bytes(harmed))
        if not (fault := verify(run).damage):
            continue
        refused += "cannot be decoded" in fault[0].reason
        with pytest.raises(DamagedError, match=path.name):
            replay(open_run(run))
    assert refused


def test_a_panic_of_polars_names_the_file(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: object, **__: object) -> None:
        raise PanicException("boom")

    run = copied(tmp_path / "run")
    monkeypatch.setattr("esper_analyze.storage.row_source.read_shard", panic)  # which reads what an older schema wrote
    monkeypatch.setattr(polars, "read_parquet", panic)
    with pytest.raises(DamagedError, match=r"parquet cannot be decoded \(PanicException\)"):
        gather(open_run(run))
    said = command("report", run, "--out", tmp_path / "out")
    assert (said.code, said.out) == (3, "")
    assert ".parquet cannot be decoded" in said.err
    monkeypatch.undo()
    monkeypatch.setattr(polars.DataFrame, "sort", panic)
    said = command("report", run, "--out", tmp_path / "out")
    assert said.code == 70
    assert "internal error, PanicException: boom" in said.err
