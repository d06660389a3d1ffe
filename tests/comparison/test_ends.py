"""Runs whose last tenths do not overlap are different at the end, whatever the parting test can separate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from esper_analyze.cli import run as command
from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.comparison.ends import QUANTILES, end_differences
from esper_analyze.comparison.figures import overlays, words
from esper_analyze.comparison.side_by_side import SideBySide, side_by_side
from esper_analyze.comparison.words import headline, sentences
from esper_analyze.runs.run import open_run
from tests.reports.synthetic import Rows, write_run

UPDATES = 60


def cells(*rows: list[float]) -> MetricMatrix:
    value = np.array(rows, float)
    return MetricMatrix(value, np.zeros(value.shape, bool), np.isnan(value))


def test_ends_that_overlap_are_not_apart() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 100))
    assert end_differences(cells(*(10 + noise).tolist())) == (None, None)


def test_the_last_tenth_is_judged_by_its_quantiles() -> None:
    one, other = [9.0] * 100, [195.0] * 100
    one[-3], other[-7] = 300.0, -5.0  # one odd update in ten does not join them
    own, theirs = end_differences(cells(one, other))
    assert own is not None
    assert theirs is not None
    assert (own.run, own.others, own.values) == (9.0, 195.0, 10)
    assert (theirs.run, theirs.others) == (195.0, 9.0)


def test_what_was_before_the_end_does_not_count() -> None:
    assert end_differences(cells([0.0] * 90 + [5.0] * 10, [100.0] * 90 + [5.0] * 10)) == (None, None)


@pytest.mark.parametrize(("size", "told"), [(1.005, False), (1.02, True)])
def test_less_than_a_hundredth_is_no_difference(size: float, told: bool) -> None:
    for log in (False, True):
        assert (end_differences(cells([10.0] * 50, [10.0 * size] * 50), log=log)[0] is not None) is told


def test_ends_are_those_of_updates_that_both_measured() -> None:
    rising = [float(update) for update in range(100)]
    short = rising[:40] + [np.nan] * 60
    assert end_differences(cells(rising, short)) == (None, None)


def test_too_few_values_say_nothing_and_five_say_something() -> None:
    assert end_differences(cells([1.0, 1.0], [9.0, 9.0])) == (None, None)
    assert end_differences(cells([1.0] * 5, [9.0] * 5))[0] is not None


def test_of_a_group_only_the_odd_one_is_apart() -> None:
    noise = np.random.default_rng(1).normal(size=(6, 60))
    values = 100 + noise
    values[3, -30:] = 9.0
    found = end_differences(cells(*values.tolist()))
    assert [run for run, end in enumerate(found) if end is not None] == [3]


def compared(tmp_path: Path, **edits: object) -> SideBySide:
    runs = []
    for name, edit in edits.items():
        path = write_run(tmp_path / name, UPDATES, edit)  # type: ignore[arg-type]
        runs.append((name, open_run(path)))
    return side_by_side(runs)


def slowly(end: float) -> object:
    """Let returns go from 20 to ``end``, wildly: no update is beyond what the other does at about that time."""
    noise = np.random.default_rng(int(end))

    def edit(update: int, rows: Rows) -> None:
        loud = 60.0 * noise.normal() if update < 45 else 0.0
        rows["updates"][0]["episode_return_mean"] = 20 + (end - 20) * update / (UPDATES - 1) + loud

    return edit


def test_none_of_these_parts_never_stands_over_ends_that_do_not_overlap(tmp_path: Path) -> None:
    found = compared(tmp_path, good=slowly(195.0), bad=slowly(9.0))
    assert not [one for one in found.divergences if one.compared.name == "episode_return_mean"]
    assert "are different at the end: Episode return is " in headline(found)
    assert any(told.startswith("Different at the end") and "episode_return_mean" in told for told in sentences(found))
    told = {overlay.topic: words(overlay) for overlay in overlays(found)}
    assert told["returns"] == ["Different at the end: Episode return."]
    assert told["policy"] == ["None of these diverges."]


@pytest.mark.parametrize(("end", "code"), [(195.0, 0), (9.0, 1)])
def test_fail_on_parting_counts_returns_that_end_apart(tmp_path: Path, end: float, code: int) -> None:
    paths = [write_run(tmp_path / name, UPDATES, slowly(to)) for name, to in (("good", 195.0), ("other", end))]  # type: ignore[arg-type]
    options = ["--out", str(tmp_path / "out"), "--fail-on-parting"]
    assert command(["compare", *map(str, paths), *options]) == code
    page = (tmp_path / "out" / "index.html").read_text()
    facts = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert ('chip warning">different' in page) is bool(code)
    assert [one["metric"] for one in facts["different_at_end"]] == (["episode_return_mean"] if code else [])


def settings(**columns: object) -> object:
    def edit(update: int, rows: Rows) -> None:
        for name, value in columns.items():
            rows["updates"][0][name] = value(update) if callable(value) else value

    return edit


def test_a_setting_that_changes_is_listed_and_is_no_metric(tmp_path: Path) -> None:
    halved = settings(
        learning_rate=lambda update: 3e-4 if update < 20 else 1e-5,
        clip_range=0.1,
        entropy_coef=lambda update: 0.3 if update == 30 else 0.01,
        target_kl=None,
        max_grad_norm=0.5,
    )
    usual = settings(learning_rate=3e-4, clip_range=0.2, entropy_coef=0.01, target_kl=0.02, max_grad_norm=0.5)
    found = compared(tmp_path, one=usual, other=halved)
    assert found.divergences == []
    assert found.first_difference is None
    assert dict(found.settings) == {
        "learning_rate, as used": ("0.0003", "0.0003 → 1e-05"),
        "clip_range, as used": ("0.2", "0.1"),
        "entropy_coef, as used": ("0.01", "0.01, 0.3 at update 30"),
        "target_kl, as used": ("0.02", "–"),
    }
    assert all(one.name not in ("learning_rate", "clip_range") for one in found.metrics)


def test_equal_settings_are_not_listed(tmp_path: Path) -> None:
    found = compared(tmp_path, one=None, other=None)
    assert found.settings == ()
    assert headline(found).startswith("one and other are equal in all")


def test_a_logarithm_is_taken_only_where_asked_for() -> None:
    one, other = [1e-3] * 20, [5e-3] * 20
    plain = end_differences(cells(one, other, [1.0] * 20, [1.0] * 20, [1.0] * 20))
    assert plain == (None,) * 5  # none is a hundredth of 1 away; their logarithms are 1.6 apart
    by_log = end_differences(cells(one, other, [1.0] * 20, [1.0] * 20, [1.0] * 20), log=True)
    assert [end is not None for end in by_log] == [True, False, False, False, False]
    assert by_log[0] is not None
    assert (by_log[0].run, by_log[0].others) == (1e-3, 1.0)  # values as measured, not their logarithms


@pytest.mark.parametrize(("least", "apart"), [(0.0, True), (3.999, True), (4.0, False), (9.0, False)])
def test_a_distance_of_least_does_not_count(least: float, apart: bool) -> None:
    found = end_differences(cells([1.0] * 20, [5.0] * 20), least=least)
    assert [end is not None for end in found] == [apart, apart]


def test_the_margin_is_a_hundredth_of_the_median_size_of_all_ends() -> None:
    big = [[-1000.0] * 20, [1009.0] * 20, [1000.0] * 20]  # 1 % of 1,000 is 10
    assert [end is not None for end in end_differences(cells(*big))] == [True, False, False]
    big[1] = [1011.0] * 20
    assert [end is not None for end in end_differences(cells(*big))] == [True, True, False]


@pytest.mark.parametrize(("count", "values"), [(3, 3), (5, 5), (30, 5), (50, 5), (51, 6), (100, 10), (101, 11)])
def test_an_end_is_a_tenth_of_the_values_and_five_at_least(count: int, values: int) -> None:
    found = end_differences(cells([1.0] * count, [9.0] * count))[0]
    assert found is not None
    assert found.values == values


def test_two_values_are_too_few_to_judge_an_end() -> None:
    nan = [np.nan] * 18
    assert end_differences(cells([1.0, 1.0, *nan], [9.0] * 20)) == (None, None)
    assert end_differences(cells([1.0, 1.0, 1.0, *nan[1:]], [9.0] * 20))[0] is not None


def test_a_run_that_shares_no_update_with_others_has_no_end() -> None:
    nan = [np.nan] * 10
    assert end_differences(cells([1.0] * 10 + nan, nan + [9.0] * 10))[1] is None
    assert end_differences(cells([np.nan] * 10, [9.0] * 10)) == (None, None)
    assert end_differences(cells([np.nan] * 10, [np.nan] * 10)) == (None, None)


def test_two_others_are_needed_where_there_are_several() -> None:
    nan = [np.nan] * 20
    assert end_differences(cells([1.0] * 20, [9.0] * 20, nan)) == (None,) * 3
    three = end_differences(cells([1.0] * 20, [9.0] * 20, [9.0] * 20, nan))
    assert [end is not None for end in three] == [True, False, False, False]


def test_one_of_five_others_is_left_out_at_each_end() -> None:
    values = [[5.0] * 20, [1.0] * 20, [8.0] * 20, [8.0] * 20, [8.0] * 20, [9.0] * 20]
    found = end_differences(cells(*values))
    # 1 is left out of the others of the first, 9 of those of a run at 8
    assert [end is not None for end in found] == [True, True, False, False, False, True]
    assert found[0] is not None
    assert found[0].others == 8.0
    four = end_differences(cells(*values[:5]))
    assert [end is not None for end in four] == [False, True, False, False, False]


def test_the_others_of_an_end_are_the_median_of_their_medians() -> None:
    values = [[50.0] * 20, [1.0] * 20, [2.0] * 20, [9.0] * 20]
    found = end_differences(cells(*values))[0]
    assert found is not None
    assert (found.run, found.others) == (50.0, 2.0)


@pytest.mark.parametrize(("low", "high", "apart"), [(10.0, 20.0, True), (10.0, 15.2, False), (20.0, 10.0, True)])
def test_bands_reach_from_the_tenth_to_the_ninetieth_percentile(low: float, high: float, apart: bool) -> None:
    spread = np.linspace(-5, 5, 11)  # quantiles of 10 % and 90 % are -4 and 4
    rows = [[0.0] * 99 + (middle + spread).tolist() for middle in (low, high)]
    assert (end_differences(cells(*rows))[0] is not None) is apart
    close = [[0.0] * 99 + (middle + spread).tolist() for middle in (10.0, 18.3)]
    assert end_differences(cells(*close))[0] is not None  # 14 and 14.3 are more than 1 % apart


def test_the_highest_of_five_others_is_left_out_and_no_more() -> None:
    values = [[5.0] * 20, [1.0] * 20, [2.0] * 20, [3.0] * 20, [8.0] * 20, [9.0] * 20]
    assert end_differences(cells(*values))[0] is None  # between 2 and 8
    negated = [[-value for value in row] for row in values]
    assert end_differences(cells(*negated))[0] is None


def test_the_size_of_an_end_is_its_median() -> None:
    assert QUANTILES == (0.1, 0.5, 0.9)
    skewed = [0.0] * 30 + [10.0] * 3 + [2000.0] * 2  # of the last five the 90 % quantile is 2,000
    assert end_differences(cells(skewed, [value + 5000 for value in skewed]))[0] is not None
    close = [0.0] * 35 + [1000.0] * 3 + [1040.0] * 2
    far = [0.0] * 35 + [1025.0 + 40] * 2 + [1025.0 + 40] * 3  # 25 beyond 1,040; the sizes are 1,000 and 1,065
    assert [end is not None for end in end_differences(cells(close, far))] == [True, True]
    low = [0.0] * 35 + [900.0] * 2 + [1000.0] * 3  # its 10 % quantile is 900
    high = [0.0] * 35 + [1009.8] * 5  # 9.8 beyond: 1 % of 900 but not of the median, 1,004.9
    assert end_differences(cells(low, high)) == (None, None)


def test_a_run_without_an_end_does_not_take_the_margin_away() -> None:
    nan = [np.nan] * 20
    assert end_differences(cells([1000.0] * 20, [1009.0] * 20, [1009.0] * 20, nan)) == (None,) * 4
