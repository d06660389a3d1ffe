"""The zoo trains what is missing, labels it by what was done, and counts findings as it says."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from esper_analyze.detector.findings import Finding
from tests.bench.zoo.__main__ import main
from tests.bench.zoo.families import FAMILIES, Order, seeds_of
from tests.bench.zoo.label import ZooFault, read_label, write_label
from tests.bench.zoo.report import summaries
from tests.bench.zoo.score import Hit, RunScore, ScoredIncident, hit

FAULT = ZooFault("kl", 10, ("kl_spike", "ratio_explosion"))


def finding(update: int, rule: str, verdict: str, previous: str | None) -> Finding:
    return Finding(update, rule, "run", "kl_k3", verdict, previous, 1.0, 0.1, None, None)


def alarm(rule: str, start: int, verdict: str = "warning") -> ScoredIncident:
    return ScoredIncident(rule, "run", "x", start, start, verdict, 1.0, None)


def test_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    faults = (FAULT, ZooFault('a "quoted" name', 3, ("x",), hard=True, until=7))
    write_label(tmp_path, faults)
    assert read_label(tmp_path) == faults
    write_label(tmp_path, ())
    assert tomllib.loads((tmp_path / "labels.toml").read_text()) == {"healthy": True}
    assert read_label(tmp_path) == ()


@pytest.mark.parametrize(
    ("found", "rule", "delay"),
    [
        ([finding(12, "kl_spike", "warning", "ok")], "kl_spike", 2),
        ([finding(10, "ratio_explosion", "critical", None)], "ratio_explosion", 0),
        ([finding(9, "kl_spike", "critical", "ok")], None, None),
        ([finding(12, "entropy_collapse", "critical", "ok")], None, None),
        ([finding(12, "kl_spike", "ok", "warning")], None, None),
        ([finding(12, "kl_spike", "warning", "critical")], None, None),
        ([finding(14, "kl_spike", "warning", "ok"), finding(11, "kl_spike", "critical", "ok")], "kl_spike", 1),
    ],
)
def test_only_what_gets_worse_by_a_listed_rule_from_the_onset_on_has_found_a_fault(
    found: list[Finding], rule: str | None, delay: int | None
) -> None:
    result = hit(FAULT, found)
    assert (result.rule, result.delay) == (rule, delay)


def test_a_hard_fault_is_late_unless_found_in_the_very_update() -> None:
    hard = ZooFault("nan", 5, ("numerical_instability",), hard=True)
    assert not Hit(hard, "numerical_instability", 5).late
    assert Hit(hard, "numerical_instability", 6).late
    assert Hit(hard).late
    assert not Hit(FAULT).late


def test_alarms_of_sound_runs_are_counted_by_thousand_updates_and_hard_families_apart() -> None:
    scores = [
        RunScore("cartpole", 1, 400, (20.0, 500.0), (alarm("kl_spike", 3), alarm("kl_spike", 9, "critical")), ()),
        RunScore("maskable", 1, 100, (1.0, 2.0), (alarm("gradient_drift", 3),), ()),
        RunScore("acrobot", 1, 100, (1.0, 2.0), (alarm("value_collapse", 3),), ()),
    ]
    table = {one["family"]: one for one in summaries(scores, faulty=False)}
    assert list(table) == ["cartpole", "maskable", "all of these", "acrobot (apart)"]
    assert table["cartpole"]["critical_by_rule"] == {"kl_spike": 1}
    total = table["all of these"]
    assert (total["updates"], total["critical"], total["warnings"], total["warnings_per_1000"]) == (500, 1, 2, 4.0)


def test_alarms_of_faulty_runs_are_false_only_before_the_onset() -> None:
    alarms = (alarm("gradient_drift", 4), alarm("kl_spike", 10), alarm("gradient_drift", 20))
    score = RunScore("rate-x30-maskable", 1, 60, (1.0, 2.0), alarms, (Hit(FAULT, "kl_spike", 10),))
    (row,) = summaries([score], faulty=True)
    assert (row["found"], row["faults"], row["median_delay"], row["late"]) == (1, 1, 0, 0)
    assert row["before_onset"]["warnings_by_rule"] == {"gradient_drift": 1}
    assert row["before_onset"]["updates"] == 10


def test_healthy_families_have_five_seeds_and_faulty_ones_three() -> None:
    assert {seeds_of(name) for name in ("maskable", "recurrent", "loop", "cartpole", "pendulum")} == {5}
    assert seeds_of("nan-reward") == 3
    assert not [name for name in FAMILIES if name.rpartition("-")[2].isdigit()]


def test_what_is_missing_is_trained_once_and_the_report_says_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, found = tmp_path / "zoo", tmp_path / "found.json"
    chosen = (str(out), "--only", "nan-reward", "--seeds", "1", "--processes", "1")
    assert main(chosen) == 0
    assert "0 of 1 runs are there" in capsys.readouterr().err
    (fault,) = read_label(Order("nan-reward", 1, out).run_dir)
    assert (fault.onset, fault.hard) == (32, True)
    assert main(chosen) == 0
    assert capsys.readouterr().err == "1 of 1 runs are there\n"
    assert main((*chosen, "--report", "--json", str(found))) == 0
    assert "nan-reward" in capsys.readouterr().out
    (row,) = json.loads(found.read_text())["faulty"]
    assert (row["found"], row["faults"], row["late"]) == (1, 1, 0)
