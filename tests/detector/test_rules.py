"""Every rule's own examples, and law 6: not applicable, then missing, then non-finite, then bounds."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from esper_analyze.detector.detector import Detector, Outcome
from esper_analyze.detector.rule import Example, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Batch
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Verdict
from esper_analyze.schema import BY_NAME, Kind
from tests.detector.batches import judge_cells

EXAMPLES = [(rule, example) for rule in RULES for example in rule.examples]


def worst_last(rule: Rule, outcome: Outcome) -> str:
    """Return the verdict the last update ends on: the worst over metrics; missing data beats ok."""
    judged = next(one for one in outcome.judged if one.rule is rule)
    codes = [int(judgement.code[-1, 0]) for judgement in judged.judgements]
    alarms = [code for code in codes if code >= Verdict.INFO]
    rest = sorted(codes, key=lambda code: (code != Verdict.NO_DATA, code != Verdict.NOT_APPLICABLE))
    return Verdict(max(alarms) if alarms else rest[0]).word


@pytest.mark.parametrize(("rule", "example"), EXAMPLES, ids=[f"{r.name}: {e.title}" for r, e in EXAMPLES])
def test_example_ends_on_its_verdict(rule: Rule, example: Example) -> None:
    outcome = judge_cells(Detector(rules=[rule]), rule.table, example.cells, example.updates)
    assert worst_last(rule, outcome) == example.verdict


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_is_declared_in_full(rule: Rule) -> None:
    verdicts = {example.verdict for example in rule.examples}
    assert {"ok", "no_data"} <= verdicts
    assert verdicts & {"warning", "critical", "info"}
    for text in (rule.title, rule.meaning, rule.look_first, rule.reference):
        assert text
    assert set(rule.columns) <= set(BY_NAME[rule.table].names)
    assert set(rule.context) < set(rule.columns)
    assert all(set(columns) <= set(BY_NAME[table].names) for table, columns in rule.beside.items())
    assert all(rule.limits.sources().values())
    assert set(rule.causes) <= {other.name for other in RULES}


WARMING = [rule for rule in RULES if rule.warm_up is not None]


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("rule", WARMING, ids=lambda rule: rule.name)
def test_a_rule_judges_first_after_the_updates_that_it_says_it_needs(rule: Rule, planned: bool) -> None:
    assert rule.warm_up is not None
    needed = rule.warm_up.updates(Thresholds.defaults([rule])[rule.name], planned)
    sound = next(example for example in rule.examples if example.verdict == "ok")
    rising = {name: [1.0 + 0.01 * i for i in range(needed)] for name in rule.columns if name not in rule.context}
    cells = dict(sound.cells) | rising | ({"progress": 0.5 if planned else None} if "progress" in rule.columns else {})
    cells = {name: cell[0] if isinstance(cell, list) and name not in rising else cell for name, cell in cells.items()}
    outcome = judge_cells(Detector(rules=[rule]), rule.table, cells, needed)
    codes = outcome.judged[0].judgements[0].code[:, 0].tolist()
    assert codes[-1] >= Verdict.OK
    assert set(codes[:-1]) == {int(Verdict.NOT_APPLICABLE)}
    assert outcome.judged[0].judgements[0].reasons[-1] == rule.warm_up.reason


NUMERIC = [
    (rule, column)
    for rule in RULES
    for column in rule.columns
    if BY_NAME[rule.table].column(column).kind is Kind.FLOAT and column not in rule.context
]


def healthy(rule: Rule) -> dict[str, object]:
    """Return the cells of the rule's first example that ends on ok, for one update."""
    example = next(one for one in rule.examples if one.verdict == "ok")
    return {name: cell[-1] if isinstance(cell, list) else cell for name, cell in example.cells.items()}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("rule", "column"), NUMERIC, ids=lambda x: x if isinstance(x, str) else x.name)
def test_nonfinite_never_passes_in_silence(rule: Rule, column: str, bad: float) -> None:
    outcome = judge_cells(Detector(rules=[rule]), rule.table, healthy(rule) | {column: bad}, 1)
    verdict = worst_last(rule, outcome)
    if rule.name == "gradient_drift" or (rule.name == "gradient_vanishing" and column == "grad_norm"):
        assert verdict == "not_applicable"  # judged by numerical_instability, and never enters the average
    else:
        assert verdict == "critical"


