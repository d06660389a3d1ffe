"""A PPO as a LightningModule, recorded: what it logged, gradients under a closure, nothing left behind."""

from __future__ import annotations

import logging
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning", reason="Lightning is not installed (extra: lightning)")

from lightning.pytorch.callbacks import ModelCheckpoint

from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.storage.checkpoints import checkpoints_of
from recorder.adapters.lightning import RecorderCallback, attach
from recorder.adapters.wrapped import Wrapped
from tests.recorder.adapters.lightning_training import (
    ACTIONS,
    BATCH,
    PASSES,
    SAMPLES,
    ByHand,
    Fitted,
    SignBandit,
    handed_over,
    train,
    trainer,
)

EPOCHS, STEPS = 3, PASSES * SAMPLES // BATCH
LOGGED = ("policy_loss", "value_loss", "entropy", "clip_fraction", "kl_k3")
NO_CLIP: dict[str, Any] = {"gradient_clip_val": None}

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def same(one: Fitted, other: Fitted) -> bool:
    pairs = list(zip(one.module.parameters(), other.module.parameters(), strict=True))
    return bool(pairs) and all(torch.equal(mine, theirs) for mine, theirs in pairs)


@pytest.fixture(scope="module", params=["automatic", "manual"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Fitted, Fitted, RecordedRun]:
    """Return a recorded training, its twin without the recorder, and the run."""
    run_dir = tmp_path_factory.mktemp("runs") / request.param
    kind, options = (SignBandit, {}) if request.param == "automatic" else (ByHand, NO_CLIP)
    return (
        train(run_dir, kind, epochs=EPOCHS, **options),
        train(None, kind, epochs=EPOCHS, **options),
        open_run(run_dir),
    )


def test_parameters_are_bit_equal_with_and_without_recorder(
    case: tuple[Fitted, Fitted, RecordedRun],
) -> None:
    assert same(case[0], case[1])


def test_numbers_that_the_module_logs_are_recorded_step_by_step(
    case: tuple[Fitted, Fitted, RecordedRun],
) -> None:
    trained, _, run = case
    steps = run.frame("steps").to_dicts()
    assert len(steps) == len(trained.kept.logged) == EPOCHS * STEPS
    for step, logged in zip(steps, trained.kept.logged, strict=True):
        assert {name: step[name] for name in LOGGED} == pytest.approx({name: logged[name] for name in LOGGED}, abs=1e-6)
        assert step["samples"] == BATCH


def test_gradients_before_and_after_clipping_are_those_of_their_own_minibatch(
    case: tuple[Fitted, Fitted, RecordedRun],
) -> None:
    trained, _, run = case
    steps = run.frame("steps").to_dicts()
    for step, norm in zip(steps, trained.module.norms, strict=True):
        assert step["grad_norm_pre_clip"] == pytest.approx(norm, rel=1e-6)
        assert step["grad_norm_post_clip"] == pytest.approx(min(norm, 0.5), rel=1e-4)
        assert step["stepped"]
    assert any(norm > 0.5 for norm in trained.module.norms)
    assert run.frame("updates")["learning_rate"].to_list() == [0.01] * EPOCHS


def test_an_epoch_is_an_update_with_the_rollout_it_was_given(
    case: tuple[Fitted, Fitted, RecordedRun],
) -> None:
    trained, _, run = case
    rows = run.frame("updates").to_dicts()
    assert [row["env_steps"] for row in rows] == [SAMPLES * (epoch + 1) for epoch in range(EPOCHS)]
    last = trained.module.rollout
    explained = 1 - (last["returns"] - last["values"]).var() / last["returns"].var()
    assert rows[-1]["explained_variance"] == pytest.approx(float(explained), abs=1e-5)
    assert rows[-1]["first_ratio_error"] < 1e-6
    head = run.frame("heads").to_dicts()[-1]
    assert head["learnable_fraction"] == pytest.approx(float((last["mask"].sum(-1) > 1).double().mean()))


def test_replay_gives_the_findings_recorded_live(case: tuple[Fitted, Fitted, RecordedRun]) -> None:
    from esper_analyze.replay.replay import differences, recorded, replay

    assert differences(replay(case[2]), recorded(case[2])) == []
    assert not len(case[2].frame("losses_of_data"))


@pytest.mark.parametrize("options", [NO_CLIP, {"gradient_clip_algorithm": "value"}])
def test_without_a_clip_call_by_norm_gradients_are_seen_before_the_step(tmp_path: Path, options: Any) -> None:
    trained = train(tmp_path / "run", **options)
    steps = open_run(tmp_path / "run").frame("steps").to_dicts()
    for step, norm in zip(steps, trained.module.norms, strict=True):
        assert step["grad_norm_pre_clip"] == pytest.approx(norm, rel=1e-6)
        assert step["grad_norm_post_clip"] <= norm * 1.001
    assert same(trained, train(None, **options))


def test_accumulated_minibatches_make_one_step(tmp_path: Path) -> None:
    trained = train(tmp_path / "run", accumulate_grad_batches=2)
    steps = open_run(tmp_path / "run").frame("steps").to_dicts()
    assert [step["stepped"] for step in steps] == [False, True] * (EPOCHS * STEPS // 2)
    assert [step["grad_norm_pre_clip"] for step in steps[1::2]] == pytest.approx(trained.module.norms[1::2], rel=1e-6)
    assert all(step["grad_norm_pre_clip"] is None for step in steps[::2])


def test_a_batch_can_be_an_update(tmp_path: Path) -> None:
    train(tmp_path / "run", epochs=1, recording={"updates": "batch"})
    rows = open_run(tmp_path / "run").frame("updates").to_dicts()
    assert [row["minibatches"] for row in rows] == [1] * STEPS
    with pytest.raises(ValueError, match="an 'epoch' or a 'batch'"):
        RecorderCallback(tmp_path / "other", updates="step")  # type: ignore[arg-type]


def test_the_callback_alone_records_the_same_rows_as_attach(tmp_path: Path) -> None:
    train(tmp_path / "attached")
    torch.manual_seed(0)
    module = SignBandit()
    callback = RecorderCallback(tmp_path / "called", rollout=handed_over, sizes={"action": ACTIONS}, strict=True)
    with pytest.raises(RuntimeError, match="when the training starts"):
        callback.recorder  # noqa: B018
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(EPOCHS, callback).fit(module)
    columns = ["update", "kl_k3", "entropy", "value_loss", "grad_norm_pre_clip", "explained_variance"]
    ours, theirs = (open_run(tmp_path / name).frame("updates", columns) for name in ("called", "attached"))
    assert ours.equals(theirs)
    closed = open_run(tmp_path / "called").attempts[-1].closed
    assert closed is not None
    assert closed["reason"] == "closed"
    assert "training_step" not in vars(module)


@pytest.mark.parametrize("nested", [True, False])
def test_recording_twice_harms_no_training_and_is_undone_in_any_order(nested: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, fit = SignBandit(), trainer(EPOCHS)
    callbacks = fit.callbacks  # type: ignore[attr-defined]
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if nested:
            stack.enter_context(attach(fit, module, tmp_path / "0"))
            stack.enter_context(attach(fit, module, tmp_path / "1"))
        else:
            callbacks[:0] = [RecorderCallback(tmp_path / "0"), RecorderCallback(tmp_path / "1")]
        fit.fit(module)
    assert same(Fitted(module), train(None))
    assert "training_step" not in vars(module)
    first, second = (open_run(tmp_path / name).frame("updates") for name in "01")
    assert first["status"].to_list() == ["performed"] * EPOCHS
    for name in ("minibatches", "optimizer_steps", "grad_norm_pre_clip", "policy_loss"):
        assert first[name].to_list() == second[name].to_list()
        assert None not in first[name]


def test_checkpoints_of_the_trainer_are_noted(tmp_path: Path) -> None:
    module, saves = SignBandit(), ModelCheckpoint(tmp_path / "saved", save_top_k=-1, filename="{epoch}")
    training = trainer(2, saves, enable_checkpointing=True)
    with attach(training, module, tmp_path / "run", sizes={"action": ACTIONS}, strict=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        training.fit(module)
    listed = checkpoints_of(open_run(tmp_path / "run").attempts)
    names = [str(tmp_path / "saved" / f"epoch={epoch}.ckpt") for epoch in range(2)]
    assert [(checkpoint.path, checkpoint.update) for checkpoint in listed] == list(zip(names, range(2), strict=True))


def test_a_manual_step_that_hands_nothing_over_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class HandsNothingOver(ByHand):
        hands_over = False

    train(tmp_path / "run", HandsNothingOver, epochs=1, **NO_CLIP)
    assert "before each backward" in caplog.text
    (row,) = open_run(tmp_path / "run").frame("updates").to_dicts()
    assert (row["status"], row["minibatches"]) == ("performed", None)  # steps were seen, and no minibatch


def test_an_error_of_the_recorder_is_counted_and_the_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Any) -> Any:
        raise ArithmeticError("out of luck")

    trained = train(
        tmp_path / "run", recording={"rollout": broken, "heads": ("one", "two"), "sizes": {}, "strict": False}
    )
    assert same(trained, train(None))
    lost = open_run(tmp_path / "run").frame("losses_of_data").to_dicts()
    assert sum(row["rows"] for row in lost if "out of luck" in row["detail"]) == EPOCHS
    assert "out of luck" in caplog.text


def test_an_exception_of_the_training_passes_and_everything_is_undone(tmp_path: Path) -> None:
    module, clip = SignBandit(), torch.nn.utils.clip_grad_norm_
    module.fails_at = STEPS + 1
    fit = trainer(EPOCHS)
    before = list(fit.callbacks)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(FloatingPointError), attach(fit, module, tmp_path / "run"):
            fit.fit(module)
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["status"].to_list() == ["performed", "interrupted"]
    assert run.frame("updates")["skip_reason"].to_list()[-1].startswith("FloatingPointError")
    assert fit.callbacks == before  # type: ignore[attr-defined]
    assert not [name for name, part in vars(module).items() if isinstance(part, Wrapped)]
    assert torch.nn.utils.clip_grad_norm_ is clip
    assert not fit.optimizers[0]._optimizer_step_post_hooks
