"""What differs between a replay and the recording, and which rules judged live, on runs held in memory."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.conditions.applicability import FORMER_REASONS, FORMER_VERDICTS
from esper_analyze.detector.custom import CustomRules
from esper_analyze.detector.detector import RuleVerdicts
from esper_analyze.detector.escalation import LevelChange
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.incidents import Incident
from esper_analyze.detector.rule import revisions
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Judgement, Verdict
from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.replay import replay as module
from esper_analyze.replay.recorded_rules import (
    RecordedRules,
    foreign_rules,
    grown_since,
    judged_live,
    known_thresholds,
    other_file,
    recorded_rules,
    restated_since,
    stored_thresholds,
)
from esper_analyze.replay.replay import (
    Difference,
    Replay,
    Unjudged,
    continued,
    differences,
    finding_text,
    fresh_starts,
    level_text,
    merged_run,
    recorded,
    replay,
    unshared,
    verified,
)
from esper_analyze.runs.run import open_run
from esper_analyze.schema.tables.events import CONTINUED, RESUMED_FRESH
from tests.replay.made import run, updates

NAN = math.nan
SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"
DEFAULTS = Thresholds.defaults(RULES)
KL = next(rule for rule in RULES if rule.name == "kl_spike")
LEVEL = LevelChange(5, "DEBUG", "NORMAL", "kl_spike", "run", 4, 9)


def finding(update: int = 4, verdict: str = "warning", **more: Any) -> Finding:
    ready = Finding(update, "kl_spike", "run", "kl_k3", verdict, "ok", 0.25, 0.1, 0.01, None)
    return replace(ready, **more)


def changed(field: str, value: float) -> Finding:
    return Finding(**{**finding().as_row(), field: value})  # type: ignore[arg-type]


def made(*findings: Finding, levels: tuple[LevelChange, ...] = ()) -> Replay:
    return Replay(DEFAULTS, findings=list(findings), levels=list(levels))


def test_nothing_differs_where_both_sides_say_the_same() -> None:
    both = [finding(), finding(9, value=NAN), finding(5, "no_data", value=None)]
    assert differences(made(*both, levels=(LEVEL,)), (both[::-1], [LEVEL])) == []
    assert differences(made(), ([], [])) == []


@pytest.mark.parametrize(
    "other",
    [
        finding(value=np.nextafter(0.25, 1)), finding(threshold=0.2), finding(baseline=None), finding(5),
        finding(verdict="critical"), finding(previous="info"), finding(reason="why"), finding(subject="x"),
        finding(metric="y"), finding(reason=""), finding(rule="z"), finding(value=None), finding(value=NAN),
    ],
)  # fmt: skip
def test_any_field_that_is_not_the_same_is_a_difference_on_both_sides(other: Finding) -> None:
    found = differences(made(finding()), ([other], []))
    assert {(one.only, one.update) for one in found} == {("replay", 4), ("recorded", other.update)}


def test_differences_come_by_update_then_side_then_text() -> None:
    ours = made(finding(7), finding(4, "critical"), levels=(LEVEL,))
    found = differences(ours, ([finding(4, value=None), finding(4, rule="first_ratio")], []))
    assert found == [
        Difference("recorded", 4, "first_ratio on run (kl_k3): warning at 0.25"),
        Difference("recorded", 4, "kl_spike on run (kl_k3): warning"),
        Difference("replay", 4, "kl_spike on run (kl_k3): critical at 0.25"),
        Difference("replay", 5, "level NORMAL to DEBUG because of kl_spike on run"),
        Difference("replay", 7, "kl_spike on run (kl_k3): warning at 0.25"),
    ]
    only_live = differences(made(), ([], [LEVEL]))
    assert [(one.only, one.update) for one in only_live] == [("recorded", 5)]


@pytest.mark.parametrize(
    "said",
    [3, ["mine"], {"rules": "mine"}, {"rules": [1]}, {"rules": ["a", 1]}, {"rules": ["a"], "file": 3},
     {"rules": ["a"], "file": None, "sha256": 5}, {}],
)  # fmt: skip
def test_custom_rules_that_make_no_sense_are_damage(said: object) -> None:
    with pytest.raises(DamagedError, match=r"custom_rules in run\.json cannot be used"):
        recorded_rules(run({"custom_rules": said}))


@pytest.mark.parametrize("field", ["value", "threshold", "baseline"])
def test_a_field_that_an_earlier_revision_computed_otherwise_is_not_compared(field: str) -> None:
    live = [changed(field, 9.0)]
    assert len(differences(made(finding()), (live, []))) == 2
    assert differences(made(finding()), (live, []), {"kl_spike": (field,)}) == []
    assert len(differences(made(finding()), (live, []), {"first_ratio": (field,)})) == 2


def test_of_a_rule_that_judges_otherwise_nothing_is_compared_nor_the_levels_that_may_follow_from_it() -> None:
    rejudged: dict[str, tuple[str, ...]] = {"kl_spike": ("verdict",)}
    other = finding(rule="first_ratio")
    ours, theirs = made(finding(), other, levels=(LEVEL,)), [finding(9, "critical"), other]
    assert differences(ours, (theirs, []), rejudged) == []
    assert [one.text.split(" ")[0] for one in differences(ours, ([], []), rejudged)] == ["first_ratio"]
    silent = made(other, levels=(LEVEL,))
    assert len(differences(silent, ([other], []), rejudged)) == 1  # it found nothing: levels are compared
    assert differences(silent, ([other, finding()], []), rejudged) == []


def test_findings_and_levels_are_one_line_each() -> None:
    assert finding_text(finding(value=1234567.0)) == "kl_spike on run (kl_k3): warning at 1.23457e+06"
    assert finding_text(finding(value=0.0)) == "kl_spike on run (kl_k3): warning at 0"
    assert finding_text(finding(value=None)) == "kl_spike on run (kl_k3): warning"
    assert level_text(replace(LEVEL, rule=None, subject=None, level="NORMAL", previous="DEBUG")) == (
        "level DEBUG to NORMAL"
    )


def test_what_each_side_has_alone() -> None:
    assert unshared([1, 2, 3], [3, 4]) == ([1, 2], [4])
    assert unshared(["a", "B"], ["b", "c"], str.lower) == (["a"], ["c"])


def test_updates_at_which_a_detector_began_anew_and_a_run_that_went_on_with_another_s() -> None:
    rows = [{"update": update, "kind": kind, "detail": "d", "rows": 0} for update, kind in (
        (9, RESUMED_FRESH), (3, RESUMED_FRESH), (9, RESUMED_FRESH), (5, "other"))]  # fmt: skip
    assert fresh_starts(run(losses_of_data=rows)) == [3, 9]
    assert fresh_starts(run()) == []
    assert not continued(run(losses_of_data=rows))
    assert continued(run(losses_of_data=[{"update": 1, "kind": CONTINUED, "detail": "d", "rows": 0}]))


def test_what_was_recorded_live_leaves_out_what_another_tool_said() -> None:
    findings = [finding().as_row(), finding(rule="x:nan").as_row()]
    level = {"update": 5, "level": "DEBUG", "previous": "NORMAL", "rule": "kl_spike", "subject": "run",
             "finding_update": 4, "until": 9}  # fmt: skip
    for foreign, rules in (([], ["kl_spike", "x:nan"]), (["x:nan"], ["kl_spike"])):
        found, levels = recorded(run({"foreign_rules": foreign}, findings=findings, levels=[level]))
        assert [one.rule for one in found] == rules
        assert levels == [LEVEL]
    assert foreign_rules(run({"foreign_rules": "x"})) == frozenset()
    assert foreign_rules(run({"foreign_rules": [1]})) == {"1"}
    assert foreign_rules(run()) == frozenset()


def test_a_replay_counts_its_updates_verdicts_and_what_it_could_not_judge() -> None:
    told: list[int] = []
    outcomes: list[object] = []
    rows = updates(6, kl_k3=0.01, inner_loop_measurable=True)
    rows[4]["kl_k3"] = None
    found = replay(run(updates=rows), DEFAULTS, rules=(KL,), progress=told.append, observe=outcomes.append)
    assert (found.updates, told, len(outcomes), found.rules) == (6, [5], 1, (KL,))
    counts = found.verdict_counts["kl_spike"]
    assert sum(counts.values()) == 6
    assert counts["no_data"] == 1
    assert [(one.rule, one.subject, one.metric, one.verdict, one.reason, one.count) for one in found.unjudged] == [
        ("kl_spike", "run", "kl_k3", "no_data", "kl_k3 is missing", 1)
    ]
    assert found.thresholds["kl_spike"] == DEFAULTS["kl_spike"]
    fine = replay(run(updates=updates(6, kl_k3=0.01, inner_loop_measurable=True)), DEFAULTS, rules=(KL,))
    assert (fine.verdict_counts, fine.unjudged, fine.incidents) == ({"kl_spike": {"ok": 6}}, [], [])


def test_a_replay_begins_anew_where_the_recording_did() -> None:
    rows = updates(12, kl_k3=0.01, inner_loop_measurable=True)
    for at in (5, 6, 7, 8):
        rows[at]["kl_k3"] = 99.0
    fresh = [{"update": 7, "kind": RESUMED_FRESH, "detail": "d", "rows": 0}]
    told: list[int] = []
    whole = replay(run(updates=rows), DEFAULTS, rules=(KL,))
    parts = replay(run(updates=rows, losses_of_data=fresh), DEFAULTS, rules=(KL,), progress=told.append)
    assert told == [6, 11]
    assert [one.update for one in whole.findings if one.alarm] == [5]
    assert [one.update for one in parts.findings if one.alarm] == [5, 7]  # the new detector knows of no alarm
    assert (whole.updates, parts.updates) == (12, 12)


def test_a_level_that_there_is_not_is_damage() -> None:
    with pytest.raises(DamagedError, match="names the level 'LOUD'; levels are OFF, "):
        replay(run({"level": "LOUD"}, updates=updates(1)), DEFAULTS)
    assert replay(run({"level": "DEBUG"}, updates=updates(1)), DEFAULTS).levels == []


def test_a_run_of_one_rank_or_of_merged_ones_is_replayed_as_it_is() -> None:
    one = run({"rule_revisions": revisions(RULES)}, updates=updates(2))
    assert merged_run(one) is one
    already = run(ranks=2, updates=updates(2))
    assert merged_run(already) is already
    assert verified(one, replay(one, DEFAULTS)) == differences(replay(one, DEFAULTS), ([], []))


def test_each_rank_is_compared_with_its_own_replay() -> None:
    several = open_run(SAMPLES / "two_ranks")
    result = replay(several, rules=judged_live(several, RULES))
    assert verified(several, result) == []
    other = replay(several, result.thresholds.assigned("entropy_low.info=2"), rules=result.rules)
    apart = verified(several, other)
    assert {one.text[:7] for one in apart} == {"rank 0:", "rank 1:"}
    assert all("entropy_low" in one.text for one in apart if one.only == "replay" and "level" not in one.text)


def test_what_was_recorded_in_other_words_or_by_another_verdict_is_the_same() -> None:
    (then, now), *_ = FORMER_REASONS.items()
    assert differences(made(finding(reason=now)), ([finding(reason=then)], [])) == []
    (rule, verdict, reason), (verdict_now, reason_now) = next(iter(FORMER_VERDICTS.items()))
    old = finding(verdict=verdict, rule=rule, reason=reason)
    assert differences(made(finding(verdict=verdict_now, rule=rule, reason=reason_now)), ([old], [])) == []


def test_thresholds_are_those_of_the_run_unless_others_are_given() -> None:
    low = DEFAULTS.assigned("kl_spike.warning=0.001").assigned("kl_spike.critical=0.002").as_dict()["kl_spike"]
    loud = run({"thresholds": {"kl_spike": low}}, updates=updates(6, kl_k3=0.01, inner_loop_measurable=True))
    assert [one.verdict for one in replay(loud, rules=(KL,)).findings if one.alarm] == ["critical"]
    assert [one for one in replay(loud, DEFAULTS, rules=(KL,)).findings if one.alarm] == []


def test_a_nan_that_several_rules_report_counts_once_for_each() -> None:
    one = Incident("a", "run", "m", 0, 0, 1, "open", NAN, 0, "critical", 2)
    other = replace(one, rule="b")
    merged = replace(one, parts=(one, other))
    alone = replace(one, rule="c", start=5)
    assert Replay(DEFAULTS, incidents=[merged, alone]).single_incidents == [one, other, alone]


def judgement(codes: list[list[int]], reasons: list[list[int]], words: tuple[str, ...]) -> Judgement:
    code, reason = np.array(codes, np.int8), np.array(reasons, np.int8)
    nothing = np.full(code.shape, NAN)
    return Judgement("m", code, nothing, nothing, nothing, reason, words, frozenset())


def test_verdicts_are_counted_by_word_and_absent_ones_are_none() -> None:
    counts: dict[str, int] = {}
    codes = [[Verdict.OK, Verdict.ABSENT], [Verdict.WARNING, Verdict.NO_DATA], [Verdict.OK, Verdict.CRITICAL]]
    module._count(counts, RuleVerdicts(KL, ("a", "b"), (judgement(codes, [[0, 0]] * 3, ("",)),)))  # type: ignore[arg-type]
    assert counts == {"ok": 2, "warning": 1, "no_data": 1, "critical": 1}
    fine = [[Verdict.OK, Verdict.OK]]
    module._count(counts, RuleVerdicts(KL, ("a", "b"), (judgement(fine, [[0, 0]], ("",)),)))  # type: ignore[arg-type]
    assert counts["ok"] == 4


def test_what_was_not_judged_is_counted_by_subject_verdict_and_reason() -> None:
    none, missing = Verdict.NOT_APPLICABLE, Verdict.NO_DATA
    codes = [[none, Verdict.OK], [missing, none], [missing, none], [missing, Verdict.WARNING]]
    reasons = [[1, 0], [2, 1], [3, 1], [2, 0]]
    words = ("", "too early", "x is missing", "y is missing")
    counter = module._UnjudgedCounter()
    counter.take(RuleVerdicts(KL, ("a", "b"), (judgement(codes, reasons, words),)))  # type: ignore[arg-type]
    counter.take(RuleVerdicts(KL, ("b",), (judgement([[none]], [[1]], words),)))
    counter.take(RuleVerdicts(KL, ("b",), (judgement([[Verdict.OK]], [[0]], words),)))
    assert counter.listed() == [
        Unjudged("kl_spike", "a", "m", "not_applicable", "too early", 1),
        Unjudged("kl_spike", "b", "m", "not_applicable", "too early", 3),
        Unjudged("kl_spike", "a", "m", "no_data", "x is missing", 2),
        Unjudged("kl_spike", "a", "m", "no_data", "y is missing", 1),
    ]


STORED = DEFAULTS.as_dict()


def test_stored_thresholds_are_those_of_run_json_and_defaults_for_newer_rules() -> None:
    changed = DEFAULTS.assigned("kl_spike.warning=0.07").as_dict()
    assert stored_thresholds(run({"thresholds": {"kl_spike": changed["kl_spike"]}}))["kl_spike"].warning == 0.07  # type: ignore[attr-defined]
    assert stored_thresholds(run()).as_dict() == STORED
    with pytest.raises(DamagedError, match=r"thresholds in run\.json cannot be used"):
        stored_thresholds(run({"thresholds": {"kl_spike": 5}}))
    with pytest.raises(DamagedError, match=r"thresholds in run\.json cannot be used"):
        known_thresholds(run({"thresholds": [1]}))


def test_custom_rules_must_be_given_and_are_ignored_where_built_in_ones_are_enough() -> None:
    custom = {"custom_rules": {"rules": ["mine"], "file": "/x/own.py", "sha256": "ab" * 32},
              "thresholds": {**STORED, "mine": {"limit": 1}}}  # fmt: skip
    made_with = run(custom)
    assert recorded_rules(made_with) == RecordedRules(("mine",), "/x/own.py", "ab" * 32)
    with pytest.raises(UsageError, match="recorded with custom rules: mine") as refused:
        stored_thresholds(made_with)
    assert str(refused.value.hint) == (
        "pass the file they came from: --rules /x/own.py, SHA-256 abababababab… (in Python rules=)"
    )
    assert known_thresholds(made_with).as_dict() == STORED
    without = run({"custom_rules": {"rules": ["mine"], "file": "own.py"}})
    with pytest.raises(UsageError) as plain:
        stored_thresholds(without)
    assert str(plain.value.hint) == "pass the file they came from: --rules own.py (in Python rules=)"
    assert recorded_rules(run()) == RecordedRules()


def loaded(sha256: str, *names: str) -> CustomRules:
    return CustomRules(tuple(replace(KL, name=name) for name in names), "here.py", sha256)


def test_a_file_with_another_digest_is_warned_of() -> None:
    facts = {"rules": ["mine"], "file": "/x/own.py", "sha256": "a" * 64}
    made_with = run({"custom_rules": facts})
    assert other_file(made_with, [loaded("a" * 64, "mine")]) is None
    assert other_file(made_with, [loaded("b" * 64, "another")]) is None
    assert other_file(made_with, [loaded("b" * 64, "mine"), loaded("a" * 64, "mine")]) is None
    assert other_file(made_with, [loaded("b" * 64, "mine", "more")]) == (
        "here.py is not the file that made was recorded with (own.py): SHA-256 was aaaaaaaaaaaa…, is bbbbbbbbbbbb…; "
        "its rules may judge differently"
    )
    unnamed = run({"custom_rules": {**facts, "file": None}})
    assert "was recorded with: SHA-256" in str(other_file(unnamed, [loaded("b" * 64, "mine")]))
    undigested = run({"custom_rules": {**facts, "sha256": None}})
    assert other_file(undigested, [loaded("b" * 64, "mine")]) is None


def test_rules_judged_live_where_run_json_has_their_thresholds() -> None:
    assert judged_live(run({"thresholds": {"kl_spike": {}}}), RULES) == (KL,)
    unusable: tuple[object, ...] = ({}, None, [], {"kl_spike"})
    for unknown in unusable:
        assert judged_live(run({"thresholds": unknown}), RULES) == RULES


def test_rules_of_another_revision_are_restated() -> None:
    rules = (replace(KL, revision=2, restated=("value",)), replace(KL, name="other", revision=1, restated=()))
    assert restated_since({}, rules) == {"kl_spike": ("value",)}
    assert restated_since({"rule_revisions": {"kl_spike": 2, "other": 3}}, rules) == {"other": ()}
    assert restated_since({"rule_revisions": [1]}, rules) == {"kl_spike": ("value",)}


def test_a_run_of_today_has_not_grown_and_one_of_fewer_rules_has() -> None:
    assert grown_since(run({"thresholds": STORED})) is None
    assert grown_since(run({"thresholds": {"kl_spike": {}}})) == (
        f"made was recorded with 1 of today's {len(RULES)} rules; rules may have changed since, so a difference is not "
        "damage"
    )
    assert Path("made") == run().path
