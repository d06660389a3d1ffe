"""Ranks merged say of all samples together what one process would have: held against the pooled samples themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esper_analyze.runs.merge_ranks import merge_ranks, side_by_side
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema import TABLES
from esper_analyze.schema.merging import RankRows
from tests.storage.handmade import HandmadeAttempt, identify, updates

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def run_of(path: Path, *ranks: Rows) -> RecordedRun:
    """Return a run in which each rank recorded its rows."""
    identify(path, ranks=len(ranks))
    for number, tables in enumerate(ranks):
        writer = HandmadeAttempt(path, rank=number)
        writer.seal(listed=True, **dict(tables))
        writer.close()
    return open_run(path)


def merged(path: Path, table: str, *ranks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = merge_ranks(run_of(path, *({table: rows} for rows in ranks))).frame(table).to_dicts()
    return rows


def update(**cells: Any) -> dict[str, Any]:
    return {**updates(0)[0], **cells}


def merged_update(path: Path, *ranks: Mapping[str, Any]) -> dict[str, Any]:
    (row,) = merged(path, "updates", *([update(**cells)] for cells in ranks))
    return row


def test_one_rank_is_unchanged(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {"updates": updates(0, 1)})
    assert merge_ranks(run) is run


RULES: list[tuple[str, tuple[Any, ...], Any]] = [
    ("env_steps", (3, 4, 5), 12),
    ("env_steps", (3, None, 5), 8),
    ("env_steps", (None, None, None), None),
    ("env_steps", (2**62, 2**62, 2**62), 2**63 - 1),
    ("ratio_max", (1.0, 3.0, 2.0), 3.0),
    ("ratio_max", (1.0, None, 2.0), 2.0),
    ("ratio_max", (1.0, math.nan, 2.0), math.nan),
    ("ratio_min", (1.0, 3.0, 2.0), 1.0),
    ("ratio_min", (1.0, math.nan, 2.0), math.nan),
    ("ratio_min", (None, None, None), None),
    ("learning_rate", (None, 2e-4, 3e-4), 2e-4),
    ("learning_rate", (1e-4, 2e-4, 3e-4), 1e-4),
    ("learning_rate", (None, None, None), None),
    ("advantage_std_floored", (False, None, True), True),
    ("advantage_std_floored", (False, None, False), False),
    ("advantage_std_floored", (None, None, None), None),
    ("return_p50", (None, 4.0, None), 4.0),
    ("return_p50", (3.0, 4.0, None), None),
    ("return_p50", (None, None, None), None),
    ("skip_reason", ("full", None, "nan"), "rank 0: full; rank 2: nan"),
    ("skip_reason", (None, None, None), None),
]
MEANS: list[tuple[tuple[Any, ...], tuple[Any, ...], float | None]] = [
    ((1.0, 4.0), (3, 1), 1.75),
    ((1.0, 4.0), (0, 1), 4.0),
    ((1.0, 4.0), (0, 0), None),
    ((1.0, 4.0), (None, None), None),
    ((None, 4.0), (100, 1), 4.0),
    ((None, None), (1, 1), None),
    ((math.nan, 4.0), (1, 1), math.nan),
    ((math.nan, 4.0), (0, 1), 4.0),
    ((math.inf, 4.0), (1, 1), math.inf),
]
WORST = ("interrupted", "nonfinite_skipped", "no_usable_steps", "kl_stopped", "performed")


def side(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each of ``cells``, at update 0, 1, 2 …"""
    return [{**update(), **row, "update": number} for number, row in enumerate(cells)]


def test_each_rule_of_a_column(tmp_path: Path) -> None:
    ranks = [side([{column: cells[rank]} for column, cells, _ in RULES]) for rank in range(3)]
    rows = merged(tmp_path / "run", "updates", *ranks)
    for number, ((column, _, expected), row) in enumerate(zip(RULES, rows, strict=True)):
        assert repr(row[column]) == repr(expected), (number, column)
        assert (row["rank"], row["seq"], row["update"]) == (0, number, number)


