"""A manifest that is gone is what is named, not the marker that counts rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from esper_analyze.errors import DamagedError
from esper_analyze.runs.run import open_run
from esper_analyze.storage.maintenance.repair import repair
from tests.runs.stored import copied, folder, frames, relist, same, write


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("closed") / "run")


@pytest.mark.parametrize(
    ("content", "words"), [(None, "is missing, and there are shards"), (b"", "lists no shard, and there are some")]
)
def test_a_lost_manifest_is_named_first(closed: Path, tmp_path: Path, content: bytes | None, words: str) -> None:
    run = copied(closed, tmp_path / "run")
    manifest = folder(run) / "manifest.jsonl"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    with pytest.raises(DamagedError) as refused:
        open_run(run)
    assert f"{manifest} {words}" in refused.value.message
    repair(run)
    assert same(frames(run), frames(closed))
    assert len(open_run(run).unverified) == len(list(closed.rglob("*.parquet")))


def test_a_lost_line_names_its_shard_before_the_marker(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    manifest = folder(run) / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(line for line in lines if b"heads-000002" not in line))
    with pytest.raises(DamagedError, match=r"heads-000002\.parquet is listed by no manifest"):
        open_run(run)


def test_a_run_without_any_shard_needs_no_manifest(tmp_path: Path) -> None:
    run = write(tmp_path / "run", close=False, updates=2)
    assert not (folder(run) / "manifest.jsonl").exists()
    assert open_run(run).last_update == 1


@pytest.mark.parametrize("field", ["first_seq", "last_seq", "first_update", "last_update"])
def test_a_line_that_vouches_for_other_numbers_than_the_footer_s_is_no_cover(
    closed: Path, tmp_path: Path, field: str
) -> None:
    run = copied(closed, tmp_path / "run")
    relist(run, "heads-000002.parquet", **{field: 2**63})
    with pytest.raises(DamagedError, match=r"heads-000002\.parquet holds the (updates|sequence numbers) .* says"):
        open_run(run)
