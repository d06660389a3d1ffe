"""Measurement of the rollout passed to one update: values, returns, advantages, masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from recorder import arguments
from recorder.guard import ErrorGuard
from recorder.heads import Heads
from recorder.measure.estimates import consistency, environment_statistics, return_statistics
from recorder.measure.masks import FIELDS, mask_statistics
from recorder.measure.values import advantage_statistics, reward_statistics, td_statistics, value_statistics
from recorder.transfer import Handle, Outgoing

ARRAYS = ("values", "returns", "advantages", "td_errors", "rewards", "ends")
"""Arguments with one number a timestep."""
UNKNOWN = [index for index, name in enumerate(FIELDS) if name not in ("steps", "relevant")]
"""Indices of ``FIELDS`` that are unknown for a head without valid actions."""


@dataclass(slots=True)
class RolloutHandles:
    """Handles of the rollout's statistics; None for what was not passed or could not be used."""

    values: Handle | None = None  # measure.values.FIELDS
    advantages: Handle | None = None  # measure.values.ADVANTAGE_FIELDS
    td_errors: Handle | None = None  # measure.values.TD_FIELDS
    rewards: Handle | None = None  # measure.values.REWARD_FIELDS
    ends: Handle | None = None  # number of timesteps at which an episode ended
    consistency: Handle | None = None  # measure.estimates.CONSISTENCY_FIELDS
    environments: Handle | None = None  # measure.estimates.ENVIRONMENT_FIELDS
    agreement: Handle | None = None  # measure.estimates.RETURN_FIELDS and DEFINED_FIELDS
    observations: Handle | None = None  # measure.observations.FIELDS and DEFINED_FIELDS
    at_bounds: dict[str, Handle] = field(default_factory=dict)  # by head: share of components at a bound
    masks: Handle | None = None  # [measure.masks.FIELDS, categorical heads]; NaN where unknown


def rollout_arrays(rollout: Mapping[str, Any], guarded: ErrorGuard) -> dict[str, Tensor]:
    """Return the usable ``ARRAYS`` among the arguments, by name."""
    converted = {name: arguments.take(guarded, f"update({name})", arguments.tensor, rollout[name]) for name in ARRAYS}
    arrays = {name: tensor for name, tensor in converted.items() if tensor is not None}
    steps = {arrays[name].numel() for name in ("values", "returns") if name in arrays}
    for name in ("advantages", "td_errors", "rewards", "ends"):
        if name in arrays and len(steps) == 1 and arrays[name].numel() not in steps:
            error = ValueError(f"{arrays.pop(name).numel()} timesteps in a rollout of {max(steps)}")
            guarded.refuse(f"update({name})", error)
    return arrays


@dataclass(frozen=True, slots=True)
class RolloutInputs:
    """The usable arguments of one rollout: one number a timestep by name, and tensors by head.

    ``lost_masks``, ``lost_relevant``: heads whose tensor was passed and cannot be used.
    """

    arrays: Mapping[str, Tensor]
    at_bounds: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    lost_masks: frozenset[str]
    relevant: Mapping[str, Tensor]
    lost_relevant: frozenset[str]


def rollout_inputs(heads: Heads, rollout: Mapping[str, Any], guarded: ErrorGuard) -> RolloutInputs:
    """Return the usable arguments; each that cannot be used is counted."""
    arrays = rollout_arrays(rollout, guarded)
    if rollout["returns"] is not None and rollout["values"] is None:
        missing = "returns without values: both are needed for what is recorded of them"
        guarded.refuse("update(returns)", ValueError(missing))
    at_bounds, _ = _of_heads(heads, rollout["at_bounds"], "at_bounds", guarded)
    masks, lost_masks = _of_heads(heads, rollout["masks"], "masks", guarded)
    relevant, lost_relevant = _of_heads(heads, rollout["relevant"], "relevant", guarded)
    return RolloutInputs(arrays, at_bounds, masks, frozenset(lost_masks), relevant, frozenset(lost_relevant))


def rollout_tensors(heads: Heads, inputs: RolloutInputs, guarded: ErrorGuard, outgoing: Outgoing) -> RolloutHandles:
    """Measure the rollout and schedule its statistics. An argument that does not fit costs only its own columns."""
    handles, arrays = RolloutHandles(), inputs.arrays
    if "values" in arrays and "returns" in arrays:
        with guarded("update(values, returns)"):
            timesteps = [arrays[name].numel() for name in ("values", "returns")]
            if len(set(timesteps)) > 1:
                raise ValueError("{} values and {} returns: pass both for every timestep".format(*timesteps))
            both = arguments.together((arrays["values"], arrays["returns"]))
            handles.values = outgoing.add(value_statistics(*both))
    if "advantages" in arrays:
        with guarded("update(advantages)"):
            handles.advantages = outgoing.add(advantage_statistics(arrays["advantages"]))
    if "td_errors" in arrays:
        with guarded("update(td_errors)"):
            handles.td_errors = outgoing.add(td_statistics(arrays["td_errors"]))
    if "rewards" in arrays:
        with guarded("update(rewards)"):
            handles.rewards = outgoing.add(reward_statistics(arrays["rewards"]))
    if "ends" in arrays:
        with guarded("update(ends)"):
            handles.ends = outgoing.add((arrays["ends"] != 0).sum().reshape(1))
    with guarded("update: agreement of the rollout"):
        _schedule_agreement(arrays, handles, outgoing)
    for name, at in inputs.at_bounds.items():
        handles.at_bounds[name] = outgoing.add((at != 0).double().mean().reshape(1))
    with guarded("update(masks, relevant)"):
        masks = _mask_statistics(heads, inputs, guarded)
        handles.masks = None if masks is None else outgoing.add(masks)
    return handles


