"""An argument that cannot be used costs only its own columns; what can be understood is taken."""

from __future__ import annotations

import math
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rules import RULES
from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from recorder.online_detector import log_alarms
from tests.recorder.bad_arguments import CLOCK, JUNK, OPTIONAL, TABLES, N, cells, differences, record
from tests.recorder.loop import Loop

FLAGS, ONES = torch.ones(N, dtype=torch.bool), torch.ones(N)


@pytest.mark.parametrize(("method", "argument"), OPTIONAL, ids=[".".join(one) for one in OPTIONAL])
@settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck))
@given(bad=st.lists(JUNK, min_size=3, max_size=3))
def test_what_cannot_be_used_is_as_good_as_not_given(method: str, argument: str, bad: list[Any]) -> None:
    with TemporaryDirectory() as folder:
        assert differences(Path(folder), method, argument, bad) == []


@pytest.mark.parametrize(
    ("method", "argument", "bad"),
    [("update", "returns", torch.zeros(3)), ("minibatch", "epoch", 10**400), ("minibatch", "epoch", -(2**63) - 1)],
)
def test_a_value_that_only_later_work_would_trip_over_is_not_taken(
    tmp_path: Path, method: str, argument: str, bad: Any
) -> None:
    assert differences(tmp_path, method, argument, [bad, b"x"]) == []


def test_an_update_whose_log_probs_are_lost_is_performed(tmp_path: Path) -> None:
    run, _ = record(tmp_path / "run", "minibatch", "log_prob", ["abc", 3, None, {}], 4)
    rows = run.frame("updates").to_dicts()
    assert [row["status"] for row in rows] == ["performed"] * 4
    assert [row["optimizer_steps"] for row in rows] == [4] * 4
    assert [row["kl_k3"] for row in rows] == [None] * 4
    assert [row["return_mean"] is None for row in rows] == [False] * 4
    rules = {row["rule"] for row in run.frame("findings").to_dicts() if row["verdict"] in ("warning", "critical")}
    assert "update_skipped" not in rules
    assert {row["update"] for row in run.frame("losses_of_data").to_dicts()} == {0, 1, 2, 3}


def test_minibatches_that_cannot_be_measured_do_not_make_the_update_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr("recorder.capture.update_buffer.measure", refuse)
    loop = Loop()
    with loop.recorder(tmp_path / "run", strict=False) as rec:
        loop.update(rec)
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert (row["status"], row["optimizer_steps"], row["skip_reason"]) == ("performed", 4, None)


def test_steps_without_any_minibatch_are_steps(tmp_path: Path) -> None:
    loop = Loop()
    with loop.recorder(tmp_path / "run", strict=False) as rec:
        loop.train(None, loop.rollout())
        rec.update()
    assert open_run(tmp_path / "run").frame("updates")["status"].to_list() == ["performed"]


def one_head(run_dir: Path, convert: Any, **options: Any) -> RecordedRun:
    """Record two updates of one head whose arguments went through ``convert``."""
    torch.manual_seed(0)
    old = torch.randn(N, dtype=torch.float64) - 2
    new, mask = old + 0.01 * torch.randn(N), torch.rand(N, 4) < 0.7
    mask[:, 0] = True
    with Recorder(run_dir, strict=True, **options) as rec:
        for update in range(2):
            for epoch in range(2):
                rec.minibatch(
                    log_prob=convert(new),
                    old_log_prob=convert(old),
                    entropy=convert(torch.full((N,), 0.5)),
                    masks=convert(mask),
                    relevant=convert(torch.arange(N) > 3),
                    valid=convert(torch.arange(N) > 1),
                    index=convert(torch.arange(N)),
                    values=convert(torch.ones(N)),
                    clip_range=np.float32(0.25),  # type: ignore[arg-type]
                    policy_loss=np.float64(0.5),
                    loss=np.array([0.5]),  # type: ignore[arg-type]
                    epoch=np.int64(epoch),  # type: ignore[arg-type]
                    lstm=convert(torch.ones(1, 2, 3)),
                )
            rec.episode(np.float32(1), np.int32(5), env=np.int64(2), success=np.bool_(True))  # type: ignore[arg-type]
            rec.update(
                values=convert(torch.arange(N, dtype=torch.float32)),
                returns=convert(torch.arange(N, dtype=torch.float32) ** 2),
                masks=convert(mask),
                relevant=convert(torch.arange(N) > 3),
                lstm=convert(torch.ones(1, 2, 3)),
                env_steps=np.int64(update),  # type: ignore[arg-type]
                learning_rate=np.float32(0.5),
                target_kl=np.array([0.5]),
            )
    run = open_run(run_dir)
    assert run.frame("losses_of_data").is_empty()
    return run


