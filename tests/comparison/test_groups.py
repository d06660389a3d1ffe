"""Groups of runs by settings or labels, and means with confidence intervals by group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from esper_analyze.comparison.group_figure import group_figure
from esper_analyze.comparison.groups import ComparedGroup, groups_by_label, groups_of, mean_curves, mean_of, student
from esper_analyze.comparison.side_by_side import SideBySide
from esper_analyze.comparison.summary_tables import group_table
from esper_analyze.errors import UsageError
from esper_analyze.reports.render.figure import drawn
from tests.comparison.made import compared, comparison, still

NAN = math.nan


def runs(infos: Sequence[Mapping[str, Any]], **facts: Any) -> SideBySide:
    """Return runs that end at 1, 2, 3 and so on, with these settings."""
    values = still(len(infos), 40)
    values[:, 36:] = np.arange(1, len(infos) + 1)[:, None]
    return comparison([compared("episode_return_mean", values)], infos=infos, **facts)


def rates(*values: object) -> list[dict[str, Any]]:
    return [{"hyperparameters": {"learning_rate": value, "gamma": 0.9}} for value in values]


@pytest.mark.parametrize("freedom", [*range(1, 41), 60, 200, 10_000])
def test_the_quantile_is_students(freedom: int) -> None:
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    t = np.linspace(0, student(freedom), 200_001)
    density = scale * (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
    assert np.trapezoid(density, t) == pytest.approx(0.475, abs=1e-6)


@pytest.mark.parametrize("count", [2, 3, 11, 40])
def test_the_interval_is_that_of_a_mean(count: int) -> None:
    values = np.random.default_rng(count).normal(5, 2, count)
    found = mean_of(list(values))
    half = student(count - 1) * math.sqrt(((values - values.mean()) ** 2).sum() / (count - 1) / count)
    assert (found.low, found.mean, found.high) == pytest.approx((found.mean - half, values.mean(), found.mean + half))


def test_runs_without_a_finite_value_are_not_counted_and_the_table_says_how_many_were() -> None:
    found = mean_of([1.0, NAN, 3.0, math.inf])
    assert (found.mean, found.counted, found.runs) == (2.0, 2, 4)
    assert found.words.endswith(", 2 of 4")
    alone, none = mean_of([7.0]), mean_of([NAN])
    assert (alone.words, none.words) == ("7", "–")
    assert math.isnan(alone.low)


def test_curves_are_the_same_mean_at_each_update() -> None:
    values = np.random.default_rng(0).normal(size=(5, 30))
    values[4, 10:] = values[3, 20:] = values[2, 25:] = values[1, 28:] = NAN
    values[0, 29] = NAN
    curves = mean_curves(values)
    for update in range(30):
        found = mean_of(list(values[:, update]))
        at = [curve[update] for curve in curves]
        assert at == pytest.approx([found.mean, found.low, found.high], nan_ok=True)


def test_groups_of_a_setting_are_ordered_by_its_size() -> None:
    compared_runs = runs(rates(0.01, 3e-4, 0.01, 1.0, 3e-4))
    groups = (ComparedGroup("0.0003", (1, 4)), ComparedGroup("0.01", (0, 2)), ComparedGroup("1.0", (3,)))
    assert groups_of(compared_runs, ["learning_rate"]) == groups
    assert groups_of(compared_runs, ["hyperparameters.learning_rate"]) == groups
    assert group_table(compared_runs, groups)[1] == [
        ("0.0003", "2", "3.5 (-15.6 – 22.6)"),
        ("0.01", "2", "2 (-10.7 – 14.7)"),
        ("1.0", "1", "4"),
    ]


def test_two_settings_make_groups_of_their_pairs_and_what_is_not_set_comes_last() -> None:
    infos: list[dict[str, Any]] = [{"lr": 1, "clip": 0.1}, {"lr": 2, "clip": 0.1}, {"lr": 1}, {"lr": 1, "clip": 0.1}]
    assert groups_of(runs(infos), ["lr", "clip"]) == (
        ComparedGroup("lr 1, clip 0.1", (0, 3)),
        ComparedGroup("lr 1, clip –", (2,)),
        ComparedGroup("lr 2, clip 0.1", (1,)),
    )


def test_a_setting_recorded_in_every_update_groups_runs_that_have_it_nowhere_else() -> None:
    used = (("learning_rate, as used", ("0.1 → 0", "0.1", "0.1")),)
    assert groups_of(runs([{}, {}, {}], settings=used), ["learning_rate"]) == (
        ComparedGroup("0.1", (1, 2)),
        ComparedGroup("0.1 → 0", (0,)),
    )
    listed = (("learning_rate, as used", ("0.1", "0.2")),)
    assert groups_of(runs(rates(5, 6), settings=listed), ["learning_rate"])[0].name == "5"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("^(.*)-seed", {"fast": (0, 1), "slow": (2,)}),
        (r"seed(\d+)", {"1": (0,), "2": (1, 2)}),
        (r"^(\w).*(\d)$", {"f 1": (0,), "f 2": (1,), "s 2": (2,)}),
        ("slow", {"slow": (2,), "–": (0, 1)}),
    ],
)
def test_a_pattern_groups_runs_by_what_it_matches(pattern: str, names: dict[str, tuple[int, ...]]) -> None:
    labels = ["fast-seed1", "fast-seed2", "slow-seed2"]
    assert {group.name: group.runs for group in groups_by_label(labels, pattern)} == names


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"by": ["learning_rat"]}, "there is no setting 'learning_rat'", "compare"),
    ({"by": ["gamma"]}, "gamma is 0.9 in all 2 runs", "learning_rate"),
    ({"by": ["gamma"], "pattern": "a"}, "not by both", "one of them"),
    ({"pattern": "("}, "is not a regular expression", "-seed"),
    ({"pattern": "x"}, "matches in no run", "a, b"),
]


@pytest.mark.parametrize(("asked", "words", "hint"), WRONG)
def test_what_groups_nothing_is_refused_with_what_would(asked: dict[str, Any], words: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        groups_of(runs(rates(1, 2)), **asked)
    assert words in refused.value.message
    assert hint in str(refused.value.hint)


def test_a_name_that_several_settings_have_is_refused_with_their_names() -> None:
    infos: list[dict[str, Any]] = [{"a": {"size": 1}, "b": {"size": 2}}, {"a": {"size": 2}, "b": {"size": 2}}]
    with pytest.raises(UsageError) as refused:
        groups_of(runs(infos), ["size"])
    assert "a.size, b.size" in str(refused.value.hint)


def test_the_figure_has_a_line_for_each_group_and_says_what_it_leaves_out() -> None:
    count = 8
    names = [ComparedGroup(str(run), (run,)) for run in range(count)]
    figure = group_figure(runs([{}] * count), [*names, ComparedGroup("both", (0, 1))])
    assert (len(figure.groups), figure.left_out) == (8, 1)
    assert "1 further group only in the table." in figure.words
    assert drawn(figure.drawing, figure).png.startswith(b"\x89PNG")
