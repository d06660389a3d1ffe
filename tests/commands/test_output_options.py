"""--format, --json and --out are the same options of every command that prints an answer."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from esper_analyze.cli import app
from esper_analyze.commands.sections import SECTION_COMMANDS
from tests.commands.conftest import Command

QUESTIONS = (*(one.name for one in SECTION_COMMANDS), "transitions")
FORMATS = {
    "ls": "table|json|csv",
    "backtest": "table|json|csv",
    "rules": "table|json|csv",
    "schema": "table|json|csv",
    "verify": "table|json|csv",
    "replay": "table|json",
    "diagnose": "table|json",
    "repair": "table|json",
    "compact": "table|json",
    **dict.fromkeys(QUESTIONS, "table|json|csv|png|svg"),
}
NONE = ("rules", "schema")
TABLES = [name for name, forms in FORMATS.items() if forms == "table|json|csv"]


@pytest.fixture
def arguments(runs: Path) -> dict[str, list[object]]:
    (runs / "healthy" / "labels.toml").write_text("healthy = true\n")
    fewer: dict[str, list[object]] = {"ls": [runs], "rules": ["kl_spike"], "schema": ["heads"], "verify": [runs]}
    return {name: [name, *fewer.get(name, [runs / "healthy"])] for name in FORMATS}


def test_every_command_of_the_list_declares_them_and_the_formats_it_has(command: Command) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, forms in FORMATS.items():
        options = {option: parameter for parameter in commands[name].params for option in parameter.opts}
        assert {"--format", "--json", "--out", "-o"} <= set(options)
        shown = command(name, "--help").out  # the brackets depend on the version of typer
        assert re.search(rf"--format [<\[]{re.escape(forms)}[>\]]", shown)
        assert ("--spreadsheet-safe" in options) == ("csv" in forms)
    without = {"compare", "report", "watch", "import", "sql"}  # --out is a folder there, or they write no answer
    assert {name for name, one in commands.items() if any("--json" in p.opts for p in one.params)} == {
        *FORMATS,
        *without,
    }


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in QUESTIONS or name == "heads"])
def test_json_is_short_for_its_format_and_a_file_holds_what_stdout_would(
    name: str, command: Command, arguments: dict[str, list[object]], tmp_path: Path
) -> None:
    for form, suffix in (("json", "json"), ("table", "txt")):
        printed = command(*arguments[name], "--format", form)
        assert printed.code == 0
        for out in ((tmp_path / f"answer.{suffix}",), (tmp_path / "answer", "--format", form)):
            said = command(*arguments[name], "--out", *out)
            assert (said.code, said.out) == (0, f"{out[0]}\n")
            assert out[0].read_text() == printed.out
    assert command(*arguments[name], "--json").out == command(*arguments[name], "--format", "json").out


@pytest.mark.parametrize("name", TABLES)
def test_csv_is_a_line_of_names_and_one_for_each_row(
    name: str, command: Command, arguments: dict[str, list[object]], tmp_path: Path
) -> None:
    out = tmp_path / "answer.csv"
    assert command(*arguments[name], "-o", out).code == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    facts = json.loads(command(*arguments[name], "--json").out)
    keyed: dict[str, Callable[[], tuple[str, list[str]]]] = {
        "ls": lambda: ("path", [one["path"] for one in facts]),
        "backtest": lambda: ("rule", [one["rule"] for one in facts["scores"]]),
        "rules": lambda: ("threshold", list(facts[0]["thresholds"])),
        "schema": lambda: ("name", [one["name"] for one in facts["tables"][0]["columns"]]),
        "verify": lambda: ("run", [one["run"] for one in facts for _ in one["faults"] or [None]]),
    }
    column, cells = keyed[name]()
    assert [row[column] for row in rows] == cells
    assert all(None not in row and None not in row.values() for row in rows)


@pytest.mark.parametrize("name", FORMATS)
def test_options_that_contradict_each_other_are_refused_before_any_work(
    name: str, command: Command, arguments: dict[str, list[object]], tmp_path: Path, runs: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    said = command(*arguments[name], "--json", "--format", "table")
    assert (said.code, said.out) == (2, "")
    assert said.err == "esper-analyze: --json and --format table exclude each other (give one of them)\n"
    said = command(*arguments[name], "--out", tmp_path / "answer.parquet")
    assert (said.code, said.out) == (2, "")
    assert f"names no known format (formats are {FORMATS[name].replace('|', ', ')}" in said.err
    said = command(*arguments[name], "--format", "parquet")
    assert said.code == 2
    assert ", ".join(f"'{form}'" for form in FORMATS[name].split("|")) in said.err
    if name not in NONE:
        said = command(*arguments[name], "--json", "--out", runs / "healthy" / "answer.json")
        assert (said.code, said.out) == (2, "")
        assert "lies inside a recorded run" in said.err
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


@pytest.mark.parametrize("name", ["ls", "replay", "schema", "compact"])
def test_a_file_that_cannot_be_written_is_one_sentence(
    name: str, command: Command, arguments: dict[str, list[object]], tmp_path: Path
) -> None:
    said = command(*arguments[name], "--out", tmp_path / "nowhere" / "answer.json")
    assert (said.code, said.out) == (2, "")
    assert "cannot be written: No such file or directory (choose another --out)" in said.err


def test_rules_and_schema_write_markdown_and_toml(command: Command, tmp_path: Path) -> None:
    for name in NONE:
        assert command(name, "--out", tmp_path / f"{name}.md").code == 0
        assert (tmp_path / f"{name}.md").read_text() == command(name).out
    command("rules", "--toml", "--out", tmp_path / "t.toml")
    assert (tmp_path / "t.toml").read_text() == command("rules", "--toml").out
    command("rules", "--example", "--out", tmp_path / "own.py")
    assert (tmp_path / "own.py").read_text() == command("rules", "--example").out
    assert command("rules", "--toml", "--format", "csv").code == 2


def test_the_scores_are_not_written_as_a_picture(
    command: Command, arguments: dict[str, list[object]], tmp_path: Path
) -> None:
    said = command(*arguments["backtest"], "-o", tmp_path / "tradeoff.png")
    assert (said.code, said.out) == (2, "")
    assert "--figure FILE.png draws the scores" in said.err


def test_a_formula_in_the_csv_of_ls_is_defused_on_demand(command: Command, runs: Path) -> None:
    file = runs / "healthy" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"name": "=1+1"}))
    (row,) = csv.DictReader(io.StringIO(command("ls", runs / "healthy", "--format", "csv").out))
    assert row["name"] == "=1+1"
    (row,) = csv.DictReader(io.StringIO(command("ls", runs / "healthy", "--format", "csv", "--spreadsheet-safe").out))
    assert row["name"] == "'=1+1"
    assert command("ls", runs, "--json", "--spreadsheet-safe").code == 2