@pytest.mark.parametrize("convert", [lambda x: x.numpy(), lambda x: x.tolist(), lambda x: x.numpy()[::-1][::-1]])
def test_arrays_lists_and_plain_tensors_of_one_head_are_taken(tmp_path: Path, convert: Any) -> None:
    tensors, others = one_head(tmp_path / "tensors", lambda x: x), one_head(tmp_path / "others", convert)
    for table in TABLES:
        assert cells(tensors, table, CLOCK) == cells(others, table, CLOCK)
    head = tensors.frame("heads").to_dicts()[0]
    assert (head["samples"], head["relevant_samples"], head["relevant_fraction"]) == (28, 24, 0.75)


def test_a_single_state_is_a_recurrent_state(tmp_path: Path) -> None:
    state = torch.nn.GRU(3, 4, 2)(torch.zeros(5, 6, 3))[1].detach() + 0.25
    with Recorder(tmp_path / "run", strict=True) as rec:
        rec.minibatch(log_prob=ONES, old_log_prob=ONES, lstm=state)
        rec.update(lstm=(state,))
    rows = open_run(tmp_path / "run").frame("lstm").to_dicts()
    assert [row["phase"] for row in rows] == ["rollout", "update"]
    for row in rows:
        assert row["h_l2_total"] == pytest.approx(float(state.double().norm()), rel=1e-12)
        assert row["elements"] == state.numel()
        assert all(cell is None for name, cell in row.items() if name.startswith("c_"))
        assert (row["has_nan"], row["has_inf"]) == (False, False)


NAMES = [
    ("update", {"lr": 0.1}, "the nearest is 'learning_rate'"),
    ("update", {"entropy_coeff": 0.1}, "the nearest is 'entropy_coef'"),
    ("update", {"action_std": 0.1}, "no column of updates that a loop can set is called 'action_std'"),
    ("update", {"level": "DEBUG"}, "no column of updates that a loop can set is called 'level'"),
    ("update", {"returns": torch.ones(N)}, "returns without values"),
    ("update", {"masks": {"actoin": FLAGS[:, None]}}, "the nearest is 'action'"),
    ("update", {"relevant": {"action": FLAGS}}, "not to minibatch()"),
    ("minibatch", {"clip_rnge": 0.2}, "no minibatch argument is called 'clip_rnge'; the nearest is 'clip_range'"),
    ("minibatch", {"relevant": {"action": FLAGS}}, "not to update()"),
    ("minibatch", {"relevant": {"actoin": FLAGS}}, "the nearest is 'action'"),
    ("minibatch", {"masks": {"actoin": FLAGS[:, None]}}, "the nearest is 'action'"),
    ("minibatch", {"log_prob": {"action": ONES, "actoin": ONES}}, "the nearest is 'action'"),
]


