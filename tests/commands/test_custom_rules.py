"""``--rules``: rules of one's own in replay, report, backtest and rules, and what is said of broken ones."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from esper_analyze.detector.custom import load_rules
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from tests.commands.conftest import Command
from tests.reports.synthetic import Rows, write_run

OWN = Path(__file__).parents[2] / "sample_runs" / "own_rules.py"


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A run whose ratios spread widely from update 10 on."""

    def edit(update: int, rows: Rows) -> None:
        rows["updates"][0]["ratio_std"] = 0.9 if update >= 10 else 0.1

    return write_run(tmp_path / "wide", 30, edit)


def test_rules_shows_their_page_and_their_thresholds(command: Command) -> None:
    page = command("rules", "--rules", OWN)
    assert page.code == 0
    assert page.out.startswith("## wide_ratio: Ratios spread widely\n")
    assert "kl_spike:" not in page.out
    assert [one["rule"] for one in json.loads(command("rules", "--rules", OWN, "--json").out)] == ["wide_ratio"]
    table = tomllib.loads(command("rules", "--rules", OWN, "--toml").out)
    assert table["wide_ratio"]["warning"] == 0.5


def test_the_example_that_is_shipped_is_a_complete_file(command: Command, wide: Path, tmp_path: Path) -> None:
    printed = command("rules", "--example")
    assert (printed.code, printed.out) == (0, OWN.read_text(encoding="utf-8"))
    (tmp_path / "own_rules.py").write_text(printed.out, encoding="utf-8")
    assert "wide_ratio" in command("replay", wide, "--rules", tmp_path / "own_rules.py").out
    assert command("rules", "--example", "--json").code == 2


def test_replay_judges_with_them_and_marks_what_they_did_not_say_live(command: Command, wide: Path) -> None:
    said = command("replay", wide, "--rules", OWN)
    assert said.code == 0
    assert "did not judge live: wide_ratio" in said.out
    assert "against the recording: 1 not live" in said.out
    assert "wide_ratio" not in command("replay", wide).out


def test_a_rule_that_was_not_recorded_has_a_default_and_no_recorded_threshold(command: Command, wide: Path) -> None:
    said = command("replay", wide, "--rules", OWN, "--set", "wide_ratio.warning=0.8", "--set", "kl_spike.warning=0.2")
    assert "wide_ratio.warning: default 0.5, now 0.8\n" in said.out
    assert "kl_spike.warning: recorded with 0.1, now 0.2\n" in said.out


def test_their_thresholds_can_be_set_and_written_and_read(command: Command, wide: Path, tmp_path: Path) -> None:
    narrow = json.loads(command("replay", wide, "--rules", OWN, "--set", "wide_ratio.warning=2", "--json").out)
    assert narrow["incidents"] == []
    (tmp_path / "t.toml").write_text(
        command("rules", "--toml").out + command("rules", "--rules", OWN, "--toml").out.replace("0.5", "2.0", 1)
    )
    same = json.loads(command("replay", wide, "--rules", OWN, "--thresholds", tmp_path / "t.toml", "--json").out)
    assert same["thresholds"]["wide_ratio"]["warning"] == 2.0
    assert same["findings"] == narrow["findings"]
    assert "there is no rule 'wide_ratio'" in command("replay", wide, "--thresholds", tmp_path / "t.toml").err


def test_every_threshold_survives_toml_with_them_beside_the_built_in_ones(command: Command) -> None:
    both = (*RULES, *load_rules(OWN).rules)
    text = command("rules", "--toml").out + command("rules", "--rules", OWN, "--toml").out
    defaults = Thresholds.defaults(both)
    assert defaults.merged(tomllib.loads(text)) == defaults


def test_report_tells_of_them(command: Command, wide: Path, tmp_path: Path) -> None:
    said = command("report", wide, "--rules", OWN, "--out", tmp_path / "out")
    assert said.code == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Ratios spread widely" in page
    assert "Learning rate and number of epochs." in page
    assert "wide_ratio.warning" in page


def test_backtest_scores_and_sweeps_them(command: Command, wide: Path) -> None:
    (wide / "labels.toml").write_text('[[fault]]\nname = "wide"\nonset = 10\nrules = ["wide_ratio"]\n')
    said = command("backtest", wide, "--rules", OWN, "--sweep", "wide_ratio.warning=0.5,2", "--json")
    scores = json.loads(said.out)["scores"]
    assert [(one["setting"], one["found"], one["median_delay"]) for one in scores[:2]] == [
        ("warning=0.5", 1, 1),
        ("warning=2", 0, None),
    ]
    assert "rules: there is no rule 'wide_ratio'" in command("backtest", wide).err


@pytest.mark.parametrize("name", ["replay", "report", "backtest", "rules"])
def test_a_broken_file_is_one_sentence_with_its_line_in_every_command(
    name: str, command: Command, wide: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN.read_text().replace('"warning", {"ratio_std"', '"critical", {"ratio_std"'))
    said = command(name, *([] if name == "rules" else [wide]), "--rules", tmp_path / "own.py")
    assert (said.code, said.out) == (2, "")
    assert "rule 'wide_ratio': example 'wide twice': expected critical, got warning" in said.err
    assert f"{tmp_path / 'own.py'}, line " in said.err
    assert said.err.count("\n") == 1


@pytest.fixture
def own_run(wide: Path) -> Path:
    """A run that says it was recorded with the rules of the file."""
    file = wide / "run.json"
    info = json.loads(file.read_text())
    given = load_rules(OWN)
    info["custom_rules"] = given.facts()
    info["thresholds"]["wide_ratio"] = Thresholds.defaults(given.rules).as_dict()["wide_ratio"]
    file.write_text(json.dumps(info))
    return wide


@pytest.mark.parametrize("name", ["replay", "report"])
def test_without_the_file_a_run_recorded_with_it_is_not_judged(
    name: str, command: Command, own_run: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "out"] if name == "report" else []
    said = command(name, own_run, *out)
    assert (said.code, said.out) == (2, "")
    assert f"recorded with custom rules: wide_ratio (pass the file they came from: --rules {OWN}" in said.err
    assert command(name, own_run, *out, "--rules", OWN).code == 0


def test_the_report_names_the_rules_a_run_was_recorded_with(command: Command, own_run: Path, tmp_path: Path) -> None:
    command("report", own_run, "--rules", OWN, "--out", tmp_path / "out")
    assert "rules of its own" in (tmp_path / "out" / "index.html").read_text()


def test_another_version_of_the_file_is_warned_about(command: Command, own_run: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN.read_text() + "\n")
    said = command("replay", own_run, "--rules", tmp_path / "own.py")
    assert said.code == 0
    assert said.err.startswith("esper-analyze: warning: ")
    assert "is not the file that" in said.err
    assert command("replay", own_run, "--rules", OWN).err == ""


def test_two_files_with_the_same_rule_are_refused(command: Command, wide: Path) -> None:
    said = command("replay", wide, "--rules", OWN, "--rules", OWN)
    assert said.code == 2
    assert "has the name of another rule" in said.err


def test_verify_takes_the_rules_a_run_was_recorded_with(command: Command, own_run: Path) -> None:
    said = command("replay", own_run, "--rules", OWN, "--verify")
    assert said.code == 3  # this run only claims to be judged by them
    assert "only replay: update 11, wide_ratio on run (ratio_std): warning" in said.out
