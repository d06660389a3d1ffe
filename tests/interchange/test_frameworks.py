"""Logs of every framework: each is recognised as itself, and every number is in its cell."""

from __future__ import annotations

import math
from typing import Any

import pytest

from esper_analyze.errors import UsageError
from esper_analyze.interchange.imported import Imported, regular_interval
from esper_analyze.interchange.naming import _ALL, FRAMEWORKS, _fitting, take_updates
from esper_analyze.interchange.numbering import by_count, by_step
from esper_analyze.interchange.series import LogRow, Named, in_schema, leave_out
from tests.interchange.framework_logs import LOGS, FrameworkLog, Points, in_columns, scalar_log

_PLACED = {"update", "level", "status", "wall_time", "episodes_finished"}


def taken(points: Points, framework: str | None = None, *, timesteps: bool = True, walls: bool = True) -> Imported:
    imported = Imported("x")
    take_updates(scalar_log(points, timesteps=timesteps, walls=walls), imported, "the log", framework)
    return imported


def filled(imported: Imported) -> dict[int, dict[str, Any]]:
    """The cells of each update that are not empty."""
    return {
        int(str(row["update"])): {name: cell for name, cell in row.items() if cell is not None and name not in _PLACED}
        for row in imported.rows["updates"]
    }


@pytest.mark.parametrize("example", LOGS.values(), ids=LOGS.keys())
def test_every_number_of_a_framework_is_in_its_cell(example: FrameworkLog) -> None:
    imported = taken(example.points, timesteps=example.timesteps)
    expected = {
        update: {name: cell for name, cell in in_columns(cells).items() if cell is not None}
        for update, cells in example.updates.items()
    }
    assert filled(imported) == expected
    heads = {row["update"]: row["std_mean"] for row in imported.rows.get("heads", [])}
    assert heads == (example.heads if in_columns({"std_mean": 1.0}, "heads") else {})
    assert imported.facts["algorithm"] == ("GRPO or RLOO" if example is LOGS["trl grpo"] else "PPO")
    for name in example.left_out:
        assert imported.left_out[name]
    filled_columns = {f"updates.{name}" for cells in expected.values() for name in cells}
    assert filled_columns - {"updates.env_steps", "updates.episode_return_mean", "updates.episode_length_mean"} <= set(
        imported.columns
    )


@pytest.mark.parametrize("example", LOGS.values(), ids=LOGS.keys())
def test_a_log_is_recognised_as_that_of_its_framework_and_of_no_other(example: FrameworkLog) -> None:
    names = list(scalar_log(example.points).series)
    assert [framework.name for framework in _fitting(names)] == [example.framework]
    assert {framework.name for framework in _ALL if framework.tells(names)} == {example.framework}


def test_every_framework_has_an_example() -> None:
    assert {example.framework for example in LOGS.values()} | {"export"} == set(FRAMEWORKS)


def test_what_is_like_ppo_is_read_under_its_own_name() -> None:
    poca = taken([(64, {"Losses/Policy Loss": 0.1, "Losses/Value Loss": 0.2, "Losses/Baseline Loss": 0.3})])
    assert poca.facts["algorithm"] == "POCA"
    assert poca.left_out == {"Losses/Baseline Loss": "the counterfactual baseline of POCA"}


def test_what_was_asked_for_is_read_by_its_names() -> None:
    points = [(64, {"losses/value_loss": 0.5, "losses/entropy": 0.6}), (128, {"losses/approx_kl": 0.01})]
    with pytest.raises(UsageError, match=r"the log can be a log of CleanRL or PufferLib: losses/value_loss, ") as two:
        taken(points)
    assert two.value.hint == "say which: --from cleanrl or --from pufferlib"
    assert filled(taken(points, "cleanrl"))[1] == {"env_steps": 128, "kl_k3_last_epoch": 0.01}
    assert filled(taken(points, "pufferlib"))[1] == {"env_steps": 128, "kl_k3": 0.01}
    with pytest.raises(UsageError, match=r"the log has no name that Stable-Baselines3 writes: Loss/surrogate\n") as odd:
        taken([(0, {"Loss/surrogate": 1.0})], "stable-baselines3")
    assert odd.value.hint == "it looks like a log of rsl_rl"
    with pytest.raises(UsageError, match="has no name that CleanRL writes: x") as unknown:
        taken([(0, {"x": 1.0})], "cleanrl")
    assert unknown.value.hint == "leave out --from"
    with pytest.raises(UsageError, match="keras is not the name of a framework"):
        taken(points, "keras")


def test_names_of_two_frameworks_are_those_of_the_one_that_has_more_of_them() -> None:
    assert taken([(64, {**dict(LOGS["rsl_rl"].points[1][1]), "charts/SPS": 1.0})]).facts["framework"] == "rsl_rl"
    both = {"Loss/surrogate": 1.0, "losses/a_loss": 1.0}
    with pytest.raises(UsageError, match="can be a log of rsl_rl or rl_games"):
        taken([(64, both)])


