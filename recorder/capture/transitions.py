"""Rows of ``transitions``: computed only after an update whose ratios left their bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from esper_analyze.schema.row_types import TransitionsColumns
from esper_analyze.storage.block import Block, Rows, nullable
from recorder.capture.batch import CaptureBatch, weight_of
from recorder.measure import Numbers
from recorder.measure.ratios import joint_sum, log_ratios
from recorder.measure.worst import FIELDS, Worst, worst_samples

WORST = 100
"""Samples kept for the joint action and for each head whose ratios left the bounds."""
_ADDED: tuple[Literal["epoch", "bad", "nonfinite", "place"], ...] = ("epoch", "bad", "nonfinite", "place")
_INTEGERS = ("minibatch", "index", "env", "step", "action", *_ADDED)


@dataclass(frozen=True, slots=True)
class RatioBounds:
    """Bounds of the ratio; values below ``low`` or above ``high`` are bad."""

    low: float
    high: float

    def crossed(self, row: Mapping[str, Any]) -> bool:
        """Return whether the ratios of a row of ``updates`` or ``heads`` left the bounds or are not finite."""
        high, low = row.get("ratio_max"), row.get("ratio_min")
        if high is None or low is None:
            return False
        return not (high <= self.high and low >= self.low and math.isfinite(high))


def worst_of(batch: CaptureBatch, minibatches: Sequence[int], bounds: RatioBounds) -> Worst:
    """Return the worst samples of a batch; ``minibatches``: their indices in the update."""
    _, raw = log_ratios(batch.joint_log_ratio, batch.log_prob - batch.old_log_prob, batch.relevant)
    minibatch = torch.tensor(list(minibatches), dtype=torch.float64).to(raw.device, non_blocking=True)
    actions = None
    if batch.actions is not None:
        nothing = torch.full_like(batch.actions[:1], torch.nan, dtype=torch.float64)
        numbers = batch.actions.double()
        actions = torch.cat([nothing, torch.where(numbers < 0, torch.nan, numbers)])
    columns: dict[str, Tensor | None] = {
        "minibatch": minibatch[:, None],
        "index": batch.index,
        "env": batch.env,
        "step": batch.step,
        "joint_log_ratio": raw[0],
        "log_prob": _with_joint(batch.log_prob, batch.relevant),
        "old_log_prob": _with_joint(batch.old_log_prob, batch.relevant),
        "action": actions,
        "advantage": batch.advantages,
    }
    return worst_samples(raw, weight_of(batch), columns, (math.log(bounds.low), math.log(bounds.high)), WORST)


def _with_joint(log_prob: Tensor, relevant: Tensor | None) -> Tensor:
    return torch.cat([joint_sum(log_prob, relevant).unsqueeze(0), log_prob])


def transition_rows(worst: Sequence[Worst], rows: Mapping[int, str], epochs: Sequence[int], update: int) -> Rows:
    """Return the rows of ``transitions`` for the concerned rows: place among joint and heads → name ('' joint)."""
    arrived = [
        (batch_worst.samples.cpu().numpy(), batch_worst.key.cpu().numpy(), batch_worst.counts.cpu().numpy())
        for batch_worst in worst
    ]
    parts = [_worst_of_row(arrived, row, name, epochs) for row, name in rows.items()]
    parts = [part for part in parts if len(part["place"])]
    if not parts:
        return []
    cells: TransitionsColumns = {"update": update, "head": [name for part in parts for name in part["head"]]}
    for name in (*FIELDS, *_ADDED):
        cells[name] = _column(name, np.concatenate([part[name] for part in parts]))
    return Block(sum(len(part["place"]) for part in parts), cells)


def _column(name: str, numbers: Numbers) -> Any:
    """Return the cells of a column; NaN is null where it means that the loop does not say."""
    if name in ("log_ratio", "joint_log_ratio", "log_prob", "old_log_prob"):
        return numbers
    is_known = ~np.isnan(numbers)
    return nullable(np.nan_to_num(numbers).astype(np.int64) if name in _INTEGERS else numbers, is_known)


def _worst_of_row(
    arrived: Sequence[tuple[Numbers, Numbers, Numbers]], row: int, name: str, epochs: Sequence[int]
) -> dict[str, Any]:
    """Merge the worst samples of one row over all batches, worst first."""
    key = np.concatenate([batch_worst[1][row] for batch_worst in arrived])
    samples = np.concatenate([batch_worst[0][:, row] for batch_worst in arrived], axis=1)
    order = np.argsort(-key, kind="stable")[:WORST]
    order = order[key[order] >= 0]
    bad, nonfinite = np.sum([batch_worst[2][:, row] for batch_worst in arrived], axis=0)
    part: dict[str, Any] = dict(zip(FIELDS, samples[:, order], strict=True))
    part["head"] = [name] * len(order)
    part["place"] = np.arange(len(order), dtype=np.float64)
    part["epoch"] = np.array([epochs[int(minibatch)] for minibatch in part["minibatch"]], np.float64)
    part["bad"], part["nonfinite"] = np.full(len(order), bad), np.full(len(order), nonfinite)
    return part
