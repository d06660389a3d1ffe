"""What values, returns, advantages, masks and recurrent states are, from their definitions, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.recorder.witness.drawn import Array, DrawnTraining, DrawnUpdate

Cells = dict[str, Any]


def var(x: Array) -> float:
    """Return the population variance, exactly 0 of equal numbers."""
    return 0.0 if x.min() == x.max() else float(((x - x.mean()) ** 2).mean())


def moments(name: str, x: Array) -> Cells:
    return {
        f"{name}_mean": float(x.mean()),
        f"{name}_std": math.sqrt(var(x)),
        f"{name}_min": float(x.min()),
        f"{name}_max": float(x.max()),
    }


def standardised(x: Array, order: int) -> float | None:
    """Return a standardised moment, None where the spread is nothing but rounding."""
    if math.sqrt(var(x)) <= 1e-12 * np.abs(x).max():
        return None
    return float((((x - x.mean()) / x.std()) ** order).mean())


def value_cells(now: DrawnUpdate) -> Cells:
    """Return the value, return and advantage cells of a row of ``updates``."""
    if not now.rollout:
        return {}
    with np.errstate(all="ignore"):
        return _value_cells(now)


def _value_cells(now: DrawnUpdate) -> Cells:
    v, r, a = (now.rollout[name] for name in ("values", "returns", "advantages"))
    td, error = now.rollout["td_errors"], r - v
    constant = var(r) == 0
    kurtosis = standardised(a, 4)
    cells: Cells = {
        "rollout_samples": len(v),
        "explained_variance": None if constant else float(1 - error.var() / var(r)),
        "return_variance": var(r),
        "ev_low_variance": var(r) < 1e-8,
        "value_nrmse": None if constant else float(np.sqrt((error**2).mean()) / math.sqrt(var(r))),
        "value_return_correlation": None
        if (constant or var(v) == 0) and not np.isnan([*v, *r]).any()
        else float(((v - v.mean()) * (r - r.mean())).mean() / (v.std() * r.std())),
        **moments("value", v),
        **moments("return", r),
        **moments("advantage", a),
        **moments("reward", now.rollout["rewards"]),
        "return_skewness": standardised(r, 3),
        "advantage_skewness": standardised(a, 3),
        "advantage_kurtosis": None if kurtosis is None else kurtosis - 3,
        "advantage_positive_fraction": float((a > 0).mean()),
        "advantage_std_floored": None if now.floor is None else math.sqrt(var(a)) < now.floor,
        "td_error_mean": float(td.mean()),
        "td_error_std": float(td.std()),
        "bellman_error": float(np.abs(td).mean()),
    }
    for p in (1, 10, 50, 90, 99):
        cells[f"value_error_p{p:02d}"] = quantile(error, p / 100)
    for p in (10, 50, 90):
        cells[f"return_p{p}"] = quantile(r, p / 100)
    return cells


def correlated(x: Array, y: Array, rounding: float) -> float | None:
    """Return the correlation of two lines; None where x is constant or y is no more than rounding."""
    if (np.isfinite(x).all() and np.ptp(x) <= 1e-12 * np.abs(x).max()) or y.std() <= rounding:
        return None
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).mean() / math.sqrt((x**2).mean() * (y**2).mean()))


def agreement_cells(drawn: DrawnTraining, now: DrawnUpdate) -> Cells:
    """Return the cells on whether advantages, returns, rewards and ends agree, and how many environments differ."""
    names = ("advantage_consistency", "environments", "environments_distinct", "rollout_ends")
    cells: Cells = dict.fromkeys(
        (*names, "ends_continued_fraction", "return_residual", "return_gamma", "return_lambda")
    )
    if not now.rollout:
        return cells
    v, r, a, rewards, ends = (now.rollout[n] for n in ("values", "returns", "advantages", "rewards", "ends"))
    with np.errstate(all="ignore"):
        cells["rollout_ends"] = int(ends.sum())
        cells["advantage_consistency"] = correlated(a, r - v, drawn.rounding * np.abs([*r, *v]).max())
        if now.shape:
            cells |= _by_environment(*(x.reshape(now.shape) for x in (v, r, rewards, ends)))
    return cells


def _by_environment(v: Array, r: Array, rewards: Array, ends: Array) -> Cells:
    cells: Cells = {}
    scale = math.sqrt((r**2).mean())
    if v.shape[1] > 1:
        same = [any(np.allclose(v[:, b], v[:, a], rtol=1e-9) for a in range(b)) for b in range(v.shape[1])]
        cells |= {"environments": v.shape[1], "environments_distinct": v.shape[1] - sum(same)}
    known = np.isfinite([v, r, rewards]).all()
    if ends.any():
        beyond = np.abs(r - rewards)[ends] > 1e-3 * scale
        cells["ends_continued_fraction"] = float(beyond.mean()) if known else math.nan
    lives = ~ends[:-1]
    if lives.sum() < 8:
        return cells
    if known and (r[1:][lives] ** 2).sum() > 0:
        y, x = (r - rewards)[:-1][lives], np.stack([r[1:][lives], (r - v)[1:][lives]], 1)
        alike = np.linalg.det(x.T @ x) <= 1e-9 * np.prod((x**2).sum(0))
        fit = np.linalg.lstsq(x[:, :1] if alike else x, y, rcond=None)[0]
        missed = y - x[:, : len(fit)] @ fit
        cells |= {"return_gamma": float(fit[0]), "return_residual": math.sqrt((missed**2).mean()) / scale}
        cells["return_lambda"] = None if alike else float(1 + fit[1] / fit[0])
    elif not known:
        cells |= dict.fromkeys(("return_gamma", "return_residual", "return_lambda"), math.nan)
    return cells


OBSERVED = ("mean", "std", "min", "max", "nonfinite_fraction", "constant_fraction", "shift")


def observation_cells(before: DrawnUpdate | None, now: DrawnUpdate) -> Cells:
    """Return the cells on observations, as one line of features a timestep."""
    cells: Cells = dict.fromkeys(f"observation_{name}" for name in OBSERVED)
    if not now.observations:
        return cells
    columns = features(now)
    finite = [x[np.isfinite(x)] for x in columns]
    every = np.concatenate(finite)
    cells["observation_nonfinite_fraction"] = 1 - len(every) / sum(map(len, columns))
    cells["observation_constant_fraction"] = sum(not len(x) or x.min() == x.max() for x in finite) / len(columns)
    if len(every):
        cells |= moments("observation", every)
    earlier = [] if before is None or not before.observations else features(before)
    if len(earlier) == len(columns):
        pairs = [(x, y[np.isfinite(y)]) for x, y in zip(finite, earlier, strict=True)]
        apart = [distance(x, y) for x, y in pairs if len(x) and len(y)]
        cells["observation_shift"] = float(np.mean(apart)) if apart else None
    return cells


def features(now: DrawnUpdate) -> list[Array]:
    """Return each feature's numbers."""
    return [column for x in now.observations.values() for column in x.reshape(len(x), -1).astype(np.float64).T]