@pytest.mark.parametrize("names", [["losses/entropy"], ["loss", "learning_rate", "grad_norm"], ["train/loss"]])
def test_a_name_that_many_write_selects_none(names: list[str]) -> None:
    with pytest.raises(UsageError, match="none that is known of a PPO training"):
        taken([(64, dict.fromkeys(names, 1.0))])


def test_a_log_that_only_began_has_no_update() -> None:
    imported = taken([(64, {"charts/episodic_return": 1.0})])
    assert (imported.facts["framework"], imported.rows) == ("CleanRL", {})


def test_a_log_interval_is_no_gap_and_an_entry_that_lacks_is_one() -> None:
    imported = taken(LOGS["baselines"].points, timesteps=False)
    assert imported.facts["logged_every"] == 10
    assert imported.losses.rows() == []
    steps = [step for step in range(10, 400, 10) if step != 200]
    gap = taken([(step, {"clip_ratio/region_mean": 0.1, "completions/mean_length": 5.0}) for step in steps])
    assert gap.facts["logged_every"] == 10
    (row,) = gap.losses.rows()
    assert (row["kind"], row["rows"], row["update"]) == ("missing_updates", 1, 199)
    assert taken(LOGS["pufferlib"].points).losses.rows() == []  # it logs by the clock
    assert "logged_every" not in taken([(step, {"Loss/surrogate": 0.1}) for step in range(9)]).facts


@pytest.mark.parametrize(
    ("numbers", "interval"),
    [((), 1), ((0,), 1), ((0, 5), 1), ((0, 5, 10), 5), ((0, 9, 19, 29), 10), ((0, 1, 2, 4), 1), ((0, 2, 5, 9, 14), 1),
     (tuple(range(0, 100, 5)), 5), ((*range(0, 100, 5), 97), 5), ((0, 10, 30, 40), 1)],
)  # fmt: skip
def test_an_interval_is_that_of_nine_in_ten_distances(numbers: tuple[int, ...], interval: int) -> None:
    assert regular_interval(numbers) == interval


def test_counts_number_updates_only_where_they_rise() -> None:
    def rows(*counts: object) -> list[LogRow]:
        return [LogRow(at, None, {"epoch": count}) for at, count in enumerate(counts)]

    assert by_count(rows(1, 3, 4), ("none", "epoch")) == [0, 2, 3]
    for odd in (rows(1, 1), rows(0, 1), rows(2, 1), rows(1, None), rows(1, "x"), rows(1, 1.5)):
        assert by_count(odd, ("epoch",)) is None
    assert by_step([LogRow(5, None, {}), LogRow(9, None, {})], 1) == [4, 8]
    assert by_step([LogRow(0, None, {}), LogRow(1, None, {})], 1) == [0, 1]


def test_zero_by_construction_is_null_and_zero_that_was_measured_stays() -> None:
    grpo = [(1, {"clip_ratio/region_mean": 0.0, "clip_ratio/low_mean": 0.0, "completions/mean_length": 5.0}),
            (2, {"clip_ratio/region_mean": 0.1, "clip_ratio/low_mean": 0.0})]  # fmt: skip
    cells = filled(taken(grpo))
    assert (cells[0]["clip_fraction"], cells[1]["clip_fraction"]) == (0.0, 0.1)
    assert "clip_fraction_negative" not in cells[0]
    off = taken([(0, {"learners/p/mean_kl_loss": 0.0, "learners/p/vf_loss": 1.0})])
    assert "kl_k3" not in filled(off)[0]
    assert "not measured" in off.left_out["learner/mean_kl_loss"]


def test_explained_variance_of_returns_that_do_not_vary_is_undefined_not_broken() -> None:
    def row(explained: float, loss: float | None, step: int) -> tuple[int, dict[str, float]]:
        return step, {"charts/SPS": 1.0, "losses/explained_variance": explained} | (
            {} if loss is None else {"losses/value_loss": loss}
        )

    cases = [(math.nan, 0.5), (math.nan, math.nan), (0.25, 0.5), (math.nan, None), (-math.inf, 0.0), (-43.0, 1e-8)]
    imported = taken([row(explained, loss, 64 * (at + 1)) for at, (explained, loss) in enumerate(cases)])
    cells = filled(imported)
    assert [cell.get("ev_low_variance") for cell in cells.values()] == [True, None, None, None, True, None]
    assert ["explained_variance" in cell for cell in cells.values()] == [False, True, True, True, False, True]
    assert math.isnan(cells[1]["explained_variance"])
    assert math.isnan(cells[3]["explained_variance"])
    assert cells[5]["explained_variance"] == -43.0
    words = "losses/explained_variance; NaN while the value loss is finite: returns do not vary"
    assert imported.columns["updates.ev_low_variance"] == words


