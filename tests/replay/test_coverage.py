"""Which rules could judge, and why the others could not: on results of a replay made up for each, and small runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from esper_analyze.detector.findings import Finding
from esper_analyze.detector.incidents import Incident
from esper_analyze.detector.rule import WarmUp
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.replay.replay import Replay, Unjudged, replay
from esper_analyze.replay.standing import (
    OPTIONAL,
    Coverage,
    early_rules,
    live_coverage,
    missing_column,
    of_replay,
    reasons_in_words,
    replay_coverage,
    standing,
    too_early,
    verdict_of_end,
    without_data,
)
from esper_analyze.runs.ending import TrainingEnd
from esper_analyze.schema import BY_NAME
from esper_analyze.storage.attempt_end import End
from tests.replay.made import run, updates

DEFAULTS = Thresholds.defaults(RULES)
KL = next(rule for rule in RULES if rule.name == "kl_spike")
WARM = next(rule for rule in RULES if rule.warm_up is not None and rule.table == "updates")
assert WARM.warm_up is not None
TOO_EARLY = WARM.warm_up.reason


RULE_PAIR = (KL, WARM)


def made(*unjudged: tuple[Any, ...], rules: Any = RULE_PAIR, **counts: Any) -> Replay:
    """Return a replay in which these (rule, subject, metric, verdict, reason, count) could not be judged."""
    return Replay(DEFAULTS, rules, verdict_counts=counts, unjudged=[Unjudged(*one) for one in unjudged])


MISSING = ("kl_spike", "run", "m", "no_data", "x is missing", 3)
EXCUSED = ("kl_spike", "run", "m", "not_applicable", "why", 3)
MORE = ("kl_spike", "run", "m", "no_data", "x is missing", 4)


@pytest.mark.parametrize(
    ("entries", "judged", "lacking"),
    [
        ([MISSING], {}, {"kl_spike": "x is missing"}),
        ([MISSING], {"ok": 1}, {}),
        ([MISSING], {"info": 1}, {}),
        ([MISSING], {"ok": 0, "no_data": 3}, {"kl_spike": "x is missing"}),
        ([EXCUSED], {}, {}),
        (
            [MISSING, EXCUSED],
            {},
            {},
        ),
        (
            [EXCUSED, MORE],
            {},
            {"kl_spike": "x is missing"},
        ),
        (  # of two reasons the first; counts of one subject add up
            [("kl_spike", "a", "m", "no_data", "first", 2), ("kl_spike", "a", "m", "no_data", "second", 2),
             ("kl_spike", "a", "m", "not_applicable", "why", 3)],
            {},
            {"kl_spike": "first"},
        ),
        (  # subjects are counted each by itself
            [("kl_spike", "a", "m", "no_data", "of a", 2), ("kl_spike", "a", "m", "not_applicable", "why", 9),
             ("kl_spike", "b", "m", "no_data", "of b", 1)],
            {},
            {"kl_spike": "of b"},
        ),
    ],
)  # fmt: skip
def test_data_is_missing_where_it_was_so_more_often_than_not_applicable(
    entries: list[tuple[Any, ...]], judged: dict[str, int], lacking: dict[str, str]
) -> None:
    assert without_data(made(*entries, kl_spike=judged)) == lacking


def test_a_rule_for_which_it_is_too_early_lacks_nothing() -> None:
    early = (WARM.name, "run", "m", "not_applicable", TOO_EARLY, 1)
    missing = (WARM.name, "run", "another", "no_data", "x is missing", 5)
    assert early_rules(made(early, missing)) == {WARM.name}
    assert without_data(made(early, missing)) == {}
    assert early_rules(made(early, **{WARM.name: {"ok": 1}})) == set()
    assert early_rules(made(missing)) == set()
    assert early_rules(made(("kl_spike", "run", "m", "not_applicable", TOO_EARLY, 1))) == set()


def test_a_metric_missing_more_often_than_it_warmed_up_is_missing() -> None:
    early = (WARM.name, "run", "m", "not_applicable", TOO_EARLY, 4)
    as_often, more = ((WARM.name, "run", "m", "no_data", "x is missing", count) for count in (4, 5))
    assert early_rules(made(early, as_often)) == {WARM.name}
    assert early_rules(made(early, more)) == set()
    assert without_data(made(early, more)) == {WARM.name: "x is missing"}


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({}, "7 updates"),
        ({"total_updates": 100}, "9 updates and 12.5 % of the training"),
        ({"total_env_steps": 100}, "9 updates and 12.5 % of the training"),
        ({"total_updates": 0}, "7 updates"),
    ],
)
def test_what_a_rule_needs_is_told_where_it_is_too_early(info: dict[str, object], words: str) -> None:
    warm = WarmUp("soon", lambda _limits, planned: 9 if planned else 7, lambda _limits: 0.125)
    rules = (replace(KL, warm_up=warm), WARM)
    found = made(("kl_spike", "run", "m", "not_applicable", "soon", 1), rules=rules)
    assert too_early(run(info), found) == {"kl_spike": words}
    assert too_early(run(info), made(rules=rules)) == {}


def test_a_table_that_a_run_must_have_and_has_not_is_missing_data() -> None:
    heads = next(rule for rule in RULES if rule.table == "heads")
    optional = next(rule for rule in RULES if rule.table in OPTIONAL)
    lost = replace(KL, name="of losses", table="losses_of_data")  # without a loss it has no row
    rules = (KL, heads, optional, lost)
    found = made(rules=rules, kl_spike={"ok": 3})
    with_updates = run(updates=updates(3))
    assert replay_coverage(with_updates, found) == Coverage(
        1, 2, {heads.name: "table heads has no rows"}, "table heads has no rows"
    )
    assert replay_coverage(run(), found) == Coverage(1, 1, {}, "")
    judged = made(rules=rules, kl_spike={"ok": 3}, **{heads.name: {"no_data": 1}})
    assert replay_coverage(with_updates, judged).lacking == {}


def test_coverage_is_told_with_its_reasons() -> None:
    assert Coverage(2, 3, {"a": "x"}, "x").words == "2 of 3 rules could judge: x"
    assert Coverage(3, 3, {}, "").words == "3 of 3 rules could judge"


@pytest.mark.parametrize(
    ("rule", "reason", "source"),
    [
        ("updates", "kl_k3 is missing", ("updates", "kl_k3")),
        ("updates", "heads.entropy_norm is missing", ("heads", "entropy_norm")),
        ("heads", "entropy_norm is missing", ("heads", "entropy_norm")),
        ("updates", "entropy_none is missing", None),
        ("updates", "none.kl_k3 is missing", None),
        ("updates", "kl_k3", None),
        ("updates", "kl_k3 is odd", None),
        ("updates", " is missing", None),
    ],
)
def test_a_reason_names_the_column_that_is_missing(rule: str, reason: str, source: tuple[str, str] | None) -> None:
    assert missing_column(next(one for one in RULES if one.table == rule), reason) == source


def test_reasons_are_told_as_the_columns_declare_them_the_most_frequent_first() -> None:
    rules = {rule.name: rule for rule in RULES}
    assert reasons_in_words(rules, {}) == ""
    same = {"kl_spike": "table groups has no rows", "first_ratio": "table groups has no rows", "x": "odd"}
    assert reasons_in_words(rules, {"x": "odd", **same}) == "no gradients were recorded; odd"
    three = {"a": "one", "b": "two", "c": "three"}
    assert reasons_in_words(rules, three) == "one; two; three"
    assert reasons_in_words(rules, {**three, "d": "four"}) == "one; two; three (and 1 more reason)"
    assert reasons_in_words(rules, {**three, "d": "four", "e": "five"}) == "one; two; three (and 2 more reasons)"


@pytest.mark.parametrize(
    "column", ["kl_k3", "explained_variance", "grad_norm_pre_clip", "episode_return_mean", "entropy"]
)
def test_a_missing_column_is_explained_by_what_its_null_means(column: str) -> None:
    empty = BY_NAME["updates"].column(column).empty
    last = empty.split("; or ")[-1]
    last = last.removeprefix("undefined: ")
    told = reasons_in_words({"r": KL}, {"r": f"{column} is missing"})
    assert told == (f"{column} is missing" if empty == "not measured" else last)
    assert reasons_in_words({}, {"r": f"{column} is missing"}) == f"{column} is missing"


@pytest.mark.parametrize(
    ("end", "verdict"),
    [(End.CLOSED, "ok"), (End.RUNNING, "ok"), (End.STOPPED, "info"), (End.PREEMPTED, "info"), (End.UNCLOSED, "warning"),
     (End.DIED, "critical")],
)  # fmt: skip
def test_the_verdict_of_an_end(end: End, verdict: str) -> None:
    assert verdict_of_end(TrainingEnd(end)) == verdict


@pytest.mark.parametrize(
    ("end", "update", "worst", "coverage", "expected"),
    [
        (End.CLOSED, 3, "critical", Coverage(1, 1, {}, ""), ("critical", "critical")),
        (End.DIED, 3, "warning", Coverage(1, 1, {}, ""), ("critical", "died")),
        (End.UNCLOSED, 3, "warning", Coverage(1, 1, {}, ""), ("warning", "warning")),
        (End.UNCLOSED, None, None, Coverage(0, 1, {"a": "b"}, ""), ("warning", "not closed")),
        (End.CLOSED, None, None, Coverage(0, 0, {}, ""), ("no_data", "not judged")),
        (End.CLOSED, 3, None, Coverage(0, 1, {"a": "b"}, ""), ("no_data", "not judged")),
        (End.CLOSED, 3, None, Coverage(2, 3, {"a": "b"}, ""), ("no_data", "partly judged")),
        (End.STOPPED, 3, None, Coverage(2, 2, {}, ""), ("info", "stopped")),
        (End.CLOSED, 3, None, Coverage(2, 2, {}, ""), ("ok", "ok")),
    ],
)
def test_the_overall_verdict_is_the_first_that_fits(
    end: End, update: int | None, worst: str | None, coverage: Coverage, expected: tuple[str, str]
) -> None:
    ended = TrainingEnd(end, update=update)
    found = standing(ended, worst, coverage)
    assert (found.verdict, found.label, found.end, found.coverage) == (*expected, ended, coverage)


def incident(verdict: str) -> Incident:
    return Incident("kl_spike", "run", "kl_k3", 0, 0, 1, "cleared", 1.0, 0, verdict, 2)


@pytest.mark.parametrize(
    ("verdicts", "verdict", "label"),
    [
        ((), "warning", "not closed"),  # a run held in memory has no writer that closed it
        (("info",), "warning", "not closed"),
        (("warning",), "warning", "warning"),
        (("warning", "critical"), "critical", "critical"),
    ],
)
def test_the_worst_incident_of_a_replay_counts(verdicts: tuple[str, ...], verdict: str, label: str) -> None:
    one = run(updates=updates(3, kl_k3=0.01))
    replayed = replace(replay(one, DEFAULTS), incidents=[incident(word) for word in verdicts])
    found = of_replay(one, replayed)
    assert (found.verdict, found.label, found.coverage) == (verdict, label, replay_coverage(one, replayed))


def test_live_findings_tell_which_rules_judged_and_a_run_is_replayed_only_if_data_was_missing() -> None:
    needed = {rule.table for rule in RULES if rule.table not in OPTIONAL and rule.table != "losses_of_data"}
    rows: dict[str, Any] = {
        table: [{"update": 0, **({str(BY_NAME[table].subject): "x"} if BY_NAME[table].subject else {})}]
        for table in needed
    }
    whole = run(**rows)
    tables = [rule.table for rule in RULES]
    judged = sum(table in needed for table in tables)
    assert live_coverage(whole) == Coverage(judged, judged, {}, "")
    with_lstm = run(**rows, lstm=[{"update": 0, "phase": "rollout"}])
    assert live_coverage(with_lstm).judged == judged + tables.count("lstm")
    said = Finding(0, "kl_spike", "run", "kl_k3", "no_data", None, None, None, None, "kl_k3 is missing").as_row()
    assert live_coverage(run(**rows, findings=[said])) == replay_coverage(whole, replay(whole, DEFAULTS))
    fewer = run(updates=rows["updates"])
    assert live_coverage(fewer) == replay_coverage(fewer, replay(fewer, DEFAULTS))
    assert live_coverage(fewer).lacking
    assert live_coverage(run()) == Coverage(0, 0, {}, "")
