"""Schedule of updates sampled for detail, and their measurement: elements, direction, gates, separate losses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from recorder.arguments import State
from recorder.budget import Budget
from recorder.capture.detail import Detail
from recorder.capture.parameters import ParameterMap
from recorder.capture.update_buffer import UpdateBuffer
from recorder.gates import Gates, lstms
from recorder.transfer import Handle, Outgoing

UNSAMPLED_LEVELS = ("OFF", "MINIMAL")


class DetailSchedule:
    """Detail of one model's updates within the budget. Raises ``ValueError`` for a budget outside (0, 1]."""

    def __init__(
        self, model: nn.Module | None, parameters: ParameterMap | None, fraction: float | None, *, separate: bool
    ) -> None:
        self.detail = None if parameters is None else Detail(parameters)
        self._budget = Budget(fraction, 0.0 if self.detail is None or fraction is None else self.detail.predicted())
        self._gates = Gates(() if model is None else lstms(model))
        self._separate = separate
        self._minibatches = 0
        self._begun = -1
        self._seconds = 0.0

    def forget_before(self) -> None:
        """Discard the parameters copied at the start of the update: the model has other ones now."""
        if self.detail is not None:
            self.detail.forget_before()

    def follow(self, model: nn.Module, parameters: ParameterMap | None) -> None:
        """Continue with other parameters; nothing is compared with measurements of the previous ones."""
        self._gates.stop()
        self._gates = Gates(lstms(model))
        if parameters is not None and self.detail is not None:
            self.detail = Detail(parameters)

    @property
    def wanted(self) -> bool:
        """Whether the update in progress is sampled."""
        return self.detail is not None and self.detail.wanted

    def begin(self, update: int, level: str) -> None:
        """Sample the update whose optimisation begins, if the budget allows it or the level requires it.

        Called with each minibatch; the first call of an update decides.
        """
        if self._begun == update:
            return
        if self.detail is None or level in UNSAMPLED_LEVELS:
            self._begun = update
            return
        if self._budget.wants(update, every=level == "DEBUG"):
            with self._timed():
                self.detail.begin(update, self._minibatches)
        self._begun = update

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - start

    def record_gates(self, number: int) -> None:
        """Record the LSTM gates in the forward of the update's second minibatch; ``number`` counts from 1."""
        if not self._gates.modules or not self.wanted:
            return
        with self._timed():
            if number == 1:
                self._gates.watch()
            elif self._gates.watching:
                self._gates.take()

    def wants_losses(self, number: int) -> bool:
        """Return whether to differentiate the losses of the update's minibatch ``number`` one by one."""
        return self._separate and self.wanted and number == 1

    def losses(self, policy_loss: Tensor, value_loss: Tensor, entropy_loss: Tensor | None) -> None:
        """Differentiate the losses one by one, if they require gradients."""
        if self.detail is not None and policy_loss.requires_grad and value_loss.requires_grad:
            reaches = entropy_loss is not None and entropy_loss.requires_grad
            with self._timed():
                self.detail.separate(policy_loss, value_loss, entropy_loss if reaches else None)

    def tensors(self, buffer: UpdateBuffer, states: dict[str, State], outgoing: Outgoing) -> Handle | None:
        """Schedule the detail of the ended update; add the LSTM state to ``states`` if missing there.

        Return the handle of the gates' statistics; None if there are none.
        """
        self._gates.stop()
        if self._gates.state is not None:
            states.setdefault("update", self._gates.state)
        with self._timed():
            outgoing |= buffer.detail_tensors()
        gates = None if self._gates.numbers is None else outgoing.add(self._gates.numbers)
        self._gates.state = self._gates.numbers = None
        return gates

    def end(self, update: int, buffer: UpdateBuffer, *, elapsed: float, spent: float) -> None:
        """Account for the ended update: its seconds, and the seconds ``spent`` on recording, detail included."""
        self._budget.settle(update, elapsed=elapsed, core=max(spent - self._seconds, 0.0), detail=self._seconds)
        self._minibatches, self._seconds = len(buffer.minibatches), 0.0
        if self.detail is not None:
            self.detail.end()

    def close(self) -> None:
        """Remove the hooks."""
        self._gates.stop()
