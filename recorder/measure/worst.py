"""Worst samples of an update: those whose action's probability changed most, the cause of a ratio explosion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Field = Literal[
    "minibatch",
    "index",
    "env",
    "step",
    "log_ratio",
    "joint_log_ratio",
    "log_prob",
    "old_log_prob",
    "action",
    "advantage",
]
FIELDS: tuple[Field, ...] = get_args(Field)
"""Fields kept of a sample; NaN where the argument was not passed."""


@dataclass(frozen=True, slots=True)
class Worst:
    """Rows are the joint action, then each head: ``samples`` [FIELDS, rows, k], the worst first, in float64.

    ``key`` [rows, k] is |log r|, Inf for a non-finite one, −1 where fewer samples counted. ``counts``
    [2, rows]: numbers of samples beyond the bounds and of non-finite ones.
    """

    samples: Tensor
    key: Tensor
    counts: Tensor


def worst_samples(
    log_ratio: Tensor,
    weight: Tensor | None,
    columns: dict[str, Tensor | None],
    bounds: tuple[float, float],
    limit: int,
) -> Worst:
    """Return the ``limit`` worst samples of each row.

    ``log_ratio`` [rows, M, N], unclamped. ``weight``: boolean, the same, of samples that count. ``columns``: further
    ``FIELDS``, each [rows, M, N] or [M, N]. ``bounds``: log-ratios below and above which a sample counts as bad.
    """
    shape = log_ratio.shape
    broken = ~log_ratio.isfinite()
    bad = (log_ratio < bounds[0]) | (log_ratio > bounds[1])
    key = torch.where(broken, torch.inf, log_ratio.abs())
    if weight is not None:
        key, bad, broken = torch.where(weight, key, -1.0), bad & weight, broken & weight
    key, indices = key.flatten(1).topk(min(limit, shape[1] * shape[2]), dim=1)
    samples = []
    for name in FIELDS:
        column = log_ratio if name == "log_ratio" else columns.get(name)
        if column is None:
            samples.append(torch.full_like(key, torch.nan, dtype=torch.float64))
        else:
            samples.append(column.double().expand(shape).flatten(1).gather(1, indices))
    counts = torch.stack([bad.flatten(1).sum(1), broken.flatten(1).sum(1)]).double()
    return Worst(torch.stack(samples), key.double(), counts)
