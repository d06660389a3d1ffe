"""Replay: streaming shard by shard says what one batch says; what differs from the live recording is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esper_analyze.detector.conditions.applicability import FORMER_REASONS, FORMER_VERDICTS
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rule import VERDICT, revisions
from esper_analyze.detector.rules import RULES
from esper_analyze.replay.batches import read_batches
from esper_analyze.replay.recorded_rules import judged_live, restated_since, stored_thresholds
from esper_analyze.replay.replay import differences, finding_key, recorded, replay
from esper_analyze.runs.run import RecordedRun, open_run
from tests.recorder.inline import store_of
from tests.recorder.loop import Loop

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def in_parts(tmp_path: Path) -> RecordedRun:
    """Return a run of 30 updates in several shards."""
    loop = Loop()
    with loop.recorder(tmp_path / "run") as rec:
        for update in range(30):
            loop.update(rec)
            if update in (3, 4, 17):
                store_of(rec).flush()
    return open_run(tmp_path / "run")


def test_batches_follow_the_shards_and_no_update_is_in_two(in_parts: RecordedRun) -> None:
    updates = [batch.update for batch in read_batches(in_parts, {"updates": ("kl_k3",), "heads": ("entropy_norm",)})]
    assert len(updates) == 4
    assert np.concatenate(updates).tolist() == list(range(30))


def test_what_was_said_live_is_what_replay_says(in_parts: RecordedRun) -> None:
    live = recorded(in_parts)
    assert live[0]
    assert differences(replay(in_parts), live) == []


def test_progress_is_told_the_last_update_of_each_stretch(in_parts: RecordedRun) -> None:
    told: list[int] = []
    replay(in_parts, progress=told.append)
    assert told == [3, 4, 17, 29]


def test_other_thresholds_differ_from_what_was_recorded_and_each_difference_is_named(in_parts: RecordedRun) -> None:
    changed = replay(in_parts, stored_thresholds(in_parts).assigned("kl_spike.critical=0"))
    found = differences(changed, recorded(in_parts))
    assert found
    assert all(one.only in ("replay", "recorded") and one.text for one in found)
    assert any("kl_spike on run (kl_k3): critical" in one.text for one in found if one.only == "replay")


def test_a_difference_in_the_last_bit_of_a_value_is_a_difference(in_parts: RecordedRun) -> None:
    findings, levels = recorded(in_parts)
    place = next(i for i, one in enumerate(findings) if one.value is not None)
    old = findings[place]
    assert old.value is not None
    findings[place] = Finding(**(old.as_row() | {"value": np.nextafter(old.value, np.inf)}))  # type: ignore[arg-type]
    assert len(differences(replay(in_parts), (findings, levels))) == 2


def test_drift_that_was_written_live_is_what_replay_fills(in_parts: RecordedRun) -> None:
    filled: dict[tuple[str, int], float] = {}

    def take(outcome: object) -> None:
        subjects, values = outcome.filled["groups", "drift_norm"]  # type: ignore[attr-defined]
        for i, update in enumerate(outcome.update.tolist()):  # type: ignore[attr-defined]
            filled.update({(name, update): float(values[i, k]) for k, name in enumerate(subjects)})

    replay(in_parts, observe=take)
    rows = [row for row in in_parts.frame("groups").to_dicts() if row["drift_norm"] is not None]
    assert len(rows) > 20
    assert all(filled[row["group"], row["update"]] == row["drift_norm"] for row in rows)


def test_a_rule_whose_findings_held_other_numbers_is_compared_by_all_else() -> None:
    run = open_run(GOLDEN / "1.1" / "run")  # recorded before critic_not_learning's value was its median
    restated, rules = restated_since(run.info, RULES), replay(run, rules=judged_live(run, RULES))
    assert restated["critic_not_learning"] == ("value", VERDICT)
    assert differences(rules, recorded(run), restated) == []
    assert {one.text.split(" ")[0] for one in differences(rules, recorded(run))} <= {*restated, "level"}
    assert differences(rules, recorded(run))
    assert restated_since({"rule_revisions": revisions(RULES)}, RULES) == {}


def test_a_reason_that_an_earlier_detector_gave_in_other_words_is_the_same_finding() -> None:
    then, now = next(iter(FORMER_REASONS.items()))
    finding = Finding(
        update=0,
        rule="kl_spike",
        subject="run",
        metric="kl_k3",
        verdict="not_applicable",
        previous="no_data",
        value=None,
        threshold=None,
        baseline=None,
        reason=now,
    )
    assert finding_key(replace(finding, reason=then)) == finding_key(finding)
    assert finding_key(replace(finding, reason="another")) != finding_key(finding)


def test_a_verdict_that_an_earlier_detector_gave_is_the_same_finding() -> None:
    (rule, verdict, reason), (now, now_reason) = next(iter(FORMER_VERDICTS.items()))
    finding = Finding(0, rule, "run", "clip_active_fraction", verdict, None, None, None, None, reason)
    assert finding_key(replace(finding, verdict=now, reason=now_reason)) == finding_key(finding)
    assert finding_key(replace(finding, reason="another")) != finding_key(finding)
    assert finding_key(replace(finding, rule="kl_spike")) != finding_key(replace(finding, verdict=now))
