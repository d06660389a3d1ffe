"""Nothing between backward and step asks a device for a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from sb3_contrib import MaskablePPO
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from recorder import Recorder, amp, clip, module_gradients
from recorder.adapters.sb3 import attach
from recorder.module_gradients import GradientLayout
from recorder.recorder import Recorder as Whole
from recorder.slots import Slots
from tests.recorder.growing import Growing
from tests.recorder.loop import SIZES, Loop
from tests.recorder.trainings import Recipe

pytestmark = pytest.mark.clock

WAITS = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "nonzero_numpy",
    "argwhere",
    "masked_select",
    "equal",
    "bincount",
    "unique_dim",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "allclose",
)


class NoWaiting(TorchDispatchMode):
    """Raises on every operation whose result, or whose shape, needs a number from the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS:
            raise AssertionError(f"{name} waits for the device")
        if name in ("index", "index_put", "index_put_"):
            assert all(one is None or one.dtype not in (torch.bool, torch.uint8) for one in args[1]), "boolean index"
        return func(*args, **(kwargs or {}))


def _refuses(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"Tensor.{name} in the hot path")

    return refuse


ASKS = ("item", "cpu", "tolist", "__bool__", "__float__", "__int__", "numpy")


@contextmanager
def no_waiting(asks: Sequence[str] = ASKS) -> Iterator[None]:
    with ExitStack() as stack:
        for name in asks:
            stack.enter_context(patch.object(Tensor, name, _refuses(name)))
        stack.enter_context(NoWaiting())
        yield


def guarded(method: Any) -> Any:
    def inside(self: Any, *args: Any, **kwargs: Any) -> Any:
        with no_waiting():
            return method(self, *args, **kwargs)

    return inside


HOT = ("minibatch", "before_clip", "after_clip", "before_step", "gradients", "slot")


@pytest.mark.parametrize("level", ["NORMAL", "DEBUG"])
def test_the_hot_path_of_a_hand_written_loop_never_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    for name in HOT:
        monkeypatch.setattr(Whole, name, guarded(getattr(Whole, name)))
    monkeypatch.setattr(Slots, "tensors", guarded(Slots.tensors))
    monkeypatch.setattr(module_gradients, "layout_of", lambda _: GradientLayout.ALIKE)  # host memory may be looked at
    loop, growing = Loop(), Growing()
    with loop.recorder(tmp_path / "run", level=level, overhead_budget=None) as rec:
        for _ in range(3):
            growing.backward(rec)
            rollout = loop.rollout()
            loop.train(rec, rollout)
            rec.update(values=rollout["values"], returns=rollout["returns"], masks=rollout["masks"])


def test_the_hot_path_of_an_sb3_training_never_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*HOT, "captured"):
        monkeypatch.setattr(Whole, name, guarded(getattr(Whole, name)))
    training = Recipe(MaskablePPO, updates=2, options={"n_steps": 32, "batch_size": 32, "n_epochs": 2})
    model = training.model()
    with attach(model, tmp_path / "run", strict=True, overhead_budget=None):
        model.learn(training.steps(model))


def test_measuring_an_update_never_waits_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recorder.capture.update_buffer import UpdateBuffer

    for name in ("stack", "tensors", "detail_tensors", "find_worst"):
        monkeypatch.setattr(UpdateBuffer, name, guarded(getattr(UpdateBuffer, name)))
    loop = Loop()
    with loop.recorder(tmp_path / "run", overhead_budget=None) as rec:
        for _ in range(3):
            rollout = loop.rollout()
            loop.train(rec, rollout)
            rec.update(values=rollout["values"], returns=rollout["returns"], masks=rollout["masks"])


@pytest.mark.parametrize("wide", [8, 300])
def test_tensors_of_a_device_without_numbers_go_through(tmp_path: Path, wide: int) -> None:
    """Tensors of the device ``meta`` have shapes and no contents: any question about their numbers raises."""
    with torch.device("meta"):
        layers = {"body": (5, wide), "deep": (wide, wide), "op": (wide, 4), "v": (wide, 1)}
        model = nn.ModuleDict({name: nn.Linear(*sizes) for name, sizes in layers.items()})
        rec = Recorder(tmp_path / "run", model, heads={"op": model["op"]}, strict=True, overhead_budget=None)
        for _ in range(3):
            hidden = torch.tanh(model["deep"](model["body"](torch.randn(16, 5))))
            log_prob = model["op"](hidden).log_softmax(-1)[:, 0]
            loss = log_prob.mean() + model["v"](hidden).mean()
            rec.minibatch(
                log_prob=log_prob,
                old_log_prob=torch.zeros(16),
                entropy=-log_prob,
                masks={"op": torch.ones(16, 4, dtype=torch.bool)},
                valid=torch.ones(16, dtype=torch.bool),
                clip_range=0.2,
                loss=loss,
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            rec.before_step(torch.optim.SGD(model.parameters(), lr=0.1))
        rec._buffer.stack()
        tensors, detail = rec._buffer.tensors(), rec._buffer.detail_tensors()
        rec._buffer.find_worst()
        assert {tensor.device.type for tensor in (tensors | detail).values()} == {"meta"}
        assert detail
        rec._buffer.minibatches.clear()
    clip.unwatch(rec)
    amp.unwatch()


def test_slots_in_host_memory_ask_for_no_more_than_their_norms(tmp_path: Path) -> None:
    growing = Growing()
    growing.loss().backward()
    with Recorder(tmp_path / "run", strict=True) as rec, no_waiting(ASKS[:-1]):
        rec.slot(0, "r0c0", seed=growing.seed, host=growing.host)
        rec._slots.tensors()
        rec._slots.forget_calls()


@pytest.mark.parametrize("wide", [8, 300])
def test_slots_of_a_device_without_numbers_go_through(tmp_path: Path, wide: int) -> None:
    with torch.device("meta"):
        host, seed = nn.Linear(wide, wide), nn.Linear(wide, wide)
        with Recorder(tmp_path / "run", strict=True) as rec:
            for alpha in (torch.ones(()), 0.5):
                host.zero_grad()
                (host(torch.randn(4, wide)) + seed(torch.randn(4, wide))).sum().backward()
                rec.slot(0, "r0c0", seed=seed.half() if wide > 8 else seed, host=host, alpha=alpha)
            sent = rec._slots.tensors()
            assert {tensor.device.type for tensor in sent.values()} == {"meta"}
            assert sum(len(numbers) for numbers in rec._slots.now.numbers) == 4
            rec._slots.forget_calls()


def test_a_waiting_operation_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        torch.ones(1).nonzero()
    with pytest.raises(AssertionError, match="boolean index"), NoWaiting():
        torch.ones(2)[torch.tensor([True, False])]
    with pytest.raises(AssertionError, match="hot path"), no_waiting():
        torch.ones(1).item()
    assert set(SIZES)
