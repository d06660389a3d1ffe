"""Names of other libraries and of our exports: which update each number is of, on logs of a few points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from esper_analyze.errors import UsageError
from esper_analyze.interchange import names_cleanrl, names_own, names_sb3
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.naming import take_updates
from esper_analyze.interchange.sb3_order import _iteration_of, _trained, in_order
from esper_analyze.interchange.series import LogRow, ScalarLog
from esper_analyze.schema.tables import LAYERS, UPDATES

Points = Sequence[tuple[int, dict[str, Any]]]


def log(points: Points, *, timesteps: bool = True, walls: bool = False) -> ScalarLog:
    found = ScalarLog(timesteps=timesteps)
    for step, cells in points:
        for name, value in cells.items():
            found.add(name, step, value, 1000.0 + step if walls else None)
    return found


def lost(imported: Imported) -> dict[str, tuple[object, object, object]]:
    return {str(row["kind"]): (row["detail"], row["rows"], row["update"]) for row in imported.losses.rows()}


def sb3(points: Points, *, timesteps: bool = False) -> Imported:
    imported = Imported("x")
    names_sb3.take(log(points, timesteps=timesteps), imported)
    return imported


def updates(imported: Imported, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row.get(name) for name in ("update", *names)) for row in imported.rows.get("updates", [])]


def dump(iteration: int, loss: float | None, **more: Any) -> dict[str, Any]:
    trained = {} if loss is None else {"train/loss": loss}
    return {"time/iterations": iteration, "time/total_timesteps": 64 * iteration, **trained, **more}


def test_a_training_is_of_the_update_before_its_dump() -> None:
    found = sb3([(0, dump(1, None)), (1, dump(2, 0.5)), (2, dump(3, 0.25))])
    assert updates(found, "total_loss", "env_steps") == [(0, 0.5, 64), (1, 0.25, 128)]
    assert lost(found) == {
        "unfinished_update": ("1 × last rollout, whose training Stable-Baselines3 never logs: update 2", 0, 2)
    }
    assert found.facts == {"framework": "Stable-Baselines3", "algorithm": "PPO"}
    assert {row["status"] for row in found.rows["updates"]} == {"performed"}
    assert {row["level"] for row in found.rows["updates"]} == {"NORMAL"}
    assert found.left_out == {}
    assert found.columns["updates.total_loss"] == "train/loss; last minibatch, not the mean"


def test_a_last_training_that_was_dumped_is_kept() -> None:
    found = sb3([(0, dump(1, None)), (1, dump(2, 0.5)), (2, {"eval/best_reward": 1.0, "train/loss": 0.25})])
    assert updates(found, "total_loss") == [(0, 0.5), (1, 0.25)]
    assert lost(found) == {}
    assert found.left_out == {"eval/best_reward": "no column holds it"}


def test_environment_steps_are_those_of_the_dump() -> None:
    found = sb3([(64, {"rollout/ep_rew_mean": 1.0}), (128, {"rollout/ep_rew_mean": 2.0, "train/loss": 0.5})],
                timesteps=True)  # fmt: skip
    assert updates(found, "env_steps", "episode_return_mean", "total_loss") == [(0, 64, 1.0, 0.5)]
    positions = sb3([(64, {"rollout/ep_rew_mean": 1.0}), (128, {"rollout/ep_rew_mean": 2.0, "train/loss": 0.5})])
    assert updates(positions, "env_steps") == [(0, None)]


def test_a_first_dump_that_tells_of_a_training_and_not_of_its_place_is_sparse() -> None:
    found = sb3([(3, {"time/fps": 9, "train/loss": 1.0}), (6, {"time/fps": 9, "train/loss": 2.0})])
    assert updates(found, "total_loss") == [(0, 1.0), (1, 2.0)]
    assert "log_interval above 1" in str(found.facts["notes"])
    placed = sb3([(3, dump(3, 1.0)), (6, dump(6, 2.0))])
    assert updates(placed, "total_loss", "env_steps") == [(1, 1.0, None), (2, None, 192), (4, 2.0, None)]
    assert "notes" not in placed.facts
    assert placed.facts["logged_every"] == 3
    assert "missing_updates" not in lost(placed)


def test_a_second_call_of_learn_goes_on() -> None:
    first = [(0, dump(1, None)), (1, dump(2, 0.1))]
    second = [(2, dump(1, 0.2)), (3, dump(2, 0.3)), (4, dump(3, 0.4))]
    found = sb3([*first, *second])
    assert updates(found, "total_loss") == [(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4)]


def test_calls_of_learn_of_one_iteration_each_go_on() -> None:
    found = sb3([(at, dump(1, loss, **{"train/n_updates": 10 * at})) for at, loss in ((0, None), (1, 0.5), (2, 0.25))])
    assert updates(found, "total_loss") == [(0, 0.5), (1, 0.25)]


def test_every_name_of_stable_baselines_is_in_its_column() -> None:
    trained = {name: float(place) for place, name in enumerate(names_sb3.TRAIN, start=1)}
    found = sb3([(0, dump(1, None, **{"rollout/ep_rew_mean": 8.5, "rollout/ep_len_mean": 9.5})),
                 (1, {**dump(2, None), **trained})])  # fmt: skip
    (row,) = found.rows["updates"]
    assert {name: cell for name, cell in row.items() if name not in ("update", "level", "status")} == {
        "episode_return_mean": 8.5, "episode_length_mean": 9.5, "env_steps": 64, "kl_k3_last_epoch": 1.0,
        "clip_fraction": 2.0, "clip_range": 3.0, "entropy_loss": 4.0, "explained_variance": 5.0, "learning_rate": 6.0,
        "total_loss": 7.0, "policy_loss": 8.0, "value_loss": 9.0,
    }  # fmt: skip
    window = "mean over the last 100 episodes, not those of the update"
    assert found.columns["updates.episode_return_mean"] == f"rollout/ep_rew_mean; {window}"
    assert found.columns["updates.episode_length_mean"] == f"rollout/ep_len_mean; {window}"
    assert found.columns["updates.value_loss"] == "train/value_loss"


def test_every_name_of_cleanrl_is_in_its_column() -> None:
    logged = {name: float(place) for place, name in enumerate(names_cleanrl.UPDATES, start=1)}
    (row,) = cleanrl([(64, logged)]).rows["updates"]
    last = "last minibatch, not the mean"
    assert {named.column: (row[named.column], named.caveat) for named in names_cleanrl.UPDATES.values()} == {
        "value_loss": (1.0, last), "policy_loss": (2.0, last), "entropy": (3.0, last), "kl_k1": (4.0, last),
        "kl_k3_last_epoch": (5.0, "last minibatch, not the mean over its epoch"), "clip_fraction": (6.0, ""),
        "explained_variance": (7.0, ""), "learning_rate": (8.0, ""),
    }  # fmt: skip


def test_without_any_update_nothing_is_added() -> None:
    found = sb3([(0, {"train/loss": 0.5})])
    assert updates(found) == []
    assert lost(found) == {}
    only = sb3([(0, dump(1, None))])
    assert (updates(only), lost(only)["unfinished_update"][2]) == ([], 0)


def row(step: int, **cells: Any) -> LogRow:
    return LogRow(step, None, {name.replace("__", "/"): cell for name, cell in cells.items()})


def ordered(*rows: LogRow) -> tuple[list[int], dict[str, tuple[object, object, object]]]:
    """Return the steps of the rows in order, and what was odd."""
    imported = Imported("x")
    found = in_order(rows, names_sb3._dumped, imported)
    return [one.step for one in found], lost(imported)


def test_rows_that_say_nothing_of_their_place_stay_as_they_are() -> None:
    rows = [row(5, train__loss=1.0), row(3, rollout__x=1.0), row(3, rollout__x=1.0)]
    assert ordered(*rows) == ([5, 3, 3], {})


def test_rows_are_put_in_the_order_of_their_iterations_and_the_last_of_two_stands() -> None:
    rows = [row(step, time__iterations=iteration) for step, iteration in ((0, 1), (1, 3), (2, 2), (3, 3), (4, 4))]
    steps, odd = ordered(*rows)
    assert steps == [0, 2, 3, 4]
    assert odd == {
        "unordered_row": ("1 × row before which later ones stand, put in order: row 2", 0, 0),
        "repeated_row": ("1 × row logged again, the last stands: row 3", 0, 0),
    }


def test_without_iterations_environment_steps_tell_the_order() -> None:
    rows = [row(step, time__total_timesteps=count, time__fps=1) for step, count in ((0, 64), (1, 192), (2, 128))]
    assert ordered(*rows)[0] == [0, 2, 1]


def test_epochs_tell_the_order_over_calls_of_learn() -> None:
    rows = [
        row(0, time__iterations=1),
        row(1, time__iterations=2, train__n_updates=10),
        row(2, time__iterations=1, train__n_updates=20),
        row(3, time__iterations=2, train__n_updates=30),
    ]
    assert ordered(*rows) == ([0, 1, 2, 3], {})
    assert ordered(rows[3], rows[1], rows[0], rows[2])[0] == [0, 1, 2, 3]


def test_without_epochs_a_call_begins_with_the_first_number_again() -> None:
    def call(first: int, loss: float) -> list[LogRow]:
        return [row(first + at, time__iterations=at + 1, x=loss) for at in range(3)]

    assert ordered(*call(0, 0.1), *call(3, 0.2), *call(6, 0.3)) == ([0, 1, 2, 3, 4, 5, 6, 7, 8], {})
    again = ordered(*call(0, 0.1), *[row(3 + at, time__iterations=at + 1, x=0.1) for at in range(3)])
    assert again[0] == [3, 4, 5]  # the very same rows are a copy, not another call
    assert again[1]["repeated_row"][0] == "3 × row logged again, the last stands: row 3, row 4, row 5"


def test_a_row_logged_twice_in_a_row_begins_no_call() -> None:
    rows = [row(0, time__iterations=1, x=1.0), row(1, time__iterations=1, x=2.0), row(2, time__iterations=2, x=1.0)]
    steps, odd = ordered(*rows)
    assert (steps, odd["repeated_row"][0]) == ([1, 2], "1 × row logged again, the last stands: row 1")


def test_an_evaluation_stays_with_the_dump_behind_it() -> None:
    rows = [
        row(0, time__iterations=1),
        row(1, train__n_updates=10, eval__x=1.0, train__loss=0.5),
        row(2, time__iterations=2),
        row(3, time__iterations=3, train__n_updates=20),
        row(4, eval__x=2.0),
    ]
    assert ordered(*rows) == ([0, 1, 2, 3, 4], {})
    assert ordered(*rows[:4]) == ([0, 1, 2, 3], {})


def test_an_evaluation_in_the_last_rollout_stays_behind_the_dump_before_it() -> None:
    dumps = [row(step, time__iterations=step + 1) for step in range(3)]
    last = row(3, eval__x=1.0, train__loss=0.5)
    assert ordered(*dumps, last) == ([0, 1, 2, 3], {})
    assert ordered(dumps[1], dumps[2], dumps[0], last)[0] == [0, 3, 1, 2]
    assert ordered(last) == ([3], {})
    assert ordered(row(3, time__total_timesteps=64, train__loss=0.5)) == ([3], {})
    assert ordered(*dumps, row(3, time__total_timesteps=1, train__loss=0.5))[0] == [0, 1, 2, 3]
    evaluated = [row(0, time__iterations=1), row(1, eval__x=1.0), row(2, time__iterations=2)]
    assert ordered(*evaluated, row(3, time__total_timesteps=1, train__loss=0.5))[0] == [0, 1, 2, 3]
    stepped = [row(step, time__total_timesteps=64 * step, time__fps=1) for step in (1, 3)]
    assert ordered(*stepped, row(2, time__total_timesteps=128))[0] == [1, 2, 3]  # steps can be compared
    trained = [row(step, time__iterations=step + 1, train__n_updates=10 * step) for step in (0, 2)]
    assert ordered(*trained, row(1, train__n_updates=10))[0] == [0, 1, 2]


def test_an_evaluation_before_a_late_dump_goes_with_it() -> None:
    rows = [row(step, time__iterations=iteration) for step, iteration in ((0, 1), (1, 3))]
    late = [row(2, eval__x=1.0), row(3, time__iterations=2)]
    assert ordered(*rows, *late)[0] == [0, 2, 3, 1]
    assert ordered(rows[0], row(4, eval__x=1.0)) == ([0, 4], {})
    many = [row(at, time__iterations=at + 1) for at in range(3)]
    copied = [row(5, eval__x=1.0), *many[:1], *many[1:], *[row(9 + at, time__iterations=at + 1) for at in range(3)]]
    assert [step for step in ordered(*copied)[0] if step >= 9] == [9, 10, 11]
    again = [*many, row(8, eval__x=2.0), *[row(9 + at, time__iterations=at + 1) for at in range(3)]]
    steps, odd = ordered(*again)
    assert steps == [8, 9, 10, 11]
    assert str(odd["repeated_row"][0]).startswith("3 ×")


def test_a_group_of_rows_has_the_most_epochs_and_the_last_row_s_place() -> None:
    group = [row(0, train__n_updates=10, time__total_timesteps=32), row(1, train__n_updates=20),
             row(2, time__total_timesteps=64)]  # fmt: skip
    assert (_trained(group), _iteration_of(group)) == (20, 64)
    assert (_trained(group[2:]), _iteration_of(group[1:2])) == (-1, None)


def test_a_training_told_twice_is_left_out_the_second_time() -> None:
    imported = Imported("x")
    rows = [
        row(0, time__iterations=1, train__n_updates=0),
        row(1, time__iterations=2, train__n_updates=1, train__loss=1.0),
        row(2, time__iterations=3, train__n_updates=1, train__loss=1.0, rollout__x=5.0),
        row(3, time__iterations=4, train__n_updates=0),
    ]
    found = in_order(rows, names_sb3._dumped, imported)
    cells = {one.step: dict(one.cells) for one in found}
    assert cells[2] == {"time/iterations": 3, "rollout/x": 5.0}
    assert cells[1]["train/loss"] == 1.0
    assert (cells[0]["train/n_updates"], cells[3]["train/n_updates"]) == (0, 0)  # 0 says that none was trained yet
    assert lost(imported)["repeated_row"][0] == "1 × training logged again, left out: row 2"


def test_a_count_that_cannot_be_read_is_none() -> None:
    rows = [row(0, time__iterations="x", time__total_timesteps=64), row(1, time__iterations=1.5)]
    assert ordered(*rows)[0] == [1, 0]


def cleanrl(points: Points, *, timesteps: bool = True, walls: bool = False) -> Imported:
    imported = Imported("x")
    names_cleanrl.take(log(points, timesteps=timesteps, walls=walls), imported)
    return imported


def losses(*steps: int) -> list[tuple[int, dict[str, Any]]]:
    return [(step, {"losses/value_loss": float(step)}) for step in steps]


@pytest.mark.parametrize(
    ("steps", "numbers"),
    [
        ((64, 128, 192), [0, 1, 2]),
        ((64, 128, 256), [0, 1, 3]),
        ((128, 192, 256), [1, 2, 3]),
        ((64,), [0]),
        ((128, 256), [0, 1]),
        ((100, 150, 175), [3, 5, 6]),
        ((128, 192), [1, 2]),
        ((1, 2, 4), [0, 1, 3]),
        ((0, 64, 128), [0, 1, 2]),
        ((96, 160, 256), [0, 1, 2]),
    ],
)
def test_an_update_is_as_many_steps_as_its_batch(steps: tuple[int, ...], numbers: list[int]) -> None:
    assert [number for (number,) in updates(cleanrl(losses(*steps)))] == numbers


def test_positions_are_no_steps_of_an_environment() -> None:
    found = cleanrl(losses(64, 256), timesteps=False)
    assert updates(found, "env_steps") == [(0, None), (1, None)]


def test_cleanrl_s_updates_have_clock_steps_and_losses() -> None:
    found = cleanrl([(64, {"losses/value_loss": 0.5, "charts/learning_rate": 3e-4, "charts/SPS": 9.0}),
                     (100, {"charts/learning_rate": 1.0}), (128, {"losses/value_loss": "x"})], walls=True)  # fmt: skip
    assert found.rows["updates"] == [
        {"update": 0, "level": "NORMAL", "status": "performed", "wall_time": 1064.0, "env_steps": 64, "value_loss": 0.5,
         "learning_rate": 3e-4, "episodes_finished": None, "episode_return_mean": None, "episode_length_mean": None},
        {"update": 1, "level": "NORMAL", "status": "performed", "wall_time": 1128.0, "env_steps": 128,
         "value_loss": None, "episodes_finished": None, "episode_return_mean": None, "episode_length_mean": None},
    ]  # fmt: skip
    assert found.facts == {"framework": "CleanRL", "algorithm": "PPO"}
    assert found.left_out == {"charts/SPS": "no column holds it"}
    assert lost(found)["unreadable_value"][0] == "1 × unreadable value, taken as null: losses/value_loss at 128"


def test_an_episode_is_of_the_update_whose_row_comes_at_or_after_its_end() -> None:
    episodes = [(step, {names_cleanrl.RETURN: value, names_cleanrl.LENGTH: 10.0 * value})
                for step, value in ((1, 1.0), (64, 2.0), (65, 3.0), (128, 4.0), (129, 5.0))]  # fmt: skip
    found = cleanrl([*losses(64, 128), *episodes])
    assert [(row["update"], row["episode_return"], row["length"]) for row in found.rows["episodes"]] == [
        (0, 1.0, 10), (0, 2.0, 20), (1, 3.0, 30), (1, 4.0, 40),
    ]  # fmt: skip
    assert updates(found, "episodes_finished", "episode_return_mean", "episode_length_mean") == [
        (0, 2, 1.5, 15.0), (1, 2, 3.5, 35.0),
    ]  # fmt: skip
    assert lost(found) == {"unfinished_update": ("1 × episode after the last update logged: step 129", 1, 0)}


def test_lengths_that_do_not_fit_returns_are_no_one_s() -> None:
    points: Points = [(1, {names_cleanrl.RETURN: 1.0}), (2, {names_cleanrl.RETURN: "x", names_cleanrl.LENGTH: 5})]
    found = cleanrl([*losses(64), *points])
    assert found.rows["episodes"] == [{"update": 0, "episode_return": 1.0}, {"update": 0, "episode_return": None}]
    assert updates(found, "episodes_finished", "episode_return_mean", "episode_length_mean") == [(0, 2, 1.0, None)]
    assert "episodes" not in cleanrl([*losses(64), (1, {names_cleanrl.LENGTH: 5})]).rows


@pytest.mark.parametrize(
    ("name", "table", "subject", "column"),
    [
        ("updates/kl_k3", "updates", "", "kl_k3"),
        ("heads/op/grad_norm", "heads", "op", "grad_norm"),
        ("heads/a/b/grad_norm", "heads", "a/b", "grad_norm"),
        ("groups/head:op/grad_norm", "groups", "head:op", "grad_norm"),
    ],
)
def test_a_name_of_our_export_is_table_subject_and_column(name: str, table: str, subject: str, column: str) -> None:
    found = names_own.split(name)
    assert found is not None
    assert (found[0].name, *found[1:]) == (table, subject, column)


@pytest.mark.parametrize(
    "name",
    ["kl_k3", "updates", "updates/", "updates/none", "updates/x/kl_k3", "heads/grad_norm", "steps/loss", "", "/"],
)
def test_any_other_name_is_none_of_ours(name: str) -> None:
    assert names_own.split(name) is None


def test_series_are_all_columns_but_those_that_say_where() -> None:
    assert set(UPDATES.names) - set(names_own.series_columns(UPDATES)) == {"rank", "update", "seq"}
    assert LAYERS.subject not in names_own.series_columns(LAYERS)


def own(points: Points) -> Imported:
    imported = Imported("x")
    names_own.take(log(points, timesteps=False), imported)
    return imported


def test_an_export_comes_back_row_by_row() -> None:
    found = own([
        (2, {"updates/kl_k3": 0.5, "updates/level": 1, "heads/op/grad_norm": 1.0, "heads/slot/grad_norm": None}),
        (0, {"updates/kl_k3": None, "heads/op/grad_norm": 2.0, "other": 5}),
    ])  # fmt: skip
    assert found.rows["heads"] == [
        {"update": 0, "head": "op", "grad_norm": 2.0}, {"update": 2, "head": "op", "grad_norm": 1.0},
    ]  # fmt: skip
    assert [(row["update"], row.get("kl_k3"), row["status"]) for row in found.rows["updates"]] == [
        (2, 0.5, "performed"), (0, None, "performed"),
    ]  # fmt: skip
    assert found.rows["updates"][0]["level"] == UPDATES.column("level").choices[1]
    assert found.rows["updates"][1]["level"] == "NORMAL"
    assert found.columns == {"all": "as exported"}
    assert list(found.facts["heads"]) == ["op", "slot"]  # type: ignore[call-overload]
    assert found.left_out == {"other": "no column holds it"}
    assert lost(found) == {"missing_updates": ("1 × update has no value: 1", 1, 1)}


def test_slots_and_layers_get_what_their_rows_need() -> None:
    found = own([(0, {"slots/env 12, r0c1/health": 0.5, "slots/r0c2/health": 1.0, "slots/env x, y/health": 0.25,
                      f"layers/w/{names_own.series_columns(LAYERS)[-1]}": 1})])  # fmt: skip
    assert [(row["place"], row["env"], row["slot"]) for row in found.rows["slots"]] == [
        ("env 12, r0c1", 12, "r0c1"), ("r0c2", 0, "r0c2"), ("env x, y", 0, "y"),
    ]  # fmt: skip
    (layer,) = found.rows["layers"]
    assert (layer["minibatch"], layer["update"], layer[str(LAYERS.subject)]) == (0, 0, "w")
    assert [row["update"] for row in found.rows["updates"]] == [0]


def test_the_language_of_a_log_is_found_by_its_names() -> None:
    for name, telling, framework in (("updates/kl_k3", "charts/SPS", None),
                                     ("train/loss", "time/fps", "Stable-Baselines3"),
                                     ("losses/value_loss", "charts/SPS", "CleanRL")):  # fmt: skip
        imported = Imported("x")
        take_updates(log([(64, {name: 0.5, telling: 1.0})]), imported, "file")
        assert imported.facts.get("framework") == framework
    with pytest.raises(UsageError, match=r"^file holds no scalar") as refused:
        take_updates(log([]), Imported("x"), "file")
    assert refused.value.hint == ""
    five = {f"x{number}": 1.0 for number in range(5)}
    with pytest.raises(UsageError, match=r"has 5 names .*: x0, x1, x2, x3, x4\n"):
        take_updates(log([(0, five)]), Imported("x"), "file")
    with pytest.raises(UsageError, match=r"has 6 names .*: x0, x1, x2, x3, x4 …\n"):
        take_updates(log([(0, {**five, "x5": 1.0})]), Imported("x"), "file")
