"""Trainings in threads of one process, or by turns in one thread, are recorded as each is alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esper_analyze.runs.run import open_run
from recorder import Recorder, clip
from tests.recorder.plain import Plain, norm_of
from tests.recorder.threads import TRAININGS, differences, switching


@pytest.mark.parametrize("kind", sorted(TRAININGS))
def test_trainings_in_threads_are_recorded_cell_by_cell_as_each_is_alone(tmp_path: Path, kind: str) -> None:
    assert differences(TRAININGS[kind], tmp_path, threads=5, updates=8) == []


class Turns:
    """A training whose every action is called by hand."""

    def __init__(self, run_dir: Path, scale: float) -> None:
        self.model = Plain()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10_000)
        self.rec = Recorder(run_dir, self.model, heads={"op": self.model.op}, strict=True)
        self.true: list[float] = []

    def backward(self) -> None:
        loss = self.model.op(torch.randn(4, 3)).square().mean()
        self.true.append(norm_of(torch.autograd.grad(loss, list(self.model.parameters()), retain_graph=True)))
        self.rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), loss=loss)
        self.optimizer.zero_grad()
        scaled = self.scaler.scale(loss)
        assert isinstance(scaled, Tensor)
        scaled.backward()

    def clip(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1e9)

    def unscale(self) -> None:
        self.scaler.unscale_(self.optimizer)

    def step(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()


@pytest.mark.parametrize("unscale", [False, True])
def test_two_scalers_that_take_turns_in_one_thread_are_not_taken_for_each_other(tmp_path: Path, unscale: bool) -> None:
    torch.manual_seed(0)
    both = [Turns(tmp_path / name, scale) for name, scale in (("a", 2.0**10), ("b", 2.0**4))]
    for _ in range(3):
        for action in ("backward", "unscale", "clip", "step") if unscale else ("backward", "clip", "unscale", "step"):
            for one in both:
                getattr(one, action)()
    for one in both:
        one.rec.update()
        one.rec.close()
    for name, one, scale in (("a", both[0], 2.0**10), ("b", both[1], 2.0**4)):
        run = open_run(tmp_path / name)
        assert run.frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx(one.true, rel=1e-5)
        assert run.frame("steps")["grad_norm_post_clip"].to_list() == pytest.approx(one.true, rel=1e-5)
        assert run.frame("updates")["loss_scale"].to_list() == [scale]


def test_one_scaler_and_two_optimizers_unscaled_one_after_the_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"actor": nn.Linear(3, 2), "critic": nn.Linear(3, 1)})
    optimizers = {name: torch.optim.SGD(part.parameters(), lr=0.1) for name, part in model.items()}
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    true = []
    with Recorder(tmp_path / "run", model, heads={"op": model["actor"]}, strict=True) as rec:
        for _ in range(3):
            loss = sum(part(torch.ones(4, 3)).square().mean() for part in model.values())
            assert isinstance(loss, Tensor)
            true.append(norm_of(torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)))
            rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), loss=loss)
            model.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizers["actor"])
            torch.nn.utils.clip_grad_norm_(model["critic"].parameters(), 1e9)  # still scaled
            torch.nn.utils.clip_grad_norm_(model["actor"].parameters(), 1e9)
            scaler.step(optimizers["actor"])
            scaler.step(optimizers["critic"])
            scaler.update()
        rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx(true, rel=1e-5)
    assert run.frame("steps")["grad_norm_post_clip"].to_list() == pytest.approx(true, rel=1e-5)


def test_a_clip_of_foreign_parameters_leaves_no_trace(tmp_path: Path) -> None:
    model, other = Plain(), Plain()
    rec = Recorder(tmp_path / "run", model, heads={"op": model.op}, strict=True)
    rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4))
    for parameter in (*model.parameters(), *other.parameters()):
        parameter.grad = torch.ones_like(parameter)
    for _ in range(40):
        assert rec.before_clip(list(other.parameters()), plain=True) is None
        other = Plain()
    rec.before_step(torch.optim.SGD(other.parameters(), lr=0.1))
    assert rec._reader is not None
    assert rec._reader._plans == []
    assert rec._buffer.minibatches[0].steps == 0
    rec.close()


def test_a_wrapper_around_an_earlier_replacement_does_not_double_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Plain()
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", torch.nn.utils.clip_grad_norm_)  # put back at the end
    first = Recorder(tmp_path / "first", model, heads={"op": model.op}, strict=True)
    ours = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *args: ours(*args))  # noqa: PLW0108
    first.close()
    with Recorder(tmp_path / "run", model, heads={"op": model.op}, strict=True) as rec:
        rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4))
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        assert rec._buffer.minibatches[0].clips == 1
        rec.update()
    assert open_run(tmp_path / "run").frame("updates")["grad_norm_pre_clip"].to_list() == [4.0]


def test_recorders_come_and_go_while_others_step() -> None:
    """Torch iterates over its hooks in every step: adding or removing one meanwhile would raise in the training."""
    done = threading.Event()

    def unrecorded() -> int:
        model, steps = Plain(), 0
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        while not done.is_set() or not steps:
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            steps += 1
        return steps

    def come_and_go(_: int) -> None:
        for _ in range(50):
            watcher: Any = _Blind()
            clip.watch(watcher)
            clip.unwatch(watcher)

    with switching(), ThreadPoolExecutor(6) as pool:
        stepping = [pool.submit(unrecorded) for _ in range(2)]
        try:
            list(pool.map(come_and_go, range(4)))
        finally:
            done.set()
        assert all(one.result() > 0 for one in stepping)
    assert not hasattr(torch.nn.utils.clip_grad_norm_, "__recorder__")


class _Blind:
    """A watcher of nothing."""

    def before_clip(self, *_: Any, **__: Any) -> None:
        """See nothing."""

    def before_step(self, *_: Any) -> None:
        """See nothing."""
