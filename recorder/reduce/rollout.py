"""Rollout cells: values, returns, advantages, masks and recurrent state."""

from __future__ import annotations

import math
from collections.abc import Mapping

from esper_analyze.schema.tables.updates import LOW_VARIANCE
from recorder.measure import Numbers, lstm, masks, values
from recorder.reduce.update import Cells

_UNDEFINED = {
    "explained_variance": "explained_variance_defined",
    "value_nrmse": "explained_variance_defined",
    "value_return_correlation": "value_return_correlation_defined",
    "return_skewness": "return_moments_defined",
    "return_kurtosis": "return_moments_defined",
    "advantage_skewness": "advantage_moments_defined",
    "advantage_kurtosis": "advantage_moments_defined",
}
_FIELDS = {
    "values": values.FIELDS,
    "advantages": values.ADVANTAGE_FIELDS,
    "td_errors": values.TD_FIELDS,
}
_NOT_KEPT = ("value_skewness", "value_kurtosis", "return_kurtosis")


def value_cells(arrays: Mapping[str, Numbers]) -> Cells:
    """Return the value, return and advantage cells of the ``updates`` row; null where undefined."""
    measured: dict[str, float] = {}
    for name, fields in _FIELDS.items():
        if name in arrays:
            measured |= {field: float(cell) for field, cell in zip(fields, arrays[name], strict=True)}
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


def mask_cells(arrays: Mapping[str, Numbers], head: int) -> Cells:
    """Return the mask cells of one ``heads`` row; ``head``: its index among the categorical heads."""
    if "masks" not in arrays:
        return {}
    measured = {name: float(row[head]) for name, row in zip(masks.FIELDS, arrays["masks"], strict=True)}
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


def scalar_cells(arrays: Mapping[str, Numbers]) -> Cells:
    """Return the cells of the ``updates`` row that were transferred as single numbers."""
    cells: Cells = {"loss_scale": float(arrays["loss_scale"])} if "loss_scale" in arrays else {}
    for name, array in arrays.items():
        if name.startswith("cell "):
            cells[name.removeprefix("cell ")] = float(array[0]) if len(array) else None
    return cells


def floored_cells(row: Cells, floor: float | None) -> Cells:
    """Return whether the advantages' standard deviation was below the loop's divisor ``floor``; empty if unknown."""
    if floor is None or row.get("advantage_std") is None:
        return {}
    return {"advantage_std_floored": row["advantage_std"] < floor}


def lstm_rows(arrays: Mapping[str, Numbers], update: int) -> list[Cells]:
    """Return the rows of ``lstm``, one for each phase that was passed."""
    rows = []
    for phase in ("rollout", "update"):
        if f"lstm_{phase}" in arrays:
            numbers = arrays[f"lstm_{phase}"].tolist()
            fields = lstm.FIELDS if len(numbers) == len(lstm.FIELDS) else lstm.HIDDEN_FIELDS
            cells = dict(zip(fields, numbers, strict=True))
            flags = {name: bool(cells.pop(name)) for name in ("has_nan", "has_inf")}
            gates = _gate_cells(arrays) if phase == "update" else {}
            cells["elements"] = int(cells["elements"])
            rows.append({"update": update, "phase": phase, **cells, **flags, **gates})
    return rows


def _gate_cells(arrays: Mapping[str, Numbers]) -> Cells:
    if "gates" not in arrays:
        return {}
    statistics = dict(zip(lstm.GATE_FIELDS, arrays["gates"].tolist(), strict=True))
    count = statistics["count"]
    cells = {f"{gate}_saturation": statistics[gate] / count for gate in ("forget", "input", "output")}
    return cells | {"gate_values": int(count), "cell_mean": statistics["candidate"] / count}
