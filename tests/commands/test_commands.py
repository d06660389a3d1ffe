import csv
import json
import math
import shutil
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.cells import cell_len

import esper_analyze as ea
from esper_analyze.commands.ls import _short
from esper_analyze.detector.rule import revisions
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.schema import TABLES
from tests.commands.conftest import Command
from tests.reports.synthetic import Rows, write_run

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"


def strict(text: str) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(token)

    return json.loads(text, parse_constant=refuse)


def by_name(out: str) -> dict[str, str]:
    return {line.split()[1]: line for line in out.splitlines()[2:]}


def test_ls_has_a_line_of_80_columns_a_run(command: Command, runs: Path) -> None:
    said = command("ls", runs)
    assert (said.code, said.err) == (0, "")
    assert all(len(line) <= 80 for line in said.out.splitlines())
    assert said.out.splitlines()[0].split() == ["run", "updates", "steps", "return", "state", "worst", "incident"]
    lines = by_name(said.out)
    assert lines["healthy"].split() == ["✓", "healthy", "30", "15.4k", "19.33", "ended", "–"]
    assert lines["troubled"].split() == ["✗", "troubled", "60", "30.7k", "10", "killed", "kl_spike", "20"]
    assert lines["empty"].startswith("?")


def test_ls_wide_tells_framework_status_and_verdict(command: Command, runs: Path) -> None:
    lines = {line.split()[0]: line for line in command("ls", runs, "--wide").out.splitlines() if line.strip()}
    assert "hand-written loop" in lines["healthy"]
    assert "PPO" in lines["healthy"]
    assert " 30 " in lines["healthy"]
    assert lines["healthy"].split()[-2:] == ["closed", "ok"]
    assert "not closed, last complete update 59" in lines["troubled"]
    assert "critical: kl_spike at update 20" in lines["troubled"]
    assert "empty" in lines


@pytest.mark.usefixtures("truncated")
def test_one_bad_run_never_hides_the_others(command: Command, runs: Path) -> None:
    (runs / "aaa").mkdir()
    (runs / "aaa" / "run.json").write_text("{")
    newer = json.loads((runs / "empty" / "run.json").read_text()) | {"schema_version": "99.0"}
    (runs / "empty" / "run.json").write_text(json.dumps(newer))
    said = command("ls", runs, "--wide")
    assert said.code == 3
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert "cannot be read as a run's identity" in lines["aaa"]
    assert "damaged: heads-000001.parquet" in lines["troubled"]
    assert "critical: kl_spike at update 20" in lines["troubled"]
    assert "schema 99.0" in lines["empty"]
    assert lines["healthy"].split()[-2:] == ["closed", "ok"]
    assert said.err == "3 of 4 runs cannot be read in full\n"
    said = command("ls", runs)
    assert said.code == 3
    assert said.err.endswith("3 of 4 runs cannot be read in full\n")
    assert said.err.count("\n") == 4
    assert f"{runs / 'troubled'}: damaged: heads-000001.parquet" in said.err
    lines = by_name(said.out)
    assert [lines[name].split()[0] for name in ("aaa", "empty", "healthy", "troubled")] == ["✗", "✗", "✓", "✗"]
    assert all("damaged" in lines[name] for name in ("aaa", "empty", "troubled"))
    assert all(len(line) <= 80 for line in said.out.splitlines())


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--sort", "name"], ["empty", "healthy", "troubled"]),
        (["--sort", "worst"], ["troubled", "empty", "healthy"]),
        (["--sort", "updates"], ["troubled", "healthy", "empty"]),
        (["--sort", "return"], ["healthy", "troubled", "empty"]),
        (["--broken"], ["troubled"]),
        (["--since", "1970-01-02"], ["empty", "healthy", "troubled"]),
    ],
)
def test_ls_orders_and_chooses_runs(options: list[str], names: list[str], command: Command, runs: Path) -> None:
    assert list(by_name(command("ls", runs, *options).out)) == names
    assert [Path(run["path"]).name for run in strict(command("ls", runs, *options, "--json").out)] == names


def test_ls_knows_when_runs_began(command: Command, runs: Path) -> None:
    for name, hours in (("healthy", 1), ("troubled", 30), ("empty", 50)):
        info = runs / name / "run.json"
        info.write_text(json.dumps(json.loads(info.read_text()) | {"created": time.time() - 3600 * hours}))
    assert list(by_name(command("ls", runs, "--since", "2d", "--sort", "created").out)) == ["healthy", "troubled"]
    assert list(by_name(command("ls", runs, "--since", "2h").out)) == ["healthy"]
    said = command("ls", runs, "--since", "10m")
    assert (said.code, said.out, said.err) == (0, "", "none of 3 runs fits\n")
    said = command("ls", runs, "--since", "yesterday")
    assert (said.code, said.err.count("\n")) == (2, 1)