def test_a_mean_is_weighted_by_the_samples_of_those_that_have_it(tmp_path: Path) -> None:
    ranks = [
        side([{"kl_k3": values[rank], "samples": weights[rank]} for values, weights, _ in MEANS]) for rank in range(2)
    ]
    rows = merged(tmp_path / "run", "updates", *ranks)
    assert [repr(row["kl_k3"]) for row in rows] == [repr(expected) for *_, expected in MEANS]


def test_the_status_is_the_worst_of_any_rank(tmp_path: Path) -> None:
    pairs = [(worse, better) for i, worse in enumerate(WORST) for better in WORST[i:]]
    ranks = [side([{"status": pair[rank]} for pair in pairs]) for rank in range(2)]
    for number, listed in enumerate((ranks, ranks[::-1])):
        rows = merged(tmp_path / f"{number}", "updates", *listed)
        assert [row["status"] for row in rows] == [worse for worse, _ in pairs]


SIZES = (50, 7, 200)


def samples(seed: int) -> list[dict[str, np.ndarray]]:
    """Return returns, values, advantages, ratios and errors of each rank, of unequal number, level and spread."""
    rng = np.random.default_rng(seed)
    ranks = []
    for number, size in enumerate(SIZES):
        target = rng.exponential(2.0 + number, size) + 5.0 * number
        ranks.append(
            {
                "return": target,
                "value": 0.5 * target + rng.normal(number, 1.0, size),
                "advantage": rng.gamma(1.5, 1.0 + number, size) - number,
                "td_error": rng.normal(0.3 * number, 0.5, size),
                "ratio": rng.lognormal(0.1 * number, 0.2, size),
            }
        )
    return ranks


def moment(x: np.ndarray, order: int) -> float:
    return float((((x - x.mean()) / x.std()) ** order).mean())


