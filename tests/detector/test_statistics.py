"""What a verdict's value is: the number that was compared, by the name its rule declares, truly beyond its bound."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.detector import Detector, RuleVerdicts
from esper_analyze.detector.incidents import Incident, IncidentTracker
from esper_analyze.detector.rule import Example, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.verdict import Judgement, Verdict
from esper_analyze.replay.evidence import Evidence
from esper_analyze.replay.replay import Replay
from esper_analyze.reports.narrative.primary_incident import bound_crossing, worst_and_now
from esper_analyze.wording import number
from tests.detector.batches import judge_cells

ALARMS = [(rule, one) for rule in RULES for one in rule.examples if one.verdict in ("info", "warning", "critical")]
NAMES = [f"{rule.name}: {one.title}" for rule, one in ALARMS]


def judged(rule: Rule, cells: Mapping[str, Any], updates: int) -> RuleVerdicts:
    (found,) = judge_cells(Detector(rules=[rule]), rule.table, cells, updates).judged
    return found


def alarmed(rule: Rule, example: Example) -> list[Judgement]:
    found = judged(rule, example.cells, example.updates)
    return [one for one in found.judgements if one.code[-1, 0] >= Verdict.INFO]


@pytest.mark.parametrize(("rule", "example"), ALARMS, ids=NAMES)
def test_the_value_is_beyond_the_bound_that_is_named_with_it(rule: Rule, example: Example) -> None:
    for one in alarmed(rule, example):
        value, bound = float(one.value[-1, 0]), float(one.threshold[-1, 0])
        lower = not rule.higher_is_worse or (rule.name == "gradient_vanishing" and one.metric == "grad_norm")
        if math.isnan(bound):  # not finite, or a bound on something else that no number stands for
            continue
        assert value <= bound if lower else value >= bound, "the lower, the worse? Then higher_is_worse=False"


@pytest.mark.parametrize(("rule", "example"), ALARMS, ids=NAMES)
def test_a_statistic_that_names_a_cell_is_that_cell(rule: Rule, example: Example) -> None:
    for one in alarmed(rule, example):
        statistic = rule.statistic(one.metric)
        cell = example.cells.get(str(statistic.column))
        if isinstance(cell, list):
            cell = cell[-1]
        value = float(one.value[-1, 0])
        if isinstance(cell, (int, float)) and math.isfinite(value):
            np.testing.assert_equal(value, float(cell))
        else:
            assert statistic.name != one.metric or statistic.column not in example.cells or not math.isfinite(value)


def value_of(name: str, metric: str, cells: Mapping[str, Any], updates: int) -> float:
    rule = next(one for one in RULES if one.name == name)
    found = judged(rule, cells, updates)
    return float(next(one.value[-1, 0] for one in found.judgements if one.metric == metric))


RNG = np.random.default_rng(3)
EV = RNG.normal(0.0, 0.05, 75)
SCALE = {"value_nrmse": 3.0, "return_variance": 4.0, "return_mean": 10.0, "ev_low_variance": False}
RETURNS = RNG.normal(50.0, 5.0, 60)
RETURNS[40:] -= 40.0
NORMS = np.concatenate([RNG.uniform(0.9, 1.1, 40), RNG.uniform(20.0, 30.0, 40)])


@pytest.mark.parametrize(
    ("name", "metric", "cells", "updates", "expected"),
    [
        # taken after every twentieth update, without the present one: of the first 60
        (
            "critic_not_learning",
            "explained_variance",
            SCALE | {"explained_variance": EV.tolist()},
            75,
            np.median(EV[10:60]),
        ),
        (
            "performance_degradation",
            "episode_return_mean",
            {"episode_return_mean": RETURNS[:43].tolist(), "episodes_finished": [4, 9, 5] * 14 + [4]},
            43,
            np.average(RETURNS[39:43], weights=[4, 9, 5, 4]),
        ),
        (
            "clipping_always",
            "clip_active_fraction",
            {"clip_active_fraction": 1.0, "grad_norm_pre_clip": NORMS.tolist()},
            80,
            np.median(NORMS[10:60]) / NORMS[:10].mean(),
        ),
        (
            "critic_constant",
            "explained_variance",
            SCALE | {"explained_variance": [-0.0002] * 20},
            20,
            0.0002,
        ),
        (
            "advantage_outlier",
            "advantage_max",
            {"advantage_min": -80.0, "advantage_max": 1.0, "advantage_std": 1.25},
            1,
            80.0 / 1.25,
        ),
        (
            "update_skipped",
            "status",
            {"status": ["performed", *["nonfinite_skipped"] * 3]},
            4,
            3.0,
        ),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_computed_statistics_are_what_they_are_called(
    name: str, metric: str, cells: Mapping[str, Any], updates: int, expected: float
) -> None:
    assert value_of(name, metric, cells, updates) == pytest.approx(float(expected), rel=1e-12)


def told(rule: Rule, example: Example) -> list[tuple[Incident, str]]:
    """Return the incidents of an example, and the evidence that is printed of each."""
    outcome = judge_cells(Detector(rules=[rule]), rule.table, example.cells, example.updates)
    tracker = IncidentTracker()
    tracker.take(outcome)
    found = tracker.incidents()
    replay = Replay(Detector(rules=[rule]).thresholds, (rule,), findings=list(outcome.findings), incidents=found)
    evidence = Evidence(None, replay, {}, {}, None)  # type: ignore[arg-type]
    return [(one, " ".join([*bound_crossing(evidence, one), *worst_and_now(evidence, one)])) for one in found]


LOUD = [(rule, one) for rule, one in ALARMS if one.verdict != "info"]


@pytest.mark.parametrize(("rule", "example"), LOUD, ids=[f"{rule.name}: {one.title}" for rule, one in LOUD])
def test_sentences_print_the_judged_number_its_bound_its_worst_and_its_last(rule: Rule, example: Example) -> None:
    values = {one.metric: one.value[:, 0] for one in judged(rule, example.cells, example.updates).judgements}
    said = told(rule, example)
    assert said
    for one, sentence in said:
        course = values[one.metric]
        assert sentence.startswith(f"At update {one.start} {rule.statistic(one.metric).name} was ")
        assert number(float(course[one.start])) in sentence
        assert f"At its worst it was {number(float(course[one.peak_update]))}, at update {one.peak_update}" in sentence
        assert one.threshold is None or number(one.threshold) in sentence
        if one.now_update not in (None, one.peak_update):
            assert f"at update {one.now_update}, the last that was judged, it was {number(one.now)}" in sentence
            np.testing.assert_equal(one.now, float(course[int(one.now_update or 0)]))
        beyond = re.findall(
            r"was ([^\s,]+)(?: nats| standard deviations)?, (beyond|at) the \w+ bound of ([^,]+?)(?:,|\.(?: |$))",
            sentence,
        )
        for value, side, bound in beyond:
            here, there = _read(value), _read(bound)
            assert here == there if side == "at" else (here >= there) == rule.higher_is_worse or here == there


def _read(words: str) -> float:
    return float(words.replace("+Inf", "inf").replace("−Inf", "-inf").replace(",", ""))