def test_ls_joins_the_ranks_of_a_distributed_training(command: Command) -> None:
    (told,) = strict(command("ls", SAMPLES / "two_ranks", "--json").out)
    rows = ea.open(SAMPLES / "two_ranks").updates
    assert told["env_steps"] == 2 * int(rows["env_steps"].to_numpy().max()) == 20_480
    compared = ea.compare([SAMPLES / "two_ranks", SAMPLES / "lstm_masks"]).facts["runs"][0]
    assert told["episode_return"] == pytest.approx(compared["tenths"]["episode_return_mean"]["last"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0, "0"), (9_999, "9999"), (10_240, "10.2k"), (999_499, "999k"), (999_936, "1M"), (1.5e9, "1.5G"),
     (999_999_999, "1G"), (-20_000.0, "-20k"), (0.123456, "0.1235"), (math.nan, "nan"), (1e15, "1e+15")],
)  # fmt: skip
def test_numbers_of_a_list_are_short(value: float | None, shown: str) -> None:
    assert _short(value) == shown


@pytest.mark.parametrize(("fail_on", "code"), [("critical", 1), ("warning", 1)])
def test_ls_turns_verdicts_into_an_exit_code(fail_on: str, code: int, command: Command, runs: Path) -> None:
    assert command("ls", runs, "--fail-on", fail_on).code == code
    assert command("ls", runs / "healthy", "--fail-on", fail_on).code == 0


def test_ls_looks_into_runs_or_else_here(
    command: Command, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    assert list(by_name(command("ls").out)) == ["empty", "healthy", "troubled"]
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "runs").symlink_to(runs)
    write_run(tmp_path / "project" / "beside", 6)
    monkeypatch.chdir(tmp_path / "project")
    assert list(by_name(command("ls").out)) == ["empty", "healthy", "troubled"]


def test_ls_of_many_long_names_keeps_their_ends_apart(command: Command, tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"a_very_long_name_of_an_experiment_with_many_words-seed-{seed}", 6)
    lines = command("ls", tmp_path).out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert all(f"-seed-{seed} " in line for seed, line in enumerate(lines[2:]))


def test_ls_stays_in_line_with_names_of_wide_letters(command: Command, tmp_path: Path) -> None:
    for name in ("学習" * 40, "学習", "short"):
        write_run(tmp_path / name, 2)
    titles, _, *lines = command("ls", tmp_path).out.splitlines()
    assert {cell_len(line[: line.index(" ended")]) for line in lines} == {titles.index("state") - 1}
    assert all(cell_len(line) <= 80 for line in lines)


def test_ls_of_a_place_without_runs_says_so(command: Command, tmp_path: Path) -> None:
    said = command("ls", tmp_path)
    assert (said.code, said.out) == (0, "")
    assert "no recorded run" in said.err
    assert command("ls", tmp_path / "nothing").code == 2


def test_ls_as_json_holds_every_fact(command: Command, runs: Path) -> None:
    found = {Path(run["path"]).name: run for run in strict(command("ls", runs, "--json").out)}
    assert found["troubled"]["worst"]["rule"] == "kl_spike"
    assert found["healthy"]["worst"] is None
    assert (found["healthy"]["verdict"], found["troubled"]["verdict"]) == ("ok", "critical")
    assert found["empty"]["updates"] == 0


