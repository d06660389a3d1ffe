"""Thresholds from text and tables: what exists and fits is taken, everything else is refused with a way out."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import pytest

from esper_analyze.detector.page import rule_facts, rules_page
from esper_analyze.detector.rule import Example, Rule
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


AT_LEAST_ONE = {
    "advantage_misaligned.info": None, "advantage_misaligned.often": None, "advantage_misaligned.least": None,
    "advantage_misaligned.learnt": None, "critic_not_learning.sustained": None,
    "setting_changed.constant": None, "optimizer_restarted.often": None, "ends_ignored.episodes": None,
    "advantage_inconsistent.updates": None, "returns_inconsistent.updates": None, "returns_inconsistent.ends": None,
    "losses_inconsistent.updates": None, "losses_inconsistent.sustained": None, "parameters_changed.updates": None,
    "parameters_changed.often": None, "episodes_stopped.updates": None, "entropy_rises.start_updates": None,
    **{f"{name}.sustained": None for name in (
        "frozen_update", "clip_saturation", "advantage_collapse", "value_collapse", "value_divergence",
        "gradient_vanishing", "gradient_drift", "clipping_always", "slot_gradient_vanishing", "seed_dormant",
        "host_dominating", "advantage_misaligned", "environments_alike", "entropy_rises",
        "entropy_stuck", "eval_apart", "std_collapse",
    )},
    **{f"{name}.early_updates": None for name in (
        "advantage_collapse", "critic_not_learning", "value_divergence", "gradient_explosion", "gradient_vanishing",
        "clipping_always", "lstm_explosion",
    )},
    **{f"{name}.window_hits": None for name in (
        "kl_spike", "ratio_explosion", "ratio_collapse", "gradient_explosion", "lstm_explosion",
        "slot_gradient_explosion",
    )},
    **{f"{name}.window": 51 for name in (
        "kl_spike", "ratio_explosion", "ratio_collapse", "gradient_explosion", "lstm_explosion",
        "slot_gradient_explosion",
    )},
    **{f"{rule.name}.clear_after": 51 for rule in RULES},
    **dict.fromkeys((
        "kl_spike.target_updates", "kl_spike.log_hits", "spike_then_silence.updates",
        "spike_then_silence.reach", "gradient_drift.warmup",
        "head_entropy_collapse.warning_updates", "head_entropy_collapse.critical_updates",
        "critic_constant.warning_updates", "critic_constant.critical_updates", "update_skipped.critical_updates",
        "value_collapse.least_updates", "frozen_update.moved", "advantage_collapse.rewarded",
        "gradient_vanishing.some_sustained", "gradient_stopped.steady", "gradient_stopped.still",
    )),
}  # fmt: skip
"""Numbers of updates without which a rule would alarm at nothing, and from which on there are too many to carry."""
FACTORS = (
    "value_divergence.nrmse_factor", "value_divergence.bellman_factor", "value_divergence.critical_factor",
    "value_divergence.loss_factor",
    "gradient_explosion.warning", "gradient_explosion.critical", "clipping_always.warning_rise",
    "clipping_always.critical_rise", "advantage_collapse.gap", "lstm_explosion.one_environment", "setting_changed.rise",
    "observations_changed.scale", "entropy_rises.factor",
    "episodes_stopped.times", "std_runaway.warning", "std_runaway.critical",
)  # fmt: skip
"""Multiples of a level: below 1 what is usual would be an alarm."""
SHARES = (
    "advantage_collapse.narrow", "advantage_collapse.critical", "critic_constant.spread",
    "critic_constant.band", "critic_not_learning.spread", "critic_not_learning.error", "value_collapse.spread",
    "critic_not_learning.nothing",
    "value_fit_lost.spread", "value_fit_lost.fall", "value_fit_lost.errors", "value_fit_lost.rise",
    "value_divergence.nrmse_floor", "gradient_vanishing.warning", "gradient_vanishing.critical",
    "gradient_vanishing.faded", "gradient_vanishing.error",
    "gradient_vanishing.entropy", "gradient_vanishing.choice", "gradient_drift.noise",
    "gradient_drift.momentum", "slot_gradient_explosion.warning", "slot_gradient_explosion.critical",
    "slot_gradient_vanishing.warning", "slot_gradient_vanishing.critical", "host_dominating.host_norm",
    "performance_degradation.info", "performance_degradation.warning", "performance_degradation.critical",
    "performance_degradation.noise", "rank_desync.warning", "rank_desync.critical", "first_ratio.warning",
    "first_ratio.critical", "kl_spike.warning", "kl_spike.alone", "kl_spike.critical", "kl_spike.target_factor",
    "spike_then_silence.spike", "ratio_explosion.warning", "ratio_explosion.critical", "clip_saturation.warning",
    "clip_saturation.critical", "advantage_outlier.info", "advantage_outlier.warning", "gradient_drift.info",
    "clipping_always.fraction", "kl_spike.usual", "clip_saturation.moved", "frozen_update.moving",
    "lstm_explosion.growth", "value_collapse.worse", "lstm_explosion.info", "lstm_explosion.warning",
    "lstm_explosion.critical", "lstm_saturation.info", "entropy_rises.least", "eval_apart.share",
    "frozen_update.logged_still",
    "setting_changed.change", "setting_changed.ended",
    "setting_changed.fall", "setting_changed.discount", "optimizer_restarted.lost", "returns_inconsistent.exact",
    "returns_inconsistent.broken", "returns_inconsistent.continued", "returns_inconsistent.gamma",
    "returns_inconsistent.rounding", "losses_inconsistent.exact", "losses_inconsistent.broken",
    "losses_inconsistent.same", "losses_inconsistent.other", "losses_inconsistent.never", "parameters_changed.rounding",
    "observations_changed.least", "observations_changed.peaks", "observations_changed.spread",
    "observations_changed.constant", "observations_changed.far", "value_divergence.spread", "gradient_vanishing.spread",
    "std_runaway.wide", "std_runaway.rising", "std_collapse.warning", "std_collapse.critical", "std_collapse.quick",
    "policy_replaced.steps", "policy_replaced.least", "policy_replaced.moved", "policy_replaced.peaks",
)  # fmt: skip
"""Bounds on what is never below 0."""


def ranges() -> list[tuple[str, float, float | None, float]]:
    """Return each threshold that has a range: its least number, the first that is too large, and the next below."""
    found: list[tuple[str, float, float | None, float]] = [(n, 1, most, 0) for n, most in AT_LEAST_ONE.items()]
    found += [(name, 1.0, None, math.nextafter(1.0, 0.0)) for name in FACTORS]
    found += [(name, 0.0, 1.0 if name.endswith("momentum") else None, -5e-324) for name in SHARES]
    found += [(f"{rule.name}.escalate", 0, None, -1) for rule in RULES]
    found.append(("value_collapse.warmup_updates", 0, None, -1))
    return [
        *found,
        ("value_collapse.early_updates", 0, None, -1),
        ("critic_not_learning.after", 20, None, 19),
        ("critic_not_learning.after_in_log", 20, None, 19),
        ("episodes_stopped.ends", 2, None, 1),
    ]


@pytest.mark.parametrize(("name", "least", "most", "below"), ranges(), ids=[one[0] for one in ranges()])
def test_a_threshold_takes_its_whole_range_and_nothing_beyond(
    defaults: Thresholds, name: str, least: float, most: float | None, below: float
) -> None:
    rule, _, field = name.partition(".")
    largest = 1e6 if most is None else most - 1 if isinstance(least, int) else math.nextafter(most, 0.0)
    for number in (least, largest):
        assert getattr(defaults.changed(rule, field, number)[rule], field) == number
    for number in (below, *(() if most is None else (most,))):
        with pytest.raises(ThresholdError, match="must be a"):
            defaults.changed(rule, field, number)


def test_a_recorded_number_below_a_least_that_was_declared_later_is_read(defaults: Thresholds) -> None:
    stored = defaults.merged({"kl_spike": {"warning": -1.0}}, recorded=True)
    assert stored["kl_spike"].warning == -1.0  # type: ignore[attr-defined]
    with pytest.raises(ThresholdError, match="must be a whole number"):
        defaults.merged({"kl_spike": {"window": 0}}, recorded=True)


def test_a_recorded_threshold_that_its_rule_no_longer_has_is_left_out(defaults: Thresholds) -> None:
    stored = {"entropy_collapse": {"fast_updates": 25, "warning": 0.05}}
    read = defaults.merged(stored, recorded=True)
    assert read.as_dict() == defaults.assigned("entropy_collapse.warning=0.05").as_dict()
    with pytest.raises(ThresholdError, match="rule entropy_collapse has no threshold 'fast_updates'"):
        defaults.merged(stored)


def test_any_other_threshold_takes_any_number(defaults: Thresholds) -> None:
    ranged = {one[0] for one in ranges()}
    free = [
        (rule.name, one.name)
        for rule in RULES
        for one in fields(rule.limits)
        if f"{rule.name}.{one.name}" not in ranged
    ]
    assert len(free) + len(ranged) == sum(len(rule.limits.sources()) for rule in RULES)
    for rule, name in free:
        if name != "per_head":
            declared = next(one.metadata for one in fields(defaults[rule]) if one.name == name)
            limited = declared["at_least"] is not None or declared["below"] is not None
            assert not limited, f"name {rule}.{name} in AT_LEAST_ONE, FACTORS or SHARES above"
            assert getattr(defaults.changed(rule, name, -1e9)[rule], name) == -1e9


@pytest.mark.parametrize(
    ("assignments", "rules"),
    [
        ((), []),
        (("kl_spike.warning=0.5",), []),  # both at once: critical
        (("kl_spike.warning=0.6",), ["kl_spike"]),
        (("kl_spike.critical=0.05",), ["kl_spike"]),
        (("ratio_collapse.warning=0.001",), ["ratio_collapse"]),  # critical is below the warning
        (("ratio_collapse.warning=0.01",), []),
        (("ratio_collapse.critical=0.2", "kl_spike.warning=9"), ["kl_spike", "ratio_collapse"]),
    ],
)
def test_a_warning_beyond_its_critical_is_named(
    defaults: Thresholds, assignments: tuple[str, ...], rules: list[str]
) -> None:
    for one in assignments:
        defaults = defaults.assigned(one)
    assert [sentence.partition(".")[0] for sentence in defaults.crossed()] == rules


def test_thresholds_of_rules_that_are_not_known_yet_are_their_defaults(defaults: Thresholds) -> None:
    first, second = RULES[:2]
    known = Thresholds.defaults([first]).changed(first.name, "escalate", 7)
    both = known.completed([first, second])
    assert both.as_dict() == {first.name: known.as_dict()[first.name], second.name: defaults.as_dict()[second.name]}


def test_the_rules_page_shows_cells_shortly_and_names_what_a_rule_hangs_together_with() -> None:
    first_ratio = next(rule for rule in RULES if rule.name == "first_ratio")
    examples = (
        Example("repeated", "ok", {"a": 0.5, "b": None}, updates=3),
        Example("single", "ok", {"a": "word"}),
        Example("five alike", "warning", {"a": [1.0] * 5}),
        Example("four alike", "warning", {"a": [1.0] * 4}),
        Example("five, one odd", "warning", {"a": [1.0] * 4 + [None]}),
        Example("a ramp", "warning", {"a": [index / 3 for index in range(61)]}, updates=61),
    )
    lonely = replace(first_ratio, examples=examples, causes=(), follows=())
    page = rules_page([lonely])
    for title, cells in (
        ("repeated | ok", "a = 0.5, b = null (3 updates)"),
        ("single | ok", "a = word"),
        ("five alike | warning", "a = 1.0 throughout"),
        ("four alike | warning", "a = 1.0, 1.0, 1.0, 1.0"),
        ("five, one odd | warning", "a = 1.0, 1.0, 1.0, 1.0, null"),
    ):
        assert f"| {title} | {cells} |" in page.splitlines()
    assert "Shown as a consequence of" not in page
    assert "Can follow from" not in page
    tied = rules_page([replace(lonely, causes=("kl_spike", "x"), follows=("y",))]).splitlines()
    assert "Shown as a consequence of: kl_spike, x." in tied
    assert "Can follow from: y." in tied
    assert f"| warning | 0.0001 | {first_ratio.limits.sources()['warning']} |" in tied
