"""The command ``backtest``: tables, JSON, figure, and what it says of runs it leaves out."""

from __future__ import annotations

import json
import os
import pty
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Command

SWEEP = ("--sweep", "kl_spike.critical=0.005,0.5,3")


@pytest.fixture
def labelled(runs: Path) -> Path:
    (runs / "healthy" / "labels.toml").write_text("healthy = true")
    fault = '[[fault]]\nname = "spike"\nonset = 20\nrules = ["kl_spike"]\nhard = true\n'
    missed = '[[fault]]\nname = "never seen"\nonset = 40\nrules = ["first_ratio"]\n'
    (runs / "troubled" / "labels.toml").write_text(fault + missed)
    return runs


def strict(text: str) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(token)

    return json.loads(text, parse_constant=refuse)


def row(out: str, first: str) -> list[str]:
    return next(line.split() for line in out.splitlines() if line.strip().startswith(first))


def test_without_a_sweep_every_rule_has_a_row(command: Command, labelled: Path) -> None:
    said = command("backtest", labelled)
    assert said.code == 0
    assert "2 labelled runs (1 healthy), 2 faults, 50 healthy updates" in said.out
    assert row(said.out, "kl_spike") == ["kl_spike", "1.00", "1/1", "0", "0", "0"]
    assert row(said.out, "first_ratio")[1:3] == ["0.00", "0/1"]
    assert row(said.out, "all rules")[2:4] == ["0.50", "1/2"]
    assert f"missed: {labelled / 'troubled'}, 'never seen' from update 40" in said.out
    assert f"left out, no labels.toml: {labelled / 'empty'}" in said.err
    assert "1 of 3 runs are left out" in said.err


def test_a_sweep_has_a_row_for_each_setting_of_its_rule_and_of_all(command: Command, labelled: Path) -> None:
    said = command("backtest", labelled, *SWEEP)
    assert said.code == 0
    assert [line for line in said.out.splitlines() if line.endswith(":")] == [
        "kl_spike:",
        "all rules:",
        "all rules, net of twins, incidents that are shown under no other:",
    ]
    assert row(said.out, "critical=3")[1:3] == ["1.00", "1/1"]
    assert int(row(said.out, "critical=0.005")[3]) > 0
    assert "kl_spike.critical=0.5" in said.out


def test_a_hard_fault_found_late_is_named(command: Command, labelled: Path) -> None:
    said = command("backtest", labelled, "--sweep", "kl_spike.critical=9", "--set", "kl_spike.window_hits=3")
    assert f"late: {labelled / 'troubled'}, 'spike' is hard, from update 20, found at 22" in said.out


def test_json_holds_scores_detections_and_what_was_left_out(command: Command, labelled: Path) -> None:
    facts = strict(command("backtest", labelled, *SWEEP, "--json").out)
    assert [one["setting"] for one in facts["scores"]][:3] == ["critical=0.005", "critical=0.5", "critical=3"]
    assert {one["rule"] for one in facts["scores"]} == {"kl_spike", "all rules"}
    assert facts["unlabelled"] == [str(labelled / "empty")]
    assert {(one["fault"], one["setting"]) for one in facts["detections"]} >= {("spike", "kl_spike.critical=3")}
    assert facts["runs"][1]["faults"][0]["rules"] == ["kl_spike"]


def test_the_figure_is_a_png(command: Command, labelled: Path, tmp_path: Path) -> None:
    said = command("backtest", labelled, *SWEEP, "--figure", tmp_path / "t.png")
    assert said.code == 0
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert command("backtest", labelled, "--figure", tmp_path / "every.png").code == 0


def labels_of_many(runs: Path, **more: object) -> Path:
    fault = {"name": "spike", "onset": 20, "rules": ["kl_spike"], "hard": True, "harm": 0.5}
    troubled = {"twin": "healthy", "fault": [fault], "groups": {"task": "pole"}} | more
    (runs / "all.json").write_text(json.dumps({"healthy": {"healthy": True}, "troubled": troubled}))
    return runs / "all.json"


def test_one_file_labels_all_runs_and_all_rules_are_scored_as_the_bench_does(command: Command, runs: Path) -> None:
    said = command("backtest", runs, "--labels", labels_of_many(runs))
    assert said.code == 0
    assert f"1 of 3 runs are left out, 1 of them because {runs / 'all.json'} does not name them" in said.err
    assert row(said.out, "recall, net of the twin")[-6:] == ["1", "of", "1:", "100", "%", "(21–100)"]
    assert row(said.out, "sound updates")[-1] == "30"
    assert row(said.out, "task")[:3] == ["task", "pole", "1"]
    assert row(said.out, "spike ")[:5] == ["spike", "1", "1", "1", "1"]
    (facts,) = strict(command("backtest", runs, "--labels", runs / "all.json", "--json").out)["all_rules"]
    assert facts["setting"] == ""
    assert facts["figures"]["recall_net_of_harm"]["hits"] == 1
    assert facts["figures"]["false_incidents"] == 0
    assert [(fault["name"], fault["found"], fault["missed"]) for fault in facts["faults"]] == [("spike", 1, [])]


