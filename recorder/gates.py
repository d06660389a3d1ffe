"""LSTM gates at one sampled minibatch, from the inputs and outputs of the modules.

The modules have hooks only while that minibatch is computed, so that no other step pays for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from recorder.measure.lstm import GateWeights, gate_statistics
from recorder.process_state import as_by_default

MAX_CALLS = 4096
"""Calls kept per minibatch; a loop over timesteps makes one call a step."""


@dataclass(frozen=True, slots=True)
class GateCall:
    """Inputs [n, in] and the hidden states before them [n, out]."""

    inputs: Tensor
    hidden: Tensor


@dataclass(slots=True)
class Gates:
    """Records the LSTM calls of a model for one minibatch.

    ``state``: h and c after the last recorded call, layers × environments × hidden. ``numbers``: of the last ``take``.
    """

    modules: Sequence[nn.Module]
    state: tuple[Tensor, Tensor] | None = None
    numbers: Tensor | None = None
    error: Exception | None = None
    _hooks: list[RemovableHandle] = field(default_factory=list)
    _calls: dict[nn.Module, list[GateCall]] = field(default_factory=dict)
    _states: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def watch(self) -> None:
        """Record calls from now on, as far as they are differentiated."""
        self.stop()
        self._calls, self._states, self.state, self.numbers, self.error = {}, {}, None, None, None
        self._hooks = [module.register_forward_hook(self._on_call, with_kwargs=True) for module in self.modules]

    def stop(self) -> None:
        """Remove the hooks and forget the calls."""
        while self._hooks:
            self._hooks.pop().remove()
        self._calls = {}

    @property
    def watching(self) -> bool:
        """Whether the modules have hooks."""
        return bool(self._hooks)

    def take(self) -> Tensor | None:
        """Stop recording; return ``numbers``: ``GATE_FIELDS`` over all calls, None without a measurable call.

        Call it before the optimizer changes the weights. Raises the error of a failed call. If Ctrl-C interrupts it, it
        can be called again.
        """
        try:
            self.numbers = self._measured()
        except Exception:
            self.stop()
            raise
        self.stop()
        return self.numbers

    def _measured(self) -> Tensor | None:
        if self.error is not None:
            raise self.error
        if self._states:
            states = list(self._states.values())
            if len({(h.shape[1:], c.shape[1:]) for h, c in states}) == 1:
                self.state = torch.cat([h for h, _ in states]), torch.cat([c for _, c in states])
        measured = []
        for module, module_calls in self._calls.items():
            inputs, hidden = (
                torch.cat([call.inputs for call in module_calls]),
                torch.cat([call.hidden for call in module_calls]),
            )
            measured.append(gate_statistics(inputs, hidden, _weights(module)))
        return torch.stack(measured).sum(0) if measured else None

    def _on_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Record one call. An error is kept for ``take`` and not raised: this runs inside the training's forward."""
        if not torch.is_grad_enabled():
            return
        inputs = (*args, kwargs["input"]) if not args and "input" in kwargs else args
        state = inputs[1] if len(inputs) > 1 else kwargs.get("hx")
        try:
            with as_by_default(), torch.no_grad():
                if isinstance(module, nn.LSTMCell):
                    self._cell(module, inputs[0], state, result)
                elif isinstance(module, nn.LSTM):
                    self._sequence(module, inputs[0], state, result)
        except Exception as error:
            self.error = error
            self._calls.clear()
            self._states.clear()

    def _cell(self, module: nn.LSTMCell, inputs: Any, state: Any, result: Any) -> None:
        x = inputs.detach().reshape(-1, module.input_size)
        before = x.new_zeros(len(x), module.hidden_size) if state is None else state[0]
        self._keep(module, x, before.detach().reshape(-1, module.hidden_size))
        self._states[module] = tuple(
            state_tensor.detach().reshape(1, -1, module.hidden_size) for state_tensor in result
        )

    def _sequence(self, module: nn.LSTM, inputs: Any, state: Any, result: Any) -> None:
        """Pair each input with the hidden state before it; the state is not reset within a call."""
        output, (hidden, cell) = result
        if not isinstance(output, Tensor) or output.dim() != 3:
            return  # packed or unbatched
        self._states[module] = hidden.detach(), cell.detach()
        if module.num_layers != 1 or module.bidirectional:
            return  # the hidden states of inner layers are not returned
        x, output = inputs.detach(), output.detach()
        if module.batch_first:
            x, output = x.swapaxes(0, 1), output.swapaxes(0, 1)
        first = output.new_zeros(output.shape[1:]) if state is None else state[0][0].detach()
        before = torch.cat([first.unsqueeze(0), output[:-1]])
        self._keep(module, x.reshape(-1, x.shape[-1]), before.reshape(-1, before.shape[-1]))

    def _keep(self, module: nn.Module, inputs: Tensor, hidden: Tensor) -> None:
        calls = self._calls.setdefault(module, [])
        if len(calls) < MAX_CALLS:
            calls.append(GateCall(inputs, hidden))


def _weights(module: nn.Module) -> GateWeights:
    ending = "" if isinstance(module, nn.LSTMCell) else "_l0"
    names = [f"{name}{ending}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    weight_ih, weight_hh, bias_ih, bias_hh = (getattr(module, name, None) for name in names)
    if not isinstance(weight_ih, Tensor) or not isinstance(weight_hh, Tensor):
        raise TypeError(f"{type(module).__name__} has no LSTM weights")
    biases = [bias.detach() if isinstance(bias, Tensor) else None for bias in (bias_ih, bias_hh)]
    return GateWeights(weight_ih.detach(), weight_hh.detach(), *biases)


def lstms(model: nn.Module) -> list[nn.Module]:
    """Return the LSTM modules of a model."""
    return [module for module in model.modules() if isinstance(module, (nn.LSTM, nn.LSTMCell))]