ALONE = [one for one in NUMERIC if one[0].name != "numerical_instability"]
"""numerical_instability looks at many columns and is blind only without all of them: an example of its own."""


@pytest.mark.parametrize(("rule", "column"), ALONE, ids=lambda x: x if isinstance(x, str) else x.name)
def test_missing_is_never_healthy(rule: Rule, column: str) -> None:
    outcome = judge_cells(Detector(rules=[rule]), rule.table, healthy(rule) | {column: None}, 1)
    judged = outcome.judged[0]
    words = {Verdict(int(j.code[-1, 0])).word: j.reasons[j.reason[-1, 0]] for j in judged.judgements}
    assert any(word == "no_data" and column in why for word, why in words.items())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_subject_whose_row_stops_coming_is_never_healthy(rule: Rule) -> None:
    detector = Detector(rules=[rule])
    judge_cells(detector, rule.table, healthy(rule), 1)
    (judged,) = detector.process(Batch(np.array([1, 2]))).judged
    for judgement in judged.judgements:
        assert judgement.code.tolist() == [[Verdict.NO_DATA], [Verdict.NO_DATA]]
        assert all("is missing" in judgement.reasons[int(reason)] for reason in judgement.reason.ravel())


def test_a_zero_gradient_nobody_looked_into_names_what_was_not_looked_at() -> None:
    rule = next(one for one in RULES if one.name == "gradient_missing")
    cells = {"grad_state": "missing", "zero_explained": None}
    (finding,) = judge_cells(Detector(rules=[rule]), "heads", cells, 1).findings
    assert (finding.verdict, finding.reason) == ("no_data", "zero_explained is missing")


@pytest.mark.parametrize(("window", "verdict"), [(1, "info"), (3, "info"), (4, "warning"), (50, "warning")])
def test_the_window_of_kl_spike_is_as_long_as_its_limit_says(window: int, verdict: str) -> None:
    rule = next(one for one in RULES if one.name == "kl_spike")
    thresholds = Thresholds.defaults([rule]).changed("kl_spike", "window", window)
    cells = {"kl_k3": [0.12, 0.01, 0.01, 0.12], "inner_loop_measurable": True}
    assert worst_last(rule, judge_cells(Detector(thresholds, rules=[rule]), "updates", cells, 4)) == verdict


def test_an_update_without_kl_keeps_the_streak_over_the_target() -> None:
    rule = next(one for one in RULES if one.name == "kl_spike")
    cells = {"kl_k3": [0.02, 0.02, None, 0.02], "target_kl": 0.01, "inner_loop_measurable": True}
    assert worst_last(rule, judge_cells(Detector(rules=[rule]), "updates", cells, 4)) == "warning"
    cells["kl_k3"] = [0.02, 0.02, 0.001, 0.02]
    assert worst_last(rule, judge_cells(Detector(rules=[rule]), "updates", cells, 4)) == "ok"


def test_unknown_progress_has_the_warm_up_bound_for_fifty_updates_and_then_the_middle_one() -> None:
    rule = next(one for one in RULES if one.name == "value_collapse")
    cells = {"explained_variance": [-0.3] * 75, "progress": None, "ev_low_variance": False}
    outcome = judge_cells(Detector(rules=[rule]), "updates", cells, 75)
    codes = outcome.judged[0].judgements[0].code[:, 0]
    assert np.flatnonzero(codes == Verdict.WARNING).tolist() == list(range(69, 75))


@pytest.mark.parametrize(("progress", "bound"), [(0.0, -0.5), (0.1, -0.2), (0.25, 0.0), (0.75, 0.1), (1.0, 0.1)])
def test_phases_are_half_open(progress: float, bound: float) -> None:
    rule = next(one for one in RULES if one.name == "value_collapse")
    cells = {"explained_variance": -9.0, "progress": progress, "ev_low_variance": False}
    outcome = judge_cells(Detector(rules=[rule]), "updates", cells, 200)
    assert outcome.judged[0].judgements[0].threshold[-1, 0] == bound - 1.0


