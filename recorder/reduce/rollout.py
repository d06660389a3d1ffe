"""Rollout cells: values, returns, advantages, masks and recurrent state."""

from __future__ import annotations

import math
from collections.abc import Mapping

from esper_analyze.schema.tables.updates import LOW_VARIANCE
from recorder.measure import Numbers, lstm, masks, values
from recorder.reduce.update import Cells
from recorder.rollout import RolloutHandles
from recorder.transfer import Arrays, Handle

_UNDEFINED = {
    "explained_variance": "explained_variance_defined",
    "value_nrmse": "explained_variance_defined",
    "value_return_correlation": "value_return_correlation_defined",
    "return_skewness": "return_moments_defined",
    "return_kurtosis": "return_moments_defined",
    "advantage_skewness": "advantage_moments_defined",
    "advantage_kurtosis": "advantage_moments_defined",
}
_NOT_KEPT = ("value_skewness", "value_kurtosis", "return_kurtosis")


def value_cells(arrays: Arrays, rollout: RolloutHandles) -> Cells:
    """Return the value, return and advantage cells of the ``updates`` row; null where undefined."""
    measured: dict[str, float] = {}
    for handle, fields in (
        (rollout.values, values.FIELDS),
        (rollout.advantages, values.ADVANTAGE_FIELDS),
        (rollout.td_errors, values.TD_FIELDS),
    ):
        if handle is not None:
            measured |= {field: float(cell) for field, cell in zip(fields, arrays[handle], strict=True)}
    cells: Cells = {
        name: cell
        for name, cell in measured.items()
        if not name.endswith("_defined") and measured.get(_UNDEFINED.get(name, ""), 1.0) != 0 and name not in _NOT_KEPT
    }
    if "rollout_samples" in cells:
        cells["rollout_samples"] = int(cells["rollout_samples"])
    if "return_variance" in cells:
        cells["ev_low_variance"] = cells["return_variance"] < LOW_VARIANCE
    return cells


def mask_cells(statistics: Numbers, head: int) -> Cells:
    """Return the mask cells of one ``heads`` row; ``head``: its index among the categorical heads."""
    measured = {name: float(row[head]) for name, row in zip(masks.FIELDS, statistics, strict=True)}
    cells: Cells = {"rollout_samples": int(measured["steps"])}
    if not math.isnan(measured["minimum"]):  # NaN: the valid actions are unknown
        cells |= {
            "valid_actions_min": measured["minimum"],
            "valid_actions_mean": measured["mean"],
            "valid_actions_max": measured["maximum"],
            "single_action_fraction": measured["single"],
            "learnable_fraction": measured["learnable"],
        }
    for name in ("relevant", "effective"):
        if measured[name] == measured[name]:  # NaN: no causal mask was passed
            cells[f"{name}_fraction"] = measured[name]
    return cells


def scalar_cells(arrays: Arrays, scalars: Mapping[str, Handle]) -> Cells:
    """Return the cells of the ``updates`` row that were transferred as single numbers; ``scalars``: by column."""
    return {name: float(arrays[handle][0]) for name, handle in scalars.items()}


def floored_cells(row: Cells, floor: float | None) -> Cells:
    """Return whether the advantages' standard deviation was below the loop's divisor ``floor``; empty if unknown."""
    if floor is None or row.get("advantage_std") is None:
        return {}
    return {"advantage_std_floored": row["advantage_std"] < floor}


def lstm_rows(arrays: Arrays, states: Mapping[str, Handle], gates: Handle | None, update: int) -> list[Cells]:
    """Return the rows of ``lstm``, one for each phase that was passed; ``states``: statistics by phase."""
    rows = []
    for phase in ("rollout", "update"):
        if phase in states:
            numbers = arrays[states[phase]].tolist()
            fields = lstm.FIELDS if len(numbers) == len(lstm.FIELDS) else lstm.HIDDEN_FIELDS
            cells = dict(zip(fields, numbers, strict=True))
            flags = {name: bool(cells.pop(name)) for name in ("has_nan", "has_inf")}
            gate_cells = _gate_cells(arrays[gates]) if phase == "update" and gates is not None else {}
            cells["elements"] = int(cells["elements"])
            rows.append({"update": update, "phase": phase, **cells, **flags, **gate_cells})
    return rows


def _gate_cells(gates: Numbers) -> Cells:
    statistics = dict(zip(lstm.GATE_FIELDS, gates.tolist(), strict=True))
    count = statistics["count"]
    cells = {f"{gate}_saturation": statistics[gate] / count for gate in ("forget", "input", "output")}
    return cells | {"gate_values": int(count), "cell_mean": statistics["candidate"] / count}
