"""Levels in updates: a finding at t puts t+1 … t+k at DEBUG."""

from __future__ import annotations

import pytest

from esper_analyze.detector.escalation import Escalation
from esper_analyze.detector.findings import Finding


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
