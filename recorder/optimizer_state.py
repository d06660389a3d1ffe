"""Whether an optimizer still has the moments it had: one tensor of its state is watched, and no device is read."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

SEEN = 1
"""Steps at which the same tensor must have been there again: an optimizer may make a new one in each."""


@dataclass(slots=True)
class _Watched:
    """A tensor of the state of one parameter, and the steps in a row at which it was there."""

    parameter: weakref.ref[Tensor]
    moment: weakref.ref[Tensor] | None = None
    steps: int = 0


class OptimizerStates:
    """The watched tensors of the optimizers of one training: one of the first parameter that each steps."""

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}
        self.lost: Tensor | float | None = None
        """What is recorded of the update in progress: the share of the state that was lost; None: not known."""

    def begin(self) -> None:
        """Forget what was seen in the update that ended."""
        self.lost = None

    def before_step(self, optimizer: Optimizer) -> None:
        """Compare the state that the optimizer is about to use with that of its step before."""
        parameters: Iterator[Tensor] = (p for group in optimizer.param_groups for p in group["params"])
        parameter = next((one for one in parameters if one.grad is not None), None)
        if parameter is None:
            return
        watched = self._watched.get(id(parameter))
        if watched is None or watched.parameter() is not parameter:
            watched = self._watched[id(parameter)] = _Watched(weakref.ref(parameter))
        moment = _moment(optimizer, parameter)
        before = None if watched.moment is None else watched.moment()
        if before is not None and before is moment:
            watched.steps += 1
            if watched.steps >= SEEN and self.lost is None:
                self.lost = 0.0
            return
        if watched.steps >= SEEN:
            self.lost = 1.0 if moment is None else (moment == 0).double().mean()
        watched.moment, watched.steps = (None if moment is None else weakref.ref(moment)), 0


def _moment(optimizer: Optimizer, parameter: Tensor) -> Tensor | None:
    """Return the first tensor as large as the parameter in its state; None without."""
    state = optimizer.state.get(parameter)
    if not state:
        return None
    return next(
        (cell for cell in state.values() if isinstance(cell, torch.Tensor) and cell.shape == parameter.shape), None
    )
