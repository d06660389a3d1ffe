"""What one update hands over of its rollout, measured: values, returns, advantages, masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recorder.guard import Guard
from recorder.heads import Heads
from recorder.measure.masks import mask_statistics
from recorder.measure.values import advantage_statistics, td_statistics, value_statistics

ArrayLike = Tensor | np.ndarray[Any, Any]


def rollout_tensors(
    heads: Heads,
    values: ArrayLike | None,
    returns: ArrayLike | None,
    advantages: ArrayLike | None,
    masks: Mapping[str, ArrayLike] | None,
    relevant: Mapping[str, ArrayLike] | None,
    td_errors: ArrayLike | None,
    guarded: Guard,
) -> dict[str, Tensor]:
    """Return device scalars under the names that ``recorder.reduce.rollout`` reads; what was not given is left out.

    One thing that does not fit costs only its own columns.
    """
    tensors = {}
    if values is not None and returns is not None:
        with guarded("update(values, returns)"):
            tensors["values"] = value_statistics(torch.as_tensor(values), torch.as_tensor(returns))
    if advantages is not None:
        with guarded("update(advantages)"):
            tensors["advantages"] = advantage_statistics(torch.as_tensor(advantages))
    if td_errors is not None:
        with guarded("update(td_errors)"):
            tensors["td_errors"] = td_statistics(torch.as_tensor(td_errors))
    with guarded("update(masks, relevant)"):
        tensors |= _mask_tensors(heads, masks, relevant, values)
    return tensors


def _mask_tensors(
    heads: Heads,
    masks: Mapping[str, ArrayLike] | None,
    relevant: Mapping[str, ArrayLike] | None,
    values: ArrayLike | None,
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    given = {name: torch.as_tensor(mask) for name, mask in (masks or {}).items()}
    matters = {name: torch.as_tensor(mask) for name, mask in (relevant or {}).items()}
    like = _any_row(given, matters, values)
    if like is not None:
        counts = heads.valid_actions(given, like)
        if counts is not None:
            tensors["masks"] = mask_statistics(counts, heads.stacked(matters, heads.categorical, like))
    return tensors


def _any_row(masks: Mapping[str, Tensor], relevant: Mapping[str, Tensor], values: ArrayLike | None) -> Tensor | None:
    """Return a tensor [N] with one entry per timestep of the rollout, None when nothing tells its length."""
    for mask in masks.values():
        return mask.reshape(-1, mask.shape[-1])[:, 0]
    for mask in relevant.values():
        return mask.reshape(-1)
    return None if values is None else torch.as_tensor(values).reshape(-1)
