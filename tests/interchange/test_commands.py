"""``import`` and ``export`` as commands: what they say, where they stop, and what every other command then does."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.write import write_imported
from esper_analyze.runs.run import open_run
from esper_analyze.storage.footer import has_float_statistics
from tests.commands.conftest import Command
from tests.interchange.conftest import EXCERPT
from tests.interchange.logs import sb3_rows, write_csv

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_runs" / "runs" / "nan_reward"


@pytest.fixture
def imported(command: Command, tmp_path: Path) -> Path:
    assert command("import", EXCERPT, "--out", tmp_path / "run").code == 0
    return tmp_path / "run"


def test_every_command_works_on_an_imported_run(command: Command, imported: Path, tmp_path: Path) -> None:
    assert "ancestor:value_collapse_detected" in command("ls", tmp_path, "--wide").out
    assert "fine" in command("verify", imported).out
    assert command("replay", imported, "--verify").code == 0
    assert "recorded with 0.1, now 0.2" in command("replay", imported, "--set", "critic_not_learning.low=0.2").out
    assert "25" not in command("sql", imported, "select count(*) from updates", "--csv").out
    assert command("report", imported, "--out", tmp_path / "page").code == 0
    assert (tmp_path / "page" / "index.html").stat().st_size > 10_000
    (imported / "labels.toml").write_text("healthy = true\n")
    assert "1 healthy" in command("backtest", imported).out
    assert command("compact", imported).code == 0


def test_import_tells_what_it_took_what_was_broken_and_what_no_column_holds(command: Command, tmp_path: Path) -> None:
    said = command("import", EXCERPT, "--out", tmp_path / "run")
    assert "3 updates from ancestor" in said.out
    assert "8 alarms of its own detector" in said.out
    assert "2 × NaN or Infinity as a bare token" in said.err
    assert "value_nrmse" in said.err
    facts = json.loads(command("import", EXCERPT, "--out", tmp_path / "again", "--json").out)
    assert facts["rows"]["heads"] == 24
    assert facts["left_out"]["grad_norm"]
    assert {loss["kind"] for loss in facts["losses"]} == {"nonfinite_tokens", "missing_updates"}


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder", "link"])
def test_nothing_is_ever_written_over(command: Command, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        if kind == "folder":
            (out / "mine").write_text("mine")
    for line in (("import", EXCERPT), ("export", SAMPLE, "--to", "csv")):
        said = command(*line, "--out", out)
        assert said.code == 2
        assert "exists" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_source_that_fails_leaves_nothing_behind(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"event_type": "TRAINING_STARTED", "data": {}}\n')
    said = command("import", file, "--out", tmp_path / "run")
    assert said.code == 3
    assert said.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]


def test_a_place_that_cannot_be_written_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = command("import", EXCERPT, "--out", tmp_path / "file" / "run")
    assert (said.code, "cannot be written" in said.err) == (2, True)


def test_a_format_that_the_source_is_not_is_refused(command: Command, tmp_path: Path) -> None:
    said = command("import", EXCERPT, "--out", tmp_path / "run", "--format", "tensorboard")
    assert (said.code, "does not hold, TensorBoard event files" in said.err) == (2, True)
    assert command("import", tmp_path / "none", "--out", tmp_path / "run").code == 2


def test_shards_of_an_import_have_no_statistics_of_floats(imported: Path) -> None:
    shards = sorted(imported.rglob("*.parquet"))
    assert shards
    assert not any(has_float_statistics(shard) for shard in shards)


def test_our_own_alarms_are_found_at_once_in_an_imported_run(command: Command, tmp_path: Path) -> None:
    rows = [row for _, row in sb3_rows(6)]
    rows[4]["train/loss"] = math.nan
    said = command("import", write_csv(tmp_path / "progress.csv", rows), "--out", tmp_path / "run")
    assert "1 alarm of ours" in said.out
    assert "critical: numerical_instability at update 3" in command("ls", tmp_path, "--wide").out


@pytest.mark.parametrize(("to", "suffix"), [("csv", ".csv"), ("jsonl", ".jsonl"), ("parquet", ".parquet")])
def test_one_table_becomes_one_file(command: Command, tmp_path: Path, to: str, suffix: str) -> None:
    out = tmp_path / f"heads{suffix}"
    said = command("export", SAMPLE, "--to", to, "--table", "heads", "--out", out)
    assert said.out.endswith("104 rows of heads\n")
    assert out.is_file()


@pytest.mark.parametrize("name", ["updates", "updates.csv"])
def test_a_file_that_import_would_not_know_is_refused(command: Command, tmp_path: Path, name: str) -> None:
    said = command("export", SAMPLE, "--to", "parquet", "--out", tmp_path / name)
    assert (said.code, "does not end in .parquet" in said.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["csv", "jsonl", "parquet"])
def test_whole_numbers_beyond_those_of_a_float_come_back_exactly(command: Command, tmp_path: Path, to: str) -> None:
    numbers = [2**53 + 1, 2**63 - 1]
    made = [{"update": k, "env_steps": steps, "status": "performed"} for k, steps in enumerate(numbers)]
    write_imported(
        tmp_path / "run", Imported("made up", rows={"updates": [{"level": "NORMAL", **row} for row in made]})
    )
    command("export", tmp_path / "run", "--to", to, "--table", "updates", "--out", tmp_path / f"updates.{to}")
    assert command("import", tmp_path / f"updates.{to}", "--out", tmp_path / "back").code == 0
    assert open_run(tmp_path / "back").frame("updates")["env_steps"].to_list() == numbers


def test_what_tensorboard_cannot_hold_is_counted(command: Command, tmp_path: Path) -> None:
    head = {"status": "performed", "level": "NORMAL"}
    made = [{"update": k, "kl_k3": number, **head} for k, number in enumerate([1e300, -1e39, 3e38, math.inf])]
    write_imported(tmp_path / "run", Imported("made up", rows={"updates": made}))
    said = command("export", tmp_path / "run", "--to", "tensorboard", "--out", tmp_path / "tb")
    assert (said.code, "2 values too large for float32" in said.err) == (0, True)


def test_null_nan_and_infinity_are_three_things_in_csv_and_json_lines(command: Command, tmp_path: Path) -> None:
    numbers = [None, math.nan, math.inf, -math.inf, 0.0]
    head = {"status": "performed", "level": "NORMAL"}
    made: list[dict[str, object]] = [{"update": k, "kl_k3": number, **head} for k, number in enumerate(numbers)]
    write_imported(tmp_path / "run", Imported("made up", rows={"updates": made}))
    column = list(open_run(tmp_path / "run").frame("updates").columns).index("kl_k3")
    command("export", tmp_path / "run", "--to", "csv", "--table", "updates", "--out", tmp_path / "u.csv")
    lines = (tmp_path / "u.csv").read_text().splitlines()[1:]
    assert [line.split(",")[column] for line in lines] == ["", "NaN", "inf", "-inf", "0.0"]
    command("export", tmp_path / "run", "--to", "jsonl", "--table", "updates", "--out", tmp_path / "u.jsonl")
    found = [json.loads(line)["kl_k3"] for line in (tmp_path / "u.jsonl").read_text().splitlines()]
    assert found == [None, "NaN", "Infinity", "-Infinity", 0.0]


def test_a_table_with_many_rows_an_update_does_not_fit_tensorboard(command: Command, tmp_path: Path) -> None:
    said = command("export", SAMPLE, "--to", "tensorboard", "--table", "steps", "--out", tmp_path / "tb")
    assert (said.code, "many rows an update" in said.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_does_not_exist_is_refused_with_the_nearest(command: Command, tmp_path: Path) -> None:
    said = command("export", SAMPLE, "--to", "csv", "--table", "head", "--out", tmp_path / "x")
    assert (said.code, "did you mean 'heads'" in said.err) == (2, True)


def test_a_damaged_run_is_not_exported_in_part_without_a_word(
    command: Command, truncated: Path, tmp_path: Path
) -> None:
    assert command("export", truncated, "--to", "csv", "--out", tmp_path / "a").code == 3
    said = command("export", truncated, "--to", "csv", "--out", tmp_path / "b", "--skip-broken")
    assert (said.code, "left out" in said.err) == (0, True)


def test_ranks_are_joined_for_one_row_an_update(command: Command, tmp_path: Path) -> None:
    ranks = ROOT / "sample_runs" / "runs" / "two_ranks"
    assert command("export", ranks, "--to", "parquet", "--out", tmp_path / "x.parquet").code == 0
    said = command("import", tmp_path / "x.parquet", "--out", tmp_path / "run")
    assert said.code == 0
    assert open_run(tmp_path / "run").frame("updates").height == open_run(ranks).only(0).frame("updates").height


def test_diagnose_tells_of_a_log_what_a_report_of_its_run_tells_and_leaves_nothing(
    command: Command, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = EXCERPT.read_bytes()
    said, printed = command("diagnose", EXCERPT), command("diagnose", EXCERPT, "--json").out
    story = json.loads(printed)
    whole = json.loads(command("report", imported, "--json").out)
    assert said.code == 0
    assert " ".join(said.out.split()).count(" ".join(story["headline"].split())) == 1
    for part in ("now", "why", "next"):
        words = [point["words"] for point in story[part]]
        assert words == [point["words"] for point in whole[part]]
        for sentence in words:
            assert " ".join(sentence.split()) in " ".join(said.out.split())
    assert "2 × NaN or Infinity as a bare token" in said.err
    assert f"esper-analyze import {EXCERPT}" in said.out
    assert str(scratch) not in said.out + printed
    assert list(scratch.iterdir()) == []
    assert EXCERPT.read_bytes() == before


def test_diagnose_names_no_command_on_a_run_that_is_gone(command: Command, tmp_path: Path) -> None:
    run = SAMPLE.parent / "one_update_collapse"
    assert command("export", run, "--to", "jsonl", "--out", tmp_path / "log").code == 0
    assert command("import", tmp_path / "log", "--out", tmp_path / "run").code == 0

    def commands(source: Path) -> list[str]:
        story = json.loads(command("diagnose", source, "--json").out)
        return [point["command"] for part in ("now", "why", "next") for point in story[part] if point["command"]]

    assert commands(tmp_path / "run")
    assert commands(tmp_path / "log") == []


def test_diagnose_tells_of_a_run_with_the_commands_to_type_and_fails_on_request(command: Command) -> None:
    said = command("diagnose", SAMPLE, "--fail-on", "critical")
    assert said.code == 1
    assert said.out.splitlines()[1].startswith("✗ critical: ")
    assert f"esper-analyze sql {SAMPLE}" in said.out
    assert "esper-analyze import" not in said.out
    calm = command("diagnose", SAMPLE.parent / "masked_healthy", "--fail-on", "warning")
    assert (calm.code, calm.out.splitlines()[1][:5]) == (0, "✓ ok:")


def test_diagnose_refuses_what_is_neither_a_run_nor_a_log(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    for source, words in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "empty.csv", "is empty")):
        said = command("diagnose", source)
        assert (said.code, said.out) == (2, "")
        assert words in said.err