def test_our_own_export_keeps_what_it_holds() -> None:
    cells = filled(taken([(0, {"updates/explained_variance": math.nan, "updates/value_loss": 1.0})]))
    assert math.isnan(cells[0]["explained_variance"])
    assert "ev_low_variance" not in cells[0]


def test_a_slightly_negative_kl_stays_as_it_was_logged() -> None:
    assert filled(taken(LOGS["sb3"].points))[1]["kl_k3_last_epoch"] == -1e-9


def test_of_several_policies_one_is_read_and_the_others_are_named() -> None:
    imported = taken(LOGS["rllib new"].points, timesteps=False)
    assert imported.facts["notes"] == "of 2 policies this is p1"
    assert imported.left_out["learners/p2/policy_loss"] == "of another policy"


def test_tianshou_s_returns_need_the_time_of_logging() -> None:
    cells = filled(taken(LOGS["tianshou 1"].points, walls=False))
    assert cells[0] == {"policy_loss": -0.01, "value_loss": 3.0, "entropy": 0.6, "total_loss": 1.5}


def test_a_row_of_a_head_is_there_where_its_spread_was_logged() -> None:
    if not in_columns({"std_mean": 1.0}, "heads"):
        pytest.skip("the schema has no column for it")
    imported = taken([(0, {"Loss/surrogate": 1.0}), (1, {"Loss/surrogate": 1.0, "Policy/mean_std": 0.0})])
    assert imported.rows["heads"] == [{"update": 1, "head": "action", "kind": "gaussian", "std_mean": 0.0}]
    assert imported.facts["heads"] == {"action": None}


def test_a_column_that_the_schema_lacks_is_left_out() -> None:
    named = {"a": Named("value_loss"), "b": Named("no_such_column"), "c": Named("grad_norm", table="heads")}
    assert set(in_schema(named)) == {"a", "c"}
    imported = Imported("x")
    leave_out(imported, ["a", "b", "Perf/fps"], ["a"], {"Perf/": "a speed"})
    assert imported.left_out == {"b": "no column holds it", "Perf/fps": "a speed"}


GENERIC = [
    (0, {"Opt/approxkl": 0.01, "Opt/clipfrac": 0.1, "Opt/entropy": 1.2, "VFStats/EV": 0.4, "EpRewMean": 3.0,
         "Opt/negent": 5.0, "eval/entropy": 9.0, "Misc/InteractCount": 64}),
    (1, {"Opt/approxkl": 0.02, "Opt/clipfrac": 0.2}),
]  # fmt: skip


def test_names_of_no_framework_that_are_clearly_of_ppo_are_guessed_and_said() -> None:
    imported = taken(GENERIC, timesteps=False)
    assert filled(imported) == {
        0: {"kl_k3_last_epoch": 0.01, "clip_fraction": 0.1, "entropy": 1.2, "explained_variance": 0.4,
            "episode_return_mean": 3.0},
        1: {"kl_k3_last_epoch": 0.02, "clip_fraction": 0.2},
    }  # fmt: skip
    assert "guessed: Opt/approxkl as kl_k3_last_epoch, Opt/clipfrac as clip_fraction" in str(imported.facts["notes"])
    assert imported.facts["framework"] is None
    assert imported.left_out["eval/entropy"] == "not understood"


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["my.Policy Loss", "my.Value-Loss"], {"policy_loss", "value_loss"}),
        (["train/policy_loss", "train/value_loss", "train/entropy"], {"policy_loss", "value_loss", "entropy"}),
        (["agent/pg_loss", "agent/v_loss", "agent/lr"], {"policy_loss", "value_loss", "learning_rate"}),
        (["a/policy_loss", "b/policy_loss", "a/approx_kl"], {"policy_loss", "kl_k3_last_epoch"}),
    ],
)
def test_the_last_part_of_a_name_counts_whatever_its_letters(names: list[str], columns: set[str]) -> None:
    assert set(filled(taken([(0, dict.fromkeys(names, 0.5))]))[0]) == columns


@pytest.mark.parametrize("names", [["policy_loss", "accuracy"], ["lr", "ep_rew_mean"], ["eval/entropy", "ev"]])
def test_one_name_alone_is_not_clearly_of_ppo(names: list[str]) -> None:
    with pytest.raises(UsageError, match="none that is known of a PPO training"):
        taken([(0, dict.fromkeys(names, 0.5))])


def test_a_name_as_long_as_a_file_is_cut_where_it_is_shown() -> None:
    with pytest.raises(UsageError, match="known of a PPO training") as refused:
        taken([(0, {"x" * 5000 + "\x1b[31m": 1.0})])
    assert len(refused.value.message) < 200
    imported = taken([(0, {"x" * 5000 + "/approx_kl": 0.1, "y/clipfrac": 0.1})])
    assert len(str(imported.facts["notes"])) < 400
