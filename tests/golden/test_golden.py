"""A run of every version so far is read as it was when it was stored: its cells to the last bit.

What is computed from them is held to ``tests.tolerance``: another processor sums in another order.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import open_run
from esper_analyze.schema import BY_NAME, TABLES, VERSIONS
from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.storage.layout import MANIFEST_FILE
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.repair import repair
from esper_analyze.storage.shapes import history, upgraded
from esper_analyze.storage.shard_file import seal
from tests.golden.facts import GOLDEN, cells, found, stored
from tests.tolerance import differences

pytestmark = pytest.mark.processor

NUMBERS = [version.number for version in VERSIONS]


@pytest.mark.parametrize("number", NUMBERS)
def test_cells_verify_and_report_are_as_they_were_stored(number: str, tmp_path: Path) -> None:
    now, then = found(number, tmp_path), stored(number)
    for part in ("cells", "verify"):
        assert now[part] == then[part], part
    assert now["cells"]["updates"]["rows"] > 0
    changed = differences(now["report"], then["report"])
    assert not changed, "look at what changed, then `python -m tests.golden`"


def test_what_an_older_version_did_not_record_is_null_and_the_rest_is_there() -> None:
    before, today = cells(GOLDEN / "1.0" / "run"), cells(GOLDEN / "1.1" / "run")
    added = VERSIONS[1]
    empty = {column for column, digest in before["groups"].items() if digest == "null"}
    assert set(added.columns["groups"]) <= empty
    assert {table.name for table in TABLES if before[table.name]["rows"] == 0} >= set(added.tables)
    assert before["groups"]["rows"] == today["groups"]["rows"] > 0
    assert today["groups"]["hist_zero"] != "null"


@pytest.mark.parametrize("number", NUMBERS)
def test_sql_and_frames_agree(number: str) -> None:
    run = open_run(GOLDEN / number / "run")
    with run.connection() as connection:
        for table in TABLES:
            order = f"select * from {table.name} order by rank, seq"
            rows = connection.execute(order).fetchall()
            assert [tuple(map(_bits, row)) for row in rows] == [
                tuple(map(_bits, row)) for row in run.frame(table.name).rows()
            ]


def _bits(cell: object) -> object:
    return cell.hex() if isinstance(cell, float) else cell


@pytest.mark.parametrize("number", NUMBERS)
def test_repaired_it_has_the_same_cells(number: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(GOLDEN / number / "run", tmp_path / "run"))
    expected = cells(copy)
    next(copy.rglob(MANIFEST_FILE)).unlink()
    assert {act.what for act in repair(copy)} == {"list again", "close", "rebuild"}
    assert cells(copy) == expected
    assert len(open_run(copy).unverified) == len(list(copy.rglob("*.parquet")))
    assert cells(copy) == expected


def test_shards_of_two_versions_are_compacted_into_one_of_today(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(GOLDEN / "1.0" / "run", tmp_path / "run"))
    shard = next(copy.rglob("groups-*.parquet"))
    table, first = BY_NAME["groups"], history(BY_NAME["groups"], VERSIONS)[-1]
    data = pq.ParquetFile(shard).read()
    half = len(data) // 2
    later = upgraded(table, first, data.slice(half), table.names).cast(arrow_schema(table))
    manifest = shard.with_name(MANIFEST_FILE)
    lines = [line for line in manifest.read_bytes().splitlines(keepends=True) if shard.name.encode() not in line]
    entries = [seal(shard.parent, first.table, 1, data.slice(0, half)), seal(shard.parent, table, 2, later)]
    manifest.write_bytes(b"".join([*lines, *(entry.as_line() for entry in entries)]))
    expected = cells(GOLDEN / "1.0" / "run")
    assert cells(copy) == expected
    assert open_run(copy).older_schema == "1.0"
    assert compact(copy).shards == (len(lines) + 2, len(lines) + 1)
    assert cells(copy) == expected
    assert open_run(copy).older_schema == "1.1"  # tables of one shard were left as they were


def test_the_detector_says_no_data_or_not_applicable_of_what_was_not_recorded() -> None:
    judged = replay(open_run(GOLDEN / "1.0" / "run"))
    spoken = {rule for rule, counts in judged.verdict_counts.items() if set(counts) - {"no_data", "not_applicable"}}
    named = {one.metric for one in judged.unjudged}
    assert "update_ratio" in named or "update_ratio" not in str(judged.findings)
    assert spoken
    assert not [finding for finding in judged.findings if finding.metric in VERSIONS[1].columns["groups"]]


def test_shards_of_two_versions_lie_in_one_run(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(GOLDEN / "1.0" / "run", tmp_path / "run"))
    later = next((GOLDEN / "1.1" / "run" / "rank00000").glob("attempt-*"))
    shutil.copytree(later, copy / "rank00000" / "attempt-0001-00000000")
    run = open_run(copy, all_attempts=True)
    frame = run.frame("groups")
    half = len(frame) // 2
    assert frame["hist_zero"][:half].null_count() == half
    assert frame["hist_zero"][half:].null_count() < half
    with run.connection() as connection:
        total = connection.execute("select count(*), count(hist_zero) from groups").fetchone()
    assert total == (len(frame), len(frame) - frame["hist_zero"].null_count())
    assert np.isfinite(frame["grad_norm"].fill_null(0.0).to_numpy()).any()
