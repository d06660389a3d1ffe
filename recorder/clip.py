"""Hooks that record gradients: the clip call (before it changes them) and the optimizer step (as it takes them)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from recorder.brief_lock import BriefLock
from recorder.capture.gradient_snapshot import GradientSnapshot
from recorder.capture.update_buffer import Minibatch


@dataclass(frozen=True, slots=True)
class Clipped:
    """One clip call of a watcher's parameters, between its two halves; owned by the call, never by the watcher.

    ``total``: their norm if it equals torch's own bit for bit; torch then need not compute it again. ``wider``: the L2
    norm over all clipped gradients, if some are not in the map yet and the call may return another norm.
    """

    minibatch: Minibatch
    snapshot: GradientSnapshot
    total: Tensor | None
    wider: Tensor | None = None


class Watcher(Protocol):
    """Observer of the gradients of one model. None of the calls may raise.

    Trainings in other threads clip and step at the same time: a call that concerns none of the watcher's parameters
    must leave its state alone.
    """

    def before_clip(self, parameters: list[Tensor], *, plain: bool) -> Clipped | None:
        """Observe gradients before clipping; None if none of ``parameters`` is the watcher's.

        ``plain``: an L2 clip without further arguments.
        """

    def after_clip(self, clipped: Clipped, total: Tensor, max_norm: object, norm_type: float) -> None:
        """Observe the total norm returned by the clip call; ``clipped``: the result of ``before_clip``."""

    def before_step(self, optimizer: Optimizer) -> None:
        """Observe gradients as the optimizer takes them."""


_watchers: tuple[Watcher, ...] = ()  # replaced, never mutated: a call in another thread iterates over the old tuple
_lock = BriefLock()
_replaced: dict[str, Callable[..., Tensor]] = {}
_hook: list[RemovableHandle] = []
_calls = threading.local()
_CLIP_MODULES = {"torch.nn.utils": torch.nn.utils, "torch.nn.utils.clip_grad": clip_grad}


def watch(watcher: Watcher) -> None:
    """Notify ``watcher`` of clip calls and optimizer steps until ``unwatch``. Any thread may call either."""
    global _watchers  # noqa: PLW0603
    with _lock:
        if not _watchers:
            for name, module in _CLIP_MODULES.items():
                _replaced[name] = module.clip_grad_norm_
                module.clip_grad_norm_ = _watched(module.clip_grad_norm_)  # type: ignore[attr-defined]
        if not _hook:  # never removed: torch iterates over its hooks, and removal would break a step in another thread
            _hook.append(register_optimizer_step_pre_hook(_on_step))
        _watchers = (*_watchers, watcher)


def unwatch(watcher: Watcher) -> None:
    """Undo ``watch``. Wrappers that others put over our replacement stay."""
    global _watchers  # noqa: PLW0603
    with _lock:
        if watcher not in _watchers:
            return
        _watchers = tuple(other for other in _watchers if other is not watcher)
        if _watchers:
            return
        for name, module in _CLIP_MODULES.items():
            original = _replaced.pop(name)
            if getattr(module.clip_grad_norm_, "__recorder__", False):
                module.clip_grad_norm_ = original  # type: ignore[attr-defined]


def _watched(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``original`` with notification; only torch's own function may be skipped, never another's wrapper."""
    shares = getattr(getattr(original, "__code__", None), "co_filename", None) == clip_grad.__file__

    def clip_grad_norm_(
        parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, *args: Any, **kwargs: Any
    ) -> Tensor:
        listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        if not listed:  # the original warns of an empty generator
            return original(parameters, max_norm, norm_type, *args, **kwargs)
        if getattr(_calls, "inside", False):  # a wrapper around an earlier replacement: one call, recorded once
            return original(listed, max_norm, norm_type, *args, **kwargs)
        plain = shares and norm_type == 2.0 and not args and not kwargs and isinstance(max_norm, (int, float))
        calls = []
        for watcher in _watchers:
            clipped = watcher.before_clip(listed, plain=plain)
            if clipped is not None:
                calls.append((watcher, clipped))
        totals = [clipped.total for _, clipped in calls if clipped.total is not None]
        if totals:
            total = totals[-1]
            _scale(listed, float(max_norm), total)
        else:
            _calls.inside = True
            try:
                total = original(listed, max_norm, norm_type, *args, **kwargs)
            finally:
                _calls.inside = False
        for watcher, clipped in calls:
            watcher.after_clip(clipped, total, max_norm, float(norm_type))
        return total

    clip_grad_norm_.__recorder__ = True  # type: ignore[attr-defined]
    clip_grad_norm_.__doc__ = original.__doc__
    return clip_grad_norm_


def _scale(parameters: Iterable[Tensor], max_norm: float, total: Tensor) -> None:
    """Scale gradients as ``torch.nn.utils.clip_grads_with_norm_`` does, operation by operation.

    Torch sorts them by device and dtype first; these have one of each.
    """
    with torch.no_grad():
        coefficient = torch.clamp(max_norm / (total + 1e-6), max=1.0)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(coefficient)


def _on_step(optimizer: Optimizer, *_: Any) -> None:
    for watcher in _watchers:
        watcher.before_step(optimizer)