def statistics(part: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return what a rank, or one process with all samples, records of them."""
    error = part["return"] - part["value"]
    cells: dict[str, Any] = {"rollout_samples": len(error), "samples": len(error)}
    for name in ("return", "value", "advantage", "td_error", "ratio"):
        cells |= {f"{name}_mean": float(part[name].mean()), f"{name}_std": float(part[name].std())}
    for name in ("return", "value", "advantage", "ratio"):
        cells |= {f"{name}_min": float(part[name].min()), f"{name}_max": float(part[name].max())}
    variance = float(part["return"].var())
    return cells | {
        "return_variance": variance,
        "ev_low_variance": bool(variance < 1e-8),
        "explained_variance": float(1 - error.var() / variance),
        "value_nrmse": float(np.sqrt((error**2).mean() / variance)),
        "value_return_correlation": float(np.corrcoef(part["value"], part["return"])[0, 1]),
        "advantage_skewness": moment(part["advantage"], 3),
        "advantage_kurtosis": moment(part["advantage"], 4) - 3,
        "return_skewness": moment(part["return"], 3),
        "ess_fraction": float(part["ratio"].mean() ** 2 / (part["ratio"] ** 2).mean()),
    }


@pytest.mark.parametrize("seed", range(3))
def test_statistics_of_all_ranks_are_those_of_their_samples_together(tmp_path: Path, seed: int) -> None:
    ranks = samples(seed)
    row = merged_update(tmp_path / "run", *(statistics(part) for part in ranks))
    together = {name: np.concatenate([part[name] for part in ranks]) for name in ranks[0]}
    for name, expected in statistics(together).items():
        assert row[name] == pytest.approx(expected, rel=1e-9), name


def test_samples_that_are_all_equal_have_no_spread_and_nothing_to_divide_by(tmp_path: Path) -> None:
    third = 1 / 3
    equal = {name: np.full(5, third) for name in ("return", "value", "advantage", "td_error", "ratio")}
    cells = statistics_of_equal(equal)
    row = merged_update(tmp_path / "run", cells, cells | {"rollout_samples": 7, "samples": 7})
    assert [row[f"{name}_std"] for name in ("return", "value", "advantage", "td_error", "ratio")] == [0.0] * 5
    assert (row["return_variance"], row["ev_low_variance"]) == (0.0, True)
    undefined = ["explained_variance", "value_nrmse", "value_return_correlation"]
    undefined += ["advantage_skewness", "advantage_kurtosis", "return_skewness"]
    assert [row[name] for name in undefined] == [None] * 6
    assert row["ess_fraction"] == 1.0


def statistics_of_equal(part: Mapping[str, np.ndarray]) -> dict[str, Any]:
    cells: dict[str, Any] = {"rollout_samples": 5, "samples": 5, "return_variance": 0.0, "ev_low_variance": True}
    for name, numbers in part.items():
        cells |= {f"{name}_mean": float(numbers[0]), f"{name}_std": 0.0}
    for name in ("return", "value", "advantage", "ratio"):
        cells |= {f"{name}_min": float(part[name][0]), f"{name}_max": float(part[name][0])}
    return cells


def test_equal_returns_on_each_rank_at_two_levels_have_a_spread_together(tmp_path: Path) -> None:
    """Explained variance is undefined on either rank; together the values explain part of the two levels."""
    low = {"return_mean": 1.0, "value_mean": 1.5, "return_variance": 0.0, "value_std": 0.0, "rollout_samples": 10}
    high = {"return_mean": 3.0, "value_mean": 2.5, "return_variance": 0.0, "value_std": 0.5, "rollout_samples": 10}
    row = merged_update(tmp_path / "run", low, high)
    assert row["return_variance"] == pytest.approx(1.0)
    error = np.array([-0.5] * 10 + [0.0, 1.0] * 5)  # a spread of 0.5 around 2.5
    target = np.array([1.0] * 10 + [3.0] * 10)
    assert row["explained_variance"] == pytest.approx(1 - error.var() / target.var())
    assert row["value_nrmse"] == pytest.approx(math.sqrt((error**2).mean() / target.var()))
    assert row["value_return_correlation"] == pytest.approx(np.corrcoef(target - error, target)[0, 1])


def test_a_moment_that_one_rank_has_none_of_counts_as_that_of_equal_samples(tmp_path: Path) -> None:
    spread = np.array([0.0, 1.0, 1.0, 5.0])
    one = {"advantage": spread, "equal": np.full(4, 2.0)}
    cells = [
        {
            "rollout_samples": 4,
            "advantage_mean": float(part.mean()),
            "advantage_std": float(part.std()),
            "advantage_min": float(part.min()),
            "advantage_max": float(part.max()),
            "advantage_skewness": moment(part, 3) if part.std() else None,
            "advantage_kurtosis": moment(part, 4) - 3 if part.std() else None,
        }
        for part in one.values()
    ]
    row = merged_update(tmp_path / "run", *cells)
    together = np.concatenate(list(one.values()))
    assert row["advantage_skewness"] == pytest.approx(moment(together, 3))
    assert row["advantage_kurtosis"] == pytest.approx(moment(together, 4) - 3)


@pytest.mark.parametrize(("std", "defined"), [(0.9e-12, False), (1.1e-12, True)])
def test_a_spread_at_rounding_error_has_no_shape(tmp_path: Path, std: float, defined: bool) -> None:
    cells = {"rollout_samples": 4, "advantage_mean": -1.0, "advantage_std": std, "advantage_skewness": 0.5}
    cells |= {"advantage_min": -1.0, "advantage_max": -0.5, "advantage_kurtosis": 0.1}
    row = merged_update(tmp_path / "run", cells, cells)
    assert (row["advantage_skewness"] is not None) is defined
    assert (row["advantage_kurtosis"] is not None) is defined


def lstm(**cells: Any) -> dict[str, Any]:
    return {"update": 0, "phase": "rollout", **cells}


def test_recurrent_states_of_all_ranks_are_one_state(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    states = [rng.normal(size=12), rng.normal(size=30)]
    ranks = [
        [
            lstm(
                elements=len(x),
                has_nan=number == 1,
                has_inf=None,
                **{f"{letter}_rms": float(np.sqrt((x**2).mean())) for letter in "hc"},
                **{f"{letter}_l2_total": float(np.linalg.norm(x)) for letter in "hc"},
            )
        ]
        for number, x in enumerate(states)
    ]
    (row,) = merged(tmp_path / "run", "lstm", *ranks)
    x = np.concatenate(states)
    for letter in "hc":
        assert row[f"{letter}_rms"] == pytest.approx(float(np.sqrt((x**2).mean())))
        assert row[f"{letter}_l2_total"] == pytest.approx(float(np.linalg.norm(x)))
    assert (row["elements"], row["has_nan"], row["has_inf"]) == (42, True, None)
    partly = [[lstm(elements=4, h_rms=2.0, h_l2_total=4.0)], [lstm(elements=400)]]
    (row,) = merged(tmp_path / "other", "lstm", *partly)
    assert (row["h_rms"], row["h_l2_total"], row["c_rms"], row["c_l2_total"]) == (2.0, 4.0, None, None)


def head(number: int, name: str, **cells: Any) -> dict[str, Any]:
    return {"update": number, "head": name, "kind": "categorical", **cells}


def test_rows_are_merged_by_their_key_in_the_order_of_updates(tmp_path: Path) -> None:
    first = [head(0, "b", samples=1), head(0, "a", samples=2), head(2, "a", samples=4)]
    second = [head(0, "a", samples=8), head(1, "b", samples=16), head(0, "c", samples=32)]
    rows = merged(tmp_path / "run", "heads", first, second)
    assert [(row["update"], row["head"], row["samples"]) for row in rows] == [
        (0, "b", 1),
        (0, "a", 10),
        (0, "c", 32),
        (1, "b", 16),
        (2, "a", 4),
    ]
    assert [row["seq"] for row in rows] == list(range(5))
    assert {row["rank"] for row in rows} == {0}


def test_why_a_head_s_gradient_is_zero_is_told_of_what_all_ranks_saw(tmp_path: Path) -> None:
    zero = {"grad_state": "finite", "grad_norm": 0.0, "rollout_samples": 10}
    masked = zero | {"learnable_fraction": 0.0, "relevant_fraction": 1.0, "effective_fraction": 0.0}
    free = zero | {"learnable_fraction": 0.5, "relevant_fraction": 1.0, "effective_fraction": 0.5}
    (row,) = merged(tmp_path / "a", "heads", [head(0, "a", **masked)], [head(0, "a", **masked)])
    assert row["zero_explained"] == "masked"
    (row,) = merged(tmp_path / "b", "heads", [head(0, "a", **masked)], [head(0, "a", **free)])
    assert (row["zero_explained"], row["learnable_fraction"]) == ("unexplained", 0.25)


def test_groups_are_those_of_the_first_rank_that_recorded_and_events_those_of_all(tmp_path: Path) -> None:
    group = {"update": 0, "group": "all"}
    event = {"update": 0, "kind": "note", "subject": "x"}
    run = run_of(
        tmp_path / "run",
        {"updates": updates(0)},
        {"updates": updates(0), "groups": [{**group, "grad_norm": 2.0}], "events": [event]},
        {"updates": updates(0), "groups": [{**group, "grad_norm": 3.0}], "events": [event, event]},
    )
    joined = merge_ranks(run)
    groups = joined.frame("groups")
    assert groups["grad_norm"].to_list() == [2.0]
    assert groups["rank"].to_list() == [0]
    assert joined.frame("events")["rank"].to_list() == [1, 2, 2]
    assert joined.merged is not None
    assert set(joined.merged) == {table.name for table in TABLES}
    assert {table.ranks for table in TABLES} == set(RankRows)


def test_slots_keep_the_rows_of_each_rank_s_own_environments(tmp_path: Path) -> None:
    def slot(number: int, place: str) -> dict[str, Any]:
        return {"update": number, "place": place, "env": 0, "slot": "s"}

    ranks = [[slot(0, "x"), slot(1, "x")], [slot(0, "x"), slot(1, "y")]]
    rows = merged(tmp_path / "run", "slots", *ranks)
    assert [(row["update"], row["place"]) for row in rows] == [
        (0, "rank 0, x"),
        (0, "rank 1, x"),
        (1, "rank 0, x"),
        (1, "rank 1, y"),
    ]
    assert [row["seq"] for row in rows] == [0, 1, 2, 3]
    assert {row["rank"] for row in rows} == {0}


COMPARED: list[tuple[tuple[Any, ...], tuple[Any, ...] | None]] = [
    ((2.0, 2.0, None), (2, 2.0, 2.0, 0.0)),
    ((2.0, 1.5, 1.0), (3, 1.0, 2.0, 0.5)),
    ((-2.0, -1.0, None), (2, -2.0, -1.0, 0.5)),
    ((-1.0, 1.0, None), (2, -1.0, 1.0, 2.0)),
    ((0.0, 0.0, None), (2, 0.0, 0.0, 0.0)),
    ((2.0, None, None), (1, 2.0, 2.0, None)),
    ((None, None, None), None),
    ((math.nan, 2.0, None), (2, None, None, math.inf)),
    ((math.inf, 2.0, 2.0), (3, None, None, math.inf)),
]


def test_what_must_agree_is_compared_as_a_share_of_the_larger(tmp_path: Path) -> None:
    cells = [one for one, _ in COMPARED] + [(math.nan, math.nan, None)]
    ranks = [side([{"grad_norm_pre_clip": one[rank]} for one in cells]) for rank in range(3)]
    run = run_of(tmp_path / "run", *({"updates": rows} for rows in ranks))
    rows = {row["update"]: row for row in side_by_side(run).to_dicts() if row["metric"] == "grad_norm_pre_clip"}
    for number, (_, expected) in enumerate(COMPARED):
        found = rows.get(number)
        names = ("ranks", "least", "most", "spread")
        assert (None if found is None else tuple(found[name] for name in names)) == expected
    assert (rows[9]["ranks"], rows[9]["spread"]) == (2, 0.0), "finite nowhere is not apart"


def test_ranks_are_compared_by_update_and_metric_settings_before_groups(tmp_path: Path) -> None:
    def rows(norm: float) -> Rows:
        return {
            "updates": updates(0, 1, learning_rate=0.5, clip_range=0.25),
            "groups": [
                {"update": number, "group": group, "grad_norm": norm, "update_ratio": None if number else 1.0}
                for number in (1, 0)
                for group in ("b", "a")
            ],
        }

    found = side_by_side(run_of(tmp_path / "run", rows(1.0), rows(4.0))).to_dicts()
    listed = [(row["update"], row["metric"], row["spread"]) for row in found]
    assert listed == [
        (0, "learning_rate", 0.0),
        (0, "clip_range", 0.0),
        (0, "b.grad_norm", 0.75),
        (0, "b.update_ratio", 0.0),
        (0, "a.grad_norm", 0.75),
        (0, "a.update_ratio", 0.0),
        (1, "learning_rate", 0.0),
        (1, "clip_range", 0.0),
        (1, "b.grad_norm", 0.75),
        (1, "a.grad_norm", 0.75),
    ]
    assert [row["seq"] for row in found] == list(range(10))


def test_groups_of_one_rank_are_compared_with_nothing(tmp_path: Path) -> None:
    group = {"update": 0, "group": "all", "grad_norm": 2.0}
    run = run_of(
        tmp_path / "run",
        {"updates": updates(0, learning_rate=0.5), "groups": [group]},
        {"updates": updates(0, learning_rate=0.5)},
    )
    assert side_by_side(run)["metric"].to_list() == ["learning_rate"]
