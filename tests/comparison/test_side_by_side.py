"""A comparison's facts: order of divergences, runs that are too short, metrics that cease, the first difference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.comparison.metrics import CLOCKS, METRICS, SLOTS, TOPICS, Metric
from esper_analyze.comparison.side_by_side import _cells, _columns, _differing, _others, _twice, side_by_side
from esper_analyze.runs.run import RecordedRun
from esper_analyze.runs.series import Series
from esper_analyze.schema import BY_NAME
from esper_analyze.schema.column import Kind
from esper_analyze.schema.tables.updates import SETTINGS
from tests.comparison.made import compared, comparison, parting, still
from tests.replay.made import run, updates

NAN, INF = math.nan, math.inf
PLAIN = Metric("updates", "policy_loss", "Policy loss", "policy")
OTHER = Metric("updates", "value_mean", "Mean predicted value", "value")
HEAD = Metric("heads", "grad_norm", "Gradient norm of head {}", "heads")


def test_a_metric_is_named_by_its_column_or_by_table_subject_and_column() -> None:
    assert compared(PLAIN, still(2)).name == "policy_loss"
    of_head = compared(HEAD, still(2), "op\x1b" + 60 * "p")
    assert of_head.name == f"heads:op\x1b{60 * 'p'}.grad_norm"
    assert of_head.title == f"Gradient norm of head o{38 * 'p'}…"


def test_divergences_come_by_update_then_broken_before_beyond_then_by_size() -> None:
    far, near, broken = parting(3, a=20), parting(3, a=20), still(3)
    far[0, 20:] = 900.0
    broken[1, 20] = INF
    late = parting(3, c=15)
    found = comparison([compared(PLAIN, near), compared(OTHER, far), compared(HEAD, broken, "x"), compared(HEAD, late)])
    listed = [(one.run, one.update, one.compared.name) for one in found.divergences]
    assert listed == [
        (2, 25, "grad_norm"), (1, 30, "heads:x.grad_norm"), (0, 30, "value_mean"), (0, 30, "policy_loss"),
    ]  # fmt: skip
    assert [one.divergence.kind for one in found.divergences] == ["beyond", "nonfinite", "beyond", "beyond"]
    assert [None if first is None else first.update for first in map(found.first, range(3))] == [30, 30, 25]
    assert found.first(0) is found.divergences[2]


def test_pending_values_are_listed_apart_from_divergences() -> None:
    found = comparison([compared(PLAIN, parting(3, b=38))])
    assert (found.divergences, [one.update for one in found.pending]) == ([], [48])
    assert found.first(1) is None


def test_a_pair_that_ends_apart_is_listed_once_and_a_group_by_run() -> None:
    pair = comparison([compared(PLAIN, np.array([[1.0] * 20, [9.0] * 20]))])
    assert [(one.name, run, (end.run, end.others)) for one, run, end in pair.end_differences] == [
        ("policy_loss", 0, (1.0, 9.0))
    ]
    group = comparison([compared(PLAIN, parting(3, b=10, c=10) - 100 * np.eye(3)[:, :1])])
    assert [run for _, run, _ in group.end_differences] == [0]
    both = still(3)
    both[1], both[2] = 900.0, 5000.0
    assert [run for _, run, _ in comparison([compared(PLAIN, both)]).end_differences] == [0, 2]


@pytest.mark.parametrize(("metric", "ended"), [("episode_return_mean", True), ("value_loss", False)])
def test_returns_end_apart_when_a_return_does(metric: str, ended: bool) -> None:
    assert comparison([compared(metric, np.array([[1.0] * 20, [9.0] * 20]))]).returns_end_apart is ended
    assert not comparison([compared(metric, still(2))]).returns_end_apart


@pytest.mark.parametrize(("common", "short"), [(3, (0, 1)), (4, ())])
def test_runs_without_four_common_updates_are_too_short(common: int, short: tuple[int, ...]) -> None:
    rows = np.array([[True] * 20 + [False] * 20, [False] * (20 - common) + [True] * (20 + common)])
    assert comparison([compared(PLAIN, still(2))], rows=rows).too_short == short


def test_a_run_is_too_short_by_its_own_updates() -> None:
    rows = np.ones((3, 40), bool)
    rows[1, 3:] = False
    assert comparison([compared(PLAIN, still(3))], rows=rows).too_short == (1,)


def test_where_no_noise_is_known_every_run_is_too_short_and_where_one_is_none() -> None:
    few = still(2)
    few[:, 5:] = NAN
    unknown = comparison([compared(PLAIN, few)])
    assert (unknown.too_short, unknown.unjudged) == ((0, 1), ("policy_loss",))
    one = comparison([compared(PLAIN, few), compared(OTHER, still(2))])
    assert (one.too_short, one.unjudged) == ((), ("policy_loss",))


@pytest.mark.parametrize(
    ("marks", "others", "last"),
    [
        ("1" * 6 + "0" * 4, "1" * 10, 5),
        ("1" * 7 + "0" * 3, "1" * 10, None),  # three updates are too few
        ("1" * 6 + "0" * 4, "1" * 6 + "0" * 4, None),  # nobody goes on
        ("1" * 6 + "0" * 4, "1" * 9 + "0", 5),
        ("1001000000", "1" * 10, 3),  # gaps of 3 so far, silent for 6
        ("1000100000", "1" * 10, None),  # gaps of 4 so far, silent for 5
        ("0" * 10, "1" * 10, None),  # never measured
        ("1" + "0" * 9, "1" * 10, 0),
    ],
)
def test_a_metric_has_ceased_when_it_is_silent_for_twice_its_widest_gap(
    marks: str, others: str, last: int | None
) -> None:
    values = np.array([[1.0 if mark == "1" else NAN for mark in row] for row in (marks, others)])
    found = comparison([compared("episode_return_mean", values)])
    assert found.ceased == ([] if last is None else [("episode_return_mean", 0, 10 + last)])


def test_a_metric_that_ends_with_its_run_has_not_ceased() -> None:
    values = still(2)
    values[0, 20:] = NAN
    rows = np.ones((2, 40), bool)
    rows[0, 20:] = False
    found = comparison([compared(PLAIN, values)], rows=rows)
    assert found.ceased == []
    assert [found.last_update(run) for run in (0, 1)] == [29, 49]
    rows[0, 20:24] = True
    assert comparison([compared(PLAIN, values)], rows=rows).ceased == [("policy_loss", 0, 29)]


def test_the_first_difference_names_all_columns_that_differ_in_that_update() -> None:
    one, other, late = still(2), still(2), still(2)
    one[1, 7:], other[0, 7], late[0, 9] = 99.0, NAN, 3.0
    exact = {"kl_k1": late, "kl_k2": one}
    found = comparison([compared(PLAIN, one), compared(OTHER, other)], exact=exact)
    assert found.first_difference == (17, ("policy_loss", "value_mean", "kl_k2"))
    assert comparison([compared(OTHER, still(2))], exact={"kl_k1": late}).first_difference == (19, ("kl_k1",))
    assert comparison([compared(OTHER, still(2))], exact={"kl_k1": still(2)}).first_difference is None


def matrix(rows: list[list[Any]]) -> MetricMatrix:
    """Return cells of numbers, None for null and ``nan`` or ``inf`` as measured."""
    null = np.array([[cell is None for cell in row] for row in rows])
    value = np.array([[NAN if cell is None else cell for cell in row] for row in rows], float)
    return MetricMatrix(value, ~null & ~np.isfinite(value), null)


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        (1.0, 1.0, False), (1.0, 2.0, True), (0.0, -0.0, False),
        (NAN, NAN, False), (None, None, False), (INF, INF, False),
        (NAN, None, True), (None, NAN, True), (None, 0.0, True), (NAN, 0.0, True),
        (INF, -INF, True), (INF, NAN, True), (INF, None, True),
    ],
)  # fmt: skip
def test_null_nan_infinity_and_zero_all_differ(first: float | None, second: float | None, differ: bool) -> None:
    rows = np.ones((2, 2), bool)
    assert _differing(matrix([[5.0, first], [5.0, second]]), rows) == (1 if differ else None)


@pytest.mark.parametrize(("has", "differ"), [((True, True), 0), ((True, False), None), ((False, True), None)])
def test_only_updates_of_both_runs_are_compared_for_equality(has: tuple[bool, bool], differ: int | None) -> None:
    assert _differing(matrix([[1.0], [2.0]]), np.array(has)[:, None]) == differ


def test_a_third_run_is_not_compared_for_equality() -> None:
    assert _differing(matrix([[1.0], [1.0], [2.0]]), np.ones((3, 1), bool)) is None


def test_series_are_put_at_their_updates() -> None:
    one = Series(np.array([2, 5]), np.array([1.0, INF]), np.array([False, False]))
    two = Series(np.array([5, 9]), np.array([7.0, NAN]), np.array([True, False]))
    found = _cells([one, None, two], np.array([2, 5, 9]))
    assert np.array_equal(
        found.value, np.array([[1.0, INF, NAN], [NAN] * 3, [NAN, NAN, NAN]]), equal_nan=True
    )  # 7.0 is null and therefore undefined
    assert found.nonfinite.tolist() == [[False, True, False], [False] * 3, [False, False, True]]
    assert found.null.tolist() == [[False] * 3, [False] * 3, [False, True, False]]


@pytest.mark.parametrize(
    ("table", "subject", "twice"),
    [
        ("groups", "all", True), ("groups", "head:op", True), ("groups", "actor", False), ("groups", "my-head:", False),
        ("groups", "overall", False), ("heads", "all", False), ("heads", "head:op", False),
    ],
)  # fmt: skip
def test_the_gradients_of_heads_and_of_the_whole_model_are_compared_once(table: str, subject: str, twice: bool) -> None:
    assert _twice(table, subject) is twice


def test_runs_are_compared_in_what_two_of_them_measured_and_the_rest_is_listed() -> None:
    def recorded(offset: float, **more: Any) -> RecordedRun:
        rows = updates(40, kl_k1=offset, value_mean=100.0 + offset, learning_rate=offset)
        groups = [{"update": at, "group": group, "grad_norm": 1.0} for at in range(40) for group in ("actor", "all")]
        return run({"seed": offset}, updates=rows, groups=groups, **more)

    episodes = [{"update": 0, "env": 0, "episode_return": 1.0}]
    slots = [
        {"update": 3, "place": place, "env": 0, "slot": place, "host_grad_norm": norm, "normalized_ratio": ratio}
        for place, norm, ratio in (("a", 1.0, 0.5), ("b", 3.0, 0.25))
    ]  # fmt: skip
    counts: list[int] = []
    runs = [("x", recorded(1.0, episodes=episodes, slots=slots)), ("y", recorded(2.0))]
    found = side_by_side(runs, progress=counts.append)
    assert counts == [1, 2]
    assert (found.labels, found.updates.tolist()) == (("x", "y"), list(range(40)))
    assert found.rows.all()
    assert [metric.name for metric in found.metrics] == ["value_mean", "groups:actor.grad_norm"]
    by_slots = {metric.name: metric.cells.value[0, 3] for metric in found.not_common}
    assert by_slots == {"host_grad_norm_max": 3.0, "normalized_ratio_min": 0.25}
    assert found.tables == ("episodes",)
    assert found.first_difference == (0, ("value_mean", "kl_k1"))
    assert [name for name, _ in found.settings] == ["learning_rate, as used", "seed"]
    three = side_by_side([*runs, ("z", recorded(1.0))])
    assert three.exact == ()  # equality is asked of pairs only


def test_the_first_64_heads_of_a_run_are_compared() -> None:
    heads = [{"update": 0, "head": f"h{number}", "grad_norm": 1.0} for number in range(66)]
    columns = _columns(run(updates=updates(1), heads=heads))
    named = [subject for metric, subject in columns if (metric.table, metric.column) == ("heads", "grad_norm")]
    assert named == [f"h{number}" for number in range(64)]


def test_every_number_of_updates_is_a_metric_a_setting_a_clock_or_compared_for_equality() -> None:
    metrics = {metric.column for metric in METRICS if metric.table == "updates"}
    classes = (metrics, set(SETTINGS), set(CLOCKS), set(_others()))
    numbers = {column.name for column in BY_NAME["updates"].columns if column.kind in (Kind.FLOAT, Kind.INT, Kind.BOOL)}
    assert set.union(*classes) == numbers
    assert sum(map(len, classes)) == len(numbers)


@pytest.mark.parametrize("metric", [*METRICS, *SLOTS], ids=lambda metric: f"{metric.table}.{metric.column}")
def test_a_metric_has_a_topic_and_a_subject_where_its_table_has_one(metric: Metric) -> None:
    assert metric.topic in TOPICS
    assert ("{}" in metric.title) is (BY_NAME[metric.table].subject is not None and metric not in SLOTS)
    if metric not in SLOTS:
        assert BY_NAME[metric.table].column(metric.column).kind is Kind.FLOAT


def test_sizes_are_judged_by_their_logarithm_and_shares_from_a_fiftieth_on() -> None:
    by_log = [f"{metric.table}.{metric.column}" for metric in (*METRICS, *SLOTS) if metric.log]
    assert by_log == [
        "updates.kl_k3", "updates.ratio_max", "updates.value_loss", "updates.value_std", "updates.return_std",
        "updates.advantage_std", "updates.grad_norm_pre_clip", "groups.grad_norm", "heads.grad_norm", "lstm.h_rms",
        "lstm.c_rms", "slots.host_grad_norm_max", "slots.normalized_ratio_min",
    ]  # fmt: skip
    assert {metric.column: metric.least for metric in METRICS if metric.least} == {
        "clip_fraction": 0.02, "entropy": 0.02, "explained_variance": 0.02, "entropy_norm": 0.02,
        "learnable_fraction": 0.02, "first_ratio_error": 1e-4,
    }  # fmt: skip
    assert {metric.column for metric in (*METRICS, *SLOTS) if metric.sparse} == {
        "episode_return_mean", "episode_length_mean", "entropy_norm", "host_grad_norm_max", "normalized_ratio_min",
    }  # fmt: skip
    assert [metric.column for metric in METRICS if not metric.drawn] == ["value_std", "return_std"]
