"""The sentences of a comparison, each under the facts that it states."""

from __future__ import annotations

import math

import numpy as np
import pytest

from esper_analyze.comparison.divergence import Divergence, DivergenceResult
from esper_analyze.comparison.metrics import Metric
from esper_analyze.comparison.side_by_side import ComparedMetric, RunDivergence
from esper_analyze.comparison.words import (
    _listed,
    beyond,
    caveats,
    divergence_table,
    first_divergences,
    headline,
    sentences,
    undiverged,
    value_against_others,
    values_at,
)
from esper_analyze.detector.signals import Floats
from tests.comparison.made import cells, compared, comparison, parting, still

NAN, INF = math.nan, math.inf
LOSS = Metric("updates", "policy_loss", "Policy loss", "policy")
VALUE = Metric("updates", "value_mean", "Mean predicted value", "value")
ENTROPY = Metric("updates", "entropy", "Entropy, nats", "policy")


def ending(*values: float) -> Floats:
    """Return runs too wild to judge where they part, that end at ``values`` each."""
    wild = 1000 * np.random.default_rng(0).normal(size=(len(values), 40))
    wild[:, 30:] = np.array(values)[:, None]
    return wild


def test_equal_runs_are_said_to_be_equal_in_all_columns() -> None:
    found = comparison([compared(LOSS, still(2))], exact={"kl_k1": still(2), "kl_k2": np.full((2, 40), NAN)})
    assert headline(found) == "a and b are equal in all 2 compared columns."  # nobody measured kl_k2
    assert sentences(found) == ["All 2 compared columns are equal at every common update."]


def test_two_runs_that_are_not_equal_and_do_not_diverge() -> None:
    values = still(2)
    values[1, 5] = 100.1
    one = compared(LOSS, values)
    assert headline(comparison([one])) == "a and b do not diverge."
    partly = comparison([one], not_common=(compared(VALUE, still(2)),))
    assert headline(partly) == "a and b do not diverge in the metrics both measured."
    equal = comparison([compared(LOSS, still(2))], not_common=(compared(VALUE, still(2)),))
    assert headline(equal) == "a and b do not diverge in the metrics both measured."
    ceased = still(2)
    ceased[1, 20:] = NAN
    sparse = Metric("updates", "x", "X", "policy", sparse=True)
    assert headline(comparison([compared(sparse, ceased)])) == "a and b do not diverge in the metrics both measured."


def test_two_runs_that_diverge_have_their_values_in_the_headline() -> None:
    found = comparison([compared(LOSS, parting(2, b=20))])
    assert headline(found) == "a and b diverge at update 30: Policy loss is 500 in b, 100 in the other."
    assert sentences(found) == [
        "Up to update 29 they are equal in all 1 compared columns; the first to differ, at update 30: policy_loss.",
        "0 of 1 metric stay together over 40 updates that two runs at least have.",
        "Different at the end, where last tenths do not overlap: policy_loss.",
        "A divergence that begins in the last 3 updates cannot be seen yet; no last value lies outside.",
    ]


def test_a_column_that_one_run_alone_measured_is_compared_too() -> None:
    alone = still(2)
    alone[1] = NAN
    later = still(2)
    later[1, 5] = 3.0
    found = comparison([compared(LOSS, still(2))], exact={"kl_k1": alone, "kl_k2": later})
    assert "in all 3 compared columns" not in " ".join(sentences(found))  # they differ at once
    assert found.first_difference == (10, ("kl_k1",))
    gap = still(2)
    gap[:, :8] = gap[1] = NAN
    nulled = comparison([compared(LOSS, still(2))], exact={"kl_k1": gap})
    assert sentences(nulled)[0] == (
        "Up to update 17 they are equal in all 2 compared columns; the first to differ, at update 18: kl_k1."
    )


def test_two_runs_that_end_apart() -> None:
    found = comparison([compared(LOSS, ending(1.0, 9.0))])
    assert headline(found) == (
        "a and b do not diverge at an identifiable update, but are different at the end: Policy loss is 1 in a, 9 in "
        "the other over the last 5 values."
    )
    more = comparison([compared(LOSS, ending(1.0, 9.0)), compared(VALUE, ending(2.0, 3.0))])
    assert headline(more).endswith("over the last 5 values, and 1 further metric.")
    three = comparison([compared(name, ending(1.0, 9.0)) for name in (LOSS, VALUE, ENTROPY)])
    assert headline(three).endswith("over the last 5 values, and 2 further metrics.")
    assert "where last tenths do not overlap: policy_loss, value_mean, entropy." in " ".join(sentences(three))


def test_two_runs_that_may_be_diverging() -> None:
    found = comparison([compared(LOSS, parting(2, b=38))])
    assert headline(found) == (
        "a and b may be diverging: at update 48 Policy loss is 500 in b, 100 in the other, too near the end to be sure."
    )
    assert sentences(found)[1:] == [
        "0 of 1 metric stay together over 40 updates that two runs at least have.",
        "The last 3 updates cannot be judged: a divergence takes 4 of 5. The last values lie outside and may be a "
        "divergence: policy_loss of b from 48 on.",
    ]


