"""Incidents: from first to last update of one trouble, consequences under their cause."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.incidents import (
    ActiveAlarm,
    ActiveAlarms,
    Incident,
    IncidentTracker,
    merge_nonfinite,
    onset,
    open_between,
    unmerged,
    with_causes,
    worst_of,
)
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from tests.detector.batches import batch, frame, judge_cells, run_cut
from tests.detector.test_laws import random_batch, random_thresholds

BY_RULE = {rule.name: rule for rule in RULES}


def incidents(cuts: Sequence[int] = (), **columns: Sequence[object]) -> list[Incident]:
    detector = Detector()
    n = len(next(iter(columns.values())))
    recorded: dict[str, Sequence[object]] = {"inner_loop_measurable": [True] * n, "minibatches": [8] * n}
    blank: dict[str, Sequence[object]] = {name: [None] * n for name in detector.wanted["updates"]}
    given = blank | recorded | columns
    whole = batch({"updates": frame("updates", {name: [[cell] for cell in cells] for name, cells in given.items()})})
    tracker = IncidentTracker()
    for outcome in run_cut(detector, whole, cuts):
        tracker.take(outcome)
    return tracker.incidents()


def test_an_incident_runs_from_first_to_last_update_in_alarm_with_its_peak() -> None:
    (one,) = incidents(first_ratio_error=[0.0, 6e-4, 0.03, 7e-4, *[0.0] * 5])
    assert (one.rule, one.start, one.end, one.ended, one.count) == ("first_ratio", 1, 3, "cleared", 3)
    assert (one.peak, one.peak_update, one.peak_verdict) == (0.03, 2, "critical")


def test_an_unjudged_stretch_neither_ends_nor_counts() -> None:
    (one,) = incidents(first_ratio_error=[6e-4, None, None, 8e-4])
    assert (one.start, one.end, one.count, one.ended) == (0, 3, 2, "open")


def test_the_peak_of_a_low_bound_is_the_lowest_and_nonfinite_beats_all() -> None:
    (one,) = incidents(ratio_min=[0.05, 0.001, 0.02], choice_fraction=[1.0] * 3)
    assert one.peak == 0.001
    (one,) = incidents(ratio_min=[0.05, 0.001, math.nan], choice_fraction=[1.0] * 3)
    assert math.isnan(one.peak)


def test_two_troubles_are_two_incidents() -> None:
    found = incidents(first_ratio_error=[6e-4, *[0.0] * 5, 6e-4])
    assert [(one.start, one.end, one.ended) for one in found] == [(0, 0, "cleared"), (6, 6, "open")]


def test_what_comes_back_before_it_had_cleared_is_the_same_trouble() -> None:
    (one,) = incidents(first_ratio_error=[6e-4, *[0.0] * 4, 9e-4, *[0.0] * 5])
    assert (one.start, one.end, one.count, one.peak, one.ended) == (0, 5, 2, 9e-4, "cleared")


def test_a_consequence_is_tied_to_the_cause_that_was_open_when_it_began() -> None:
    found = incidents(kl_k3=[0.01, 0.9, 0.9, 0.01], ratio_max=[1.0, 40.0, 1.0, 1.0], ratio_min=[1.0, 1.0, 1.0, 0.01])
    by_rule = {one.rule: one for one in found}
    spike = found.index(by_rule["kl_spike"])
    assert by_rule["kl_spike"].cause is None
    assert by_rule["ratio_explosion"].cause == spike


def test_a_trouble_that_had_to_be_confirmed_is_tied_to_what_was_open_at_its_onset() -> None:
    kl = [0.01] * 4 + [0.9] + [0.01] * 20
    ev = [0.5] * 4 + [-0.9] * 21
    found = incidents(kl_k3=kl, explained_variance=ev, progress=[0.5] * 25, nonfinite_sources=[None] * 25)
    collapse = next(one for one in found if one.rule == "value_collapse")
    assert (collapse.onset, collapse.start) == (4, 23)


def test_incidents_do_not_depend_on_how_updates_are_cut() -> None:
    ratio = [0.0, 6e-4, 0.03, None, 7e-4, 0.0, 6e-4, math.nan, 6e-4]
    whole = incidents(first_ratio_error=ratio)
    for cut in range(1, len(ratio)):
        parts = incidents((cut,), first_ratio_error=ratio)
        assert [repr(one) for one in parts] == [repr(one) for one in whole]


def test_information_ends_an_incident_as_ok_does() -> None:
    kl = [0.6, *[0.01] * 4, 0.12, 0.9, *[0.01] * 8]
    found = incidents(kl_k3=kl)
    assert [(one.start, one.end, one.ended) for one in found] == [(0, 0, "cleared"), (6, 9, "cleared")]


def test_causes_stand_before_what_they_cause() -> None:
    place = {rule.name: number for number, rule in enumerate(RULES)}
    assert all(place[cause] < place[rule.name] for rule in RULES for cause in rule.causes)


def test_one_nan_that_several_rules_see_is_one_incident_of_the_first_of_them() -> None:
    nan = math.nan
    rows = 20
    ratios = [1.0, nan, nan, *[1.0] * (rows - 3)]
    losses = [0.1, nan, *[0.1] * (rows - 2)]
    errors = [0.0, nan, 0.0, 0.0, nan, *[0.0] * (rows - 6), nan]
    found = incidents(ratio_max=ratios, policy_loss=losses, first_ratio_error=errors, choice_fraction=[1.0] * rows)
    nonfinite = next(one for one in found if one.start == 1)
    assert nonfinite.seen_by == ("numerical_instability", "first_ratio", "ratio_explosion")
    assert (nonfinite.rule, nonfinite.onset, nonfinite.end, nonfinite.ended) == (
        "numerical_instability",
        1,
        4,
        "cleared",
    )
    assert nonfinite.count == 2, "of the part that lasts longest"
    assert [(one.rule, one.end, one.count) for one in nonfinite.parts] == [
        ("numerical_instability", 1, 1),
        ("first_ratio", 4, 2),
        ("ratio_explosion", 2, 2),
    ]
    (late,) = [one for one in found if one.start == rows - 1]
    assert (late.rule, late.ended, late.parts) == ("first_ratio", "open", ())
    assert len(found) == 2
    assert unmerged(found) == [*nonfinite.parts, late]


def test_an_incident_with_an_open_part_is_open() -> None:
    nan = math.nan
    found = incidents(policy_loss=[nan, *[0.1] * 9], first_ratio_error=[nan, *[0.0] * 7, nan, nan])
    assert [(one.rule, one.start, one.ended) for one in found] == [
        ("numerical_instability", 0, "cleared"),
        ("first_ratio", 8, "open"),
    ]
    (one,) = incidents(policy_loss=[nan, *[0.1] * 9], first_ratio_error=[nan] * 10)
    assert (one.ended, one.end, one.count) == ("open", 9, 10)


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2, 3, 4, 5)])
def test_peak_bound_and_last_value_are_those_of_all_batches(cuts: Sequence[int]) -> None:
    (one,) = incidents(cuts, first_ratio_error=[6e-4, 0.02, 0.05, 7e-4, None, 2e-5])
    assert (one.peak, one.peak_update, one.peak_verdict, one.count) == (0.05, 2, "critical", 4)
    assert (one.threshold, one.now, one.now_update) == (1e-2, 2e-5, 5)
    assert (one.ended, one.how_it_ended) == ("open", "better, not cleared yet")
    (one,) = incidents(cuts, ratio_min=[0.009, 0.001, 0.005, 0.002, 0.5, 0.5], choice_fraction=[1.0] * 6)
    assert (one.peak, one.peak_update, one.threshold) == (0.001, 1, 0.01)
    (one,) = incidents(cuts, first_ratio_error=[2e-3, 5e-3, 2e-3, 2e-3, 2e-3, 2e-3])
    assert (one.peak, one.threshold, one.peak_verdict, one.how_it_ended) == (5e-3, 1e-4, "warning", "still open")


def test_the_onset_is_as_early_as_the_thresholds_say_and_never_before_the_run() -> None:
    rule = next(one for one in RULES if one.name == "clip_saturation")
    longer = Thresholds.defaults([rule]).changed(rule.name, "sustained", 5)
    assert [onset(rule, rule.limits(), start) for start in (0, 1, 2, 9)] == [0, 0, 0, 7]
    assert [onset(rule, longer[rule.name], start) for start in (3, 4, 9)] == [0, 0, 5]
    single = next(one for one in RULES if one.name == "first_ratio")
    assert onset(single, single.limits(), 9) == 9
    tracker = IncidentTracker(longer)
    cells = {"clip_fraction": [0.1] * 4 + [0.9] * 6, "inner_loop_measurable": True}
    tracker.take(judge_cells(Detector(longer, rules=[rule]), "updates", cells, 10))
    (one,) = tracker.incidents()
    assert (one.onset, one.start) == (4, 8)


@pytest.mark.parametrize(
    ("values", "higher", "place"),
    [
        ([1.0, 3.0, 3.0, 2.0], True, 1),
        ([2.0, 1.0, 3.0, 1.0], False, 1),
        ([1.0, math.inf, math.nan], True, 1),
        ([1.0, -math.inf, 5.0], True, 1),
        ([1.0, math.nan, 0.5], False, 1),
    ],
)
def test_the_worst_value_is_the_first_of_equals_and_what_is_not_finite_beats_all(
    values: list[float], higher: bool, place: int
) -> None:
    assert worst_of(np.array(values), higher=higher) == place


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_a_cause_is_the_first_one_open_between_onset_and_start(seed: int) -> None:
    thresholds = random_thresholds(seed)
    tracker = IncidentTracker(thresholds)
    tracker.take(Detector(thresholds).process(random_batch(seed, 60)))
    listed = tracker.incidents()
    causes, tables = {rule.name: rule.causes for rule in RULES}, {rule.name: rule.table for rule in RULES}

    def part(one: Incident) -> str | None:
        named = tables[one.rule] in ("heads", "slots") or one.subject.startswith("head:")
        return one.subject.removeprefix("head:") if named else None

    for place, one in enumerate(listed):
        open_then = [
            other
            for name in causes[one.rule]
            for other, cause in enumerate(listed)
            if cause.rule == name
            and cause.start <= one.start
            and cause.end >= one.onset
            and (part(one) is None or part(cause) in (None, part(one)))
        ]
        assert one.cause == (open_then[0] if open_then else None)
        assert one.cause is None or one.cause < place


def test_one_head_is_no_cause_of_what_happens_to_another() -> None:
    n = 60
    sound, sunk = [0.8] * n, [0.8] * 2 + [1e-4] * (n - 2)
    cells: dict[str, Sequence[Sequence[object]]] = {
        "entropy_norm": list(zip(sunk, sound, strict=True)),
        "choice_samples": [[64, 64]] * n,
    }
    norms = [[1.0 + 0.01 * (update % 3)] * 3 for update in range(n - 5)] + [[30.0] * 3] * 5
    explosion = replace(BY_RULE["gradient_explosion"], causes=("head_entropy_collapse",))
    detector = Detector(rules=[BY_RULE["head_entropy_collapse"], explosion])
    tracker = IncidentTracker()
    heads = frame("heads", {name: cells.get(name, [[None, None]] * n) for name in detector.wanted["heads"]}, ["a", "b"])
    groups = frame(
        "groups",
        {name: norms if name == "grad_norm" else [[None] * 3] * n for name in detector.wanted["groups"]},
        ["all", "head:a", "head:b"],
    )
    tracker.take(detector.process(batch({"heads": heads, "groups": groups})))
    found = tracker.incidents()
    collapse = next(place for place, one in enumerate(found) if one.rule == "head_entropy_collapse")
    assert found[collapse].subject == "a"
    exploded = {one.subject: one.cause for one in found if one.rule == "gradient_explosion"}
    assert exploded == {"all": collapse, "head:a": collapse, "head:b": None}


def incident(rule: str, onset: int, start: int, end: int, subject: str = "run") -> Incident:
    return Incident(rule, subject, "x", onset, start, end, "cleared", 1.0, start, "warning", 1)


CAUSING = ("numerical_instability", "kl_spike", "first_ratio", "entropy_collapse", "head_entropy_collapse")
CAUSED = ("ratio_explosion", "gradient_drift", "head_entropy_collapse", "gradient_vanishing")
PART_OF = {
    "head_entropy_collapse": ("a", "b"),
    "gradient_drift": ("all", "head:a"),
    "gradient_vanishing": ("head:b", "critic"),
}


@pytest.mark.parametrize("seed", range(40))
def test_the_cause_among_many_is_the_first_of_the_first_rule_that_was_open(seed: int) -> None:
    rng = np.random.default_rng(seed)
    listed = []
    for _ in range(30):
        name = str(rng.choice([*CAUSING, *CAUSED]))
        start = int(rng.integers(0, 60))
        onset_, end = max(start - int(rng.integers(0, 4)), 0), start + int(rng.choice([0, 1, 5, 40]))
        listed.append(incident(name, onset_, start, end, str(rng.choice(PART_OF.get(name, ("run",))))))
    listed.sort(key=lambda one: one.start)
    rules = {rule.name: rule for rule in RULES}

    def part(one: Incident) -> str | None:
        return None if one.subject in ("run", "all", "critic") else one.subject.removeprefix("head:")

    for found, one in zip(with_causes(listed, rules), listed, strict=True):
        expected = None
        for name in rules[one.rule].causes:
            open_then = [
                i
                for i, other in enumerate(listed)
                if other.rule == name and other.start <= one.start and other.end >= one.onset
                if part(one) is None or part(other) in (None, part(one))
            ]
            if open_then and expected is None:
                expected = open_then[0]
        assert found.cause == expected


def test_only_incidents_of_what_is_not_finite_that_begin_together_are_merged() -> None:
    listed = [
        incident("numerical_instability", 1, 1, 3),
        replace(incident("first_ratio", 1, 1, 9), ended="open", count=7),
        incident("kl_spike", 1, 1, 99),
        incident("ratio_explosion", 1, 1, 2),
        incident("first_ratio", 5, 5, 5),
        incident("kl_spike", 5, 5, 6),
    ]
    merged = merge_nonfinite(listed, {0, 1, 3, 4})
    assert [(one.rule, one.start, one.end, one.ended, one.count) for one in merged] == [
        ("numerical_instability", 1, 9, "open", 7),
        ("kl_spike", 1, 99, "cleared", 1),
        ("first_ratio", 5, 5, "cleared", 1),
        ("kl_spike", 5, 6, "cleared", 1),
    ]
    assert merged[0].parts == (listed[0], listed[1], listed[3])
    assert merged[0].seen_by == ("numerical_instability", "first_ratio", "ratio_explosion")
    assert all(one.parts == () for one in merged[1:])
    assert unmerged(merged) == [listed[0], listed[1], listed[3], listed[2], *listed[4:]]
    assert merge_nonfinite(listed, set()) == listed
    assert merge_nonfinite([], set()) == []


def test_alarms_followed_from_findings() -> None:
    def said(update: int, verdict: str, subject: str = "run") -> Finding:
        return Finding(update, "kl_spike", subject, "kl_k3", verdict, None, 1.0, 0.5, None, None)

    alarms = ActiveAlarms()
    key = ("kl_spike", "run", "kl_k3")
    for finding in (said(1, "ok"), said(2, "info"), said(3, "no_data")):
        assert alarms.take(finding) is None
        assert alarms.active == {}
    warning, critical, again = said(4, "warning"), said(6, "critical"), said(8, "warning")
    assert alarms.take(warning) is None
    assert alarms.active == {key: ActiveAlarm(4, warning, warning)}
    assert alarms.take(critical) is None
    assert alarms.active == {key: ActiveAlarm(4, critical, critical)}
    assert alarms.take(again) is None
    assert alarms.take(said(9, "not_applicable")) is None
    assert alarms.take(said(9, "ok", "other")) is None
    assert alarms.active == {key: ActiveAlarm(4, again, critical)}
    assert alarms.take(said(11, "info")) == ActiveAlarm(4, again, critical, cleared=11)
    assert alarms.active == {}
    assert alarms.take(again) is None
    assert alarms.take(replace(again, update=12)) is None
    assert alarms.active[key].worst == again, "the first that set its worst verdict"
    assert alarms.take(said(13, "ok")) == ActiveAlarm(8, replace(again, update=12), again, cleared=13)


def test_incidents_are_listed_by_start_then_in_the_order_of_the_rules_then_by_subject() -> None:
    n = 8
    heads: dict[str, Any] = {name: [[None] * 3] * n for name in Detector().wanted["heads"]}
    heads |= {"entropy_norm": [[0.05] * 3] * n, "kind": [["categorical"] * 3] * n}
    updates: dict[str, Any] = {name: [[None]] * n for name in Detector().wanted["updates"]}
    updates |= {"first_ratio_error": [[0.0]] * 2 + [[0.5]] * (n - 2), "kl_k3": [[0.0]] + [[0.9]] * (n - 1)}
    tracker = IncidentTracker()
    frames = {"heads": frame("heads", heads, ["c", "a", "b"]), "updates": frame("updates", updates)}
    tracker.take(Detector().process(batch(frames)))
    listed = [(one.start, one.rule, one.subject) for one in tracker.incidents()]
    assert listed == [
        (1, "kl_spike", "run"),
        (2, "first_ratio", "run"),
        *[(2, "head_entropy_collapse", head) for head in ("a", "b", "c")],
    ]


def test_an_update_in_alarm_only_by_hysteresis_counts_for_nothing() -> None:
    """Four good updates stand as an alarm, and the fifth clears it: neither their values nor their number count."""
    (one,) = incidents(first_ratio_error=[0.02, 6e-4, *[1e-6] * 4, 7e-4, *[1e-6] * 5])
    assert (one.start, one.end, one.count, one.peak, one.peak_update) == (0, 6, 3, 0.02, 0)
    assert (one.ended, one.now, one.now_update) == ("cleared", 1e-6, 11)
    assert one.how_it_ended == "cleared"
    for cut in range(1, 12):
        (other,) = incidents((cut,), first_ratio_error=[0.02, 6e-4, *[1e-6] * 4, 7e-4, *[1e-6] * 5])
        assert other == one


def test_an_incident_names_its_statistic_and_a_bound_only_where_a_number_crossed_one() -> None:
    (one,) = incidents(advantage_min=[-80.0], advantage_max=[1.0], advantage_std=[1.0])
    assert (one.statistic, one.threshold, one.peak) == ("largest |advantage|", 50.0, 80.0)
    (one,) = incidents(first_ratio_error=[math.inf, 6e-4])
    assert (one.threshold, one.peak, one.statistic) == (None, math.inf, "first_ratio_error")


def test_of_an_excerpt_incidents_stay_whole_and_those_that_outlast_it_are_in_alarm_at_its_end() -> None:
    early, long, late = (
        Incident("kl_spike", "run", "kl_k3", start, start, end, ended, 1.0, start, "warning", 1, cause=cause)
        for start, end, ended, cause in ((1, 3, "cleared", None), (2, 9, "cleared", 0), (8, 12, "open", 1))
    )
    (shown,) = open_between([early, long, late], 5, 6)
    assert (shown.start, shown.end, shown.ended, shown.lasting, shown.cause) == (2, 9, "cleared later", True, None)
    assert not open_between([early], 1, 3)[0].lasting
    assert [one.cause for one in open_between([early, long, late], 4, 8)] == [None, 0]
    merged = replace(long, parts=(replace(long, end=4), replace(long, subject="b")))
    assert [part.subject for part in unmerged(open_between([merged], 5, 6))] == ["b"]
