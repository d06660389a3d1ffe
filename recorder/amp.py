"""Automatic mixed precision: which gradients still carry a loss scale, and its value, without reading a device.

A process may hold several trainings, in threads or by turns in one, each with its own ``GradScaler``. A scaler is
identified by the parameters reached by a loss it scaled (from its graph), and by those of optimizers it unscaled. Where
two scalers reach the same parameter, as with a trunk shared by an actor's loss and a critic's, the later one counts.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from recorder.brief_lock import BriefLock

LOG = logging.getLogger("recorder")


@dataclass(slots=True)
class _ScalerState:
    """State of one ``GradScaler``. ``reached``: parameters by identity, as weak references: identities are reused."""

    scale: Tensor | None = None
    number: int = 0  # of its last scaled loss among all scalers'
    pending: bool = False  # a loss was scaled since the last ``update()`` of the scaler
    unscaled: list[Optimizer] = field(default_factory=list)  # since then
    reached: dict[int, weakref.ref[Tensor]] = field(default_factory=dict)

    def reaches(self, parameter: Tensor) -> bool:
        """Return whether a loss of this scaler is known to reach the parameter."""
        reference = self.reached.get(id(parameter))
        return reference is not None and reference() is parameter

    def reach(self, parameters: Iterable[Tensor]) -> None:
        """Record parameters as the scaler's."""
        self.reached |= {
            id(parameter): weakref.ref(parameter) for parameter in parameters if not self.reaches(parameter)
        }

    def first_of(self, parameters: Iterable[Tensor]) -> Tensor | None:
        """Return the first of the parameters that a loss of this scaler reaches."""
        return next((parameter for parameter in parameters if self.reaches(parameter)), None)


_users = 0
_lock = BriefLock()
_replaced: dict[str, Callable[..., Any]] = {}
_scalers: weakref.WeakKeyDictionary[torch.amp.GradScaler, _ScalerState] = weakref.WeakKeyDictionary()
_numbers = count(1)


def watch() -> None:
    """Observe every ``torch.amp.GradScaler`` until ``unwatch``; calls nest, from any thread."""
    global _users  # noqa: PLW0603
    with _lock:
        _users += 1
        if _users > 1:
            return
        for name, method in (("scale", _scaled), ("unscale_", _unscaled), ("update", _updated)):
            original = getattr(torch.amp.GradScaler, name)
            _replaced[name] = original
            setattr(torch.amp.GradScaler, name, method(original))


def unwatch() -> None:
    """Undo ``watch``; wrappers that others put over our replacement stay."""
    global _users  # noqa: PLW0603
    with _lock:
        _users -= 1
        if _users > 0:
            return
        for name, original in _replaced.items():
            if getattr(getattr(torch.amp.GradScaler, name), "__recorder__", False):
                setattr(torch.amp.GradScaler, name, original)
        _replaced.clear()
        _scalers.clear()


def loss_scale(parameters: Sequence[Tensor]) -> Tensor | None:
    """Return the scale of the last scaled loss that reaches any of the parameters, on its device; None without one."""
    last = _last_scaler(parameters, pending=False)
    return None if last is None else last[0].scale


def carried(parameters: Sequence[Tensor]) -> Tensor | None:
    """Return the loss scale that the gradients of ``parameters`` carry now; None if none, or unscaled since.

    All of them carry the same scale: it is read from the first one that a scaled loss reaches.
    """
    last = _last_scaler(parameters, pending=True)
    if last is None:
        return None
    scaler, parameter = last
    done = any(other is parameter for optimizer in scaler.unscaled for other in _parameters(optimizer))
    return None if done else scaler.scale


def _last_scaler(parameters: Sequence[Tensor], *, pending: bool) -> tuple[_ScalerState, Tensor] | None:
    """Return the scaler that last scaled a loss of the parameters, and a parameter that the loss reaches."""
    if not _scalers:
        return None
    with _lock:
        scalers = [state for state in _scalers.values() if state.scale is not None and (state.pending or not pending)]
    for scaler in sorted(scalers, key=lambda state: -state.number):
        parameter = scaler.first_of(parameters)
        if parameter is not None:
            return scaler, parameter
    return None


def _state_of(scaler: torch.amp.GradScaler) -> _ScalerState:
    with _lock:
        return _scalers.setdefault(scaler, _ScalerState())


def _parameters(optimizer: Optimizer) -> Iterable[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def _scaled(original: Callable[..., Any]) -> Callable[..., Any]:
    def scale(self: torch.amp.GradScaler, outputs: Any) -> Any:
        result = original(self, outputs)
        if self.is_enabled() and _users:
            losses = [
                output
                for output in (outputs if isinstance(outputs, (list, tuple)) else [outputs])
                if _is_tensor(output)
            ]
            if losses:
                state = _state_of(self)
                with torch.no_grad():
                    state.scale = original(self, torch.ones((), dtype=torch.float32, device=losses[0].device))
                state.pending, state.number = True, next(_numbers)
                _reach(state, losses)
        return result

    scale.__recorder__ = True  # type: ignore[attr-defined]
    return scale


def _is_tensor(thing: object) -> bool:
    return isinstance(thing, Tensor)


def _reach(state: _ScalerState, losses: Iterable[Tensor]) -> None:
    """Record the parameters that the losses reach, unless the first leaf is known: then the others are as well."""
    try:
        for root in (loss.grad_fn for loss in losses):
            first = _first_leaf(root)
            if first is not None and not state.reaches(first):
                state.reach(_leaves(root))
    except Exception as error:  # an unknown kind of graph; this runs inside the training's own call
        LOG.warning("recorder: cannot find the parameters that a scaled loss reaches (%s)", error)


def _first_leaf(node: Any) -> Tensor | None:
    """Return one leaf of a graph; every node leads to at least one."""
    while node is not None and not hasattr(node, "variable"):
        node = next((after for after, _ in node.next_functions if after is not None), None)
    return None if node is None else node.variable


def _leaves(root: Any) -> list[Tensor]:
    """Return all leaves of a graph."""
    leaves, waiting, visited = [], [root], {root}
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        for after, _ in node.next_functions:
            if after is not None and after not in visited:
                visited.add(after)
                waiting.append(after)
    return leaves


def _unscaled(original: Callable[..., Any]) -> Callable[..., Any]:
    def unscale_(self: torch.amp.GradScaler, optimizer: Optimizer) -> Any:
        result = original(self, optimizer)
        if self.is_enabled() and _users:
            state = _state_of(self)
            state.unscaled.append(optimizer)
            state.reach(_parameters(optimizer))
        return result

    unscale_.__recorder__ = True  # type: ignore[attr-defined]
    return unscale_


def _updated(original: Callable[..., Any]) -> Callable[..., Any]:
    def update(self: torch.amp.GradScaler, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if self.is_enabled() and _users:
            state = _state_of(self)
            state.pending = False
            state.unscaled.clear()
        return result

    update.__recorder__ = True  # type: ignore[attr-defined]
    return update
