"""The commands that ask one question: every form, nothing to answer with, and what a terminal must not get."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from esper_analyze.commands.sections import SECTION_COMMANDS
from esper_analyze.reports.section_list import SECTIONS
from tests.commands.conftest import Command
from tests.reports.synthetic import Rows, write_run

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"
ASKED = {
    "timeline": "one_update_collapse",
    "drift": "one_update_collapse",
    "heads": "lstm_masks",
    "layers": "nan_reward",
    "lstm": "lstm_masks",
    "slots": "growing_exploding",
    "transitions": "mask_mismatch",
}


@pytest.mark.parametrize(("name", "run"), ASKED.items())
def test_each_question_answers_as_table_json_and_csv(name: str, run: str, command: Command) -> None:
    table = command(name, SAMPLES / run)
    assert (table.code, table.err) == (0, "")
    assert "─" in table.out
    told = json.loads(command(name, SAMPLES / run, "--format", "json").out, parse_constant=pytest.fail)
    assert told["words"]
    rows = list(csv.DictReader(io.StringIO(command(name, SAMPLES / run, "--format", "csv").out)))
    assert len(rows) == len(told["rows"]) > 0
    assert list(rows[0]) == list(told["rows"][0])


def test_every_command_of_a_section_has_a_section_with_rows() -> None:
    sections = {section.name: section for section in SECTIONS}
    assert all(sections[command.name].rows is not None for command in SECTION_COMMANDS)


@pytest.mark.parametrize("form", ["png", "svg"])
def test_a_picture_goes_to_a_file_and_its_path_to_stdout(form: str, command: Command, tmp_path: Path) -> None:
    out = tmp_path / f"drift.{form}"
    said = command("drift", SAMPLES / "one_update_collapse", "--out", out)
    assert (said.code, said.out) == (0, f"{out}\n")
    assert out.read_bytes().startswith(b"\x89PNG" if form == "png" else b"<?xml")


def test_a_terminal_gets_no_picture(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    said = command("layers", SAMPLES / "lstm_masks", "--format", "png")
    assert (said.code, said.out) == (2, "")
    assert said.err == "esper-analyze: a PNG picture cannot be printed to a terminal (give --out FILE.png)\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("slots", SAMPLES / "lstm_masks"), "cannot answer this: No slot was recorded"),
        (("lstm", SAMPLES / "nan_reward"), "cannot answer this: No recurrent state was recorded"),
        (("transitions", SAMPLES / "lstm_masks"), "cannot answer this: No ratio exploded"),
        (("transitions", SAMPLES / "mask_mismatch", "--update", "3"), "update 3 has no transitions (there are some of"),
        (
            ("drift", SAMPLES / "lstm_masks", "--out", "drift.pdf"),
            "names no known format (formats are table, json, csv, png, svg)",
        ),
        (("drift", SAMPLES / "lstm_masks", "--out", "nowhere/drift.png"), "nowhere/drift.png cannot be written"),
        (("drift", SAMPLES / "lstm_masks", "--rank", "3"), "has no rank 3"),
        (("layers", SAMPLES / "two_ranks", "--rank", "1"), "with Recorder(..., all_ranks=True) only"),
        (("heads", SAMPLES / "lstm_masks", "--set", "kl_spike.nothing=1"), "--set:"),
        (("heads", "nowhere"), "nowhere does not exist"),
        (("timeline", SAMPLES / "lstm_masks", "--format", "pdf"), "Invalid value for '--format'"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(
    arguments: tuple[object, ...], sentence: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command(*arguments)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_other_thresholds_are_used_and_only_rules_of_the_question_fail(command: Command) -> None:
    run = SAMPLES / "one_update_collapse"
    sound = SAMPLES / "mask_mismatch"  # first_ratio is critical there
    assert command("heads", sound, "--fail-on", "warning").code == 0
    assert command("timeline", sound, "--fail-on", "warning").code == 1
    assert command("timeline", run, "--fail-on", "critical").code == 1
    assert command("drift", run, "--fail-on", "warning").code == 0  # information only
    assert "▲ drifted" in command("drift", run).out
    assert "▲ drifted" not in command("drift", run, "--set", "gradient_drift.info=1e6").out
    assert command("heads", run, "--fail-on", "warning").code == 1
    never = ("--set", "head_entropy_collapse.threshold=0")
    assert command("heads", run, "--fail-on", "warning", *never).code == 0


def test_null_nan_and_zero_stay_apart_in_every_form(command: Command, tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        rows["layers"] = [
            {"update": update, "layer": name, "minibatch": 0, "grad_norm": norm, "update_ratio": None}
            for name, norm in (("null", None), ("nan", float("nan")), ("zero", 0.0))
        ]

    run = write_run(tmp_path / "run", 2, edit)
    told = {row["layer"]: row for row in json.loads(command("layers", run, "--format", "json").out)["rows"]}
    assert [told[name]["typical_norm"] for name in ("null", "nan", "zero")] == [None, None, 0.0]
    assert [told[name]["broken"] for name in ("null", "nan", "zero")] == [0, 2, 0]
    assert [told[name]["state"] for name in ("null", "nan", "zero")] == ["no gradient", "NaN", "zero"]
    rows = csv.DictReader(io.StringIO(command("layers", run, "--format", "csv").out))
    assert {row["layer"]: row["typical_norm"] for row in rows} == {"null": "", "nan": "", "zero": "0.0"}


def test_a_long_table_is_cut_and_a_file_has_it_all(command: Command, tmp_path: Path) -> None:
    def edit(_update: int, rows: Rows) -> None:
        rows["heads"] = [rows["heads"][1] | {"head": f"head {k}"} for k in range(60)]

    run = write_run(tmp_path / "run", 2, edit)
    said = command("heads", run)
    assert said.err == "20 of 60 rows are not shown: --format csv has all\n"
    command("heads", run, "--out", tmp_path / "heads.txt")
    assert (tmp_path / "heads.txt").read_text().count("◐ partly masked") == 60


@pytest.mark.parametrize("name", ASKED)
def test_help_has_an_example_and_every_form(name: str, command: Command) -> None:
    said = command(name, "--help")
    assert said.code == 0
    assert f"Example: esper-analyze {name} RUN" in " ".join(said.out.split())
    assert "table|json|csv|png|svg" in said.out.replace("\n", "").replace(" ", "")


def test_names_from_a_run_do_not_steer_a_terminal(command: Command, tmp_path: Path) -> None:
    def edit(_update: int, rows: Rows) -> None:
        rows["heads"][0]["head"] = "[red]\x1b[31m\u202eop"

    said = command("heads", write_run(tmp_path / "run", 2, edit))
    assert "\x1b" not in said.out
    assert "\u202e" not in said.out
    assert "[red]" in said.out


def test_the_former_name_of_slots_answers_as_well_and_is_not_listed(command: Command) -> None:
    run = SAMPLES / "growing_exploding"
    assert command("seeds", run) == command("slots", run)
    assert " slots " in command("--help").out
    assert " seeds " not in command("--help").out
