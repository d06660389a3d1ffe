"""Runs of older and newer schemas at the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from esper_analyze.detector.rule import revisions
from esper_analyze.detector.rules import RULES
from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.run import open_run
from esper_analyze.schema import VERSION
from tests.commands.conftest import Command
from tests.golden.facts import GOLDEN
from tests.schema.newer import rewrite

OLDER, TODAY = GOLDEN / "1.0" / "run", GOLDEN / "1.1" / "run"
LINES = (("replay",), ("report",), ("verify",), ("repair",), ("compact",), ("sql", "select 1"))


def test_replay_of_an_older_run_says_why_it_differs(command: Command, tmp_path: Path) -> None:
    older = Path(shutil.copytree(OLDER, tmp_path / "run"))
    run = open_run(older)
    assert differences(replay(run), recorded(run))
    assert "judged otherwise since it was recorded" in command("replay", older, "--verify").out
    info = json.loads((older / "run.json").read_text())
    (older / "run.json").write_text(json.dumps(info | {"rule_revisions": revisions(RULES)}))
    said = command("replay", older, "--verify")
    assert said.code == 3
    assert "was recorded with schema 1.0 and 15 of today's" in said.err
    assert "a difference is not damage" in said.err


def test_an_older_run_can_be_queried_and_listed(command: Command) -> None:
    said = command("sql", OLDER, "select count(*) as n, count(noise_scale) as known from groups", "--csv")
    assert (said.code, said.out) == (0, "n,known\n96,0\n")
    assert command("ls", OLDER.parent).code == 0
    assert command("verify", OLDER, TODAY).code == 0


@pytest.mark.parametrize(
    "line", [("replay",), ("report",), ("verify",), ("repair",), ("compact",), ("sql", "select 1")]
)
def test_a_shard_of_a_newer_major_version_is_refused_in_one_sentence(
    line: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(TODAY, tmp_path / "run"))
    shard = rewrite(run_dir, "groups", "2.0", added=["curvature"])
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock"}
    said = command(line[0], run_dir, *line[1:])
    assert said.code == 2
    assert f"{shard} was recorded with schema 2.0, this version reads up to {VERSION}" in said.err
    assert "install a newer esper-analyze" in said.err
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "line", [("replay",), ("report",), ("verify",), ("repair",), ("compact",), ("sql", "select 1")]
)
def test_a_run_of_a_newer_major_version_is_refused_in_one_sentence(
    line: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(TODAY, tmp_path / "run"))
    info = json.loads((run_dir / "run.json").read_text()) | {"schema_version": "2.0"}
    (run_dir / "run.json").write_text(json.dumps(info))
    said = command(line[0], run_dir, *line[1:])
    assert said.code == 2
    assert (
        f"was recorded with schema 2.0, this version reads up to {VERSION} (install a newer esper-analyze)" in said.err
    )


def test_ls_names_the_newer_run_and_lists_the_others(command: Command, tmp_path: Path) -> None:
    shutil.copytree(OLDER, tmp_path / "a")
    shard = rewrite(Path(shutil.copytree(TODAY, tmp_path / "b")), "updates", "3.7")
    said = command("ls", tmp_path, "--json")
    listed = {Path(one["path"]).name: one["fault"] for one in json.loads(said.out)}
    assert listed["a"] is None
    assert (
        listed["b"]
        == f"{shard.relative_to(tmp_path / 'b')} was recorded with schema 3.7, this version reads up to {VERSION}"
    )


def test_a_newer_minor_version_is_read_as_far_as_its_columns_are_known(command: Command, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(TODAY, tmp_path / "run"))
    rewrite(run_dir, "updates", "1.9")
    assert open_run(run_dir).frame("updates").equals(open_run(TODAY).frame("updates"), null_equal=True)
    rewrite(run_dir, "groups", "1.9", added=["curvature"])
    said = command("verify", run_dir)
    assert said.code == 2
    assert "groups-000001.parquet was recorded with schema 1.9" in said.err


@pytest.mark.parametrize("line", LINES)
def test_a_killed_run_of_a_newer_minor_version_is_refused_for_its_log(
    line: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(TODAY, tmp_path / "run"))
    info = json.loads((run_dir / "run.json").read_text()) | {"schema_version": "1.999"}
    (run_dir / "run.json").write_text(json.dumps(info))
    if line[0] != "report":
        assert command(line[0], run_dir, *line[1:]).code == 0
    next(run_dir.rglob("closed.json")).with_name(".wal-000009").write_bytes(b"ESPERLOG1\n")
    said = command(line[0], run_dir, *line[1:])
    assert said.code == 2
    assert "was recorded with schema 1.999" in said.err
