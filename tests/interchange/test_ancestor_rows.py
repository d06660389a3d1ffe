"""What the ancestor's events say of one batch, column by column, on events made up for each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.interchange import ancestor_rows as rows_of
from esper_analyze.interchange.ancestor_names import ALARMS, HEADS
from esper_analyze.interchange.ancestor_rows import AncestorBatch, Payload, SeedModule, batch_rows, measurable
from esper_analyze.interchange.import_ancestor import read, recognises
from esper_analyze.interchange.imported import Imported, ImportLosses
from esper_analyze.schema.tables import BY_NAME

NAN, INF = math.nan, math.inf
WHEN = "2026-07-01T00:00:00+00:00"
MOMENT = 1782864000.0


def payload(**cells: Any) -> Payload:
    return Payload(cells, ImportLosses(), "line 1")


def batch(**cells: Any) -> AncestorBatch:
    """Return batch 3 with an update that says ``cells``."""
    return AncestorBatch(3, payload(**cells))


def rows(one: AncestorBatch, batches: int | None = None, usable: bool | None = True) -> dict[str, list[dict[str, Any]]]:
    imported = Imported("x")
    batch_rows(imported, one, batches, usable)
    return imported.rows


def update(one: AncestorBatch, batches: int | None = None, usable: bool | None = True) -> dict[str, Any]:
    return rows(one, batches, usable)["updates"][0]


def test_a_cell_that_cannot_be_read_is_null_and_counted_once_a_name() -> None:
    data = payload(a="x", b="0.5", c=2.5, d="maybe", e=7)
    assert [data.real("a"), data.real("a"), data.real("b"), data.real("none")] == [None, None, 0.5, None]
    assert (data.whole_number("c"), data.whole_number("e"), data.flag("d")) == (None, 7, None)
    assert data.column("updates", "nan_grad_count", "e") == 7
    assert data.column("updates", "kl_k3", "a") is None
    assert data.losses.sentences() == ["3 × unreadable value, taken as null: a, line 1, c, line 1, d, line 1"]
    assert data.losses.lost == 0


def test_a_seed_that_was_never_measured_has_no_health() -> None:
    seed = SeedModule()
    assert seed.row() == {
        "calls": 0, "stage": None, "blueprint": None, "alpha": None, "should_train": None, "health": None,
        "has_vanishing": None, "has_exploding": None,
    }  # fmt: skip
    seed.take(payload(grad_ratio=0, has_vanishing=False, has_exploding=False, stage="DORMANT", alpha=0.25))
    seed.take(payload(grad_ratio=None, has_vanishing=True, stage="Training", blueprint_id=5, alpha=0.5))
    assert seed.row() == {
        "calls": 2, "stage": "Training", "blueprint": "5", "alpha": 0.5, "should_train": True, "health": None,
        "has_vanishing": None, "has_exploding": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seeds", "health", "vanishing", "exploding"),
    [
        ([{"grad_ratio": 0.5}, {"grad_ratio": 1.0}], 0.75, False, False),
        ([{"grad_ratio": 0, "has_vanishing": True}], 0.0, True, False),
        ([{"grad_ratio": 0, "has_exploding": True}, {"grad_ratio": 1}], 0.5, False, True),
        ([{"grad_ratio": 0}, {"grad_ratio": 0.4, "has_vanishing": True}, {"grad_ratio": 0.2}], 0.3, True, False),
        ([{"grad_ratio": 1e-9}], 1e-9, False, False),
    ],
)
def test_health_of_a_seed_is_the_mean_of_what_was_measured(
    seeds: list[dict[str, Any]], health: float, vanishing: bool, exploding: bool
) -> None:
    seed = SeedModule()
    for cells in seeds:
        seed.take(payload(**cells))
    row = seed.row()
    assert row["health"] == pytest.approx(health)
    assert (row["has_vanishing"], row["has_exploding"], row["calls"]) == (vanishing, exploding, len(seeds))


@pytest.mark.parametrize(
    ("stage", "trains"), [("TRAINING", True), ("blending", True), ("fossilized", False), (None, None), (3, False)]
)
def test_a_seed_trains_in_two_stages(stage: object, trains: bool | None) -> None:
    seed = SeedModule(last=payload(stage=stage))
    assert (seed.row()["should_train"], seed.row()["stage"]) == (trains, None if stage is None else str(stage))


@pytest.mark.parametrize(
    ("updates", "moved"),
    [
        ([], None),
        ([{"kl_divergence": 0.5}], None),  # without a ratio it is not known
        ([{"ratio_max": 1.0, "ratio_min": 1.0, "kl_divergence": 0.0, "clip_fraction": 0.0}], False),
        ([{"ratio_max": 1.000009}], False),
        ([{"ratio_max": 1.0}, {"ratio_max": 1.00002}], True),
        ([{"ratio_max": 1.0, "ratio_min": 0.99998}], True),
        ([{"ratio_max": 1.0, "kl_divergence": -2e-5}], True),
        ([{"ratio_max": 1.0, "clip_fraction": 2e-5}], True),
        ([{"ratio_max": NAN}], True),
        ([{"ratio_max": 1.0, "kl_divergence": None}], False),
    ],
)
def test_an_inner_loop_is_measurable_where_something_moved(updates: list[dict[str, Any]], moved: bool | None) -> None:
    batches = [AncestorBatch(0), *(batch(**cells) for cells in updates)]
    assert measurable(batches) is moved


@pytest.mark.parametrize(
    ("cells", "status", "reason"),
    [
        ({}, "performed", None),
        ({"update_skipped": False, "skipped": None}, "performed", None),
        ({"early_stop_epoch": 2}, "kl_stopped", None),
        ({"early_stop_epoch": 0}, "kl_stopped", None),
        ({"update_skipped": True}, "no_usable_steps", "the source reports a skipped update without a reason"),
        ({"skipped": True}, "no_usable_steps", "the source reports a skipped update without a reason"),
        ({"skipped": True, "amp_overflow_detected": True}, "nonfinite_skipped", "overflow"),
        ({"amp_overflow_detected": True}, "performed", None),
    ],
)
def test_the_status_of_an_update(cells: dict[str, Any], status: str, reason: str | None) -> None:
    row = update(batch(**cells))
    assert (row["status"], row.get("skip_reason")) == (status, reason)
    assert status in BY_NAME["updates"].column("status").choices


def test_the_columns_of_an_update() -> None:
    one = batch(
        value_loss=0.5, pre_clip_grad_norm=2.0, ratio_max=1.5, kl_divergence=0.01, update_time_ms=1500, lr="3e-4",
        nan_grad_count=0, inf_grad_count=4, ev_low_return_variance=True,
        head_nan_detected={"op": True, "slot": False, "style": 1}, head_inf_detected={"op": True, "tempo": True},
    )  # fmt: skip
    one.time, one.episodes_done = 99.5, 8
    row = update(one, 10)
    assert {name: row[name] for name in (
        "update", "level", "wall_time", "value_loss", "grad_norm_pre_clip", "ratio_max", "kl_k3", "optimisation_s",
        "learning_rate", "nan_grad_count", "inf_grad_count", "ev_low_variance", "nonfinite_sources", "episodes",
        "inner_loop_measurable",
    )} == {
        "update": 3, "level": "NORMAL", "wall_time": 99.5, "value_loss": 0.5, "grad_norm_pre_clip": 2.0,
        "ratio_max": 1.5, "kl_k3": 0.01, "optimisation_s": 1.5, "learning_rate": 3e-4, "nan_grad_count": None,
        "inf_grad_count": 4, "ev_low_variance": True, "nonfinite_sources": "head op,head tempo", "episodes": 8,
        "inner_loop_measurable": True,
    }  # fmt: skip
    empty = update(batch(head_nan_detected="op"))
    assert (empty["nonfinite_sources"], empty["optimisation_s"]) == (None, None)


@pytest.mark.parametrize(("usable", "ratio"), [(True, 1.5), (None, 1.5), (False, None)])
def test_a_ratio_is_taken_unless_it_is_1_by_construction(usable: bool | None, ratio: float | None) -> None:
    one = batch(ratio_max=1.5, head_op_grad_norm=1.0, head_op_ratio_max=1.5, head_op_clip_fraction=0.25)
    found = rows(one, usable=usable)
    assert found["updates"][0].get("ratio_max") == ratio
    assert found["updates"][0]["inner_loop_measurable"] is usable
    (head,) = found["heads"]
    assert (head.get("ratio_max"), head.get("clip_fraction")) == (ratio, None if ratio is None else 0.25)


@pytest.mark.parametrize(("batches", "progress"), [(None, None), (0, None), (8, 0.5), (4, 1.0), (2, 1.0)])
def test_progress_is_the_share_of_batches_done(batches: int | None, progress: float | None) -> None:
    assert update(batch(), batches)["progress"] == progress


def test_a_batch_without_an_update_is_one_only_where_it_was_skipped() -> None:
    assert rows(AncestorBatch(3)) == {}
    assert rows(AncestorBatch(3, skipped=False)) == {}
    row = update(AncestorBatch(3, skipped=True, episodes=[payload(episode_reward=2.0)]))
    assert row["status"] == "no_usable_steps"
    assert row["skip_reason"] == "the source reports skipped_update without a reason"
    assert (row["update"], row["level"], row["episodes_finished"], row["episode_return_mean"]) == (3, "NORMAL", 1, 2.0)


def test_episodes_are_rows_and_their_means_those_of_an_update() -> None:
    one = batch()
    one.episodes = [
        payload(env_id=0, episode_reward=1.0, episode_length=10),
        payload(env_id=1, episode_reward=4.0),
        payload(env_id=2, episode_length=20),
    ]
    found = rows(one)
    assert found["episodes"] == [
        {"update": 3, "env": 0, "episode_return": 1.0, "length": 10},
        {"update": 3, "env": 1, "episode_return": 4.0, "length": None},
        {"update": 3, "env": 2, "episode_return": None, "length": 20},
    ]
    row = found["updates"][0]
    assert (row["episodes_finished"], row["episode_return_mean"], row["episode_length_mean"]) == (3, 2.5, 15.0)
    none = update(batch())
    assert [none[f"episode{name}"] for name in ("s_finished", "_return_mean", "_length_mean")] == [None] * 3


def test_seeds_are_rows_with_their_environment_and_slot() -> None:
    one = AncestorBatch(3, seeds={(1, "r0c1"): SeedModule(calls=2)})
    (row,) = rows(one)["slots"]
    assert (row["update"], row["place"], row["env"], row["slot"], row["calls"]) == (3, "env 1, r0c1", 1, "r0c1", 2)


def test_a_head_has_a_row_where_the_events_say_something_of_it() -> None:
    one = batch(head_op_grad_norm=1.0, head_style_entropy=0.5)
    one.masks = {"slot": (1, 4), "tempo": (0, 0)}
    found = {row["head"]: row for row in rows(one)["heads"]}
    assert list(found) == [head for head in HEADS if head in ("op", "slot", "tempo")]
    slot, op, tempo = found["slot"], found["op"], found["tempo"]
    assert (slot["rollout_samples"], slot["single_action_fraction"], slot["learnable_fraction"]) == (4, 0.25, 0.75)
    for row in (op, tempo):
        assert [row[name] for name in ("rollout_samples", "single_action_fraction", "learnable_fraction")] == [None] * 3
    assert {(row["update"], row["kind"]) for row in found.values()} == {(3, "categorical")}
    assert not AncestorBatch(0).has_head("op")


@pytest.mark.parametrize(
    ("cells", "mask", "norm"),
    [
        ({"head_op_entropy": 0.3, "head_op_learnable_fraction": 0.5}, (2, 4), 0.6),
        ({"head_op_entropy": 0.3, "head_op_learnable_fraction": 0.5 + 5e-7}, (2, 4), 0.6),
        ({"head_op_entropy": 0.3, "head_op_learnable_fraction": 0.5 + 1.5e-6}, (2, 4), None),
        ({"head_op_entropy": 0.3, "head_op_learnable_fraction": 0.25}, (2, 4), None),
        ({"head_op_entropy": 0.0, "head_op_learnable_fraction": 1.0}, (0, 4), 0.0),
        ({"head_op_entropy": 0.3, "head_op_learnable_fraction": 0.0}, (4, 4), None),
        ({"head_op_learnable_fraction": 0.5}, (2, 4), None),
        ({"head_op_entropy": 0.3}, (2, 4), None),
        ({"head_op_entropy": 0.3, "head_op_learnable_fraction": 0.5}, (0, 0), None),
    ],
)
def test_entropy_is_that_of_steps_with_a_choice(
    cells: dict[str, Any], mask: tuple[int, int], norm: float | None
) -> None:
    one = batch(**cells)
    one.masks = {"op": mask}
    (row,) = rows(one)["heads"]
    assert row["entropy_norm"] == (None if norm is None else pytest.approx(norm, rel=1e-5))
    assert row["effective_fraction"] == cells.get("head_op_learnable_fraction")


@pytest.mark.parametrize(
    ("recorded", "norm", "state"),
    [
        ("finite", 1.0, "finite"), ("nonfinite", 1.0, "nonfinite"), ("missing", None, "missing"),
        ("not_learnable", 0.0, "finite"), ("not_learnable", INF, "nonfinite"), ("not_learnable", -INF, "nonfinite"),
        ("not_learnable", NAN, "nonfinite"), ("not_learnable", None, None), (None, 1.0, None), ("odd", 1.0, None),
    ],
)  # fmt: skip
def test_the_state_of_a_gradient(recorded: object, norm: float | None, state: str | None) -> None:
    one = batch(head_op_gradient_state=recorded, head_op_grad_norm=norm)
    one.masks = {"op": (0, 1)}
    (row,) = rows(one)["heads"]
    assert row["grad_state"] == state


def test_a_zero_gradient_is_explained() -> None:
    one = batch(head_op_gradient_state="finite", head_op_grad_norm=0.0)
    one.masks = {"op": (4, 4)}
    assert rows(one)["heads"][0]["zero_explained"] == "masked"
    one.masks = {"op": (0, 4)}
    assert rows(one)["heads"][0]["zero_explained"] == "unexplained"


def test_gradients_of_groups_are_those_that_were_measured() -> None:
    one = batch(head_op_grad_norm=1.0, head_value_grad_norm=0.0, pre_clip_grad_norm=NAN, head_q_grad_norm=None)
    found = rows(one)["groups"]
    assert [(row["update"], row["group"]) for row in found] == [(3, "head:op"), (3, "value"), (3, "all")]
    assert [row["grad_norm"] for row in found][:2] == [1.0, 0.0]
    assert math.isnan(found[2]["grad_norm"])
    assert "groups" not in rows(batch())


def test_an_lstm_has_a_row_for_each_phase_that_was_measured() -> None:
    found = rows(batch(lstm_h_rms=0.5, lstm_has_nan=True, rollout_lstm_has_inf=True))["lstm"]
    assert len(found) == 1
    assert {name: cell for name, cell in found[0].items() if cell is not None} == {
        "update": 3, "phase": "update", "h_rms": 0.5, "has_nan": True,
    }  # fmt: skip
    both = rows(batch(lstm_h_rms=0.5, rollout_lstm_c_max=0.0))["lstm"]
    assert [row["phase"] for row in both] == ["rollout", "update"]


def test_names_of_our_columns_say_theirs_and_how_they_differ() -> None:
    named = rows_of.update_columns({"kl_k3": "as computed there"})
    assert named["kl_k3"] == "kl_divergence; as computed there"
    assert (named["grad_norm_pre_clip"], named["nan_grad_count"]) == ("pre_clip_grad_norm", "nan_grad_count")


def event(kind: str, /, **data: Any) -> dict[str, Any]:
    return {"event_type": kind, "timestamp": WHEN, "data": data}


def ppo(batch_number: int | None, /, **data: Any) -> dict[str, Any]:
    return event("PPO_UPDATE_COMPLETED", batch=batch_number, **data)


def log(folder: Path, *events: dict[str, Any]) -> Imported:
    (folder / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    return read(folder / "events.jsonl")


def lost(imported: Imported) -> dict[str, tuple[object, object]]:
    return {str(row["kind"]): (row["detail"], row["rows"]) for row in imported.losses.rows()}


def test_facts_of_the_run_come_from_its_start(tmp_path: Path) -> None:
    start = event("TRAINING_STARTED", n_envs=2, max_batches=4, seed=7, lr=None)
    found = log(tmp_path, start, {**ppo(1, head_slot_grad_norm=1.0, head_op_grad_norm=0.0), "epoch": 6})
    assert found.facts == {
        "created": MOMENT, "framework": "ancestor", "algorithm": "PPO", "heads": {"op": None, "slot": None},
        "head_kinds": {"op": "categorical", "slot": "categorical"}, "total_updates": 4, "seed": 7, "notes": None,
        "hyperparameters": {"n_envs": 2, "max_batches": 4, "seed": 7},
    }  # fmt: skip
    (row,) = found.rows["updates"]
    assert (row["progress"], row["wall_time"], row["episodes"]) == (0.25, MOMENT, 6)
    assert found.columns == {}
    assert found.left_out["grad_norm"]


def test_a_head_that_some_batch_says_something_of_is_one_of_the_run(tmp_path: Path) -> None:
    found = log(tmp_path, ppo(1, head_op_grad_norm=1.0), ppo(2, head_slot_grad_norm=1.0))
    assert found.facts["heads"] == {"op": None, "slot": None}


@pytest.mark.parametrize(("epoch", "done"), [(0, 0), (6, 6), (-1, None), (True, None), (2.0, None), (None, None)])
def test_a_count_is_a_whole_number_from_0_on(tmp_path: Path, epoch: object, done: int | None) -> None:
    found = log(tmp_path, {**ppo(1), "epoch": epoch})
    assert found.rows["updates"][0]["episodes"] == done


@pytest.mark.parametrize("when", [None, "yesterday", 5, ""])
def test_a_moment_that_cannot_be_read_is_null(tmp_path: Path, when: object) -> None:
    found = log(tmp_path, {**ppo(1, value_loss=0.5), "timestamp": when})
    assert found.rows["updates"][0]["wall_time"] is None
    assert found.columns == {"updates.value_loss": "value_loss"}


def test_one_inner_epoch_is_noted(tmp_path: Path) -> None:
    assert "taken as one inner epoch" in str(log(tmp_path, ppo(1, ratio_max=1.0)).facts["notes"])
    moved = log(tmp_path, ppo(1, ratio_max=1.0), ppo(2, ratio_max=1.5))
    assert moved.facts["notes"] is None
    assert [row["ratio_max"] for row in moved.rows["updates"]] == [1.0, 1.5]


def test_of_two_events_of_one_update_the_first_is_used_and_the_second_is_lost(tmp_path: Path) -> None:
    found = log(tmp_path, ppo(1, value_loss=0.5), ppo(1, value_loss=0.75))
    assert [row["value_loss"] for row in found.rows["updates"]] == [0.5]
    assert lost(found) == {"repeated_update": ("1 × update with two events, the first one is used: line 2", 1)}


def test_an_event_is_taken_once_and_odd_ones_are_lost(tmp_path: Path) -> None:
    one = {**ppo(None), "event_id": "e1"}
    found = log(tmp_path, one, one, {"event_type": 5, "data": {}}, {"event_type": "X"}, ppo(None), event("OTHER"))
    assert [row["update"] for row in found.rows["updates"]] == [0, 1]  # without a number: one after the other
    assert lost(found) == {
        "repeated_event": ("1 × duplicate event, taken once: line 2", 0),
        "malformed_event": ("2 × event without a type or a payload: line 3, line 4", 2),
    }


def test_episodes_belong_to_the_batch_that_their_number_tells(tmp_path: Path) -> None:
    def episode(**data: Any) -> dict[str, Any]:
        return event("EPISODE_OUTCOME", **data)

    found = log(
        tmp_path,
        event("TRAINING_STARTED", n_envs=2),
        *(episode(episode_idx=number, episode_reward=float(number)) for number in range(4)),
        episode(episode_reward=10.0),
        ppo(1),
        episode(episode_reward=20.0),
        ppo(2),
    )
    means = [(row["update"], row["episode_return"]) for row in found.rows["episodes"]]
    assert means == [(0, 0.0), (0, 1.0), (0, 10.0), (1, 2.0), (1, 3.0), (1, 20.0)]
    without = log(tmp_path, episode(episode_idx=5), ppo(1))
    assert without.rows["episodes"][0]["update"] == 0


def test_masks_are_counted_by_head(tmp_path: Path) -> None:
    def action(**data: Any) -> dict[str, Any]:
        return event("ANALYTICS_SNAPSHOT", kind="last_action", **data)

    found = log(
        tmp_path,
        action(op_masked=True, slot_masked=False),
        action(op_masked=False, style_masked="?"),
        action(op_masked=True),
        event("ANALYTICS_SNAPSHOT", kind="other", op_masked=True),
        ppo(1),
    )
    heads = {row["head"]: (row["single_action_fraction"], row["rollout_samples"]) for row in found.rows["heads"]}
    assert heads == {"op": (pytest.approx(2 / 3), 3), "slot": (0.0, 1)}


def test_a_snapshot_says_which_batch_was_skipped(tmp_path: Path) -> None:
    def stats(**data: Any) -> dict[str, Any]:
        return event("ANALYTICS_SNAPSHOT", kind="batch_stats", **data)

    found = log(tmp_path, ppo(1), stats(batch=2, skipped_update=True), stats(skipped_update=True), ppo(3))
    assert [(row["update"], row["status"]) for row in found.rows["updates"]] == [
        (0, "performed"), (1, "no_usable_steps"), (2, "performed"),
    ]  # fmt: skip
    assert lost(found) == {}


def test_seeds_of_an_inner_epoch_are_gathered_by_slot(tmp_path: Path) -> None:
    def epoch(**data: Any) -> dict[str, Any]:
        return event("EPOCH_COMPLETED", **data)

    found = log(
        tmp_path,
        event("TRAINING_STARTED", n_envs=2),
        epoch(env_id=1, episode_idx=1, seeds={"a": {"grad_ratio": 0.5}, "b": {"stage": "TRAINING"}, "c": 5}),
        epoch(env_id=1, episode_idx=1, seeds={"a": {"grad_ratio": 1.0}}),
        epoch(env_id=1, episode_idx=2, seeds={"a": {}}),
        epoch(seeds={"a": {}}),
        epoch(env_id=0, seeds=[1]),
        ppo(1),
        ppo(2),
    )
    assert [(row["update"], row["place"], row["calls"], row["health"]) for row in found.rows["slots"]] == [
        (0, "env 1, a", 2, 0.75), (0, "env 1, b", 1, None), (1, "env 1, a", 1, None),
    ]  # fmt: skip


def test_rows_of_updates_that_are_not_there_are_lost_by_table(tmp_path: Path) -> None:
    start = event("TRAINING_STARTED", n_envs=1)
    episodes = [event("EPISODE_OUTCOME", episode_idx=number) for number in (0, 1, 1)]
    found = log(tmp_path, start, *episodes, ppo(1), ppo(4))
    assert [row["update"] for row in found.rows["episodes"]] == [0]
    assert lost(found) == {
        "missing_updates": ("2 × update has no event: skipped or lost, the source does not say which: 1–2", 2),
        "rows_without_update_episodes": ("2 × row of episodes whose update has no event", 2),
    }


@pytest.mark.parametrize(
    ("numbers", "data", "at"),
    [
        ((1, 2), {"batch": 2}, 1),
        ((1, 2), {"batch_idx": 1}, 0),
        ((1, 2), {"batch": 2, "batch_idx": 1}, 1),
        ((1, 2), {}, 1),  # it is of the update that would come, and none does
        ((1, 4, 6), {"batch": 2}, 3),  # the next update that is there
        ((1, 4), {"batch": 9}, 3),  # beyond all: the last
    ],
)
def test_an_alarm_is_of_its_batch_or_the_next(
    tmp_path: Path, numbers: tuple[int, ...], data: dict[str, Any], at: int
) -> None:
    found = log(tmp_path, *map(ppo, numbers), event("PLATEAU_DETECTED", **data))
    assert [finding.update for finding in found.foreign] == [at]


@pytest.mark.parametrize(
    ("extra", "data", "facts"),
    [
        ({"severity": "ERROR"}, {"anomaly_type": "of_op"}, ("op", "of_op", "critical", "anomaly_type of_op")),
        ({"severity": "critical", "message": "odd"}, {"env_id": 2}, ("env 2", "gradient_anomaly", "critical", "odd")),
        ({"severity": "warning", "message": "m"}, {"detail": "d"}, ("run", "gradient_anomaly", "warning", "d")),
        ({}, {"anomaly_type": "x_alpha_speed", "env_id": 1}, ("alpha_speed", "x_alpha_speed", "info",
                                                             "anomaly_type x_alpha_speed, env_id 1")),
        ({"severity": "odd"}, {"anomaly_type": "opop", "detail": "d"}, ("run", "opop", "info", "d")),
    ],
)  # fmt: skip
def test_an_alarm_names_its_subject_and_its_words(
    tmp_path: Path, extra: dict[str, Any], data: dict[str, Any], facts: tuple[str, ...]
) -> None:
    (found,) = log(tmp_path, {**event("GRADIENT_ANOMALY", **data), **extra}, ppo(1)).foreign
    assert (found.subject, found.metric, found.verdict, found.reason) == facts
    assert found.rule == "ancestor:gradient_anomaly"
    assert len(ALARMS) == len(set(ALARMS)) == 8


def test_a_file_of_events_is_recognised_by_its_first_twenty_lines(tmp_path: Path) -> None:
    def named(name: str, *lines: dict[str, Any]) -> Path:
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path / name

    late = named("late.jsonl", *[{"x": 1}] * 19, ppo(1))
    assert recognises(late) == late
    assert recognises(named("later.jsonl", *[{"x": 1}] * 20, ppo(1))) is None
    assert recognises(named("events.json", ppo(1))) is None
    assert recognises(tmp_path) is None
    events = named("events.jsonl", ppo(1))
    assert recognises(tmp_path) == events
    assert recognises(tmp_path / "none.jsonl") is None