def test_a_sweep_scores_all_rules_for_each_setting(command: Command, runs: Path) -> None:
    said = command("backtest", runs, "--labels", labels_of_many(runs), *SWEEP, "--json")
    settings = strict(said.out)["all_rules"]
    assert [facts["setting"] for facts in settings] == [f"kl_spike.critical={value}" for value in (0.005, 0.5, 3)]
    assert [facts["figures"]["false_incidents"] > 0 for facts in settings] == [True, False, False]
    assert settings[0]["false_alarms"][0]["rule"] == "kl_spike"
    said = command("backtest", runs, "--labels", runs / "all.json", *SWEEP)
    assert "all rules, net of twins, incidents that are shown under no other:" in said.out


def test_a_run_whose_twin_is_not_judged_is_named_and_makes_exit_3(command: Command, runs: Path) -> None:
    said = command("backtest", runs / "troubled", "--labels", labels_of_many(runs))
    assert said.code == 3
    assert f"its twin {(runs / 'healthy').resolve()} was not judged" in said.err
    assert said.out == ""


@pytest.mark.parametrize("name", ["t.jpg", "t", "nowhere/t.png"])
def test_a_figure_that_cannot_be_is_refused_before_any_work(
    name: str, command: Command, labelled: Path, tmp_path: Path
) -> None:
    said = command("backtest", labelled, "--figure", tmp_path / name)
    assert (said.code, said.out) == (2, "")
    assert "ending in .png in a directory that exists" in said.err


def test_a_broken_run_is_named_stops_no_other_and_makes_exit_3(command: Command, labelled: Path) -> None:
    alone = command("backtest", labelled / "healthy").out
    (labelled / "troubled" / "labels.toml").write_text('[[fault]]\nname="x"\nonset=1\nrules=["kl_spik"]')
    said = command("backtest", labelled)
    assert said.code == 3
    assert "there is no rule 'kl_spik'; did you mean 'kl_spike'?" in said.err
    assert said.out == alone


def test_a_truncated_shard_is_named_and_can_be_left_out(command: Command, labelled: Path, truncated: Path) -> None:
    assert truncated.parent == labelled
    said = command("backtest", labelled)
    assert said.code == 3
    assert "heads-000001.parquet has" in said.err
    assert command("backtest", labelled, "--skip-broken").code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere",), "nowhere is not a directory"),
        (("RUNS", "--sweep", "kl_spik.warning=1"), "--sweep: there is no rule 'kl_spik'; did you mean 'kl_spike'?"),
        (("RUNS", "--sweep", "kl_spike.warning"), "is not of the form rule.field=a,b,c"),
        (("RUNS", "--set", "kl_spike.warnin=1"), "--set: rule kl_spike has no threshold 'warnin'"),
        (("RUNS", "--thresholds", "nowhere.toml"), "nowhere.toml cannot be read"),
        (("RUNS", "--rules", "nowhere.py"), "nowhere.py cannot be read"),
        (("EMPTY",), "no recorded run at or below"),
        (("BARE",), "no run has labels"),
        (("RUNS", "--labels", "nowhere.toml"), "nowhere.toml is not a file"),
        (("BARE", "--labels", "MANY"), "all.json names none of the runs"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: tuple[str, ...], told: str, command: Command, labelled: Path, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    places = {
        "RUNS": labelled,
        "EMPTY": tmp_path / "nothing",
        "BARE": labelled / "empty",
        "MANY": labels_of_many(labelled),
    }
    said = command("backtest", *(places.get(word, word) for word in arguments))
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert "Traceback" not in said.err


def test_a_run_given_twice_counts_once(command: Command, labelled: Path) -> None:
    once = command("backtest", labelled).out
    assert command("backtest", labelled, labelled / "troubled").out == once


def test_thresholds_of_the_run_are_the_base_unless_defaults_are_asked_for(command: Command, labelled: Path) -> None:
    file = labelled / "troubled" / "run.json"
    info = json.loads(file.read_text())
    info["thresholds"]["kl_spike"] |= {"critical": 9.0, "warning": 9.0}
    file.write_text(json.dumps(info))
    assert row(command("backtest", labelled).out, "kl_spike")[2] == "0/1"
    assert row(command("backtest", labelled, "--defaults").out, "kl_spike")[2] == "1/1"


def test_tables_fit_eighty_columns_and_progress_goes_to_the_terminal(labelled: Path) -> None:
    ours, theirs = pty.openpty()
    sweep = ("--sweep", "head_entropy_collapse.threshold=0.05,0.1", "--sweep", "ratio_explosion.warning=3,5")
    import fcntl
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    words = [sys.executable, "-m", "esper_analyze.cli", "backtest", str(labelled), *sweep]
    done = subprocess.Popen(words, stdout=theirs, stderr=subprocess.PIPE, env={**os.environ, "NO_COLOR": "1"})
    os.close(theirs)
    out = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        out += part
    done.communicate()
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.decode()).splitlines()
    assert done.returncode == 0
    assert any("head_entropy_collapse.threshold=0.05" in line for line in lines)
    assert any("threshold=0.05" in line and "0/0" not in line for line in lines)
    assert max(len(line) for line in lines if line.strip() and ": " not in line) <= 80
