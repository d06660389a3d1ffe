"""A shard that another tool wrote, with statistics of its float columns, is answered rightly about NaN."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.tables import UPDATES
from esper_analyze.sql.sandbox import sandbox
from esper_analyze.storage.maintenance.repair import repair
from tests.runs.stored import folder, write


@pytest.fixture
def foreign(tmp_path: Path) -> RecordedRun:
    """A run whose updates were written anew by pyarrow as it comes, with NaN in every third row."""
    run = write(tmp_path / "run")
    for shard in folder(run).glob("updates-*.parquet"):
        data = pq.ParquetFile(shard).read()
        cells = [float("nan") if update % 3 == 0 else 0.5 for update in data["update"].to_pylist()]
        data = data.set_column(data.schema.get_field_index("kl_k3"), "kl_k3", pa.array(cells))
        pq.write_table(data.cast(arrow_schema(UPDATES)), shard)
    (folder(run) / "manifest.jsonl").unlink()
    repair(run)
    return open_run(run)


@pytest.mark.parametrize("test", ["isnan(kl_k3)", "kl_k3 > 100"])
def test_a_view_finds_the_nans_that_statistics_leave_out(foreign: RecordedRun, test: str) -> None:
    with foreign.connection() as connection:
        assert connection.execute(f"select count(*) from updates where {test}").fetchall() == [(5,)]
        assert str(connection.execute("select max(kl_k3) from updates").fetchall()) == "[(nan,)]"


def test_a_view_a_table_and_a_frame_hold_the_same_rows(foreign: RecordedRun) -> None:
    expected = foreign.frame("updates", ["update"])["update"].to_list()
    with foreign.connection() as view, sandbox([("run", foreign)], ["updates"]) as table:
        for connection in (view, table):
            rows = connection.execute("select update from updates order by seq").fetchall()
            assert [row[0] for row in rows] == expected