def test_report_writes_the_page_and_names_it_on_stdout(command: Command, runs: Path, tmp_path: Path) -> None:
    said = command("report", runs / "troubled", "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    assert Path(said.out.strip()) == tmp_path / "out" / "index.html"
    assert "not closed, last complete update 59" in (tmp_path / "out" / "index.html").read_text()


def test_report_of_some_updates_shows_these_and_judges_the_whole_run(
    command: Command, runs: Path, tmp_path: Path
) -> None:
    run = runs / "troubled"
    whole = strict(command("report", run, "--json").out)
    part = strict(command("report", run, "--json", "--last", 10).out)
    assert part["headline"] == whole["headline"]
    assert part["incidents"] == whole["incidents"]
    assert part["caveats"][-1].startswith("Figures and rows below are of updates 50 to 59 alone")
    words = [{one["name"]: one["words"] for one in facts["questions"]}["policy"] for facts in (whole, part)]
    assert words[0] != words[1]
    assert command("report", run, "--from", 50, "--to", 59, "--out", tmp_path / "out").code == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Figures and rows below are of updates 50 to 59 alone; the verdict is on the whole run." in page
    refused = command("report", run, "--from", 60)
    assert (refused.code, refused.out) == (2, "")
    assert "has none of these updates (it has 0 to 59)" in refused.err
    assert command("report", run, "--last", 3, "--to", 5).code == 2
    assert "need pages" in command("report", runs, "--index-only", "--last", 3, "--out", tmp_path / "index").err


def test_report_of_a_directory_writes_a_page_of_each_run_and_one_over_them(
    command: Command, runs: Path, tmp_path: Path
) -> None:
    settings = {"healthy": 0.1, "troubled": 0.2}
    for name, rate in settings.items():
        info = runs / name / "run.json"
        info.write_text(json.dumps(json.loads(info.read_text()) | {"hyperparameters": {"learning_rate": rate}}))
    said = command("report", runs, "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    assert Path(said.out.strip()) == tmp_path / "out" / "index.html"
    text = (tmp_path / "out" / "index.html").read_text()
    for name in ("empty", "healthy", "troubled"):
        assert f'<a href="{name}/index.html">{name}</a>' in text
        assert (tmp_path / "out" / name / "index.html").is_file()
    assert "3 runs: 1 critical" in text
    assert "kl_spike at 20" in text
    assert "built-in method" not in text
    listed = {entry["run"]: entry for entry in strict((tmp_path / "out" / "index.json").read_text())}
    assert listed["healthy"]["settings"]["learning_rate"] == "0.1"
    assert listed["troubled"]["summary"]["worst"]["rule"] == "kl_spike"
    assert text.count('class="spark"') == 2
    assert command("report", runs, "--out", tmp_path / "out", "--index-only", "--fail-on", "critical").code == 1
    assert (tmp_path / "out" / "index.html").read_text() == text


def test_a_wrong_option_of_a_directory_is_said_once_and_its_runs_are_not_written_into(
    command: Command, runs: Path, tmp_path: Path
) -> None:
    said = command("report", runs, "--out", tmp_path / "out", "--set", "nonsense=1")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    before = sorted(runs.rglob("*"))
    said = command("report", runs, "--out", runs)
    assert said.code == 2
    assert "a recorded run, which is only read" in said.err
    assert sorted(runs.rglob("*")) == before
    said = command("report", runs, "--out", tmp_path / "out", "--index-only", "--set", "kl_spike.warning=9")
    assert (said.code, said.err.count("\n")) == (2, 1)


def test_fail_on_of_a_directory_goes_by_the_thresholds_asked_for(command: Command, tmp_path: Path) -> None:
    def warn(_update: int, rows: Rows) -> None:
        rows["updates"][0]["first_ratio_error"] = 1e-3

    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name, 6, warn)
    out = ("--out", tmp_path / "out")
    assert command("report", tmp_path / "runs", *out, "--fail-on", "warning").code == 1
    assert command("report", tmp_path / "runs", *out, "--fail-on", "critical").code == 0
    assert (
        command("report", tmp_path / "runs", *out, "--fail-on", "warning", "--set", "first_ratio.warning=0.005").code
        == 0
    )


@pytest.mark.usefixtures("truncated")
def test_a_damaged_run_hides_no_other_on_the_page_over_them(command: Command, runs: Path, tmp_path: Path) -> None:
    said = command("report", runs, "--out", tmp_path / "out")
    assert said.code == 3
    assert said.err.count("\n") == 1
    text = (tmp_path / "out" / "index.html").read_text()
    assert '<a href="healthy/index.html">healthy</a>' in text
    assert "<span>troubled</span>" in text
    assert "damaged: heads-000001.parquet" in text


def test_what_was_written_is_opened_where_asked(
    command: Command, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def launch(path: str) -> int:
        opened.append(path)
        return len(opened) == 4

    monkeypatch.setattr(typer, "launch", launch)
    page, picture = tmp_path / "page", tmp_path / "kl.png"
    both = [runs / "healthy", runs / "troubled"]
    assert command("report", runs / "healthy", "-o", page, "--open").err == ""
    assert command("report", runs, "-o", page, "--index-only", "--open").err == ""
    assert command("compare", *both, "-o", page, "--open").err == ""
    assert command("plot", *both, "kl_k3", "-o", picture, "--open").err == f"{picture} cannot be opened here\n"
    assert opened == [str(page / "index.html")] * 3 + [str(picture)]
    assert command("report", runs / "healthy", "--json", "--open").code == 2
    assert command("report", runs / "healthy", "-o", page).code == 0
    assert len(opened) == 4


def test_an_index_alone_links_only_pages_that_exist(command: Command, runs: Path, tmp_path: Path) -> None:
    assert command("report", runs / "healthy", "--out", tmp_path / "out" / "healthy").code == 0
    said = command("report", runs, "--out", tmp_path / "out", "--index-only")
    assert said.code == 0
    text = (tmp_path / "out" / "index.html").read_text()
    assert 'href="healthy/index.html"' in text
    assert 'href="troubled/index.html"' not in text
    assert not (tmp_path / "out" / "troubled").exists()
    assert [entry["page"] for entry in strict(command("report", runs, "--json").out)] == [None] * 3
    assert command("report", runs / "healthy", "--index-only").code == 2
    (tmp_path / "bare").mkdir()
    assert command("report", tmp_path / "bare").code == 2


def test_report_goes_to_reports_by_default(
    command: Command, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("report", runs / "healthy").out == "reports/healthy/index.html\n"


@pytest.mark.parametrize(
    ("name", "fail_on", "code"),
    [
        ("healthy", "warning", 0),
        ("healthy", "critical", 0),
        ("troubled", "warning", 1),
        ("troubled", "critical", 1),
    ],
)
def test_fail_on_turns_findings_into_an_exit_code(
    name: str, fail_on: str, code: int, command: Command, runs: Path, tmp_path: Path
) -> None:
    assert command("replay", runs / name, "--fail-on", fail_on).code == code
    assert command("report", runs / name, "--out", tmp_path / "out", "--fail-on", fail_on).code == code


def test_fail_on_critical_lets_warnings_pass(command: Command, tmp_path: Path) -> None:
    def warn(_update: int, rows: Rows) -> None:
        rows["updates"][0]["first_ratio_error"] = 1e-3

    path = write_run(tmp_path / "run", 6, warn)
    assert command("replay", path, "--fail-on", "critical").code == 0
    assert command("replay", path, "--fail-on", "warning").code == 1


def test_replay_shows_incidents_and_what_could_not_be_judged(command: Command, runs: Path) -> None:
    said = command("replay", runs / "troubled")
    assert "60 updates" in said.out
    assert "kl_spike" in said.out
    assert "20 – 26" in said.out
    assert "value_collapse (explained_variance is missing)" in said.out


def test_replay_verify_agrees_with_what_was_recorded(command: Command, runs: Path) -> None:
    for name in ("healthy", "troubled", "empty"):
        said = command("replay", runs / name, "--verify")
        assert said.code == 0
        assert "replay says what was recorded" in said.out


def test_replay_verify_exits_3_where_the_recording_differs(command: Command, runs: Path) -> None:
    file = runs / "troubled" / "run.json"
    info = json.loads(file.read_text())
    info["thresholds"]["kl_spike"]["critical"] = 100.0
    info["rule_revisions"] = revisions(RULES)  # as if it had been judged by today's rules
    file.write_text(json.dumps(info))
    said = command("replay", runs / "troubled", "--verify")
    assert said.code == 3
    assert "only recorded: update 20, kl_spike" in said.out
    assert "differ in" in said.err


def test_replay_verify_takes_no_other_thresholds(command: Command, runs: Path) -> None:
    said = command("replay", runs / "healthy", "--verify", "--set", "kl_spike.warning=0.05")
    assert said.code == 2


def test_other_thresholds_find_something_else(command: Command, runs: Path, tmp_path: Path) -> None:
    changed = strict(command("replay", runs / "healthy", "--set", "ratio_explosion.warning=1.2", "--json").out)
    assert changed["thresholds"]["ratio_explosion"]["warning"] == 1.2
    assert {finding["rule"] for finding in changed["findings"]} >= {"ratio_explosion"}
    (tmp_path / "t.toml").write_text("[ratio_explosion]\nwarning = 1.2\n")
    same = strict(command("replay", runs / "healthy", "--thresholds", tmp_path / "t.toml", "--json").out)
    assert same["findings"] == changed["findings"]


def test_set_goes_over_the_file(command: Command, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("[kl_spike]\nwarning = 0.2\ncritical = 9.0\n")
    said = command(
        "replay", runs / "healthy", "--thresholds", tmp_path / "t.toml", "--set", "kl_spike.warning=0.3", "--json"
    )
    used = strict(said.out)["thresholds"]["kl_spike"]
    assert (used["warning"], used["critical"]) == (0.3, 9.0)


def test_replay_as_json_is_strict_and_keeps_infinity(command: Command, runs: Path) -> None:
    said = strict(command("replay", runs / "troubled", "--json", "--verify").out)
    assert said["differences"] == []
    assert "Infinity" in {incident["peak"] for incident in said["incidents"]}
    assert said["verdicts"]["kl_spike"]["critical"] == 4


def test_sql_answers_as_table_json_and_csv(command: Command, runs: Path) -> None:
    query = "select update, explained_variance, value_loss, ratio_max from updates where update in (29, 30, 33)"
    table = command("sql", runs / "troubled", query)
    assert table.code == 0
    assert "NULL" in table.out
    assert "nan" in table.out
    rows = strict(command("sql", runs / "troubled", query, "--json").out)
    assert rows[1]["value_loss"] == "NaN"
    assert rows[1]["ratio_max"] == "Infinity"
    assert rows[2]["explained_variance"] is None
    lines = list(csv.reader(command("sql", runs / "troubled", query, "--csv").out.splitlines()))
    assert lines[0] == ["update", "explained_variance", "value_loss", "ratio_max"]
    assert lines[2][2] == "nan"
    assert lines[3][1] == ""


def test_sql_shows_no_more_rows_than_asked_and_says_so(command: Command, runs: Path) -> None:
    said = command("sql", runs / "healthy", "select update from updates", "--limit", "5")
    assert said.err == "25 of 30 rows are not shown: use --limit 0, --json or --csv\n"
    assert command("sql", runs / "healthy", "select update from updates", "--limit", "0").err == ""


def test_every_table_can_be_joined(command: Command, runs: Path) -> None:
    query = "select count(*) as n from updates join heads using (update) join groups using (update)"
    assert strict(command("sql", runs / "healthy", query, "--json").out) == [{"n": 30 * 2 * 3}]


def test_text_from_runs_cannot_steer_the_terminal(command: Command, tmp_path: Path) -> None:
    evil = "[bold red]x[/] \x1b[31mred\x07 \u202e"

    def rename(_update: int, rows: Rows) -> None:
        rows["heads"][1] |= {"head": evil, "entropy_norm": 0.01}

    path = write_run(tmp_path / "run", 30, rename, facts={"name": evil, "framework": evil, "algorithm": evil})
    for words in (["ls", path, "--wide"], ["replay", path], ["sql", path, "select head from heads limit 2"]):
        said = command(*words)
        assert said.code == 0
        assert not {"\x1b", "\x07", "\u202e"} & set(said.out)
        assert "[bold red]x[/]" in said.out


def test_schema_prints_every_table(command: Command) -> None:
    page = command("schema").out
    facts = strict(command("schema", "--json").out)
    for table, told in zip(TABLES, facts["tables"], strict=True):
        assert f"## {table.name}" in page
        assert [column["name"] for column in told["columns"]] == list(table.names)


def test_rules_prints_every_rule_as_page_json_and_toml(command: Command) -> None:
    page = command("rules").out
    assert all(f"## {rule.name}" in page for rule in RULES)
    assert [rule["rule"] for rule in strict(command("rules", "--json").out)] == [rule.name for rule in RULES]
    defaults = Thresholds.defaults(RULES)
    assert defaults.merged(tomllib.loads(command("rules", "--toml").out)) == defaults


def test_one_table_and_one_rule_are_printed_alone(command: Command) -> None:
    page = command("schema", "updates", "heads").out
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## updates", "## heads"]
    assert page.splitlines()[-1] in command("schema").out
    assert [table["table"] for table in strict(command("schema", "ranks", "--json").out)["tables"]] == ["ranks"]
    rule = command("rules", "kl_spike").out
    assert rule.startswith("## kl_spike: ")
    assert rule.count("\n## ") == 0
    assert rule in command("rules").out
    assert [one["rule"] for one in strict(command("rules", "kl_spike", "--json").out)] == ["kl_spike"]


def test_a_column_is_printed_alone_of_each_table_that_has_it(command: Command) -> None:
    page = command("schema", "kl_k3", "heads.grad_norm").out
    titles = [line.partition(":")[0] for line in page.splitlines() if line and not line.startswith(" ")]
    assert titles == ["updates.kl_k3", "steps.kl_k3", "heads.kl_k3", "heads.grad_norm"]
    assert page.count("  empty means ") == 4
    told = strict(command("schema", "heads.grad_norm", "--json").out)["tables"]
    assert [(table["table"], [column["name"] for column in table["columns"]]) for table in told] == [
        ("heads", ["grad_norm"])
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("schema", "headss"), "there is no table or column 'headss'; did you mean 'heads'?"),
        (("schema", "heads.kl_k33"), "table heads has no column 'kl_k33'; did you mean 'kl_k3'?"),
        (("rules", "kl_spik"), "there is no rule 'kl_spik'; did you mean 'kl_spike'?"),
    ],
)
def test_an_unknown_table_or_rule_is_refused_with_the_nearest(
    command: Command, arguments: tuple[str, ...], words: str
) -> None:
    result = command(*arguments)
    assert (result.code, result.out) == (2, "")
    assert words in result.err


@pytest.mark.parametrize("name", ["ls", "report", "replay", "backtest", "sql", "schema", "rules"])
def test_help_teaches_with_an_example(name: str, command: Command) -> None:
    said = command(name, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"Example: esper-analyze {name}" in " ".join(said.out.split())


def test_help_lists_every_command_and_the_exit_codes(command: Command) -> None:
    said = command("--help")
    assert said.code == 0
    assert all(name in said.out for name in ("ls", "report", "replay", "backtest", "sql", "schema", "rules"))
    assert "3 data damaged" in " ".join(said.out.split())


def test_no_command_shows_the_help_and_is_wrong_use(command: Command) -> None:
    said = command()
    assert (said.code, said.out) == (2, "")
    assert "Usage:" in said.err


def test_other_thresholds_list_what_the_live_recording_did_not_say(command: Command, runs: Path) -> None:
    said = command("replay", runs / "healthy", "--set", "kl_spike.critical=0.001")
    assert said.code == 0
    assert "kl_spike.critical: recorded with 0.5, now 0.001" in said.out
    assert "against the recording: 1 new" in said.out
    assert "+ update 0: kl_spike on run (kl_k3): critical" in said.out


def test_other_thresholds_tell_what_is_gone_and_what_moved_and_when(command: Command, runs: Path) -> None:
    setting = ("--set", "kl_spike.critical=9", "--set", "kl_spike.window_hits=3")
    said = command("replay", runs / "troubled", *setting)
    (row,) = [line.split() for line in said.out.splitlines() if line.strip().startswith("later")]
    assert row[1:5] == ["warning", "kl_spike", "20", "–"]
    assert row[-3] == "22"
    assert "- update 20: kl_spike on run (kl_k3): critical" in said.out
    told = strict(command("replay", runs / "troubled", *setting, "--json").out)["what_if"]
    (moved,) = [one for one in told["alarms"] if one["what"] == "later"]
    assert (moved["live"]["start"], moved["now"]["start"]) == (20, 22)
    assert sorted(told["thresholds"]) == [["kl_spike.critical", 0.5, 9.0], ["kl_spike.window_hits", 2, 3]]


def test_a_rule_that_judges_otherwise_than_when_recorded_is_named_beside_what_moved(
    command: Command, runs: Path, tmp_path: Path
) -> None:
    words = ("--set", "kl_spike.critical=9", "--set", "kl_spike.window_hits=3")
    otherwise = "judged otherwise since it was recorded, whatever the thresholds: kl_spike\n"
    run = shutil.copytree(runs / "troubled", tmp_path / "run")
    info = json.loads((run / "run.json").read_text())
    for others, told in (({}, False), ({"kl_spike": 1}, True)):
        (run / "run.json").write_text(json.dumps(info | {"rule_revisions": revisions(RULES) | others}))
        assert (otherwise in command("replay", run, *words).out) is told


def test_without_other_thresholds_nothing_is_compared(command: Command, runs: Path) -> None:
    assert "against the recording" not in command("replay", runs / "troubled").out
    assert "what_if" not in strict(command("replay", runs / "troubled", "--json").out)


def test_many_lines_of_findings_are_cut_and_the_rest_is_counted(command: Command, tmp_path: Path) -> None:
    def flap(update: int, rows: Rows) -> None:
        rows["updates"][0]["kl_k3"] = 0.09 if update % 2 else 0.001

    path = write_run(tmp_path / "run", 30, flap)
    said = command("replay", path, "--set", "kl_spike.critical=0.05", "--set", "kl_spike.clear_after=1")
    lines = [line for line in said.out.splitlines() if line.startswith(("+ ", "- "))]
    assert len(lines) == 20
    assert "lines are not shown: --json has all" in said.err
