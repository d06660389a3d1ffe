"""The committed sample runs show what they say they show, live and in replay."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from esper_analyze.detector.rules import RULES
from esper_analyze.replay.evidence import gather
from esper_analyze.replay.labels import read_labels
from esper_analyze.replay.recorded_rules import judged_live, restated_since
from esper_analyze.replay.replay import Replay, differences, recorded, replay
from esper_analyze.reports.narrative import story as stories
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.storage.run_info import find_runs

pytestmark = pytest.mark.processor

RUNS = Path(__file__).parents[1] / "sample_runs" / "runs"
NAMES = (
    "growing_disconnected",
    "growing_exploding",
    "growing_healthy",
    "growing_waits",
    "kl_too_high",
    "lstm_masks",
    "mask_mismatch",
    "masked_healthy",
    "nan_reward",
    "one_update_collapse",
    "recurrent_healthy",
    "two_ranks",
)


def replayed(name: str) -> tuple[RecordedRun, Replay]:
    run = open_run(RUNS / name)
    return run, replay(run)


def alarms(found: Replay, verdict: str | None = None) -> list[tuple[str, str, int]]:
    return [(i.rule, i.subject, i.start) for i in found.incidents if verdict in (None, i.peak_verdict)]


def test_every_sample_is_there_and_all_are_small() -> None:
    assert tuple(path.name for path in find_runs(RUNS)) == NAMES
    assert sum(file.stat().st_size for file in RUNS.rglob("*") if file.is_file()) <= 5_500_000


@pytest.mark.parametrize("name", NAMES)
def test_no_sample_names_the_machine_that_recorded_it(name: str) -> None:
    info = open_run(RUNS / name).info
    assert "host" not in info
    assert info["argv"] == ["sample_runs/make.py"]


@pytest.mark.parametrize("name", NAMES)
def test_replay_says_what_was_said_live(name: str) -> None:
    run, _ = replayed(name)
    assert run.closed
    assert run.lost_rows == 0
    for rank in run.ranks:
        own = run.only(rank)
        found = replay(own, rules=judged_live(own, RULES))
        assert differences(found, recorded(own), restated_since(own.info, found.rules)) == []
        assert found.updates == own.rows["updates"]


@pytest.mark.parametrize("name", NAMES)
def test_labelled_faults_are_found_within_ten_updates_and_healthy_runs_have_no_critical(name: str) -> None:
    run, found = replayed(name)
    labels = read_labels(run.path, [rule.name for rule in RULES])
    assert labels is not None
    if not labels.faults:
        assert alarms(found, "critical") == []
    for fault in labels.faults:
        worst = [*alarms(found), *alarms(found, "critical")] if not fault.hard else alarms(found, "critical")
        starts = {rule: start for rule, _, start in reversed(worst) if rule in fault.rules}
        assert starts
        delay = min(starts.values()) - fault.onset
        assert 0 <= delay <= (0 if fault.hard else 20 if "head_entropy_collapse" in fault.rules else 10)


def test_every_rule_a_label_lists_finds_the_fault() -> None:
    run, found = replayed("one_update_collapse")
    labels = read_labels(run.path, [rule.name for rule in RULES])
    assert labels is not None
    for rule in labels.faults[0].rules:
        assert min(start for name, _, start in alarms(found, "critical") if name == rule) - 40 in range(11)


def test_a_sound_masked_run_raises_nothing() -> None:
    assert alarms(replayed("masked_healthy")[1]) == []


def test_hard_faults_are_found_in_the_very_update() -> None:
    assert ("numerical_instability", "run", 25) in alarms(replayed("nan_reward")[1], "critical")
    assert ("first_ratio", "run", 30) in alarms(replayed("mask_mismatch")[1], "critical")
    assert ("kl_spike", "run", 40) in alarms(replayed("one_update_collapse")[1], "critical")


def test_after_a_one_update_collapse_low_entropy_is_an_alarm_once_returns_have_fallen() -> None:
    _, found = replayed("one_update_collapse")
    roots = [(incident.rule, incident.start) for incident in found.incidents if incident.cause is None]
    assert list(dict.fromkeys(roots)) == [
        ("setting_changed", 40),
        ("performance_degradation", 42),
        ("gradient_vanishing", 43),
        ("entropy_collapse", 44),
    ]
    entropy = [(one.update, one.verdict) for one in found.findings if one.rule == "entropy_collapse"]
    assert entropy[:2] == [(40, "info"), (44, "warning")]


def test_a_run_broken_by_nan_is_whole_up_to_there() -> None:
    run, _ = replayed("nan_reward")
    statuses = run.frame("updates")["status"].to_list()
    assert statuses == ["performed"] * 25 + ["interrupted"]
    assert run.frame("updates")["nonfinite_sources"].drop_nulls().len() == 1


def test_a_head_without_choice_is_explained_and_never_alarms() -> None:
    run, found = replayed("lstm_masks")
    assert alarms(found) == []
    collapsed = {(one.subject, one.verdict) for one in found.findings if one.rule == "head_entropy_collapse"}
    assert collapsed == {("style", "info")}, "it learnt that one answer always pays: returns rose meanwhile"
    assert not [subject for _, subject, _ in alarms(found) if subject in ("slot", "head:slot")]
    slot = [row for row in run.frame("heads").to_dicts() if row["head"] == "slot"]
    assert {(row["grad_norm"], row["zero_explained"], row["learnable_fraction"]) for row in slot} == {
        (0.0, "masked", 0.0)
    }


def test_joint_entropy_hides_the_collapsed_head() -> None:
    run, found = replayed("lstm_masks")
    assert not [rule for rule, _, _ in alarms(found) if rule == "entropy_collapse"]
    assert min(run.frame("updates")["entropy_norm"].to_list()) > 0.3


def test_a_lower_bound_fires_where_the_recorded_one_did_not() -> None:
    run = open_run(RUNS / "masked_healthy")
    from esper_analyze.replay.recorded_rules import stored_thresholds

    lowered = replay(run, stored_thresholds(run).assigned("kl_spike.critical=0.001"))
    assert [rule for rule, _, _ in alarms(lowered, "critical")] == ["kl_spike"]


@pytest.mark.parametrize("name", ["growing_healthy", "growing_waits"])
def test_hosts_that_grow_soundly_raise_nothing(name: str) -> None:
    assert alarms(replayed(name)[1]) == []


def test_where_waiting_is_all_there_is_every_head_says_that_nothing_is_to_be_learnt() -> None:
    heads = replayed("growing_waits")[0].frame("heads")
    assert set(heads["learnable_fraction"].to_list()) == {0.0}
    assert set(heads["zero_explained"].to_list()) == {"masked"}
    assert heads["grad_norm"].max() == 0.0


def test_an_exploding_seed_is_named_with_slot_update_and_severity() -> None:
    run, found = replayed("growing_exploding")
    assert ("slot_gradient_explosion", "env 3, late", 21) in alarms(found, "critical")
    assert {subject.split(",")[0] for _, subject, _ in alarms(found)} == {"env 3"}
    slots = run.frame("slots")
    severe = slots.filter(slots["exploding_severity"] > 0.5)
    assert set(severe["place"].to_list()) <= {"env 3, late", "env 3, early"}
    assert severe["update"].min() >= 20  # type: ignore[operator]


def test_a_disconnected_seed_is_told_from_a_dormant_one() -> None:
    run, found = replayed("growing_disconnected")
    assert alarms(found) == [("seed_dormant", "env 5, early", 22)]
    causes = run.frame("slots").filter(run.frame("slots")["low_ratio_cause"] == "disconnected")
    assert set(causes["place"].to_list()) == {"env 5, early"}
    assert causes["update"].min() == 20


def test_two_ranks_are_one_run() -> None:
    run, found = replayed("two_ranks")
    assert run.ranks == [0, 1]
    assert found.updates == run.only(0).rows["updates"] == run.only(1).rows["updates"]
    assert found.verdict_counts["rank_desync"]["ok"] > 0
    assert not [rule for rule, _, _ in alarms(found) if rule == "rank_desync"]


def told(name: str) -> tuple[str, str]:
    """Return headline and paragraph of a run's story."""
    story = stories.frame(gather(open_run(RUNS / name)))
    return story.headline, story.paragraph


def test_reports_of_growing_hosts_read_right() -> None:
    headline, paragraph = told("growing_exploding")
    assert headline == "A seed module's gradients exploded on env 3, late at update 21"
    assert re.search(r"exploding_severity[^.]* was 0\.75, beyond the critical bound of 0\.5", paragraph)
    headline, paragraph = told("growing_disconnected")
    assert headline == "A seed module does not learn on env 5, early at update 22"
    assert "low_ratio_cause said: disconnected" in paragraph
    headline, paragraph = told("growing_waits")
    assert headline == "No rule fired: no head ever had a choice"
    assert "No head ever had a choice" in paragraph
    assert told("growing_healthy")[0] == "No rule fired"