def test_two_runs_that_are_too_short() -> None:
    values = still(2, 3)
    values[1, 1] = 101.0
    found = comparison([compared(LOSS, values)])
    assert headline(found) == "a and b are too short to tell whether they diverge."
    assert sentences(found) == [
        "Up to update 10 they are equal in all 1 compared columns; the first to differ, at update 11: policy_loss.",
        "Too short: 4 common updates, and 6 values to estimate the noise, are needed: a, b.",
    ]
    values[1, 0] = 102.0
    assert sentences(comparison([compared(LOSS, values)]))[0] == (
        "They differ from their first common update on, as runs with different random seeds do (policy_loss)."
    )


def test_a_pair_with_one_short_run_counts_no_metric_as_judged() -> None:
    rows = np.ones((3, 40), bool)
    rows[1, 3:] = False
    values = still(3)
    values[1] = np.where(rows[1], 100.1, NAN)
    of_three = comparison([compared(LOSS, values, rows=rows)], rows=rows)
    assert "1 of 1 metric stay together over 40 updates that two runs at least have." in sentences(of_three)
    short = comparison([compared(LOSS, values[:2], rows=rows[:2])], rows=rows[:2])
    assert not any("stay together" in told for told in sentences(short))


def test_a_group_of_which_none_diverges() -> None:
    few = still(3)
    few[:, 3:] = NAN
    found = comparison([compared(LOSS, still(3)), compared(VALUE, few)])
    assert headline(found) == "No run diverges from the others: 3 runs, 1 metric judged."
    assert sentences(found) == [
        "1 of 2 metrics stay together over 40 updates that two runs at least have.",
        "A divergence that begins in the last 3 updates cannot be seen yet; no last value lies outside.",
    ]
    pending = comparison([compared(LOSS, parting(3, b=38))])
    assert headline(pending) == (
        "No run diverges from the others: 3 runs, 1 metric judged; at update 48 Policy loss is 500 in b, 100 in the "
        "median of the others, too near the end to be sure."
    )
    assert "Too short" not in " ".join(sentences(pending))


def test_a_group_that_is_too_short_or_ends_apart() -> None:
    short = comparison([compared(LOSS, still(3, 3))])
    assert headline(short) == "3 runs, too short to tell whether any diverges."
    apart = comparison([compared(LOSS, ending(1.0, 9.0, 9.0))])
    assert headline(apart) == (
        "No run diverges at an identifiable update, but the runs are different at the end: Policy loss is 1 in a, 9 in "
        "the median of the others over the last 5 values (3 runs, 1 metric judged)."
    )


def test_a_group_of_which_some_diverge() -> None:
    one = comparison([compared(LOSS, parting(5, d=20))])
    assert headline(one) == "1 of 5 runs diverges from the others: d at update 30 (Policy loss)."
    two = comparison([compared(LOSS, parting(8, d=20, b=25))])
    assert headline(two) == "2 of 8 runs diverge from the others: d at update 30 (Policy loss), then b."
    assert [left.run for left in first_divergences(two)] == [3, 1]


def test_runs_that_end_early_are_named_from_the_earliest_on() -> None:
    rows = np.ones((4, 1200), bool)
    rows[0, 1100:] = rows[2, 1000:] = rows[3, 1000:] = False
    values = np.where(rows, still(4, 1200), NAN)
    told = sentences(comparison([compared(LOSS, values, rows=rows)], rows=rows))
    assert told[-1] == (
        "Some end before the last update 1,209: c at update 1,009, d at update 1,009, a at update 1,109."
    )
    assert told[0] == "1 of 1 metric stay together over 1,100 updates that two runs at least have."
    pair = comparison([compared(LOSS, values[:2], rows=rows[:2])], rows=rows[:2])
    assert sentences(pair) == [
        "All 1 compared columns are equal at every common update.",
        "Some end before the last update 1,209: a at update 1,109.",
    ]


def test_caveats_state_each_limit_once() -> None:
    assert caveats(comparison([compared(LOSS, still(2))])) == []
    few, ceased = still(2), still(2)
    few[:, 3:] = ceased[1, 20:] = NAN
    sparse = Metric("updates", "x", "X", "policy", sparse=True)
    found = comparison(
        [compared(LOSS, few), compared(sparse, ceased)],
        not_common=(compared(VALUE, still(2)),),
        tables=("episodes", "steps"),
        infos=[{"algorithm": "PPO", "heads": {"op": 2}}, {"algorithm": "PPO", "heads": {"op": 3}}],
        functions=("clip", "lr"),
    )
    assert caveats(found) == [
        "Not measured in every run and compared only among those that did: value_mean.",
        "Too few values to estimate the noise; only NaN was checked: policy_loss.",
        "No longer measured while other runs continue: x in b (last at update 29).",
        "Tables not compared: episodes, steps.",
        "Given as a function and therefore not comparable: clip, lr.",
    ]


