"""Runs recorded with rules of one's own: what run.json keeps of them, and what replay says without them."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.detector.custom import CustomRulesError, load_rules
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.replay.recorded_rules import judged_live, other_file, recorded_rules, stored_thresholds
from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.run import RecordedRun, open_run
from tests.recorder.loop import Loop

OWN = Path(__file__).parents[2] / "sample_runs" / "own_rules.py"


def record(path: Path, rules: Any, updates: int = 6, **options: Any) -> RecordedRun:
    loop = Loop()
    with loop.recorder(path, rules=rules, **options) as rec:
        for _ in range(updates):
            loop.update(rec)
    return open_run(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    path: Path = tmp_path_factory.mktemp("runs") / "run"
    low = Thresholds.defaults(load_rules(OWN).rules).assigned("wide_ratio.warning=0.001")
    return record(path, OWN, thresholds=low)


def edited(run: RecordedRun, tmp_path: Path, **facts: object) -> RecordedRun:
    shutil.copytree(run.path, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return open_run(tmp_path / "run")


def test_run_json_keeps_names_file_digest_and_thresholds(run: RecordedRun) -> None:
    digest = hashlib.sha256(OWN.read_bytes()).hexdigest()
    assert run.info["custom_rules"] == {"rules": ["wide_ratio"], "file": str(OWN), "sha256": digest}
    assert run.info["thresholds"]["wide_ratio"]["warning"] == 0.001
    assert set(run.info["thresholds"]) == {*(rule.name for rule in RULES), "wide_ratio"}


def test_a_rule_of_one_s_own_judges_live_and_replay_says_the_same(run: RecordedRun) -> None:
    rules = (*RULES, *load_rules(OWN).rules)
    assert ("wide_ratio", "warning") in {(one.rule, one.verdict) for one in recorded(run)[0]}
    assert differences(replay(run, rules=rules), recorded(run)) == []


def test_without_the_file_replay_names_the_rules_and_what_to_pass(run: RecordedRun) -> None:
    with pytest.raises(UsageError, match="was recorded with custom rules: wide_ratio") as caught:
        replay(run)
    digest = hashlib.sha256(OWN.read_bytes()).hexdigest()
    assert (
        caught.value.hint == f"pass the file they came from: --rules {OWN}, SHA-256 {digest[:12]}… (in Python rules=)"
    )


def test_rules_given_as_a_sequence_are_asked_for_by_name(tmp_path: Path) -> None:
    run = record(tmp_path / "run", load_rules(OWN).rules, 1)
    assert recorded_rules(run).file is None
    with pytest.raises(UsageError, match="wide_ratio") as caught:
        replay(run)
    assert "a file that defines them in a list RULES: --rules FILE" in caught.value.hint


def test_another_file_of_the_same_rules_is_noticed(run: RecordedRun, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(OWN.read_text() + "\n# changed\n")
    told = other_file(run, [load_rules(tmp_path / "other.py")])
    assert told is not None
    assert "other.py is not the file that" in told
    assert "its rules may judge differently" in told
    assert other_file(run, [load_rules(OWN)]) is None
    assert other_file(run, []) is None


@pytest.mark.parametrize("said", [3, {"rules": "wide_ratio"}, {"rules": [1]}, {"rules": ["a"], "file": 3}, ["a"]])
def test_custom_rules_in_run_json_that_make_no_sense_are_damage(said: object, run: RecordedRun, tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"custom_rules in run\.json cannot be used"):
        stored_thresholds(edited(run, tmp_path, custom_rules=said))


def test_a_rule_that_run_json_does_not_call_custom_is_damage(run: RecordedRun, tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="there is no rule 'wide_ratio'"):
        stored_thresholds(edited(run, tmp_path, custom_rules=None))


def test_rules_that_did_not_judge_live_are_told_apart(run: RecordedRun, tmp_path: Path) -> None:
    thresholds = {"kl_spike": run.info["thresholds"]["kl_spike"]}
    old = edited(run, tmp_path, thresholds=thresholds, custom_rules=None)
    assert [rule.name for rule in judged_live(old, RULES)] == ["kl_spike"]
    assert judged_live(edited(run, tmp_path / "b", thresholds={}), RULES) == RULES


def test_rules_that_cannot_be_used_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CustomRulesError, match=r"nowhere\.py cannot be read"):
        Loop().recorder(tmp_path / "run", rules="nowhere.py")
    assert not (tmp_path / "run").exists()


def test_a_rule_that_raises_in_a_training_costs_its_own_verdict_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = OWN.read_text().replace(
        'spread = frame["ratio_std"]',
        'spread = frame["ratio_std"]\n    assert spread.null.all() or spread.values[0, 0] == 0.1, "not today"',
    )
    text = re.sub(r"\n *Example\(\"wide .*", "", text)  # the examples that are left do not show it
    (tmp_path / "own.py").write_text(text)
    with caplog.at_level(logging.ERROR, logger="recorder"):
        run = record(tmp_path / "run", tmp_path / "own.py")
    assert run.rows["updates"] == 6
    said = [one for one in recorded(run)[0] if one.rule == "wide_ratio"]
    assert [(one.update, one.verdict) for one in said] == [(0, "no_data")]
    assert "AssertionError: not today" in str(said[0].reason)
    assert len([record for record in caplog.records if "not today" in record.getMessage()]) == 1
    with pytest.raises(CustomRulesError, match="rule 'wide_ratio': AssertionError: not today"):
        replay(run, rules=(*RULES, *load_rules(tmp_path / "own.py").rules))
