"""Where gradients are seen: the clip call (before it changes them) and the optimizer step (as it takes them)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle


class Watcher(Protocol):
    """Somebody who wants to see gradients. None of the calls may raise."""

    def before_clip(self, parameters: list[Tensor], *, plain: bool) -> Tensor | None:
        """See gradients before clipping.

        ``plain``: an L2 clip without further wishes. May return the total norm that torch would compute, to the
        last bit; torch then need not compute it again.
        """

    def after_clip(self, total: Tensor, max_norm: object, norm_type: float) -> None:
        """See the total norm that the clip call returned."""

    def before_step(self, optimizer: Optimizer) -> None:
        """See gradients as the optimizer takes them."""


_watchers: list[Watcher] = []
_replaced: dict[str, Callable[..., Tensor]] = {}
_hook: list[RemovableHandle] = []
_PLACES = {"torch.nn.utils": torch.nn.utils, "torch.nn.utils.clip_grad": clip_grad}


def watch(watcher: Watcher) -> None:
    """Let ``watcher`` see clip calls and optimizer steps, until ``unwatch``."""
    if not _watchers:
        for name, module in _PLACES.items():
            _replaced[name] = module.clip_grad_norm_
            module.clip_grad_norm_ = _watched(module.clip_grad_norm_)  # type: ignore[attr-defined]
        _hook.append(register_optimizer_step_pre_hook(_on_step))
    _watchers.append(watcher)


def unwatch(watcher: Watcher) -> None:
    """Undo ``watch``. What somebody else put over our replacement stays theirs."""
    if watcher not in _watchers:
        return
    _watchers.remove(watcher)
    if _watchers:
        return
    for name, module in _PLACES.items():
        original = _replaced.pop(name)
        if getattr(module.clip_grad_norm_, "__recorder__", False):
            module.clip_grad_norm_ = original  # type: ignore[attr-defined]
    while _hook:
        _hook.pop().remove()


def _watched(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``original`` as seen by the watchers; only torch's own is ever left out, never somebody's wrapper."""
    shares = getattr(getattr(original, "__code__", None), "co_filename", None) == clip_grad.__file__

    def clip_grad_norm_(
        parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, *args: Any, **kwargs: Any
    ) -> Tensor:
        listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        if not listed:  # the original warns of an empty generator
            return original(parameters, max_norm, norm_type, *args, **kwargs)
        plain = shares and norm_type == 2.0 and not args and not kwargs and isinstance(max_norm, (int, float))
        total = None
        for watcher in tuple(_watchers):
            known = watcher.before_clip(listed, plain=plain)
            total = known if known is not None else total
        if total is None:
            total = original(listed, max_norm, norm_type, *args, **kwargs)
        else:
            _scale(listed, float(max_norm), total)
        for watcher in tuple(_watchers):
            watcher.after_clip(total, max_norm, float(norm_type))
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
    for watcher in tuple(_watchers):
        watcher.before_step(optimizer)
