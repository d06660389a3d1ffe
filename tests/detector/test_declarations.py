"""What rules declare about themselves: other parts of the program, and recorded runs, rely on it."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from esper_analyze.detector.page import rule_facts, rules_page
from esper_analyze.detector.rule import VERDICT, Example, Limits, Rule, Sign, Statistic, limit, revisions
from esper_analyze.detector.rules import RULES, rules_over, shaded_in
from esper_analyze.detector.thresholds import ThresholdError, Thresholds
from esper_analyze.detector.toml import thresholds_from_toml, thresholds_to_toml

BY_RULE = {rule.name: rule for rule in RULES}
REVISED = {
    "observations_changed": (2, {"threshold", VERDICT}),
    "parameters_changed": (2, {"threshold", VERDICT}),
    "advantage_inconsistent": (2, {"threshold", VERDICT}),
    "losses_inconsistent": (2, {"threshold", VERDICT}),
    "policy_replaced": (2, {"threshold", VERDICT}),
    "lstm_saturation": (4, {VERDICT}),
    "setting_changed": (4, {VERDICT}),
    "returns_inconsistent": (3, {"threshold", "baseline", VERDICT}),
    "kl_spike": (2, {"threshold", VERDICT}),
    "numerical_instability": (2, {"value", VERDICT}),
    "ratio_explosion": (2, {VERDICT}),
    "ratio_collapse": (2, {VERDICT}),
    "clip_saturation": (4, {VERDICT}),
    "gradient_explosion": (3, {"threshold", "baseline", VERDICT}),
    "gradient_drift": (2, {"threshold", VERDICT}),
    "lstm_explosion": (4, {"threshold", "baseline", VERDICT}),
    "frozen_update": (5, {"value", "threshold", VERDICT}),
    "entropy_collapse": (3, {VERDICT}),
    "head_entropy_collapse": (4, {"threshold", VERDICT}),
    "advantage_collapse": (6, {"threshold", VERDICT}),
    "value_collapse": (4, {"threshold", VERDICT}),
    "advantage_outlier": (2, {"threshold"}),
    "critic_constant": (5, {"value", VERDICT}),
    "critic_not_learning": (7, {"value", VERDICT}),
    "gradient_vanishing": (6, {"value", "threshold", VERDICT}),
    "value_divergence": (4, {"threshold", "baseline", VERDICT}),
    "advantage_misaligned": (4, {VERDICT}),
    "clipping_always": (4, {"value", "threshold", "baseline", VERDICT}),
    "slot_gradient_explosion": (2, {"value"}),
    "update_skipped": (2, {"value"}),
    "environments_alike": (2, {VERDICT}),
    "value_fit_lost": (2, {VERDICT}),
    "gradient_stopped": (2, {VERDICT}),
    "eval_apart": (2, {VERDICT}),
    "performance_degradation": (5, {"value", "threshold", "baseline", VERDICT}),
}
"""The revisions that recorded runs name. One that changes makes ``replay --verify`` compare less of them."""


def test_a_revision_is_that_which_recorded_runs_name() -> None:
    assert revisions(RULES) == {name: number for name, (number, _) in REVISED.items()}
    for rule in RULES:
        assert (rule.revision, set(rule.restated)) == REVISED.get(rule.name, (1, set()))
    assert revisions([]) == {}


def test_a_rule_s_statistic_reaches_as_far_back_as_its_window_and_the_updates_until_it_is_taken_again() -> None:
    medians = dict.fromkeys(("critic_not_learning", "clipping_always"), 50 + 20)
    means = {"performance_degradation": 20, "value_fit_lost": 3 + 20, "advantage_misaligned": 10}
    assert {rule.name: rule.reach for rule in RULES if rule.reach} == medians | means


def test_the_lower_a_value_the_worse_of_exactly_these_rules() -> None:
    assert {rule.name for rule in RULES if not rule.higher_is_worse} == {
        "spike_then_silence",
        "frozen_update",
        "entropy_low",
        "entropy_collapse",
        "eval_apart",
        "ratio_collapse",
        "mask_collapse",
        "head_entropy_collapse",
        "advantage_collapse",
        "critic_constant",
        "critic_not_learning",
        "value_collapse",
        "lstm_vanishing",
        "seed_dormant",
        "host_dominating",
        "performance_degradation",
        "advantage_inconsistent",
        "environments_alike",
        "std_nonpositive",
        "std_collapse",
    }
    assert {rule.name for rule in RULES if rule.optional} == {
        "std_nonpositive",
        "std_runaway",
        "std_collapse",
        "observations_changed",
        "parameters_changed",
        "losses_inconsistent",
        "optimizer_restarted",
        "ends_ignored",
        "returns_inconsistent",
        "advantage_inconsistent",
        "environments_alike",
        "episodes_stopped",
    }
    assert {rule.name for rule in RULES if rule.finiteness} == {"numerical_instability", "lstm_nonfinite"}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (("heads", "groups"), ["exploding", "deterministic", "vanishing", "dead"]),
        (("lstm",), ["exploding", "exploding", "vanishing", "saturated"]),
    ],
)
def test_of_several_signs_the_worse_one_is_shown(tables: tuple[str, ...], words: list[str]) -> None:
    signed = [rule for rule in RULES if rule.sign is not None and rule.table in tables]
    ordered = sorted(signed, key=lambda rule: rule.sign_order)
    assert [rule.sign.word for rule in ordered if rule.sign] == words
    assert len({rule.sign_order for rule in signed}) == len(signed)


def test_a_sign_is_its_mark_and_its_word() -> None:
    assert str(Sign("▲", "exploding", "critical", "why")) == "▲ exploding"


def test_rules_by_table_and_by_panel() -> None:
    assert rules_over("lstm") == ("lstm_nonfinite", "lstm_explosion", "lstm_vanishing", "lstm_saturation")
    assert rules_over("ranks") == ("rank_desync",)
    assert rules_over("layers") == ()
    assert shaded_in("value.explained") == ("value_fit_lost", "critic_constant", "value_collapse")
    assert shaded_in("policy.kl") == ("kl_spike", "spike_then_silence", "frozen_update")
    assert shaded_in("value") == ()


OWN = Rule(
    name="own",
    table="updates",
    columns=("kl_k3", "entropy"),
    limits=Limits,
    judge=BY_RULE["kl_spike"].judge,
    title="A title",
    meaning="A meaning.",
    look_first="The first thing",
    reference="A source",
    beside={"heads": ("entropy",), "groups": ("health", "tensors")},
    meanings={"entropy": "Another meaning."},
    statistics={"kl_k3": Statistic("|kl_k3|", "nats")},
    examples=(
        Example("alone", "ok", {"kl_k3": 0.25}),
        Example("twice", "warning", {"kl_k3": 0.123456, "entropy": None}, updates=2),
        Example("six", "ok", {"kl_k3": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}),
        Example("seven", "ok", {"kl_k3": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.1234]}),
        Example("five alike", "ok", {"kl_k3": [0.5] * 5, "entropy": True}),
        Example("large", "ok", {"kl_k3": 12345.6789, "entropy": 7}),
    ),
)
PAGE = """\
## own: A title