@pytest.mark.parametrize(
    ("updates", "bound"), [(5, -0.5), (19, -0.5), (20, -0.2), (49, -0.2), (50, 0.0), (149, 0.0), (150, 0.1)]
)
def test_the_phases_of_a_short_plan_take_as_many_updates_as_those_of_one_of_two_hundred(
    updates: int, bound: float
) -> None:
    rule = next(one for one in RULES if one.name == "value_collapse")
    cells = {"explained_variance": -9.0, "progress": 1.0, "ev_low_variance": False}
    thresholds = Thresholds.defaults([rule]).changed(rule.name, "sustained", 1)
    outcome = judge_cells(Detector(thresholds, rules=[rule]), "updates", cells, updates)
    assert outcome.judged[0].judgements[0].threshold[-1, 0] == bound - 1.0


def test_bounds_are_strict() -> None:
    rule = next(one for one in RULES if one.name == "first_ratio")
    limits = rule.limits()
    at = {field.name: getattr(limits, field.name) for field in fields(limits)}
    for name, verdict in (("warning", "ok"), ("critical", "warning")):
        cells = {"first_ratio_error": at[name]}
        assert worst_last(rule, judge_cells(Detector(rules=[rule]), "updates", cells, 1)) == verdict


def test_per_head_threshold_overrules_the_default() -> None:
    rule = next(one for one in RULES if one.name == "head_entropy_collapse")
    thresholds = Thresholds.defaults([rule]).changed(rule.name, "per_head", {"s0": 0.5})
    cells = {"entropy_norm": 0.4, "learnable_fraction": 1.0, "kind": "categorical"}
    assert worst_last(rule, judge_cells(Detector(thresholds, rules=[rule]), "heads", cells, 3)) == "warning"
    assert worst_last(rule, judge_cells(Detector(rules=[rule]), "heads", cells, 3)) == "ok"


def test_drift_is_taken_before_the_average_takes_the_value_in() -> None:
    rule = next(one for one in RULES if one.name == "gradient_drift")
    values = [1.0 + 0.1 * i for i in range(10)] + [4.0, 7.0]
    outcome = judge_cells(Detector(rules=[rule]), "groups", {"grad_norm": values, "health": 1.0}, len(values))
    drift = outcome.filled["groups", "drift_norm"][1][:, 0]
    assert all(math.isnan(one) for one in drift[:10])
    weights = [0.99 ** (9 - i) for i in range(10)]
    ema = sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights)
    assert drift[10] == pytest.approx(abs(4.0 - ema) / (ema + 1e-8), rel=1e-12)
    ema = 0.99 * ema + 0.01 * 4.0
    assert drift[11] == pytest.approx(abs(7.0 - ema) / (ema + 1e-8), rel=1e-12)


def test_a_nonfinite_norm_does_not_enter_the_average() -> None:
    rule = next(one for one in RULES if one.name == "gradient_drift")
    clean, broken = [1.0] * 12, [1.0] * 6 + [math.nan, math.inf] + [1.0] * 6
    last = []
    for values in (clean, broken):
        outcome = judge_cells(Detector(rules=[rule]), "groups", {"grad_norm": values, "health": 1.0}, len(values))
        last.append(float(outcome.filled["groups", "drift_norm"][1][-1, 0]))
    assert last[0] == last[1] == pytest.approx(0.0, abs=1e-7)


def test_a_finite_norm_after_an_average_of_zero_is_far_off_and_not_infinite() -> None:
    rule = next(one for one in RULES if one.name == "gradient_drift")
    cells = {"grad_norm": [0.0] * 11 + [1e305], "health": 1.0}
    outcome = judge_cells(Detector(rules=[rule]), "groups", cells, 12)
    drift = outcome.filled["groups", "drift_norm"][1][:, 0]
    assert drift[-2] == 0.0
    assert 1e300 < drift[-1] < math.inf
    assert worst_last(rule, outcome) == "ok"  # one update is no drift yet


def test_returns_too_large_to_be_squared_are_no_fall_and_no_warning_of_numpy() -> None:
    rule = next(one for one in RULES if one.name == "performance_degradation")
    cells = {"episode_return_mean": [1e300, -1e300] * 25, "progress": 0.5}
    outcome = judge_cells(Detector(rules=[rule]), "updates", cells, 50)
    assert worst_last(rule, outcome) == "ok"
    assert outcome.findings == ()
