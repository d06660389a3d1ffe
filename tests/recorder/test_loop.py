"""The recorder in a hand-written loop: what is measured, what is null, and that nothing is harmed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from recorder.store.run_file import RunExistsError
from tests.recorder.loop import SIZES, Loop

pytestmark = pytest.mark.processor


def record(path: Path, loop: Loop, updates: int = 3, **options: Any) -> RecordedRun:
    with loop.recorder(path, **options) as rec:
        for _ in range(updates):
            loop.update(rec)
    return open_run(path)


def heads(run: RecordedRun, name: str) -> list[dict[str, Any]]:
    return [row for row in run.frame("heads").to_dicts() if row["head"] == name]


def test_training_is_unchanged_to_the_last_bit(tmp_path: Path) -> None:
    recorded, twin = Loop(), Loop()
    record(tmp_path / "run", recorded, updates=5)
    for _ in range(5):
        twin.update(None)
    for ours, theirs in zip(recorded.agent.parameters(), twin.agent.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_missing_gradient_is_missing_and_not_zero(tmp_path: Path) -> None:
    for row in heads(record(tmp_path / "run", Loop(detach_head="op")), "op"):
        assert row["grad_norm"] is None
        assert row["grad_state"] == "missing"
        assert (row["params_without_grad"], row["params_finite"], row["params_nonfinite"]) == (2, 0, 0)
        assert row["zero_explained"] == "unexplained"


def test_a_missing_gradient_raises_a_critical_finding_in_the_very_update(tmp_path: Path) -> None:
    run = record(tmp_path / "run", Loop(detach_head="op"))
    found = [row for row in run.frame("findings").to_dicts() if row["rule"] == "gradient_missing"]
    assert [(row["update"], row["subject"], row["verdict"]) for row in found if row["verdict"] == "critical"] == [
        (0, "op", "critical")
    ]


def test_a_head_without_choice_is_explained_by_its_mask(tmp_path: Path) -> None:
    for row in heads(record(tmp_path / "run", Loop()), "style"):
        assert (row["grad_norm"], row["zero_explained"]) == (0.0, "masked")
        assert row["learnable_fraction"] == 0.0


def test_frozen_parameters_are_frozen(tmp_path: Path) -> None:
    loop = Loop()
    loop.agent.heads["slot"].requires_grad_(False)
    for row in heads(record(tmp_path / "run", loop), "slot"):
        assert (row["grad_state"], row["zero_explained"], row["grad_norm"]) == ("frozen", "frozen", None)


def test_without_a_clip_call_pre_clip_is_null_and_never_the_post_clip_value(tmp_path: Path) -> None:
    run = record(tmp_path / "run", Loop(clip=False))
    for row in run.frame("updates").to_dicts():
        assert row["grad_norm_pre_clip"] is None
        assert row["grad_norm_post_clip"] > 0
    assert all(row["grad_state"] is None for row in heads(run, "op"))


def test_a_loop_whose_clip_call_is_not_seen_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(tmp_path / "run", Loop(clip=False))
    assert len([one for one in caplog.records if "no clip call seen" in one.getMessage()]) == 1


def test_an_explicit_gradient_call_stands_in_for_the_clip_call(tmp_path: Path) -> None:
    loop = Loop(clip=False)
    with loop.recorder(tmp_path / "run") as rec:
        rollout = loop.rollout()
        loop.step = False
        loop.train(rec, rollout)
        rec.gradients()
        loop.optimizer.step()
        rec.update()
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert row["grad_norm_pre_clip"] == pytest.approx(row["grad_norm_post_clip"], rel=1e-6)
    assert row["optimizer_steps"] == 1


def test_an_update_without_optimizer_step_says_so(tmp_path: Path) -> None:
    run = record(tmp_path / "run", Loop(step=False), updates=1)
    row = run.frame("updates").to_dicts()[0]
    assert (row["status"], row["optimizer_steps"]) == ("no_usable_steps", 0)


def test_a_skipped_update_has_a_row_with_its_reason(tmp_path: Path) -> None:
    loop = Loop()
    with loop.recorder(tmp_path / "run") as rec:
        loop.update(rec)
        rec.skip_update("log_probs[op] is NaN")
        loop.update(rec)
    rows = open_run(tmp_path / "run").frame("updates").to_dicts()
    assert [row["status"] for row in rows] == ["performed", "nonfinite_skipped", "performed"]
    assert rows[1]["skip_reason"] == "log_probs[op] is NaN"
    assert rows[1]["kl_k3"] is None


def test_an_exception_in_the_middle_keeps_the_update_in_progress(tmp_path: Path) -> None:
    loop = Loop()
    with pytest.raises(ZeroDivisionError):
        _break_in_the_middle(loop, tmp_path / "run")
    run = open_run(tmp_path / "run")
    row = run.frame("updates").to_dicts()[-1]
    assert run.closed
    assert (row["update"], row["status"]) == (1, "interrupted")
    assert row["skip_reason"] == "ZeroDivisionError: in the middle"
    assert row["kl_k3"] is not None


def _break_in_the_middle(loop: Loop, run_dir: Path) -> None:
    with loop.recorder(run_dir) as rec:
        loop.update(rec)
        loop.train(rec, loop.rollout())
        raise ZeroDivisionError("in the middle")


def test_one_epoch_of_one_minibatch_is_not_measurable(tmp_path: Path) -> None:
    run = record(tmp_path / "run", Loop(epochs=1, minibatches=1))
    assert run.frame("updates")["inner_loop_measurable"].to_list() == [False] * 3
    ratio = [row for row in run.frame("findings").to_dicts() if row["rule"] in ("ratio_explosion", "kl_spike")]
    assert {row["verdict"] for row in ratio} == {"not_applicable"}


def test_log_ratio_of_fifty_does_not_overflow(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", heads=("action",), strict=True) as rec:
        rec.minibatch(log_prob=torch.tensor([0.0, -1.0]), old_log_prob=torch.tensor([-50.0, -1.0]), clip_range=0.2)
        rec.update()
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert math.isfinite(row["kl_k3"])
    assert row["kl_k3"] == pytest.approx((math.expm1(20) - 20) / 2, rel=1e-5)
    assert (row["clamped_fraction"], row["ratio_nonfinite"]) == (0.5, 0)
    assert row["first_ratio_error"] == 50.0


def test_nan_log_prob_is_named_by_head_and_stays_nan(tmp_path: Path) -> None:
    new = {"op": torch.tensor([0.0, math.nan]), "slot": torch.zeros(2)}
    old = {"op": torch.zeros(2), "slot": torch.zeros(2)}
    with Recorder(tmp_path / "run", heads=("op", "slot"), strict=True) as rec:
        rec.minibatch(log_prob=new, old_log_prob=old, clip_range=0.2)
        rec.update()
    run = open_run(tmp_path / "run")
    row = run.frame("updates").to_dicts()[0]
    assert row["nonfinite_sources"] == "log_prob[op]: 1"
    assert math.isnan(row["ratio_max"])
    assert math.isnan(row["kl_k3"])
    assert row["ratio_nonfinite"] == 1
    assert heads(run, "slot")[0]["ratio_max"] == 1.0


def test_ratio_of_a_head_counts_only_steps_where_it_is_relevant(tmp_path: Path) -> None:
    new = {"op": torch.tensor([0.0, 0.0]), "slot": torch.tensor([math.log(3.0), math.log(2.0)])}
    old = {"op": torch.zeros(2), "slot": torch.zeros(2)}
    relevant = {"slot": torch.tensor([False, True])}
    with Recorder(tmp_path / "run", heads=("op", "slot"), sizes={"op": 2, "slot": 4}, strict=True) as rec:
        rec.minibatch(log_prob=new, old_log_prob=old, relevant=relevant, clip_range=0.2)
        rec.update(relevant=relevant)
    run = open_run(tmp_path / "run")
    slot = heads(run, "slot")[0]
    assert slot["ratio_max"] == pytest.approx(2.0)
    assert (slot["relevant_fraction"], slot["effective_fraction"], slot["learnable_fraction"]) == (0.5, 0.5, 1.0)
    assert run.frame("updates")["ratio_max"].to_list()[0] == pytest.approx(2.0)


def test_a_head_that_is_never_relevant_has_null_ratio(tmp_path: Path) -> None:
    zeros = {"op": torch.zeros(2), "slot": torch.zeros(2)}
    with Recorder(tmp_path / "run", heads=("op", "slot"), strict=True) as rec:
        relevant = {"slot": torch.zeros(2, dtype=torch.bool)}
        rec.minibatch(log_prob=zeros, old_log_prob=zeros, relevant=relevant)
        rec.update(relevant=relevant)
    slot = heads(open_run(tmp_path / "run"), "slot")[0]
    assert (slot["ratio_max"], slot["kl_k3"], slot["clip_fraction"]) == (None, None, None)


def test_padding_is_left_out(tmp_path: Path) -> None:
    new, old = torch.tensor([0.1, 9.0, 0.2]), torch.zeros(3)
    valid = torch.tensor([True, False, True])
    options: dict[str, dict[str, Any]] = {"padded": {"valid": valid}, "plain": {}}
    for name, given in options.items():
        with Recorder(tmp_path / name, sizes={"action": 2}, strict=True) as rec:
            part = slice(None) if name == "padded" else valid
            rec.minibatch(log_prob=new[part], old_log_prob=old[part], entropy=new[part], clip_range=0.2, **given)
            rec.update()
    columns = ["kl_k1", "kl_k2", "kl_k3", "ratio_max", "ratio_std", "clip_fraction", "entropy", "entropy_norm"]
    padded, plain = (open_run(tmp_path / name).frame("updates", columns) for name in ("padded", "plain"))
    assert padded.equals(plain)


def test_a_recorder_error_never_reaches_the_training_and_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop()
    with loop.recorder(tmp_path / "run", strict=False) as rec:
        loop.update(rec)
        rec.minibatch(log_prob={"op": torch.zeros(3)}, old_log_prob={})
        rec.minibatch(log_prob={"op": torch.zeros(3)}, old_log_prob={})
        loop.update(rec)
    run = open_run(tmp_path / "run")
    losses = run.frame("losses_of_data").to_dicts()
    assert [(row["kind"], row["rows"]) for row in losses] == [("recorder_error", 2)]
    assert "no tensor for head 'slot'" in losses[0]["detail"]
    assert len([r for r in caplog.records if "error in minibatch" in r.message]) == 1
    assert len(run.frame("updates")) == 2


def test_a_loop_that_never_calls_update_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("recorder.recorder.MAX_MINIBATCHES", 5)
    with Recorder(tmp_path / "run") as rec:
        for _ in range(9):
            rec.minibatch(log_prob=torch.zeros(2), old_log_prob=torch.zeros(2))
        rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["minibatches"].to_list() == [5]
    assert run.frame("losses_of_data")["rows"].to_list() == [4]
    assert "call it after each inner loop" in caplog.text


def test_shares_above_and_below_add_up_for_uneven_minibatches(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", strict=True) as rec:
        for log_prob in ([0.1, 0.2, 0.3], [-1.0]):
            rec.minibatch(log_prob=torch.tensor(log_prob), old_log_prob=torch.zeros(len(log_prob)), clip_range=0.2)
        rec.update()
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert row["clip_fraction"] == pytest.approx((2 / 3 + 1) / 2)
    assert row["clip_fraction_positive"] + row["clip_fraction_negative"] == pytest.approx(row["clip_fraction"])
    assert row["kl_k1"] == pytest.approx(0.4 / 4)


def test_a_directory_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "run", Loop(), updates=1)
    with pytest.raises(RunExistsError, match="already holds a run"):
        Loop().recorder(tmp_path / "run")


def test_minimal_level_records_updates_and_no_detail(tmp_path: Path) -> None:
    run = record(tmp_path / "run", Loop(), level="MINIMAL")
    assert run.rows["updates"] == 3
    assert run.rows["steps"] == run.rows["heads"] == run.rows["groups"] == 0


def test_off_records_nothing_and_changes_nothing(tmp_path: Path) -> None:
    assert set(record(tmp_path / "run", Loop(), level="OFF").rows.values()) == {0}


def test_groups_by_name_put_heads_of_a_plain_model_in_the_actor() -> None:
    from recorder.capture.parameters import groups_by_name

    loop = Loop()
    sizes = {name: len(parts) for name, parts in groups_by_name(loop.agent).items()}
    assert sizes["critic"] == 2
    assert sum(sizes.values()) == len(list(loop.agent.parameters()))


def test_heads_of_any_name_belong_to_the_actor_and_a_masked_one_raises_no_alarm(tmp_path: Path) -> None:
    loop = Loop(only_choice=("style",))
    names = {"op": "alpha", "slot": "beta", "style": "gamma"}  # no word in them says what they are
    for head, name in names.items():
        loop.agent.add_module(name, loop.agent.heads[head])
    del loop.agent.heads
    loop.agent.heads = {head: getattr(loop.agent, name) for head, name in names.items()}  # type: ignore[assignment]
    with loop.recorder(tmp_path / "run", groups=None) as rec:
        for _ in range(6):
            loop.update(rec)
    run = open_run(tmp_path / "run")
    tensors = {row["group"]: row["tensors"] for row in run.frame("groups").to_dicts()}
    assert (tensors["actor"], tensors["shared"], tensors["critic"]) == (6, 2, 2)
    assert [one for one in replay(run).incidents if one.rule == "gradient_vanishing"] == []


def test_two_clip_calls_for_two_parts_join_into_one_norm(tmp_path: Path) -> None:
    loop = Loop(clip=False, epochs=1, minibatches=1)
    loop.step = False
    with loop.recorder(tmp_path / "run") as rec:
        loop.train(rec, loop.rollout())
        critic = list(loop.agent.critic.parameters())
        rest = [p for p in loop.agent.parameters() if not any(p is c for c in critic)]
        norms = [float(torch.nn.utils.clip_grad_norm_(part, 1e9)) for part in (rest, critic)]
        rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["grad_norm_pre_clip"].to_list()[0] == pytest.approx(math.hypot(*norms), rel=1e-6)
    groups = {row["group"]: row["grad_norm"] for row in run.frame("groups").to_dicts()}
    assert groups["critic"] == pytest.approx(norms[1], rel=1e-6)
    assert groups["all"] == pytest.approx(math.hypot(*norms), rel=1e-6)


def test_names_from_outside_round_trip_exactly(tmp_path: Path) -> None:
    names = ("a'; DROP TABLE heads; --", "<script>alert(1)</script>", "../../etc", 'Δ\u202e\n"', "x" * 3000)
    zeros = {name: torch.zeros(2) for name in names}
    with Recorder(tmp_path / "run", heads=names, strict=True) as rec:
        rec.minibatch(log_prob=zeros, old_log_prob=zeros)
        rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("heads")["head"].to_list() == list(names)
    assert tuple(run.info["heads"]) == names
    found = run.connection().execute("select head from heads order by seq").fetchall()
    assert [row[0] for row in found] == list(names)


def test_sizes_stand_for_masks_that_are_not_given(tmp_path: Path) -> None:
    zeros = {name: torch.zeros(4) for name in SIZES}
    with Recorder(tmp_path / "run", heads=tuple(SIZES), sizes=SIZES, strict=True) as rec:
        rec.minibatch(log_prob=zeros, old_log_prob=zeros, entropy={n: torch.full((4,), math.log(2)) for n in SIZES})
        rec.update(values=torch.zeros(4), returns=torch.ones(4))
    run = open_run(tmp_path / "run")
    for name, size in SIZES.items():
        row = heads(run, name)[0]
        assert (row["learnable_fraction"], row["valid_actions_max"]) == (1.0, float(size))
        assert row["entropy_norm"] == pytest.approx(math.log(2) / math.log(size))
    row = run.frame("updates").to_dicts()[0]
    assert row["entropy_norm"] == pytest.approx(3 * math.log(2) / math.log(24))
    assert row["explained_variance"] is None  # returns are constant: undefined is not bad
    assert row["ev_low_variance"] is True