A meaning.

Look first at: The first thing

Reads `updates.kl_k3`, `updates.entropy`.
Judges, of `kl_k3`: |kl_k3|.
Reference: A source.

| threshold | default | source |
|---|---|---|
| escalate | 5 | 5 updates of detail unless the rule asks for more (set by design) |
| clear_after | 5 | recorded runs: most repeated incidents were a single fault that flapped |

| example | verdict | cells |
|---|---|---|
| alone | ok | kl_k3 = 0.25 |
| twice | warning | kl_k3 = 0.1235, entropy = null (2 updates) |
| six | ok | kl_k3 = 1.0, 2.0, 3.0, 4.0, 5.0, 6.0 |
| seven | ok | kl_k3 = 1.0, 2.0, 3.0, 4.0, …, 0.1234 |
| five alike | ok | kl_k3 = 0.5 throughout, entropy = True |
| large | ok | kl_k3 = 1.235e+04, entropy = 7 |

"""


def test_the_page_of_one_rule_to_the_letter() -> None:
    assert rules_page([OWN]) == PAGE
    assert rules_page([OWN, OWN]) == PAGE[:-1] + "\n" + PAGE
    assert rules_page([replace(OWN, causes=("a", "b"), follows=("c",))]).splitlines()[7:9] == [
        "Shown as a consequence of: a, b.",
        "Can follow from: c.",
    ]


def test_a_rule_as_plain_data() -> None:
    facts = rule_facts(replace(OWN, causes=("a",), follows=("b",)))
    assert facts == {
        "rule": "own",
        "title": "A title",
        "meaning": "A meaning.",
        "look_first": "The first thing",
        "reference": "A source",
        "table": "updates",
        "columns": ["kl_k3", "entropy"],
        "causes": ["a"],
        "follows": ["b"],
        "statistics": {
            "kl_k3": {"name": "|kl_k3|", "unit": "nats", "baseline": "its own earlier level", "column": None}
        },
        "thresholds": {"escalate": 5, "clear_after": 5},
        "sources": Limits.sources(),
        "examples": [asdict(example) for example in OWN.examples],
    }


def test_names_of_a_rule_s_columns_meanings_and_statistics() -> None:
    assert OWN.columns_beside == ("heads.entropy", "groups.health", "groups.tensors")
    assert [OWN.meaning_of(metric) for metric in ("kl_k3", "entropy")] == ["A meaning.", "Another meaning."]
    assert OWN.statistic("kl_k3") == Statistic("|kl_k3|", "nats")
    assert OWN.statistic("entropy") == Statistic("entropy", "", "its own earlier level", "entropy")


def test_thresholds_as_toml_to_the_letter() -> None:
    rule = BY_RULE["head_entropy_collapse"]
    changed = Thresholds.defaults([rule]).changed(rule.name, "per_head", {"op": 0.25, 'a"b': 1})
    lines = thresholds_to_toml(changed, [rule]).split("\n")
    assert lines[:2] == ["# A head collapsed", "[head_entropy_collapse]"]
    assert "threshold = 0.1  # for heads without a threshold of their own (set by design)" in lines
    assert 'per_head = {"op" = 0.25, "a\\"b" = 1.0}  # single heads in place of the default' in lines
    assert "warning_updates = 3  # 3 updates in a row (set by design)" in lines
    assert lines[-1] == ""
    assert thresholds_from_toml("\n".join(lines), Thresholds.defaults([rule])).as_dict() == changed.as_dict()


def test_a_declared_threshold_carries_its_range_and_its_source() -> None:
    for default, given, least in ((3, None, 0), (3, 1, 1), (0.5, None, None), (0.5, 0.0, 0.0)):
        made = limit(default, "why", at_least=given)
        assert made.default == default
        assert dict(made.metadata) == {"source": "why", "at_least": least, "below": None}
    one, other = (limit({"a": 1.0}, "why").default_factory() for _ in range(2))
    assert one == other == {"a": 1.0}
    assert limit(3, "why", below=9).metadata["below"] == 9


@pytest.mark.parametrize(
    ("value", "stored"), [(7, 7), (7.0, 7), ("8", None), (7.5, None), (-1, None), (None, None), ([7], None)]
)
def test_a_whole_number_is_stored_as_one(value: object, stored: int | None) -> None:
    defaults = Thresholds.defaults([BY_RULE["kl_spike"]])
    if stored is None:
        with pytest.raises(ThresholdError):
            defaults.changed("kl_spike", "escalate", value)
    else:
        limits = defaults.changed("kl_spike", "escalate", value)["kl_spike"]
        assert limits.escalate == stored
        assert type(limits.escalate) is int


def test_assignments_are_read_as_numbers_around_spaces() -> None:
    defaults = Thresholds.defaults([BY_RULE["kl_spike"], BY_RULE["value_collapse"]])
    for text, value in (
        ("kl_spike.warning = 1e-3", 1e-3),
        (" kl_spike.warning=2", 2.0),
        ("value_collapse.mid=-.5 ", -0.5),
    ):
        rule, _, name = text.strip().partition("=")[0].strip().partition(".")
        assert getattr(defaults.assigned(text)[rule], name) == value
    for text in ("kl_spike.warning", "kl_spike=1", "warning=1", ""):
        with pytest.raises(ThresholdError, match="is not of the form"):
            defaults.assigned(text)


def test_a_warning_beyond_its_critical_is_named_with_both() -> None:
    crossed = Thresholds.defaults(RULES).assigned("kl_spike.warning=0.75").assigned("lstm_vanishing.critical=0.5")
    assert crossed.crossed() == [
        "kl_spike.warning = 0.75 lies beyond kl_spike.critical = 0.5",
        "lstm_vanishing.warning = 0.0001 lies beyond lstm_vanishing.critical = 0.5",
    ]
