"""Opening runs: what is refused, in which words, with which exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import open_run
from esper_analyze.schema.history import VERSION
from esper_analyze.sql.sandbox import sandbox
from esper_analyze.storage.run_info import find_runs

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return a copy of a sample run that may be damaged."""
    shutil.copytree(SAMPLES / "nan_reward", tmp_path / "run")
    return tmp_path / "run"


def edit(run: Path, **facts: object) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | facts))


def test_a_directory_that_is_no_run_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a recorded run: it has no run\.json"):
        open_run(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        open_run(tmp_path / "nowhere")


def test_a_newer_schema_is_refused_by_name(copied: Path) -> None:
    edit(copied, schema_version="2.0")
    with pytest.raises(UsageError, match=rf"was recorded with schema 2\.0, this version reads up to {VERSION}"):
        open_run(copied)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": "x"}', '{"schema_version": null}', "\x00"])
def test_a_broken_run_json_is_damage(copied: Path, content: str) -> None:
    (copied / "run.json").write_text(content)
    with pytest.raises(DamagedError, match=r"run\.json"):
        open_run(copied)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"thresholds": "x"}, "thresholds must be a table of rules, not 'x'"),
        ({"thresholds": {"kl_spike": {"warning": "high"}}}, "kl_spike.warning must be a finite number"),
        ({"level": "LOUD"}, "names the level 'LOUD'"),
    ],
)
def test_what_replay_needs_of_run_json_is_damage_when_it_makes_no_sense(
    copied: Path, facts: dict[str, object], words: str
) -> None:
    edit(copied, **facts)
    with pytest.raises(DamagedError, match=words):
        replay(open_run(copied))


def test_one_bad_run_does_not_hide_the_others(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        shutil.copytree(SAMPLES / "nan_reward", tmp_path / "deep" / name)
    (tmp_path / "deep" / "b" / "run.json").write_text("{")
    assert [path.name for path in find_runs(tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "select * from '/etc/passwd'",
        "copy updates to '/tmp/esper_analyze_test.csv'",
        "attach '/tmp/esper_analyze_test.db' as other",
        "install httpfs",
        "load httpfs",
        "set memory_limit = '100GB'",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "export database '/tmp/esper_analyze_test'",
    ],
)
def test_the_sandbox_reaches_nothing_outside(statement: str) -> None:
    connection = sandbox([("nan_reward", open_run(SAMPLES / "nan_reward"))])
    with pytest.raises(duckdb.Error):
        connection.execute(statement).fetchall()
    assert not Path("/tmp/esper_analyze_test.csv").exists()


def test_sandbox_and_views_answer_alike() -> None:
    run = open_run(SAMPLES / "lstm_masks")
    # Sums are left out: their last digit depends on the order in which threads finish.
    query = "select head, count(*), max(grad_norm), median(entropy_norm) from heads group by head order by head"
    assert sandbox([("run", run)]).execute(query).fetchall() == run.connection().execute(query).fetchall()
