"""Stopping policies: how they are written, and how long a verdict must last."""

from __future__ import annotations

import pytest

from esper_analyze.detector.findings import Finding
from esper_analyze.detector.stop_policy import StopCondition, StopPolicy
from esper_analyze.errors import UsageError

RULES = ("kl_spike", "ratio_explosion")


def finding(update: int, verdict: str, rule: str = "kl_spike", subject: str = "run") -> Finding:
    return Finding(update, rule, subject, "kl_k3", verdict, None, 1.0, 0.5, None, None)


def test_a_policy_is_read_as_it_is_written_again() -> None:
    policy = StopPolicy.parsed(["kl_spike", "ANY:warning  for 3 ; ratio_explosion:critical"], RULES)
    assert policy.conditions == (
        StopCondition("kl_spike", "critical", 1),
        StopCondition("any", "warning", 3),
        StopCondition("ratio_explosion", "critical", 1),
    )
    assert StopPolicy.parsed(str(policy), RULES).conditions == policy.conditions


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kl_spik:critical", "did you mean 'kl_spike'"),
        ("kl_spike:bad", "is not warning or critical"),
        ("kl_spike:critical for 0", "At least 1"),
        ("kl_spike critical", "is not a condition"),
        ("kl_spike:critical for many", "is not a condition"),
    ],
)
def test_a_wrong_condition_is_refused_with_what_is_expected(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        StopPolicy.parsed(text, RULES)


def test_a_verdict_must_last_and_what_cannot_be_judged_neither_ends_nor_shortens_it() -> None:
    policy = StopPolicy.parsed("kl_spike:critical for 3", RULES)
    course = [[finding(0, "critical")], [finding(1, "warning")], [finding(2, "critical")], [finding(3, "no_data")], []]
    stops = [policy.take(update, findings) is not None for update, findings in enumerate(course)]
    assert stops == [False, False, False, False, True]
    assert policy.decision is not None
    assert policy.decision.reason == "kl_spike:critical for 3: kl_spike at update 4"
    assert policy.take(5, [finding(5, "ok")]) is policy.decision


def test_subjects_are_apart_and_any_is_every_rule() -> None:
    policy = StopPolicy.parsed("any:warning for 2", RULES)
    assert policy.take(0, [finding(0, "warning", subject="a")]) is None
    assert policy.take(1, [finding(1, "ok", subject="a"), finding(1, "critical", "ratio_explosion", "b")]) is None
    decision = policy.take(2, [])
    assert decision is not None
    assert (decision.rule, decision.subject) == ("ratio_explosion", "b")


def test_what_stands_goes_through_a_checkpoint() -> None:
    before, after = (StopPolicy.parsed("kl_spike for 3", RULES) for _ in range(2))
    before.take(0, [finding(0, "critical")])
    after.load_state_dict(before.state_dict())
    assert [after.take(1, []), after.take(2, []) is not None] == [None, True]
