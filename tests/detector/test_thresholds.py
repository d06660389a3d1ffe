"""Thresholds from text and tables: what exists and fits is taken, everything else is refused with a way out."""

from __future__ import annotations

import json
import math

import pytest

from esper_analyze.detector.page import rule_facts, rules_page
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import ThresholdError, Thresholds
from esper_analyze.detector.toml import thresholds_from_toml, thresholds_to_toml


@pytest.fixture
def defaults() -> Thresholds:
    return Thresholds.defaults(RULES)


def test_an_assignment_changes_one_field_and_nothing_else(defaults: Thresholds) -> None:
    changed = defaults.assigned("kl_spike.warning=0.05").as_dict()
    assert changed["kl_spike"].pop("warning") == 0.05
    rest = defaults.as_dict()
    rest["kl_spike"].pop("warning")
    assert changed == rest


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("kl_spik.warning=1", "there is no rule 'kl_spik'; did you mean 'kl_spike'?"),
        ("kl_spike.warnin=1", "rule kl_spike has no threshold 'warnin'; did you mean 'warning'?"),
        ("kl_spike.warning=high", "kl_spike.warning must be a finite number, not 'high'"),
        ("kl_spike.warning=nan", "kl_spike.warning must be a finite number, not nan"),
        ("kl_spike.window_hits=1.5", "kl_spike.window_hits must be a whole number of at least 1, not 1.5"),
        ("kl_spike.window_hits=-1", "kl_spike.window_hits must be a whole number of at least 1, not -1"),
        ("kl_spike.window=0", "kl_spike.window must be a whole number of at least 1 and below 51, not 0"),
        ("kl_spike.window=51", "kl_spike.window must be a whole number of at least 1 and below 51, not 51"),
        ("kl_spike.escalate=-1", "kl_spike.escalate must be a whole number of at least 0, not -1"),
        ("gradient_drift.momentum=1", "gradient_drift.momentum must be a number of at least 0 and below 1, not 1"),
        ("gradient_drift.warmup=0", "gradient_drift.warmup must be a whole number of at least 1, not 0"),
        ("kl_spike.warning=True", "kl_spike.warning must be a finite number, not 'True'"),
        ("kl_spike", "'kl_spike' is not of the form rule.field=value"),
        ("=1", "'=1' is not of the form rule.field=value"),
    ],
)
def test_a_bad_assignment_is_refused_in_words(defaults: Thresholds, assignment: str, message: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        defaults.assigned(assignment)
    assert str(caught.value) == message


def test_a_flag_is_no_number(defaults: Thresholds) -> None:
    with pytest.raises(ThresholdError, match="must be a finite number, not True"):
        defaults.changed("kl_spike", "warning", True)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.confirmed_by], ids=lambda rule: rule.name)
def test_a_trouble_cannot_be_confirmed_by_no_update_at_all(defaults: Thresholds, rule: Rule) -> None:
    with pytest.raises(ThresholdError, match="at least 1"):
        defaults.changed(rule.name, str(rule.confirmed_by), 0)


def test_thresholds_stored_before_a_field_existed_take_its_default(defaults: Thresholds) -> None:
    stored = changed = defaults.assigned("kl_spike.warning=0.07").as_dict()
    del stored["kl_spike"]["window"]
    assert defaults.merged(stored).as_dict() == {**changed, "kl_spike": {**changed["kl_spike"], "window": 5}}


def test_thresholds_survive_json(defaults: Thresholds) -> None:
    changed = defaults.assigned("value_collapse.mid=-0.1").changed("head_entropy_collapse", "per_head", {"op": 0.2})
    back = defaults.merged(json.loads(json.dumps(changed.as_dict())))
    assert back.as_dict() == changed.as_dict()


def test_a_table_with_a_wrong_shape_is_refused(defaults: Thresholds) -> None:
    with pytest.raises(ThresholdError, match="kl_spike must be a table of thresholds, not 3"):
        defaults.merged({"kl_spike": 3})
    with pytest.raises(ThresholdError, match="per_head must be a table"):
        defaults.merged({"head_entropy_collapse": {"per_head": 0.1}})
    with pytest.raises(ThresholdError, match=r"per_head\.op must be a finite number"):
        defaults.merged({"head_entropy_collapse": {"per_head": {"op": math.inf}}})


def test_thresholds_survive_toml(defaults: Thresholds) -> None:
    changed = defaults.assigned("kl_spike.warning=0.07").changed("head_entropy_collapse", "per_head", {'a"b': 0.2})
    back = thresholds_from_toml(thresholds_to_toml(changed, RULES), defaults)
    assert back.as_dict() == changed.as_dict()


def test_bad_toml_is_refused_in_words(defaults: Thresholds) -> None:
    with pytest.raises(ThresholdError, match="not TOML"):
        thresholds_from_toml("[kl_spike", defaults)
    with pytest.raises(ThresholdError, match="did you mean 'kl_spike'"):
        thresholds_from_toml("[kl_spiks]\nwarning = 1", defaults)


def test_the_rules_page_names_every_rule_threshold_and_example() -> None:
    page = rules_page(RULES)
    for rule in RULES:
        assert f"## {rule.name}: {rule.title}" in page
        for example in rule.examples:
            assert f"| {example.title} | {example.verdict} |" in page
        for name in rule.limits.sources():
            assert f"| {name} | " in page
        json.dumps(rule_facts(rule))
