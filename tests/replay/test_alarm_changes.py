"""Alarms of a replay beside the live ones: pairs by start and by overlap, thresholds, and rules that did not run."""

from __future__ import annotations

import pytest

from esper_analyze.detector.escalation import LevelChange
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.replay.replay import Replay
from esper_analyze.replay.whatif import Alarm, AlarmChange, alarm_changes, alarms_of, changed_thresholds, what_if
from tests.replay.made import run, updates

DEFAULTS = Thresholds.defaults(RULES)


def alarm(start: int, end: int | None = None, verdict: str = "warning", rule: str = "r") -> Alarm:
    return Alarm(rule, "run", "m", verdict, start, end)


def finding(update: int, verdict: str, rule: str = "r", metric: str = "m", value: float = 1.0) -> Finding:
    return Finding(update, rule, "run", metric, verdict, "ok", value, None, None, None)


def changes(live: list[Alarm], now: list[Alarm]) -> list[tuple[str, int | None, int | None]]:
    return [
        (one.what, None if one.live is None else one.live.start, None if one.now is None else one.now.start)
        for one in alarm_changes(live, now)
    ]


@pytest.mark.parametrize(
    ("live", "now", "expected"),
    [
        ([alarm(10, 20)], [alarm(8, 11), alarm(13, 15)], [("earlier", 10, 8), ("split", 10, 13)]),
        ([alarm(10, 20)], [alarm(5, 10), alarm(12, 15)], [("split", 10, 5), ("later", 10, 12)]),
        ([alarm(10, 20)], [alarm(9, 11), alarm(15, 30)], [("earlier", 10, 9), ("split", 10, 15)]),
        ([alarm(10, 20)], [alarm(20, 30)], [("later", 10, 20)]),
        ([alarm(10, 20)], [alarm(21, 30)], [("gone", 10, None), ("new", None, 21)]),
        ([alarm(10, 20)], [alarm(2, 10)], [("earlier", 10, 2)]),
        ([alarm(10, 20)], [alarm(2, 9)], [("new", None, 2), ("gone", 10, None)]),
        ([alarm(10, 20), alarm(22, 30)], [alarm(18, 25)], [("later", 10, 18), ("joined", 22, 18)]),
        ([alarm(10, 12), alarm(14, 30)], [alarm(11, 12), alarm(14, 15)], [("later", 10, 11), ("shorter", 14, 14)]),
        ([alarm(10, 20)], [alarm(10, 12), alarm(11, 20)], [("shorter", 10, 10), ("split", 10, 11)]),
        ([alarm(10)], [alarm(50)], [("later", 10, 50)]),
        ([alarm(10, 10)], [alarm(10, 10)], [("same", 10, 10)]),
    ],
)
def test_alarms_are_paired_by_start_or_else_the_nearest_that_overlaps(
    live: list[Alarm], now: list[Alarm], expected: list[tuple[str, int | None, int | None]]
) -> None:
    assert changes(live, now) == expected


