"""Every rule is reached through the recorder: a sound run, then a fault, and the alarm is on disk and replays."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from esper_analyze.detector.rule import Example, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.run import open_run
from tests.recorder.drives import DRIVES as OF_THE_POLICY
from tests.recorder.drives import Drive
from tests.recorder.slot_drives import SLOTS

DRIVES = OF_THE_POLICY | SLOTS
WORSE = ("info", "warning", "critical")
ALL = [pytest.param(name, drive, id=f"{name}-{place}") for name in DRIVES for place, drive in enumerate(DRIVES[name])]


LIVE = tuple(rule for rule in RULES if rule.table != "ranks")
"""Those that judge while a training runs: what ranks do not share is found when they are joined (``test_ranks``)."""


def test_no_rule_is_without_a_drive() -> None:
    missing = {rule.name for rule in LIVE} - set(DRIVES)
    assert not missing, f"add a training that raises each verdict of {missing} to tests/recorder/drives.py"
    assert set(DRIVES) <= {rule.name for rule in LIVE}


def finite(example: Example) -> bool:
    cells = [cell for given in example.cells.values() for cell in (given if isinstance(given, list) else [given])]
    return all(math.isfinite(cell) for cell in cells if isinstance(cell, float))


@pytest.mark.parametrize("rule", LIVE, ids=lambda rule: rule.name)
def test_drives_reach_every_verdict_that_the_examples_of_a_rule_show(rule: Rule) -> None:
    shown = {example.verdict for example in rule.examples if finite(example)} & set(WORSE)
    assert set().union(*(drive.verdicts for drive in DRIVES[rule.name])) == shown


@pytest.mark.parametrize(("rule", "drive"), ALL)
def test_a_fault_is_found_when_it_begins_and_replays_from_disk(tmp_path: Path, rule: str, drive: Drive) -> None:
    drive.record(tmp_path / "run")
    run = open_run(tmp_path / "run")
    found = run.frame("findings").to_dicts()
    before = [row for row in found if row["update"] < drive.begins]
    assert [row for row in before if row["verdict"] != "not_applicable" or "std" not in drive.loop] == []
    for (subject, metric), said in drive.says.items():
        mine = [row for row in found if (row["rule"], row["subject"], row["metric"]) == (rule, subject, metric)]
        assert {row["update"]: row["verdict"] for row in mine if row["verdict"] in WORSE} == said
    findings, levels = recorded(run)
    assert len(findings) == len(found)
    again = replay(run)
    assert levels or drive.verdicts == {"info"} or again.thresholds[rule].escalate == 0
    assert differences(again, (findings, levels)) == []
