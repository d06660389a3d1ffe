"""What trainings set for their whole process or thread, each as a context; none may change what is recorded."""

from __future__ import annotations

import locale
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from recorder import Recorder

ENTRIES = ("minibatch", "update", "episode", "slot", "before_clip", "after_clip", "before_step", "close")

State = Callable[[], AbstractContextManager[Any]]


@contextmanager
def _set(change: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    change(value)
    try:
        yield
    finally:
        change(before)


def _numpy_raises() -> AbstractContextManager[Any]:
    return np.errstate(all="raise")


def _warnings_raise() -> AbstractContextManager[Any]:
    return warnings.catch_warnings(action="error")


def _dtype(dtype: torch.dtype) -> State:
    return lambda: _set(torch.set_default_dtype, dtype, torch.get_default_dtype())


def _device(device: str) -> State:
    return lambda: torch.device(device)  # what set_default_device enters for good


@contextmanager
def _few_digits() -> Iterator[None]:
    with np.printoptions(precision=1, threshold=2):
        torch.set_printoptions(precision=1)
        yield
        torch.set_printoptions(profile="default")


@contextmanager
def _locale() -> Iterator[None]:
    before = locale.setlocale(locale.LC_ALL)
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C"):
        try:
            locale.setlocale(locale.LC_ALL, name)
            break
        except locale.Error:
            continue
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


class _RefusesFunctions(TorchFunctionMode):
    """Is asked about every function of torch, and raises."""

    def __torch_function__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("not the recorder's to call")


class _RefusesOperations(TorchDispatchMode):
    """Is asked about every operation of torch, and raises."""

    def __torch_dispatch__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("not the recorder's to call")


STATES: dict[str, State] = {
    "numpy raises": _numpy_raises,
    "warnings raise": _warnings_raise,
    "default dtype float64": _dtype(torch.float64),
    "default dtype float16": _dtype(torch.float16),
    "default device meta": _device("meta"),
    "default device that is not there": _device("cuda"),
    "anomalies are detected": lambda: torch.autograd.set_detect_anomaly(mode=True),
    "deterministic algorithms": lambda: _set(torch.use_deterministic_algorithms, True, False),
    "gradients off": torch.no_grad,
    "gradients on": torch.enable_grad,
    "few digits are printed": _few_digits,
    "little recursion": lambda: _set(sys.setrecursionlimit, 400, sys.getrecursionlimit()),
    "another locale": _locale,
    "inference mode": lambda: torch.inference_mode(mode=True),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "a mode over functions": _RefusesFunctions,
    "a mode over operations": _RefusesOperations,
}


def facts() -> tuple[Any, ...]:
    """Return what of a process's state can be asked for."""
    return (
        np.geterr(),
        torch.get_default_dtype(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_grad_enabled(),
        torch.is_anomaly_enabled(),
    )


def enter_within(rec: Recorder, state: State) -> None:
    """Let every entry of the recorder be called within a state, which it has to give back as it was."""

    def within(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with state():
                before = facts()
                answer = method(*args, **kwargs)
                assert facts() == before
            return answer

        return call

    for name in ENTRIES:
        setattr(rec, name, within(getattr(rec, name)))
