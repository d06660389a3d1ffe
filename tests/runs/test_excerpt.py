"""Some updates of a run as a run: their rows, all of them and no others, in the order in which they were written."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from esper_analyze.runs.excerpt import excerpt, update_span
from esper_analyze.runs.merge_ranks import merge_ranks
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema import TABLES
from tests.runs.test_run import resumed
from tests.storage.handmade import identify

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"


def assert_is_part(run: RecordedRun, first: int, last: int) -> None:
    part = excerpt(run, first, last)
    for table in TABLES:
        rows = run.frame(table.name).filter(pl.col("update").is_between(first, last)).drop("seq")
        assert_frame_equal(part.frame(table.name).drop("seq"), rows)
        assert part.rows[table.name] == len(rows)


@pytest.mark.parametrize("name", ["nan_reward", "growing_exploding", "two_ranks"])
def test_an_excerpt_has_the_rows_of_its_updates_alone(name: str) -> None:
    run = open_run(SAMPLES / name)
    assert_is_part(run, 5, 11)
    assert_is_part(merge_ranks(run), 5, 11)
    assert update_span(excerpt(run, 5, 11)) == (5, 11)


def test_rows_of_a_resumed_run_stay_in_their_order_and_those_superseded_stay_out(tmp_path: Path) -> None:
    run = open_run(resumed(tmp_path / "run"))
    assert_is_part(run, 1, 3)
    assert excerpt(run, 1, 3).frame("updates", ["rank", "update"]).rows() == [(0, 1), (0, 2), (0, 3), (2, 1), (2, 2)]


def test_a_run_without_updates_has_no_span(tmp_path: Path) -> None:
    identify(tmp_path / "run")
    (tmp_path / "run").mkdir(exist_ok=True)
    assert update_span(open_run(tmp_path / "run")) is None
