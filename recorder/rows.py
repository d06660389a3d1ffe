"""One update's measurements, arrived on the host, become the rows of every table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recorder.heads import Heads
from recorder.inner_loop import Minibatch
from recorder.minibatch import Measurements
from recorder.parameters import ParameterMap
from recorder.reduce.gradients import explain_zero, group_rows, head_gradient_cells, model_cells
from recorder.reduce.policy import head_policy_cells, policy_cells, step_rows
from recorder.reduce.rollout import lstm_rows, mask_cells, value_cells
from recorder.reduce.update import Cells, Numbers, Step, cut
from recorder.transfer import Transfer

AT_MINIMAL = ("updates", "episodes")
"""Tables recorded at level MINIMAL, besides findings, levels and losses_of_data."""


@dataclass(frozen=True, slots=True)
class Measured:
    """An update that has ended: its minibatches, the copy on its way, and the cells known without measuring."""

    update: int
    minibatches: list[Minibatch]
    measurements: list[Measurements]
    transfer: Transfer
    cells: Cells
    episodes: list[Cells]
    status: str | None
    reason: str | None


def rows_of(
    measured: Measured, heads: Heads, parameters: ParameterMap | None, *, hooked: bool
) -> dict[str, list[Cells]]:
    """Return the rows of one update, without findings and levels."""
    arrays = measured.transfer.arrays()
    update = measured.update
    with np.errstate(all="ignore"):
        steps = cut(measured.minibatches, measured.measurements, arrays)
        row = {"update": update, **value_cells(arrays), **policy_cells(steps)}
        row |= model_cells(steps, arrays.get("elements")) | measured.cells
        if hooked:
            row["optimizer_steps"] = sum(step.steps > 0 for step in steps)
        row["clip_range"] = measured.minibatches[-1].clip_range if measured.minibatches else None
        row |= _episode_cells(measured.episodes)
        row |= _status(measured, row, steps)
        return {
            "updates": [row],
            "steps": step_rows(steps, update, hooked=hooked),
            "heads": _head_rows(update, heads, parameters, steps, arrays),
            "groups": group_rows(parameters, steps, update),
            "lstm": lstm_rows(arrays, update),
            "episodes": [{"update": update, **episode} for episode in measured.episodes],
        }


def _head_rows(
    update: int,
    heads: Heads,
    parameters: ParameterMap | None,
    steps: Sequence[Step],
    arrays: Mapping[str, Numbers],
) -> list[Cells]:
    rows = []
    for place, name in enumerate(heads.names):
        row: Cells = {"update": update, "head": name, "kind": heads.kind(name)}
        row |= head_policy_cells(steps, place) | head_gradient_cells(parameters, steps, name)
        if name in heads.categorical:
            row |= mask_cells(dict(arrays), heads.categorical.index(name))
        row["zero_explained"] = explain_zero(row)
        rows.append(row)
    return rows


def _episode_cells(episodes: Sequence[Cells]) -> Cells:
    returns = [episode["episode_return"] for episode in episodes if episode.get("episode_return") is not None]
    lengths = [episode["length"] for episode in episodes if episode.get("length") is not None]
    return {
        "episode_return_mean": float(np.mean(returns)) if returns else None,
        "episode_length_mean": float(np.mean(lengths)) if lengths else None,
    }


def _status(measured: Measured, row: Cells, steps: Sequence[Step]) -> Cells:
    """Say how the update ended, from what was said or else from what was seen."""
    if measured.status is not None:
        return {"status": measured.status, "skip_reason": measured.reason}
    taken = row.get("optimizer_steps")
    if not steps:
        return {"status": "no_usable_steps", "skip_reason": measured.reason or "no minibatch was seen"}
    if taken == 0 and row.get("nonfinite_sources"):
        return {"status": "nonfinite_skipped", "skip_reason": measured.reason or row["nonfinite_sources"]}
    if taken is not None and row.get("target_kl") is not None and steps[-1].steps == 0:
        return {"status": "kl_stopped", "skip_reason": measured.reason}
    if taken == 0:
        return {"status": "no_usable_steps", "skip_reason": measured.reason or "no optimizer step was taken"}
    return {"status": "performed", "skip_reason": measured.reason}
