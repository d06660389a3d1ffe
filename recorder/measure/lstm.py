"""Size and health of a recurrent state of shape layers × environments × hidden."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SATURATED = 0.99
"""|h| above this counts as saturated: h = o·tanh(c) stays within ±1."""

_STATE = ("l2_total", "rms", "env_rms_mean", "env_rms_max", "max", "mean")
FIELDS = (
    "elements",
    *(f"h_{name}" for name in _STATE),
    *(f"c_{name}" for name in _STATE),
    "h_saturation",
    "has_nan",
    "has_inf",
)
HIDDEN_FIELDS = tuple(name for name in FIELDS if not name.startswith("c_"))
"""Fields of a network with a single state."""


def lstm_statistics(hidden: Tensor, cell: Tensor | None) -> Tensor:
    """Return ``FIELDS`` in float64 for h and c, ``HIDDEN_FIELDS`` without c.

    Each is layers × environments × hidden (c may have another width), or environments × hidden.
    """
    states = [state if state.dim() == 3 else state.unsqueeze(0) for state in (hidden, cell) if state is not None]
    h = states[0].double()  # environments × hidden, as an LSTMCell gives them, are one layer
    if len(states) == 2 and states[0].shape == states[1].shape:
        numbers, broken = _states(torch.stack([h, states[1].double()]))
    else:
        parts = [_states(state.double().unsqueeze(0)) for state in states]
        numbers, broken = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    saturation = (h.abs() > SATURATED).double().mean()
    elements = saturation.new_full((1,), hidden.numel())
    return torch.cat([elements, numbers.reshape(-1), saturation.reshape(1), broken.any(0).double()])


def _states(states: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``_STATE`` of each state [states, layers, environments, hidden], and whether it has NaN, ±Inf."""
    squares = states.square()
    total = squares.sum(dim=(1, 2, 3)).sqrt()
    per_env = squares.mean(dim=(1, 3)).sqrt()
    largest, numel = states.abs().amax(dim=(1, 2, 3)), states[0].numel()
    rows = [total, total / numel**0.5, per_env.mean(1), per_env.amax(1), largest, states.mean(dim=(1, 2, 3))]
    return torch.stack(rows, dim=1), torch.stack([states.isnan(), states.isinf()], dim=1).flatten(2).any(-1)


GATE_FIELDS = ("forget", "input", "output", "candidate", "count")
"""Saturated gate values by gate, sum of cell candidates, and number of values of each gate."""
LOW, HIGH = 0.05, 0.95
"""A gate value beyond these counts as saturated."""


def gate_statistics(inputs: Tensor, hidden: Tensor, weights: GateWeights) -> Tensor:
    """Return ``GATE_FIELDS`` in float64 for inputs [n, in] and the hidden states before them [n, out].

    The gates are i, f, g, o in torch's order: σ or tanh of W_ih x + b_ih + W_hh h + b_hh.
    """
    sums = torch.nn.functional.linear(inputs, weights.input, weights.input_bias)
    sums = sums + torch.nn.functional.linear(hidden, weights.hidden, weights.hidden_bias)
    let_in, forget, candidate, out = sums.chunk(4, dim=-1)
    saturated = [_saturated(gate.sigmoid()) for gate in (forget, let_in, out)]
    count = candidate.new_full((), float(candidate.numel()), dtype=torch.float64)
    return torch.stack([*saturated, candidate.tanh().sum(dtype=torch.float64), count])


def _saturated(gate: Tensor) -> Tensor:
    return ((gate < LOW) | (gate > HIGH)).sum(dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class GateWeights:
    """Parameters of one LSTM layer: [4·hidden, in], [4·hidden, out], and biases [4·hidden] where it has them."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None
    hidden_bias: Tensor | None
