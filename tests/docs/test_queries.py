"""The queries that the documentation shows answer as they stand there, on the sample runs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from esper_analyze.runs.fleet import open_fleet
from esper_analyze.sql.session import Session
from esper_analyze.sql.statements import statements
from tests.docs.blocks import BLOCKS, ROOT
from tests.patience import PATIENCE

SHOWN = {block.name: list(statements(block.code)) for block in BLOCKS if block.language == "sql"}
QUERIES = SHOWN["ten queries"]
OTHERS = [query for name, queries in SHOWN.items() if name != "ten queries" for query in queries]
COLUMNS = (
    "run head phase learnable_fraction entropy_norm grad_norm",
    "run head zero_explained updates first_update last_update learnable_fraction",
    "run update rule subject verdict kl_k3 ratio_max entropy_norm",
    "run rule first_update first_subject first_critical findings subjects",
    "run layer elements rows_seen grad_norm_max grad_norm_median zero_fraction nan_count inf_count first_nonfinite",
    "run update head env step action log_ratio joint_log_ratio log_prob old_log_prob advantage",
    "run update status nonfinite_sources nan_grad_count",
    "run phase episode_return kl_k3 entropy_norm explained_variance",
    "place stage updates normalized_ratio low_ratio_cause",
    "run update kl_k3 clip_fraction",
)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    fleet = open_fleet([ROOT / "sample_runs" / "runs"])
    with Session(fleet.runs, timeout=PATIENCE, memory=2 * 10**9, attempts=False) as opened:
        yield opened


def answered(session: Session, index: int) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    with session.result(QUERIES[index]) as result:
        return result.columns, list(result.rows)


def test_there_are_ten_and_each_says_what_it_asks() -> None:
    assert len(QUERIES) == len(COLUMNS) == 10
    assert all(query.startswith("-- ") for query in QUERIES)


@pytest.mark.parametrize("index", range(10))
def test_each_of_the_ten_has_rows_of_the_right_columns(index: int, session: Session) -> None:
    columns, rows = answered(session, index)
    assert columns == tuple(COLUMNS[index].split())
    assert rows


@pytest.mark.parametrize("query", OTHERS)
def test_every_other_query_has_rows(query: str, session: Session) -> None:
    with session.result(query) as result:
        assert list(result.rows)


def test_what_they_say_of_the_samples_is_so(session: Session) -> None:
    """Held against what is known of the sample runs, see their labels."""
    learnable = {(row[1], row[2]): row[3] for row in answered(session, 0)[1]}
    assert learnable["slot", "early"] == 0.0
    assert {row[2] for row in answered(session, 1)[1] if row[0] == "lstm_masks" and row[1] == "slot"} == {"masked"}
    first = {(row[0], row[1]): row[2] for row in answered(session, 3)[1]}
    assert first["mask_mismatch", "first_ratio"] == 30
    assert [row[:2] for row in answered(session, 6)[1]] == [("nan_reward", 25)]
    alarms = [row for row in answered(session, 2)[1] if row[:3] == ("mask_mismatch", 30, "first_ratio")]
    assert [json.dumps(row[4]) for row in alarms] == ['"critical"']
