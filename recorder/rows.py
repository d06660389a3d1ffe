"""One update's measurements on the host become the rows of every table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from esper_analyze.schema.row_types import EpisodesColumns, EventsRow, HeadsRow, LossesOfDataRow, UpdatesRow
from esper_analyze.schema.tables import TABLES
from esper_analyze.schema.zero import explain_zero
from esper_analyze.storage.block import Block, Rows
from recorder.capture.parameters import ParameterMap
from recorder.capture.update_buffer import UpdateBuffer
from recorder.heads import Heads
from recorder.measure import Numbers
from recorder.reduce.detail import detail_numbers
from recorder.reduce.gradients import (
    GroupNumbers,
    group_cells,
    group_numbers,
    head_gradient_cells,
    model_cells,
)
from recorder.reduce.norms import GradientNorms
from recorder.reduce.policy import PolicyNumbers, step_block
from recorder.reduce.rollout import floored_cells, lstm_rows, mask_cells, scalar_cells, value_cells
from recorder.reduce.update import MinibatchNumbers, minibatch_numbers
from recorder.rollout import RolloutHandles
from recorder.slots import SlotCalls
from recorder.transfer import Arrays, Handle, Transfer

AT_MINIMAL = ("updates", "episodes")
"""Tables recorded at level MINIMAL, besides findings, levels and losses_of_data."""


Episode = tuple[float, int | None, int | None, bool | None]
"""Return, length, environment, success."""


@dataclass(frozen=True, slots=True)
class UpdateFacts:
    """What an ended update is known to be without measuring, and the handles of what its capture has measured."""

    update: int
    cells: UpdatesRow
    episodes: Collection[Episode]
    status: str | None
    reason: str | None
    advantage_floor: float | None
    slots: SlotCalls
    states: Mapping[str, Handle]  # statistics of recurrent states, by phase
    gates: Handle | None
    scalars: Mapping[str, Handle]  # cells of ``updates`` transferred as single numbers, by column
    events: Sequence[EventsRow] = ()
    losses: Sequence[LossesOfDataRow] = ()
    stability: bool = False  # a stability report was asked for


@dataclass(frozen=True, slots=True)
class MeasuredUpdate:
    """The measurements of an ended update, in transfer to the host."""

    buffer: UpdateBuffer
    rollout: RolloutHandles
    transfer: Transfer


@dataclass(frozen=True, slots=True)
class UpdateRows:
    """The rows of one update by table (without findings and levels), its gradient norms, and all transferred arrays."""

    tables: dict[str, Rows]
    update: UpdatesRow
    heads: Sequence[HeadsRow]
    norms: GradientNorms | None
    arrays: Arrays
    contradicted: Sequence[str]  # heads whose entropy shows that their inferred size is wrong
    as_clipped: bool | None  # the optimizer took gradients as the clip left them; None: not compared


def rows_of(facts: UpdateFacts, measured: MeasuredUpdate, heads: Heads, parameters: ParameterMap | None) -> UpdateRows:
    """Return the rows of one update; ``parameters`` None: no model."""
    arrays, buffer, update = measured.transfer.arrays(), measured.buffer, facts.update
    hooked = parameters is not None
    with np.errstate(all="ignore"):
        pieces = () if parameters is None else parameters.pieces
        minibatches = minibatch_numbers(buffer, arrays, pieces) if buffer.minibatches else None
        policy = None if minibatches is None else PolicyNumbers(minibatches)
        contradicted = _contradicted(heads, policy)
        if minibatches is not None and contradicted:
            flags = [
                is_known and name not in contradicted
                for name, is_known in zip(heads.names, minibatches.choices_known, strict=True)
            ]
            minibatches = replace(
                minibatches,
                choices_known=tuple(flags),
                joint_choices_known=False,
                unsized=minibatches.unsized or minibatches.joint_choices_known,
            )
            policy = PolicyNumbers(minibatches)
        gradients = group_numbers(parameters, minibatches)
        row: UpdatesRow = {
            "update": update,
            **value_cells(arrays, measured.rollout),
            **_minibatch_cells(minibatches, policy, buffer, hooked=hooked),
        }
        row |= facts.cells | scalar_cells(arrays, facts.scalars) | _episode_cells(facts)
        row |= floored_cells(row, facts.advantage_floor) | _status(facts, buffer, row, minibatches)
        groups = group_cells(parameters, gradients, buffer.changed_groups) if parameters is not None else []
        samples = None if minibatches is None else minibatches.step_samples
        detail = None if samples is None else detail_numbers(parameters, buffer.sampled, arrays, samples)
        if detail is not None:
            groups = [cells | detail.group_cells(index) for index, cells in enumerate(groups)]
        masks = None if measured.rollout.masks is None else arrays[measured.rollout.masks]
        head_rows = _head_rows(heads, parameters, policy, gradients, masks, contradicted)
        for cells in head_rows:
            if cells["head"] in measured.rollout.at_bounds:
                cells["action_bound_fraction"] = float(arrays[measured.rollout.at_bounds[cells["head"]]][0])
        tables: dict[str, Rows] = {
            "updates": [row],
            "steps": [] if minibatches is None else step_block(minibatches, update, hooked=hooked),
            "heads": [{"update": update, **cells} for cells in head_rows],
            "groups": [{"update": update, **cells} for cells in groups],
            "layers": [] if detail is None else detail.layer_block(update),
            "lstm": lstm_rows(arrays, facts.states, facts.gates, update),
            "episodes": _episode_block(facts.episodes, update),
        }
        norms, as_clipped = (None, None) if minibatches is None else (minibatches.norms, minibatches.as_clipped)
        return UpdateRows(tables, row, head_rows, norms, arrays, contradicted, as_clipped)


def undeclared_cells(tables: Mapping[str, Rows]) -> dict[str, list[str]]:
    """Return the cells that are no column of their table and so cannot be stored, by table."""
    undeclared: dict[str, set[str]] = {}
    for table, rows in tables.items():
        for cells in [rows.cells] if isinstance(rows, Block) else rows:
            if not cells.keys() <= _DECLARED[table]:
                undeclared.setdefault(table, set()).update(cells.keys() - _DECLARED[table])
    return {table: sorted(names) for table, names in undeclared.items()}


_DECLARED = {table.name: frozenset(table.names) for table in TABLES}


def _contradicted(heads: Heads, policy: PolicyNumbers | None) -> list[str]:
    sizes = {heads.names.index(name): size for name, size in heads.inferred.items()}
    return [] if policy is None or not sizes else [heads.names[index] for index in policy.contradicted(sizes)]


def _minibatch_cells(
    numbers: MinibatchNumbers | None, policy: PolicyNumbers | None, buffer: UpdateBuffer, *, hooked: bool
) -> UpdatesRow:
    if numbers is None or policy is None:
        return {"optimizer_steps": buffer.other_steps} if hooked else {}
    cells = policy.update_cells(hooked=hooked) | model_cells(numbers)
    cells["clip_range"] = numbers.clip_range
    if hooked:
        cells["optimizer_steps"] = int((numbers.steps > 0).sum()) + buffer.other_steps
    return cells


def _head_rows(
    heads: Heads,
    parameters: ParameterMap | None,
    policy: PolicyNumbers | None,
    gradients: GroupNumbers | None,
    masks: Numbers | None,
    contradicted: Sequence[str],
) -> list[HeadsRow]:
    rows: list[HeadsRow] = []
    masked = {name: index for index, name in enumerate(heads.categorical)}
    for index, name in enumerate(heads.names):
        row: HeadsRow = {"head": name, "kind": heads.kind(name), "coefficient": heads.coefficients.get(name)}
        if policy is not None:
            row |= policy.head_cells(index)
        row |= head_gradient_cells(parameters, gradients, name)
        if name in masked and name not in contradicted and masks is not None:
            row |= mask_cells(masks, masked[name])
        elif name not in masked:
            row["choice_samples"] = None
        row["zero_explained"] = explain_zero(row)
        rows.append(row)
    return rows


def _episode_block(episodes: Collection[Episode], update: int) -> Rows:
    if not episodes:
        return []
    returns, lengths, envs, successes = zip(*episodes, strict=True)
    cells: EpisodesColumns = {
        "update": update,
        "episode_return": returns,
        "length": lengths,
        "env": envs,
        "success": successes,
    }
    return Block(len(episodes), cells)


def _episode_cells(facts: UpdateFacts) -> UpdatesRow:
    returns = [episode[0] for episode in facts.episodes]
    lengths = [episode[1] for episode in facts.episodes if episode[1] is not None]
    return {
        "episodes_finished": None if facts.cells.get("episodes") is None else len(returns),
        "episode_return_mean": sum(returns) / len(returns) if returns else None,
        "episode_length_mean": sum(lengths) / len(lengths) if lengths else None,
    }


def _status(
    facts: UpdateFacts, buffer: UpdateBuffer, row: UpdatesRow, minibatches: MinibatchNumbers | None
) -> UpdatesRow:
    """Return how the update ended: as the loop said, else as recorded."""
    if facts.status is not None:
        return {"status": facts.status, "skip_reason": facts.reason}
    steps_taken = row.get("optimizer_steps")
    if minibatches is None and not steps_taken and (steps_taken is not None or not buffer.announced):
        why = "no optimizer step was taken" if buffer.announced else "no minibatch was seen"
        return {"status": "no_usable_steps", "skip_reason": facts.reason or why}
    if steps_taken == 0 and row.get("nonfinite_sources"):
        return {"status": "nonfinite_skipped", "skip_reason": facts.reason or row["nonfinite_sources"]}
    last_steps = None if minibatches is None else minibatches.steps[-1]
    if last_steps == 0 and steps_taken is not None and row.get("target_kl") is not None:
        return {"status": "kl_stopped", "skip_reason": facts.reason}
    if steps_taken == 0:
        return {"status": "no_usable_steps", "skip_reason": facts.reason or "no optimizer step was taken"}
    # also without minibatches: the training continued, and what the recorder lost is in losses_of_data
    return {"status": "performed", "skip_reason": facts.reason}
