"""Automatic mixed precision: which gradients still carry a loss scale, and how large it is, without asking a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_users = 0
_replaced: dict[str, Callable[..., Any]] = {}
_scale: Tensor | None = None
_pending = False


def watch() -> None:
    """Look at every ``torch.amp.GradScaler`` until ``unwatch``; calls nest."""
    global _users  # noqa: PLW0603
    _users += 1
    if _users > 1:
        return
    for name, method in (("scale", _scaled), ("unscale_", _unscaled)):
        original = getattr(torch.amp.GradScaler, name)
        _replaced[name] = original
        setattr(torch.amp.GradScaler, name, method(original))


def unwatch() -> None:
    """Undo ``watch``; what somebody else put over our replacement stays theirs."""
    global _users, _scale, _pending  # noqa: PLW0603
    _users -= 1
    if _users > 0:
        return
    for name, original in _replaced.items():
        if getattr(getattr(torch.amp.GradScaler, name), "__recorder__", False):
            setattr(torch.amp.GradScaler, name, original)
    _replaced.clear()
    _scale, _pending = None, False


def loss_scale() -> Tensor | None:
    """Return the scale the last loss was multiplied with, on its device; None when none was scaled."""
    return _scale


def carried() -> Tensor | None:
    """Return the loss scale that gradients carry now: scaled, and not unscaled since; else None."""
    return _scale if _pending else None


def _scaled(original: Callable[..., Any]) -> Callable[..., Any]:
    def scale(self: torch.amp.GradScaler, outputs: Any) -> Any:
        result = original(self, outputs)
        global _scale, _pending  # noqa: PLW0603
        if self.is_enabled() and isinstance(outputs, Tensor):
            with torch.no_grad():
                _scale = original(self, torch.ones((), device=outputs.device))
            _pending = True
        return result

    scale.__recorder__ = True  # type: ignore[attr-defined]
    return scale


def _unscaled(original: Callable[..., Any]) -> Callable[..., Any]:
    def unscale_(self: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> Any:
        result = original(self, optimizer)
        global _pending  # noqa: PLW0603
        _pending = False
        return result

    unscale_.__recorder__ = True  # type: ignore[attr-defined]
    return unscale_