@pytest.mark.parametrize(
    ("infos", "differ"),
    [
        ([{"algorithm": "PPO"}, {"algorithm": "A2C"}], True),
        ([{"heads": {"a": 1}}, {"heads": {"b": 1}}], True),
        ([{"heads": {}}, {"heads": None}], False),
        ([{"algorithm": "PPO", "name": "x"}, {"algorithm": "PPO", "name": "y"}], False),
    ],
)
def test_other_algorithms_or_heads_are_a_caveat(infos: list[dict[str, object]], differ: bool) -> None:
    found = caveats(comparison([compared(LOSS, still(2))], infos=infos))
    assert [line.startswith("These runs have different algorithms or heads") for line in found] == [True] * differ


def left(column: list[float | None], run: int = 0, kind: str = "beyond", size: float = 7.25) -> RunDivergence:
    """Return a divergence at the only update of runs that have ``column`` there; None was not measured."""
    one = Divergence(0, kind, size)
    matrix = cells(np.array([[NAN if cell is None else cell] for cell in column]))
    nan = np.array([[cell is not None and math.isnan(cell)] for cell in column])
    matrix.nonfinite[nan], matrix.null[nan] = True, False
    judged = DivergenceResult(
        tuple(one if at == run else None for at in range(len(column))), 1.0, (None,) * len(column)
    )
    return RunDivergence(run, 10, one, ComparedMetric(LOSS, "", matrix, judged))


@pytest.mark.parametrize(
    ("column", "run", "words"),
    [
        ([1.0, 2.0], 0, ("1", "2")),
        ([1.0, 2.0], 1, ("2", "1")),
        ([NAN, 2.0, 4.0, NAN], 0, ("NaN", "3")),
        ([None, 2.0, None], 0, ("not measured", "2")),
        ([1.0, NAN, INF, NAN], 0, ("1", "NaN or +Inf")),
        ([1.0, None], 0, ("1", "not measured")),
        ([1.0, -INF, None], 0, ("1", "−Inf")),
    ],
)
def test_a_value_stands_beside_the_median_of_the_numbers_of_others(
    column: list[float | None], run: int, words: tuple[str, str]
) -> None:
    assert values_at(left(column, run)) == words


def test_what_is_missing_is_said_to_be_measured_no_longer() -> None:
    of_two = comparison([left([1.0, 2.0]).compared])
    assert value_against_others(of_two, left([1.0, 2.0])) == "is 1 in a, 2 in the other"
    missing = left([None, 2.0], kind="missing")
    assert value_against_others(of_two, missing) == "is no longer measured in a, 2 in the other"


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [("beyond", 7.256, "7.26 σ"), ("nonfinite", INF, "not finite"), ("missing", INF, "missing")],
)
def test_how_far_beyond_the_band_a_value_lies(kind: str, size: float, words: str) -> None:
    assert beyond(left([1.0, 2.0], kind=kind, size=size)) == words


def test_the_table_of_a_pair_has_a_row_for_each_metric() -> None:
    both = parting(2, 60, b=20)  # later the other is outside as well
    found = comparison([compared(LOSS, both), compared(VALUE, parting(2, 60, a=30))])
    assert len({(one.run, one.compared.name) for one in found.divergences}) > 2
    titles, rows = divergence_table(found)
    assert titles == ("update", "metric", "run", "value", "other's value", "beyond band")
    assert [row[:5] for row in rows] == [
        ("30", "policy_loss", "b", "500", "100"),
        ("40", "value_mean", "a", "500", "100"),
    ]
    assert all(row[5].endswith(" σ") for row in rows)


def test_the_table_of_a_group_has_a_row_for_each_run_those_that_diverge_first() -> None:
    found = comparison([compared(LOSS, parting(8, 40, d=20)), compared(VALUE, parting(8, 40, d=25, g=22))])
    titles, rows = divergence_table(found)
    assert titles == (
        "run", "updates", "diverges at", "first metric", "value", "median of others", "metrics diverged",
    )  # fmt: skip
    assert rows[:2] == [
        ("d", "40", "30", "policy_loss", "500", "100", "2"),
        ("g", "40", "32", "value_mean", "500", "100", "1"),
    ]
    assert rows[2:] == [(label, "40", "–", "–", "–", "–", "0") for label in "abcefh"]


def test_metrics_in_which_nothing_diverges_or_ends_apart_stay_quiet() -> None:
    metrics = [compared(LOSS, parting(5, d=20)), compared(VALUE, still(5)), compared(ENTROPY, ending(1.0, 9, 9, 9, 9))]
    assert [metric.name for metric in undiverged(comparison(metrics))] == ["value_mean"]
    assert "1 of 3 metrics stay together" in sentences(comparison(metrics))[0]


@pytest.mark.parametrize(
    ("count", "words"), [(0, ""), (1, "a0"), (4, "a0, a1, a2, a3"), (5, "a0, a1, a2, a3 and 1 more"),
                         (1204, "a0, a1, a2, a3 and 1,200 more")]
)  # fmt: skip
def test_four_names_are_listed_and_the_rest_is_counted(count: int, words: str) -> None:
    assert _listed([f"a{number}" for number in range(count)]) == words