def test_changes_come_by_their_first_update_and_then_by_key() -> None:
    live = [alarm(9, rule="b"), alarm(3, 4, rule="c")]
    now = [alarm(9, rule="a"), alarm(5, rule="b"), alarm(3, 4, rule="c")]
    assert [(one.about.rule, one.what) for one in alarm_changes(live, now)] == [
        ("c", "same"), ("b", "earlier"), ("a", "new"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("live", "now", "what"),
    [
        (alarm(3, 8, "warning"), alarm(4, 8, "critical"), "later"),
        (alarm(3, 8, "warning"), alarm(3, 9, "critical"), "worse"),
        (alarm(3, 8, "critical"), alarm(3, 9, "warning"), "milder"),
        (alarm(3, 8), alarm(3, 9), "longer"),
        (alarm(3, 8), alarm(3, 7), "shorter"),
    ],
)
def test_the_first_of_several_differences_names_a_change(live: Alarm, now: Alarm, what: str) -> None:
    assert [one.what for one in alarm_changes([live], [now])] == [what]


def test_a_change_is_about_the_alarm_now_or_the_one_that_is_gone() -> None:
    one, other = alarm(1), alarm(2)
    assert AlarmChange("later", one, other).about is other
    assert AlarmChange("gone", one, None).about is one
    with pytest.raises(ValueError, match="without an alarm"):
        _ = AlarmChange("odd", None, None).about


def test_alarms_of_findings_end_before_the_update_that_cleared_them() -> None:
    said = [finding(1, "warning"), finding(2, "critical", metric="a"), finding(3, "critical"), finding(5, "ok"),
            finding(5, "ok", metric="a"), finding(5, "warning")]  # fmt: skip
    assert alarms_of(said) == [
        Alarm("r", "run", "m", "critical", 1, 4), Alarm("r", "run", "a", "critical", 2, 4),
        Alarm("r", "run", "m", "warning", 5, None),
    ]  # fmt: skip
    assert alarms_of([]) == []


def test_thresholds_that_differ_are_named_with_both_values() -> None:
    stored: dict[str, dict[str, object]] = {"a": {"x": 1, "y": 2}, "gone": {"x": 1}}
    used: dict[str, dict[str, object]] = {"a": {"x": 1.0, "y": 3, "z": 4}, "new": {"x": 5}}
    assert list(changed_thresholds(stored, used)) == [("a.y", 2, 3)]  # what was not stored has not changed


def test_what_only_one_side_found_and_which_rules_did_not_run_live() -> None:
    live = [finding(1, "warning", "kl_spike"), finding(2, "ok", "kl_spike")]
    level = {"update": 2, "level": "DEBUG", "previous": "NORMAL", "rule": "kl_spike", "subject": "run",
             "finding_update": 1, "until": 6}  # fmt: skip
    thresholds = {"kl_spike": DEFAULTS.as_dict()["kl_spike"]}
    recorded = run({"thresholds": thresholds, "rule_revisions": {}}, updates=updates(3),
                   findings=[one.as_row() for one in live], levels=[level])  # fmt: skip
    now = [live[0], finding(1, "critical", "first_ratio")]
    change = LevelChange(2, "DEBUG", "NORMAL", "first_ratio", "run", 1, 6)
    result = Replay(DEFAULTS.assigned("kl_spike.warning=0.07"), findings=now, levels=[change])
    found = what_if(recorded, result, DEFAULTS)
    assert found.thresholds == (("kl_spike.warning", DEFAULTS.as_dict()["kl_spike"]["warning"], 0.07),)
    assert [(one.what, one.about.rule) for one in found.alarms] == [("not live", "first_ratio"), ("longer", "kl_spike")]
    assert (found.findings_now, found.findings_live) == ((now[1],), (live[1],))
    assert (found.levels_now, found.levels_live) == ((change,), (LevelChange(**level),))  # type: ignore[arg-type]
    assert set(found.not_live) == {rule.name for rule in RULES} - {"kl_spike"}


@pytest.mark.parametrize(("ranks", "live"), [(1, True), (2, False), (3, False)])
def test_several_ranks_are_compared_with_a_replay_of_what_they_recorded(ranks: int, live: bool) -> None:
    said = finding(1, "warning", "kl_spike")
    recorded = run(ranks=ranks, updates=updates(3), findings=[said.as_row()])
    found = what_if(recorded, Replay(DEFAULTS), DEFAULTS)
    assert (said in found.findings_live) is live


def test_a_finding_with_another_threshold_is_the_same_and_with_another_value_is_not() -> None:
    live = finding(1, "warning", "kl_spike")
    recorded = run({"rule_revisions": {rule.name: rule.revision for rule in RULES}}, updates=updates(3),
                   findings=[live.as_row()])  # fmt: skip
    moved = Finding(1, "kl_spike", "run", "m", "warning", None, 1.0, 0.5, 0.25, None)
    assert what_if(recorded, Replay(DEFAULTS, findings=[moved]), DEFAULTS).findings_now == ()
    for other in (finding(1, "warning", "kl_spike", value=1.0 + 2**-52), finding(2, "warning", "kl_spike"),
                  finding(1, "critical", "kl_spike"), finding(1, "warning", "kl_spike", "n")):  # fmt: skip
        assert what_if(recorded, Replay(DEFAULTS, findings=[other]), DEFAULTS).findings_now == (other,)
