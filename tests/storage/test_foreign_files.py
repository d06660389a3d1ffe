"""Files of another rank or run, and rows that are there twice, are named by every reader."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.errors import DamagedError
from esper_analyze.runs.run import open_run
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.verify import verify
from tests.runs.stored import copied, folder, frames, same, write
from tests.schema.newer import relist


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("closed") / "run")


def test_a_rank_s_folder_copied_as_another_s_is_named(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    shutil.copytree(run / "rank00000", run / "rank00001")
    with pytest.raises(DamagedError, match=r"parquet holds rows of rank 0, its folder is of rank 1"):
        open_run(run)
    assert same(frames(run, skip_broken=True), frames(closed))


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_of_another_rank_are_named_with_statistics_and_without(
    closed: Path, tmp_path: Path, statistics: bool
) -> None:
    run = copied(closed, tmp_path / "run")
    shard = folder(run) / "updates-000002.parquet"
    data = pq.ParquetFile(shard).read()
    ranks = pa.array([0] * (len(data) - 1) + [3], pa.int64())
    pq.write_table(data.set_column(0, data.schema.field(0), ranks), shard, write_statistics=statistics)
    relist(shard)
    with pytest.raises(DamagedError, match=r"updates-000002\.parquet holds rows of rank 3, its folder is of rank 0"):
        open_run(run)


def test_an_attempt_of_another_run_is_named_and_nothing_is_compacted(closed: Path, tmp_path: Path) -> None:
    run, other = copied(closed, tmp_path / "run"), write(tmp_path / "other", updates=5)
    shutil.copytree(folder(other), folder(run).with_name("attempt-0000-ffffffff"))
    with pytest.raises(DamagedError, match=r"attempt-0000-ffffffff is attempt 0 of rank 0, and so is attempt-0000-"):
        open_run(run)
    assert [fault.reason for fault in verify(run).damage] == [
        f"is attempt 0 of rank 0, and so is {sorted(folder(run).parent.glob('attempt-*'))[0].name}: "
        "one of them is of another run, move it away"
    ]
    with pytest.raises(DamagedError, match="one of them is of another run"):
        compact(run)
    assert len(list(run.rglob("*.parquet"))) == sum(len(list(one.rglob("*.parquet"))) for one in (closed, other))


def test_rows_that_another_shard_holds_too_are_left_out_by_name(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    shard = folder(run) / "heads-000002.parquet"
    before = pq.ParquetFile(folder(run) / "heads-000001.parquet").read().slice(4)
    both = pa.concat_tables([before, pq.ParquetFile(shard).read()])
    pq.write_table(both, shard)
    relist(shard, rows=len(both), first_seq=both["seq"][0].as_py(), first_update=both["update"][0].as_py())
    with pytest.raises(DamagedError, match=r"heads-000002\.parquet holds rows .* and so does heads-000001\.parquet"):
        open_run(run)
    assert frames(run, skip_broken=True)["heads"]["seq"].is_unique().all()