def distance(x: Array, y: Array) -> float:
    """Return the squared Hellinger distance of two normal distributions, by integrating √(p·q)."""
    one, other = var(x), var(y)
    if one == 0 or other == 0:
        return float(one != other or x.mean() != y.mean())
    width = math.sqrt(one + other)
    middle = (x.mean() * other + y.mean() * one) / (one + other)
    spread = math.sqrt(2 * one * other) / width
    grid = middle + spread * np.linspace(-12, 12, 4001)
    logs = [-((grid - z.mean()) ** 2) / (4 * v) - math.log(2 * math.pi * v) / 4 for z, v in ((x, one), (y, other))]
    return float(1 - np.exp(logs[0] + logs[1]).sum() * (grid[1] - grid[0]))


def quantile(x: Array, q: float) -> float:
    return float(np.nan) if np.isnan(x).any() else float(np.quantile(x, q))


def mask_cells(drawn: DrawnTraining, now: DrawnUpdate, head: str) -> Cells:
    """Return the mask cells of a row of ``heads``."""
    names = ("valid_actions_min", "valid_actions_mean", "valid_actions_max", "single_action_fraction")
    empty: Cells = dict.fromkeys((*names, "rollout_samples", "learnable_fraction"))
    empty |= dict.fromkeys(("relevant_fraction", "effective_fraction"))
    steps = [len(mask) for mask in (*now.masks.values(), *now.relevant.values(), *now.rollout.values())]
    if head == drawn.gaussian or not steps:
        return empty
    n = now.masks[head].sum(1) if head in now.masks else np.full(steps[0], drawn.sizes[head])
    cells = empty | {
        "rollout_samples": steps[0],
        "valid_actions_min": float(n.min()),
        "valid_actions_mean": float(n.mean()),
        "valid_actions_max": float(n.max()),
        "single_action_fraction": float((n == 1).mean()),
        "learnable_fraction": float((n > 1).mean()),
    }
    if now.relevant:
        matters = now.relevant.get(head, np.ones(steps[0], bool))
        cells["relevant_fraction"] = float(matters.mean())
        cells["effective_fraction"] = float((matters & (n > 1)).mean())
    return cells