@pytest.mark.parametrize(("method", "more", "words"), NAMES)
def test_what_nobody_knows_is_told_once_counted_and_raised_when_strict(
    tmp_path: Path, method: str, more: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    def drive(rec: Recorder) -> None:
        for _ in range(2):
            for _ in range(2):
                given = {"log_prob": ONES, "old_log_prob": ONES} | (more if method == "minibatch" else {})
                rec.minibatch(**given)
            rec.update(**(more if method == "update" else {}))

    with Recorder(tmp_path / "run") as rec:
        drive(rec)
    run = open_run(tmp_path / "run")
    argument = next(iter(more))
    matching = [row for row in run.frame("losses_of_data").to_dicts() if words in row["detail"]]
    assert {row["update"] for row in matching} == {0, 1}
    assert all(f"({argument}" in row["detail"] for row in matching)
    assert caplog.text.count(words) >= 1
    assert run.frame("updates")["kl_k3"].to_list() == [0.0, 0.0]
    with Recorder(tmp_path / "strict", strict=True) as rec, pytest.raises(ValueError, match=re.escape(words)):
        drive(rec)
    rec.guarded.strict = False


def test_a_bad_learning_rate_leaves_that_of_the_optimizer(tmp_path: Path) -> None:
    loop = Loop()
    with loop.recorder(tmp_path / "run", strict=False) as rec:
        loop.update(rec, learning_rate="abc")
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert row["learning_rate"] == 1e-2
    assert row["kl_k3"] is not None


def test_returns_of_another_length_than_values_cost_both(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as rec:
        rec.update(values=torch.ones(3), returns=torch.ones(4), advantages=torch.ones(3))
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert (row["value_mean"], row["return_mean"], row["advantage_mean"]) == (None, None, 1.0)


def test_masks_of_one_head_that_do_not_fit_cost_only_that_head(tmp_path: Path) -> None:
    masks = {"op": torch.ones(8, 3, dtype=torch.bool), "slot": "junk", "style": np.ones((8, 2), bool)}
    with Recorder(tmp_path / "run", heads=tuple(masks)) as rec:
        rec.update(values=torch.ones(8), returns=torch.ones(8), masks=masks)  # type: ignore[arg-type]
    means = {row["head"]: row["valid_actions_mean"] for row in open_run(tmp_path / "run").frame("heads").to_dicts()}
    assert means == {"op": 3.0, "slot": None, "style": 2.0}


def test_a_nan_is_a_number(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", strict=True) as rec:
        rec.minibatch(log_prob=ONES, old_log_prob=ONES, policy_loss=math.nan, values=[math.nan] * N)
        rec.update(target_kl=math.inf)
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert math.isnan(row["policy_loss"])
    assert row["target_kl"] == math.inf
    assert row["nonfinite_sources"] == f"values: {N}, policy_loss: 1"


def test_gradients_with_a_bad_bound_are_still_measured(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    with Recorder(tmp_path / "run", model) as rec:
        rec.minibatch(log_prob=ONES, old_log_prob=ONES)
        model(torch.ones(1, 2)).sum().backward()
        rec.gradients("abc")  # type: ignore[arg-type]
        rec.update()
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert row["grad_norm_pre_clip"] == pytest.approx(math.sqrt(3.0))
    assert row["max_grad_norm"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"total_updates": "many"}, "total_updates: 'many' is not a number"),
        ({"total_env_steps": 1.5}, "total_env_steps: 1.5 is not a whole number"),
        ({"sizes": {"action": "four"}}, "sizes['action'] is 'four'"),
        ({"sizes": {"action": 0}}, "sizes['action'] is 0"),
        ({"heads": (3, 4)}, "heads: pass their names as text"),
        ({"sizes": {"acton": 4}}, "there is no head 'acton'; did you mean 'action'?"),
        ({"kinds": {"action": "gausian"}}, "head 'action' has the kind 'gausian'; did you mean 'gaussian'?"),
        ({"level": "debug"}, "there is no level 'debug'; did you mean 'DEBUG'?"),
        ({"rank": "first"}, "rank: 'first' is not a number"),
        ({"sizes": 2}, "sizes is 2 (int): pass a mapping from head to number of actions, such as sizes={'action': 4}"),
        ({"sizes": [2]}, "sizes is [2] (list): pass a mapping"),
        ({"kinds": "gaussian"}, "kinds is 'gaussian' (str): pass a mapping from head to kind"),
        ({"groups": "actor"}, "groups is 'actor' (str): pass a mapping from group to modules or parameters"),
        ({"coefficients": 0.5}, "coefficients is 0.5 (float): pass a mapping from head to weight"),
        ({"heads": 3}, "heads is 3 (int): pass a mapping from head to its module"),
        ({"thresholds": {}}, "thresholds is {} (dict): pass Thresholds, such as"),
        ({"overhead_budget": "2%"}, "overhead_budget is '2%' (str): pass a share"),
        ({"model": "model"}, "model is 'model' (str): pass the torch.nn.Module that is trained"),
        ({"model": nn.Linear}, "model is the class Linear: pass an instance of it"),
        ({"size": {"action": 4}}, "Recorder() has no argument 'size'; did you mean 'sizes'?"),
        ({"total_update": 5}, "Recorder() has no argument 'total_update'; did you mean 'total_updates'?"),
        ({"treshold": None}, "Recorder() has no argument 'treshold'; did you mean 'thresholds'?"),
    ],
)
def test_what_a_recorder_cannot_be_made_of_is_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        Recorder(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_run_directory_and_a_model_in_the_wrong_order_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=re.escape("run_dir is a Linear: pass the run's directory first")):
        Recorder(nn.Linear(2, 1), tmp_path / "run")  # type: ignore[arg-type]


def test_what_the_recorder_logs_says_where_losses_are_counted_and_counts_consequences_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Recorder(tmp_path / "run") as rec:
        rec.minibatch(log_prob=[0.0, 9.0], old_log_prob=[0.0, 0.0], entropy="none")
        rec.update()
    said = [record.getMessage() for record in caplog.records]
    assert any("what is not recorded is counted in table losses_of_data" in words for words in said)
    log_alarms([critical("kl_spike"), critical("ratio_explosion")], RULES, {}, set())
    log_alarms([critical("kl_spike"), critical("ratio_explosion"), critical("spike_then_silence")], RULES, {}, set())
    said = [record.getMessage() for record in caplog.records[-2:]]
    assert [words.rpartition(" (and ")[2] for words in said] == ["1 consequence)", "2 consequences)"]


def critical(rule: str) -> Finding:
    return Finding(3, rule, "run", "kl_k3", "critical", "ok", 2.0, 1.0, None, None)


def test_names_unlike_those_of_arguments_are_facts_of_the_run(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", notes="a try", seeds=[1], environment="CartPole", git_commit="abc") as rec:
        rec.update()
    info = open_run(tmp_path / "run").info
    assert (info["notes"], info["seeds"], info["environment"], info["git_commit"]) == ("a try", [1], "CartPole", "abc")


def test_one_head_may_be_named_by_a_word_and_lengths_be_numpy_s(tmp_path: Path) -> None:
    lengths: dict[str, Any] = {"sizes": {"op": np.int64(3)}, "total_updates": np.int64(2)}
    with Recorder(tmp_path / "run", heads="op", **lengths) as rec:
        rec.update()
    run = open_run(tmp_path / "run")
    assert run.info["heads"] == {"op": 3}
    assert run.frame("updates")["progress"].to_list() == [0.5]