def _schedule_agreement(arrays: Mapping[str, Tensor], handles: RolloutHandles, outgoing: Outgoing) -> None:
    """Measure whether the parts of a rollout agree, as far as they were passed and fit together."""
    one_each = [arrays[name] for name in ("advantages", "returns", "values") if name in arrays]
    if len(one_each) == 3 and len({array.numel() for array in one_each}) == 1:
        handles.consistency = outgoing.add(consistency(*arguments.together(one_each)))
    values = _by_environment(arrays.get("values"))
    if values is not None and values.shape[1] > 1:  # [N, 1] may be a flattened rollout of any number of them
        handles.environments = outgoing.add(environment_statistics(values))
    rest = [_by_environment(arrays.get(name)) for name in ("returns", "rewards", "ends")]
    steps = [array for array in (values, *rest) if array is not None]
    if len(steps) == 4 and len({array.shape for array in steps}) == 1:
        handles.agreement = outgoing.add(return_statistics(*arguments.together(steps)))


def _by_environment(array: Tensor | None) -> Tensor | None:
    """Return an array as [T, B], also from [T, B, 1]; None where time and environments are not told apart."""
    if array is not None and array.dim() == 3 and array.shape[-1] == 1:
        array = array.squeeze(-1)
    return array if array is not None and array.dim() == 2 else None


def _mask_statistics(heads: Heads, inputs: RolloutInputs, guarded: ErrorGuard) -> Tensor | None:
    """Return statistics [FIELDS, categorical heads] of masks and causal masks; NaN where unknown, None without any."""
    arrays, masks, relevant = inputs.arrays, inputs.masks, inputs.relevant
    lost_masks, lost_relevant = set(inputs.lost_masks), set(inputs.lost_relevant)
    choices = {name: mask.reshape(-1, mask.shape[-1]).bool().sum(-1) for name, mask in masks.items() if mask.dim()}
    matters = {name: mask.reshape(-1).bool() for name, mask in relevant.items()}
    lengths = Counter(map(len, (*choices.values(), *matters.values())))
    lengths = lengths or Counter(array.numel() for array in arrays.values())
    if not lengths or not heads.categorical:
        return None
    steps = lengths.most_common(1)[0][0]
    for argument, rows in (("masks", choices), ("relevant", matters)):
        for name in [name for name, row in rows.items() if len(row) != steps]:
            error = ValueError(f"{len(rows.pop(name))} timesteps in a rollout of {steps}")
            guarded.refuse(f"update({argument}[{name}])", error)
            (lost_masks if argument == "masks" else lost_relevant).add(name)
    device = arguments.common_device((*arrays.values(), *choices.values(), *matters.values()))
    full = torch.ones(steps, dtype=torch.int64, device=device)
    sized = [name for name in heads.categorical if name in choices or (heads.size(name) and name not in lost_masks)]
    if not sized and not matters:
        return None
    counts = [
        arguments.on_device(choices[name], device) if name in choices else full * (heads.size(name) or 0)
        for name in heads.categorical
    ]
    causal = [
        arguments.on_device(matters[name], device) if name in matters else full.bool() for name in heads.categorical
    ]
    statistics = mask_statistics(torch.stack(counts), torch.stack(causal) if matters else None)
    for index, name in enumerate(heads.categorical):
        if name not in sized:
            statistics[UNKNOWN, index] = torch.nan
        if name in lost_relevant:
            statistics[-2:, index] = torch.nan
    return statistics


def _of_heads(heads: Heads, value: Any, argument: str, guarded: ErrorGuard) -> tuple[dict[str, Tensor], set[str]]:
    """Return the tensors of ``argument`` by head, and the heads whose tensor cannot be used."""
    tensors: dict[str, Tensor] = {}
    by_head = arguments.take(guarded, f"update({argument})", lambda v: arguments.by_head(v, heads.names), value)
    if by_head is None:
        return tensors, set() if value is None else set(heads.names)
    for name, part in by_head.items():
        if name not in heads.names:
            guarded.refuse(f"update({argument})", arguments.unknown(name, heads.names, "head"))
        elif (tensor := arguments.take(guarded, f"update({argument}[{name}])", arguments.tensor, part)) is not None:
            tensors[name] = tensor
    return tensors, {name for name in by_head if name not in tensors}
