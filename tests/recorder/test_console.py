"""What the recorder writes to a console of which nobody took care, and what it leaves to those who did."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rules import RULES
from recorder import Recorder
from recorder.online_detector import log_alarms

ROOT = Path(__file__).parents[2]
LOOP = """
import logging, sys
{before}
import torch
from recorder import Recorder
with Recorder("my run"{options}) as rec:
    {inside}
    for far in [0.0] * 3 + [9.0] * 3:
        rec.minibatch(log_prob=torch.full((8,), far), old_log_prob=torch.zeros(8), clip_range=0.2)
        rec.update()
"""
START = "recorder: recording to 'my run'; follow with: esper-analyze watch 'my run'"
END = "recorder: 6 updates in 'my run'; look with: esper-analyze report 'my run'"


def said(tmp_path: Path, *, before: str = "", options: str = "", inside: str = "pass") -> list[str]:
    code = LOOP.format(before=before, options=options, inside=inside)
    line = [sys.executable, "-W", "error", "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_start_alarms_and_end_are_said_once_where_nobody_configured_logging(tmp_path: Path) -> None:
    lines = said(tmp_path)
    assert (lines[0], lines[-1]) == (START, END)
    alarms = [line for line in lines if line.startswith("update 3: critical: ")]
    assert len(alarms) == 1
    assert alarms[0].startswith("update 3: critical: first_ratio on run: first_ratio_error = ")
    assert len(lines) == len(set(lines))


def test_a_quiet_recorder_says_nothing_of_a_run_without_errors(tmp_path: Path) -> None:
    assert said(tmp_path, options=", quiet=True") == []


def test_a_level_that_the_training_sets_later_holds(tmp_path: Path) -> None:
    lines = said(tmp_path, inside="logging.basicConfig(level=logging.WARNING, format='%(levelname)s %(message)s')")
    assert lines[0] == START
    assert all(line.startswith("WARNING ") for line in lines[1:])
    assert len(lines) > 1


@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_training_that_configures_logging_has_each_line_once_in_its_own_form(tmp_path: Path, when: str) -> None:
    configured = "logging.basicConfig(level=logging.INFO, format='mine %(message)s')"
    lines = said(tmp_path, **{when: configured})
    assert lines[-1] == f"mine {END}"
    assert all(line.startswith("mine ") for line in lines[1 if when == "inside" else 0 :])
    assert len(lines) == len(set(lines))


def test_only_what_is_critical_reaches_a_log_of_warnings(tmp_path: Path) -> None:
    lines = said(tmp_path, before="logging.basicConfig(level=logging.WARNING, format='%(levelname)s %(message)s')")
    assert lines
    assert all(line.startswith("WARNING update 3: critical: ") for line in lines)


def test_only_the_first_of_several_ranks_says_where_and_how(tmp_path: Path) -> None:
    first = said(tmp_path, options=", rank=0, world_size=2")
    second = said(tmp_path, options=", rank=1, world_size=2")
    assert first[0] == START
    assert START not in second
    assert END not in second


def test_a_reason_without_words_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        Recorder(tmp_path / "run").close("")
    assert f"0 updates in {tmp_path / 'run'}; look with" in caplog.text


def finding(rule: str, verdict: str, update: int = 9) -> Finding:
    return Finding(update, rule, "run", "kl_k3", verdict, "ok", 2.0, 1.0, None, None)


def test_a_critical_alarm_is_told_though_a_warning_may_have_caused_it(caplog: pytest.LogCaptureFixture) -> None:
    warned: set[tuple[str, str]] = set()
    with caplog.at_level("INFO"):
        log_alarms([finding("kl_spike", "warning", 1)], RULES, {}, warned)
        log_alarms([finding("kl_spike", "warning")], RULES, {}, warned)
        log_alarms([finding("kl_spike", "warning"), finding("ratio_explosion", "critical")], RULES, {}, warned)
    assert [(record.levelname, record.getMessage().split(" on ")[0]) for record in caplog.records] == [
        ("INFO", "update 1: warning: kl_spike"),
        ("WARNING", "update 9: critical: ratio_explosion"),
    ]


def test_a_run_that_an_exception_ended_says_which(tmp_path: Path) -> None:
    code = "from recorder import Recorder\nwith Recorder('x') as rec:\n    rec.update()\n    raise ValueError('no')"
    line = [sys.executable, "-c", code]
    done = subprocess.run(
        line, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert "recorder: 2 updates in x (ValueError: no); look with: esper-analyze report x" in done.stderr.splitlines()
