"""``watch`` without a terminal: one snapshot as text or JSON, and a clear sentence where there is no run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from esper_analyze.terminal import say
from tests.commands.conftest import Command
from tests.patience import PATIENCE
from tests.reports.synthetic import write_run

pytestmark = pytest.mark.clock


def test_without_a_terminal_one_snapshot_is_printed(command: Command, runs: Path) -> None:
    said = command("watch", runs / "troubled")
    assert said.code == 0
    assert said.err == ""
    assert "CRASHED" in said.out
    assert "A head collapsed on op" in said.out
    assert "\x1b" not in said.out


def test_once_and_no_terminal_print_the_same(command: Command, runs: Path) -> None:
    once, piped = command("watch", runs / "healthy", "--once").out, command("watch", runs / "healthy").out
    assert once.splitlines()[2:] == piped.splitlines()[2:]


def test_json_has_the_snapshot_with_nan_as_a_word(command: Command, runs: Path) -> None:
    shot = json.loads(command("watch", runs / "troubled", "--json").out)
    assert (shot["update"], shot["status"]["state"]) == (59, "crashed")
    assert shot["incidents"][0]["rule"] == "head_entropy_collapse"
    assert {head["name"]: head["state"]["verdict"] for head in shot["heads"]} == {
        "slot": "not_applicable",
        "op": "warning",
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "does not exist (give a directory written by the recorder; to wait for a run"),
        (["nowhere"], "that is yet to begin, add --wait)"),
        (
            ["vacant"],
            "there is no recorded run at or below vacant (to wait for a run that is yet to begin, add --wait)",
        ),
        (["healthy", "vacant"], "there is no recorded run at or below vacant"),
        ([".", "--rank", "0"], "--rank is about one run, and there are 3 (give the directory of one run)"),
        (["RUN", "--rank", "3"], "has no rank 3"),
        (["RUN", "--interval", "0"], "interval"),
        (["RUN", "--interval", "soon"], "interval"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_code_2(
    words: list[str], told: str, command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    (runs / "vacant").mkdir()
    said = command("watch", *("healthy" if word == "RUN" else word for word in words))
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert said.err.count("\n") == 1


def test_a_damaged_identity_is_code_3(command: Command, runs: Path) -> None:
    (runs / "healthy" / "run.json").write_text("{")
    said = command("watch", runs / "healthy")
    assert (said.code, said.out) == (3, "")


def test_with_wait_a_run_that_comes_later_is_shown(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()

    def said_and_waiting(text: str) -> None:
        say(text)
        waiting.set()

    monkeypatch.setattr("esper_analyze.commands.watch.say", said_and_waiting)

    def come() -> None:
        assert waiting.wait(PATIENCE)
        write_run(tmp_path / "late", 3)

    thread = threading.Thread(target=come)
    thread.start()
    said = command("watch", tmp_path / "late", "--wait", "--once", "--interval", "0.1")
    thread.join()
    assert said.code == 0
    assert "no run yet" in said.err


def test_a_directory_with_one_run_shows_that_run(command: Command, tmp_path: Path) -> None:
    path = write_run(tmp_path / "deep" / "run", 3)
    of_directory, of_run = (command("watch", watched).out.splitlines() for watched in (tmp_path, path))
    assert of_directory[2:] == of_run[2:]


def test_several_runs_have_a_line_each(command: Command, runs: Path) -> None:
    said = command("watch", runs, "--once")
    assert (said.code, said.err) == (0, "")
    assert "no runs are being written" in said.out
    assert re.search(r"crashed +troubled +59 ", said.out)
    two = command("watch", runs / "healthy", runs / "troubled").out
    assert "2 ended lately, 1 of them died" in two


def test_json_of_several_runs_is_a_list_with_an_object_for_each_line(command: Command, runs: Path) -> None:
    lines = json.loads(command("watch", runs, "--json").out)
    troubled = next(line for line in lines if line["name"] == "troubled")
    assert (troubled["state"], troubled["update"], troubled["path"]) == ("crashed", 59, str(runs / "troubled"))
    listed = json.loads(command("ls", runs, "--json").out)
    assert troubled["worst"]["rule"] == next(run for run in listed if run["name"] == "troubled")["worst"]["rule"]


def test_a_list_with_a_damaged_run_is_code_3_and_shows_the_others(command: Command, runs: Path) -> None:
    shard = next((runs / "healthy").rglob("heads-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    said = command("watch", runs)
    assert said.code == 3
    assert shard.name in said.out
    assert "troubled" in said.out


def test_neither_help_nor_a_snapshot_needs_what_draws_the_live_screen(runs: Path) -> None:
    script = (
        "import sys\nfrom esper_analyze.cli import run\n"
        f"assert run(['watch', {str(runs / 'healthy')!r}]) == 0\n"
        f"assert run(['watch', {str(runs)!r}]) == 0\n"
        "print(sorted({'textual', 'torch', 'recorder', 'duckdb', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