def state_cells(hidden: Array, cell: Array) -> Cells:
    """Return the state cells of a row of ``lstm``."""
    cells: Cells = {"elements": hidden.size}
    with np.errstate(all="ignore"):
        for letter, x in (("h", hidden), ("c", cell)):
            whole = x if x.ndim == 3 else x[None]  # layers × environments × hidden
            per_env = np.sqrt((whole**2).mean(axis=(0, 2)))
            cells |= {
                f"{letter}_l2_total": float(np.sqrt((x**2).sum())),
                f"{letter}_rms": float(np.sqrt((x**2).mean())),
                f"{letter}_env_rms_mean": float(per_env.mean()),
                f"{letter}_env_rms_max": float(per_env.max()),
                f"{letter}_max": float(np.abs(x).max()),
                f"{letter}_mean": float(x.mean()),
            }
        cells["h_saturation"] = float((np.abs(hidden) > 0.99).mean())
    cells["has_nan"] = bool(np.isnan(hidden).any() or np.isnan(cell).any())
    cells["has_inf"] = bool(np.isinf(hidden).any() or np.isinf(cell).any())
    return cells


def gate_cells(now: DrawnUpdate) -> Cells:
    """Return the gate cells: an LSTM computed step by step over the second minibatch."""
    names = ("gate_values", "forget_saturation", "input_saturation", "output_saturation", "cell_mean")
    if len(now.minibatches) < 2:
        return dict.fromkeys(names)
    x, w = now.minibatches[1].inputs, now.memory
    assert x is not None
    size = w["memory.weight_hh_l0"].shape[1]
    h = c = np.zeros((x.shape[1], size))
    gates: dict[str, list[Array]] = {name: [] for name in ("i", "f", "g", "o")}
    with np.errstate(all="ignore"):
        for step in x:
            sums = step @ w["memory.weight_ih_l0"].T + w["memory.bias_ih_l0"]
            sums = sums + h @ w["memory.weight_hh_l0"].T + w["memory.bias_hh_l0"]
            i, f, g, o = (sums[:, k * size : (k + 1) * size] for k in range(4))
            i, f, o, g = 1 / (1 + np.exp(-i)), 1 / (1 + np.exp(-f)), 1 / (1 + np.exp(-o)), np.tanh(g)
            c = f * c + i * g
            h = o * np.tanh(c)
            for name, gate in (("i", i), ("f", f), ("g", g), ("o", o)):
                gates[name].append(gate)
    whole = {name: np.stack(some) for name, some in gates.items()}
    cells: Cells = {"gate_values": whole["f"].size, "cell_mean": float(whole["g"].mean())}
    for name, letter in (("forget", "f"), ("input", "i"), ("output", "o")):
        gate = whole[letter]
        cells[f"{name}_saturation"] = float(((gate < 0.05) | (gate > 0.95)).mean())
    return cells
