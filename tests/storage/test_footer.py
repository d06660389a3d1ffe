"""No byte of a footer that nothing vouches for makes looking at it fail otherwise than in words."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.runs.run import open_run
from esper_analyze.schema.tables import FINDINGS
from esper_analyze.storage import footer_crash_check
from esper_analyze.storage.footer import footer_fault
from esper_analyze.storage.maintenance.repair import repair
from esper_analyze.storage.maintenance.verify import verify
from tests.runs.stored import folder, frames, write

NAME = "findings-000004.parquet"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("closed") / "run", updates=30)


@pytest.fixture(scope="module")
def shard(run: Path) -> bytes:
    return sorted(folder(run).glob("findings-*.parquet"))[0].read_bytes()


def harmful(shard: bytes, place: Path) -> bytes:
    """Return the shard with the first bit flipped that ends a process: one for which statistics have a wrong size."""
    start = len(shard) - 8 - int.from_bytes(shard[-8:-4], "little")
    made = {}
    for at in range(start, start + 1_200):
        harmed = bytearray(shard)
        harmed[at] ^= 1 << 6
        made[place / f"{at}.parquet"] = bytes(harmed)
    for path, harmed_bytes in made.items():
        path.write_bytes(harmed_bytes)
    footer_crash_check.probe(list(made))
    return next((content for path, content in made.items() if footer_crash_check.crashes_reader(path)), b"")


def test_any_flipped_bit_of_a_footer_is_a_sentence_or_nothing(shard: bytes, tmp_path: Path) -> None:
    rng, said, paths = random.Random(5), set(), []
    start = len(shard) - 8 - int.from_bytes(shard[-8:-4], "little")
    for number in range(1_500):
        harmed = bytearray(shard)
        harmed[rng.randrange(start, len(shard))] ^= 1 << rng.randrange(8)
        paths.append(tmp_path / f"findings-{number:06d}.parquet")
        paths[-1].write_bytes(harmed)
    footer_crash_check.probe(paths)
    for path in paths:
        try:
            said.add(footer_fault(path, FINDINGS))
        except UsageError as error:
            said.add(error.message.rsplit("/", maxsplit=1)[-1])
    assert any("has a footer that cannot be read" in (one or "") for one in said)


def test_a_footer_that_ends_its_reader_is_named_and_set_aside(shard: bytes, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    bad = harmful(shard, tmp_path / "made")
    if not bad:
        pytest.skip("this pyarrow survives every footer")
    run = write(tmp_path / "run", updates=30)
    spoilt = sorted(folder(run).glob("findings-*.parquet"))[0]
    spoilt.write_bytes(bad)
    (folder(run) / "manifest.jsonl").unlink()
    clean = frames(write(tmp_path / "other", updates=30))
    with pytest.raises(DamagedError, match="is missing, and there are shards"):
        open_run(run)
    assert any("ends the process that reads it" in fault.reason for fault in verify(run).damage)
    repair(run)
    assert (folder(run) / "set-aside" / spoilt.name).read_bytes() == bad
    assert frames(run)["updates"]["update"].equals(clean["updates"]["update"])


def test_a_file_that_is_gone_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        footer_fault(tmp_path / NAME, FINDINGS)
