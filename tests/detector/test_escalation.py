"""Levels in updates: a finding at t puts t+1 … t+k at DEBUG."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.escalation import Escalation, LevelChange
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules import RULES
from tests.detector.batches import judge_cells


def finding(update: int, rule: str = "kl_spike") -> Finding:
    return Finding(update, rule, "run", "kl_k3", "critical", "ok", 1.0, 0.5, None, None)


def levels(base: str, triggers: list[tuple[Finding, int]], updates: int = 20) -> list[str]:
    escalation = Escalation(base)
    found = []
    for update in range(updates):
        found.append(escalation.level_at(update))
        escalation.advance([update], [one for one in triggers if one[0].update == update])
    return found


def test_a_finding_raises_the_next_k_updates() -> None:
    assert levels("NORMAL", [(finding(3), 2)], 8) == ["NORMAL"] * 4 + ["DEBUG"] * 2 + ["NORMAL"] * 2


def test_a_new_finding_extends_to_the_later_end_and_never_shortens() -> None:
    found = levels("NORMAL", [(finding(2), 10), (finding(4), 1), (finding(8), 6)])
    assert found == ["NORMAL"] * 3 + ["DEBUG"] * 12 + ["NORMAL"] * 5


def test_off_stays_off_and_minimal_may_rise() -> None:
    assert set(levels("OFF", [(finding(2), 5)])) == {"OFF"}
    assert levels("MINIMAL", [(finding(2), 1)], 5) == ["MINIMAL"] * 3 + ["DEBUG", "MINIMAL"]


def test_each_change_names_its_cause_and_its_end() -> None:
    escalation = Escalation("NORMAL")
    changes = escalation.advance(list(range(10)), [(finding(2), 3)])
    assert [(c.update, c.previous, c.level, c.rule, c.until) for c in changes] == [
        (3, "NORMAL", "DEBUG", "kl_spike", 5),
        (6, "DEBUG", "NORMAL", None, 6),
    ]


@pytest.mark.parametrize("cut", range(1, 12))
def test_changes_do_not_depend_on_how_updates_are_cut(cut: int) -> None:
    triggers = [(finding(2), 3), (finding(9, "drift"), 1)]
    whole = Escalation("NORMAL").advance(list(range(13)), triggers)
    escalation, parts = Escalation("NORMAL"), []
    for some in (list(range(cut)), list(range(cut, 13))):
        parts += escalation.advance(some, [one for one in triggers if one[0].update in some])
    assert parts == whole


DURATION = {
    **dict.fromkeys(("numerical_instability", "lstm_nonfinite", "frozen_update", "std_nonpositive"), 20),
    **dict.fromkeys(("first_ratio", "kl_spike", "ratio_explosion", "ratio_collapse", "spike_then_silence"), 10),
    **dict.fromkeys(("data_lost", "entropy_low", "lstm_saturation", "mask_collapse", "rank_desync"), 0),
}
"""Updates that an alarm is followed by in detail; 5 for all other rules."""


def alarm_of(rule: Rule) -> tuple[dict[str, Any], int]:
    """Return cells of one subject that end on a warning or worse, and how many updates they are."""
    if rule.name == "mask_collapse":  # information only, unless its number is broken
        return {"learnable_fraction": math.nan, "kind": "categorical"}, 1
    example = next(one for one in rule.examples if one.verdict in ("warning", "critical"))
    return dict(example.cells), example.updates


NO_ALARM = "gradient_drift"
"""The rule that gives information only, on numbers that are not finite too."""


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.name != NO_ALARM], ids=lambda rule: rule.name)
def test_an_alarm_of_each_rule_is_followed_by_detail_for_as_long_as_the_specification_says(rule: Rule) -> None:
    outcome = judge_cells(Detector(rules=[rule]), rule.table, *alarm_of(rule))
    alarm = [one for one in outcome.findings if one.alarm][-1]
    detector = Detector(rules=[rule])
    judge_cells(detector, rule.table, *alarm_of(rule))
    duration = DURATION.get(rule.name, 5)
    raised = [detector.escalation.level_at(alarm.update + later) == "DEBUG" for later in range(1, 30)]
    assert raised == [True] * duration + [False] * (29 - duration)


def test_a_level_in_effect_survives_a_checkpoint() -> None:
    escalation = Escalation("NORMAL")
    escalation.advance([2, 3], [(finding(2), 4)])
    later = Escalation("NORMAL")
    later.load_state_dict(escalation.state_dict())
    assert [later.level_at(update) for update in (5, 6, 7)] == ["DEBUG", "DEBUG", "NORMAL"]
    (change,) = later.advance([4, 5, 6, 7], [])
    assert (change.update, change.level, change.previous, change.rule) == (7, "NORMAL", "DEBUG", None)
    later = Escalation("NORMAL")
    later.load_state_dict(escalation.state_dict())
    assert later.advance([4, 5, 6], [(finding(5, "drift"), 1)]) == []
    assert later.level_at(7) == "NORMAL"


@pytest.mark.parametrize("seed", range(30))
def test_the_level_of_each_update_is_debug_as_long_as_an_earlier_finding_asks_for_it(seed: int) -> None:
    """Findings at any of the updates, which have gaps; cut in any way; changes are where the level differs."""
    rng = random.Random(seed)
    base = rng.choice(["MINIMAL", "NORMAL", "OFF"])
    updates = sorted(rng.sample(range(40), 25))
    triggers = [(finding(at, f"rule{at}"), rng.choice([0, 1, 2, 3, 9])) for at in sorted(rng.choices(updates, k=6))]

    def level(update: int) -> str:
        raised = any(one.update < update <= one.update + duration for one, duration in triggers)
        return "DEBUG" if raised and base != "OFF" else base

    expected, before = [], base
    for update in updates:
        if level(update) != before:
            expected.append((update, level(update), before))
            before = level(update)
    for parts in ([updates], [[one] for one in updates], [updates[:7], [], updates[7:8], updates[8:]]):
        escalation, changes = Escalation(base), []
        for part in parts:
            if part:
                assert escalation.level_at(part[0]) == level(part[0])
            mine = [one for one in triggers if one[0].update in part]
            changes += escalation.advance(part, rng.sample(mine, len(mine)))
        assert [(one.update, one.level, one.previous) for one in changes] == expected
        check_causes(changes, base, triggers)


def check_causes(changes: list[LevelChange], base: str, triggers: list[tuple[Finding, int]]) -> None:
    """Each rise names the finding that asks for it longest, and its end; each fall nothing but itself."""
    for change in changes:
        named = (change.rule, change.subject, change.finding_update, change.until)
        if change.level == base:
            assert named == (None, None, None, change.update)
            continue
        asked = [(one.update + more, one) for one, more in triggers if one.update < change.update <= one.update + more]
        until = max(last for last, _ in asked)
        cause = next(one for last, one in asked if last == until)
        assert named == (cause.rule, "run", cause.update, until)
