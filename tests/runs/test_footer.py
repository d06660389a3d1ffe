"""No byte of a footer makes looking at it fail otherwise than in words."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from esper_analyze.errors import UsageError
from esper_analyze.runs.footer import footer_fault
from esper_analyze.schema.tables import FINDINGS
from tests.runs.stored import write


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    run = write(tmp_path_factory.mktemp("closed") / "run", updates=30)
    found = [path for path in run.rglob("*.parquet") if path.name.startswith("findings")]
    return found[0].read_bytes()


def test_any_flipped_bit_of_a_footer_is_a_sentence_or_nothing(shard: bytes, tmp_path: Path) -> None:
    path, rng, said = tmp_path / "findings-000001.parquet", random.Random(5), set()
    start = len(shard) - 8 - int.from_bytes(shard[-8:-4], "little")
    for _ in range(3_000):
        harmed = bytearray(shard)
        harmed[rng.randrange(start, len(shard))] ^= 1 << rng.randrange(8)
        path.write_bytes(harmed)
        try:
            said.add(footer_fault(path, FINDINGS))
        except UsageError as error:
            said.add(error.message.rsplit("/", maxsplit=1)[-1])
    assert "has a footer that cannot be read (OSError)" in said


def test_a_file_that_is_gone_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        footer_fault(tmp_path / "findings-000001.parquet", FINDINGS)
