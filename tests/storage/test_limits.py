"""The sizes beyond which a file is refused: a change of one decides which recorded runs can still be read."""

from __future__ import annotations

from esper_analyze.schema import TABLES
from esper_analyze.storage import limits, shard_file
from esper_analyze.storage.maintenance import compact
from recorder.store.store import MAX_WAITING_ROWS

KIB, MIB, GIB = 2**10, 2**20, 2**30


def test_limits_in_bytes_rows_and_cells() -> None:
    assert limits.LARGEST_FRAME == 256 * MIB
    assert limits.LARGEST_FRAME_ROWS == 4 * MIB
    assert limits.LARGEST_LOG == GIB
    assert limits.LARGEST_TEXT == 64 * MIB
    assert limits.LARGEST_FOOTER == 16 * MIB
    assert limits.LARGEST_SHARD_CELLS == 64 * MIB
    assert limits.LARGEST_SHARD == 512 * MIB
    assert limits.LARGEST_COLUMN == 256 * MIB


def test_limits_fit_what_the_recorder_and_compact_write() -> None:
    widest = max(len(table.columns) for table in TABLES)
    assert MAX_WAITING_ROWS * widest <= limits.LARGEST_SHARD_CELLS
    assert 8 * limits.LARGEST_SHARD_CELLS == limits.LARGEST_SHARD
    assert compact.GROUP_CELLS == limits.LARGEST_SHARD_CELLS // 4
    assert 8 * compact.GROUP_CELLS == 128 * MIB
    assert shard_file.GROUP_ROWS * 8 < limits.LARGEST_COLUMN
    assert limits.LARGEST_FRAME < limits.LARGEST_LOG
