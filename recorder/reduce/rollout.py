"""Rollout cells: values, returns, advantages, masks and recurrent state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from esper_analyze.schema.row_types import HeadsRow, LstmRow, UpdatesRow
from esper_analyze.schema.tables.updates import LOW_VARIANCE
from recorder.measure import Numbers, estimates, lstm, masks, observations, values
from recorder.rollout import RolloutHandles
from recorder.transfer import Arrays, Handle


def value_cells(arrays: Arrays, rollout: RolloutHandles) -> UpdatesRow:
    """Return the value, return, advantage and reward cells of the ``updates`` row; null where undefined."""
    cells: UpdatesRow = {}
    if rollout.values is not None:
        cells |= _value_cells(dict(zip(values.FIELDS, arrays[rollout.values].tolist(), strict=True)))
    if rollout.advantages is not None:
        cells |= _advantage_cells(dict(zip(values.ADVANTAGE_FIELDS, arrays[rollout.advantages].tolist(), strict=True)))
    if rollout.td_errors is not None:
        mean, std, absolute = arrays[rollout.td_errors].tolist()
        cells |= {"td_error_mean": mean, "td_error_std": std, "bellman_error": absolute}
    if rollout.rewards is not None:
        samples, mean, std, least, most = arrays[rollout.rewards].tolist()
        cells |= {"rollout_samples": int(samples), "reward_mean": mean, "reward_std": std}
        cells |= {"reward_min": least, "reward_max": most}
    if rollout.observations is not None:
        cells |= _observation_cells(arrays[rollout.observations].tolist())
    return cells | _agreement_cells(arrays, rollout)


def _observation_cells(numbers: Sequence[float]) -> UpdatesRow:
    measured = dict(zip((*observations.FIELDS, *observations.DEFINED_FIELDS), numbers, strict=True))
    finite = measured["any_finite"] != 0
    return {
        "observation_mean": measured["observation_mean"] if finite else None,
        "observation_std": measured["observation_std"] if finite else None,
        "observation_min": measured["observation_min"] if finite else None,
        "observation_max": measured["observation_max"] if finite else None,
        "observation_nonfinite_fraction": measured["observation_nonfinite_fraction"],
        "observation_constant_fraction": measured["observation_constant_fraction"],
        "observation_shift": measured["observation_shift"] if measured["shift_defined"] else None,
    }


def _agreement_cells(arrays: Arrays, rollout: RolloutHandles) -> UpdatesRow:
    """Return the cells on whether the parts of a rollout agree; null where undefined."""
    cells: UpdatesRow = {}
    if rollout.ends is not None:
        cells["rollout_ends"] = int(arrays[rollout.ends][0])
    if rollout.consistency is not None:
        correlation, defined = arrays[rollout.consistency].tolist()
        cells["advantage_consistency"] = correlation if defined else None
    if rollout.environments is not None:
        environments, distinct = arrays[rollout.environments].tolist()
        cells |= {"environments": int(environments), "environments_distinct": int(distinct)}
    if rollout.agreement is not None:
        fields = (*estimates.RETURN_FIELDS, *estimates.DEFINED_FIELDS)
        fit = dict(zip(fields, arrays[rollout.agreement].tolist(), strict=True))
        cells["ends_continued_fraction"] = fit["ends_continued_fraction"] if fit["ends_defined"] else None
        cells["return_residual"] = fit["return_residual"] if fit["fit_defined"] else None
        cells["return_gamma"] = fit["return_gamma"] if fit["fit_defined"] else None
        cells["return_lambda"] = fit["return_lambda"] if fit["lambda_defined"] else None
    return cells


def _value_cells(measured: Mapping[str, float]) -> UpdatesRow:
    explained, moments = measured["explained_variance_defined"] != 0, measured["return_moments_defined"] != 0
    correlated = measured["value_return_correlation_defined"] != 0
    return {
        "rollout_samples": int(measured["rollout_samples"]),
        "explained_variance": measured["explained_variance"] if explained else None,
        "return_variance": measured["return_variance"],
        "ev_low_variance": measured["return_variance"] < LOW_VARIANCE,
        "value_nrmse": measured["value_nrmse"] if explained else None,
        "value_return_correlation": measured["value_return_correlation"] if correlated else None,
        "value_mean": measured["value_mean"],
        "value_std": measured["value_std"],
        "value_min": measured["value_min"],
        "value_max": measured["value_max"],
        "return_mean": measured["return_mean"],
        "return_std": measured["return_std"],
        "return_min": measured["return_min"],
        "return_max": measured["return_max"],
        "return_skewness": measured["return_skewness"] if moments else None,
        "value_error_p01": measured["value_error_p01"],
        "value_error_p10": measured["value_error_p10"],
        "value_error_p50": measured["value_error_p50"],
        "value_error_p90": measured["value_error_p90"],
        "value_error_p99": measured["value_error_p99"],
        "return_p10": measured["return_p10"],
        "return_p50": measured["return_p50"],
        "return_p90": measured["return_p90"],
    }


def _advantage_cells(measured: Mapping[str, float]) -> UpdatesRow:
    moments = measured["advantage_moments_defined"] != 0
    return {
        "rollout_samples": int(measured["rollout_samples"]),
        "advantage_mean": measured["advantage_mean"],
        "advantage_std": measured["advantage_std"],
        "advantage_min": measured["advantage_min"],
        "advantage_max": measured["advantage_max"],
        "advantage_skewness": measured["advantage_skewness"] if moments else None,
        "advantage_kurtosis": measured["advantage_kurtosis"] if moments else None,
        "advantage_positive_fraction": measured["advantage_positive_fraction"],
    }


def mask_cells(statistics: Numbers, head: int) -> HeadsRow:
    """Return the mask cells of one ``heads`` row; ``head``: its index among the categorical heads."""
    measured = {name: float(row[head]) for name, row in zip(masks.FIELDS, statistics, strict=True)}
    cells: HeadsRow = {"rollout_samples": int(measured["steps"])}
    if not math.isnan(measured["minimum"]):  # NaN: the valid actions are unknown
        cells |= {
            "valid_actions_min": measured["minimum"],
            "valid_actions_mean": measured["mean"],
            "valid_actions_max": measured["maximum"],
            "single_action_fraction": measured["single"],
            "learnable_fraction": measured["learnable"],
        }
    if not math.isnan(measured["relevant"]):  # NaN: no causal mask was passed
        cells["relevant_fraction"] = measured["relevant"]
    if not math.isnan(measured["effective"]):
        cells["effective_fraction"] = measured["effective"]
    return cells


def scalar_cells(arrays: Arrays, scalars: Mapping[str, Handle]) -> UpdatesRow:
    """Return the cells of the ``updates`` row that were transferred as single numbers.

    ``scalars``: by column, each declared: ``recorder.arguments.cell`` refuses others.
    """
    return cast("UpdatesRow", {name: float(arrays[handle][0]) for name, handle in scalars.items()})


def floored_cells(row: UpdatesRow, floor: float | None) -> UpdatesRow:
    """Return whether the advantages' standard deviation was below the loop's divisor ``floor``; empty if unknown."""
    std = row.get("advantage_std")
    return {} if floor is None or std is None else {"advantage_std_floored": std < floor}


def lstm_rows(arrays: Arrays, states: Mapping[str, Handle], gates: Handle | None, update: int) -> list[LstmRow]:
    """Return the rows of ``lstm``, one for each phase that was passed; ``states``: statistics by phase."""
    rows: list[LstmRow] = []
    for phase in ("rollout", "update"):
        if phase in states:
            row: LstmRow = {"update": update, "phase": phase, **_state_cells(arrays[states[phase]].tolist())}
            if phase == "update" and gates is not None:
                row |= _gate_cells(arrays[gates])
            rows.append(row)
    return rows


def _state_cells(numbers: Sequence[float]) -> LstmRow:
    fields = lstm.FIELDS if len(numbers) == len(lstm.FIELDS) else lstm.HIDDEN_FIELDS
    measured = dict(zip(fields, numbers, strict=True))
    cells: LstmRow = {
        "elements": int(measured["elements"]),
        "h_l2_total": measured["h_l2_total"],
        "h_rms": measured["h_rms"],
        "h_env_rms_mean": measured["h_env_rms_mean"],
        "h_env_rms_max": measured["h_env_rms_max"],
        "h_max": measured["h_max"],
        "h_mean": measured["h_mean"],
        "h_saturation": measured["h_saturation"],
        "has_nan": bool(measured["has_nan"]),
        "has_inf": bool(measured["has_inf"]),
    }
    if fields is lstm.FIELDS:
        cells |= {
            "c_l2_total": measured["c_l2_total"],
            "c_rms": measured["c_rms"],
            "c_env_rms_mean": measured["c_env_rms_mean"],
            "c_env_rms_max": measured["c_env_rms_max"],
            "c_max": measured["c_max"],
            "c_mean": measured["c_mean"],
        }
    return cells


def _gate_cells(gates: Numbers) -> LstmRow:
    statistics = dict(zip(lstm.GATE_FIELDS, gates.tolist(), strict=True))
    count = statistics["count"]
    return {
        "gate_values": int(count),
        "forget_saturation": statistics["forget"] / count,
        "input_saturation": statistics["input"] / count,
        "output_saturation": statistics["output"] / count,
        "cell_mean": statistics["candidate"] / count,
    }
