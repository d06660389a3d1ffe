"""What gradient norms, health, histogram, direction and noise are, from their definitions, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.recorder.witness.drawn import Array, Arrays, DrawnMinibatch, DrawnTraining, DrawnUpdate
from tests.recorder.witness.policy import mean

Cells = dict[str, Any]
HISTOGRAM: dict[str, Callable[[Array], Array]] = {
    "zero": lambda g: g == 0,
    "below_1e_6": lambda g: (np.abs(g) > 0) & (np.abs(g) < 1e-6),
    "1e_6_to_1e_4": lambda g: (np.abs(g) >= 1e-6) & (np.abs(g) < 1e-4),
    "1e_4_to_1e_2": lambda g: (np.abs(g) >= 1e-4) & (np.abs(g) < 1e-2),
    "1e_2_to_1": lambda g: (np.abs(g) >= 1e-2) & (np.abs(g) < 1),
    "1_and_above": lambda g: (np.abs(g) >= 1) & (np.abs(g) < np.inf),
    "nonfinite": lambda g: ~np.isfinite(g),
}


def norm(x: Array) -> float:
    return float(np.sqrt((np.asarray(x) ** 2).sum()))


def whole(gradients: Arrays) -> float:
    return norm(np.array([norm(g) for g in gradients.values()]))


def flat(gradients: Arrays, members: Sequence[tuple[str, slice]]) -> Array:
    """Return the elements of a group, those of tensors with a gradient."""
    parts = [rows_of(gradients[name], rows).reshape(-1) for name, rows in members if name in gradients]
    return np.concatenate([np.zeros(0), *parts])


def rows_of(x: Array, rows: slice) -> Array:
    return x[rows] if x.ndim else x


def clipped_minibatches(now: DrawnUpdate) -> list[DrawnMinibatch]:
    """Return the minibatches whose gradients before clipping were clipped."""
    return [one for one in now.minibatches if one.clipped]


def model_cells(now: DrawnUpdate) -> Cells:
    """Return the whole-model gradient cells of a row of ``updates``."""
    clipped = clipped_minibatches(now)
    pre = [whole(one.before) for one in clipped]
    post = [whole(one.after) for one in now.minibatches if one.stepped]
    active = [not n <= (one.clip_norm or 0.0) for n, one in zip(pre, clipped, strict=True)]  # NaN is clipped, too
    both = [(whole(one.after), whole(one.before)) for one in clipped if one.stepped]
    elements = np.concatenate([np.zeros(0), *(g.reshape(-1) for one in clipped for g in one.before.values())])
    cells: Cells = {"optimizer_steps": sum(one.stepped for one in now.minibatches)}
    for name, norms in (("pre", pre), ("post", post)):
        cells[f"grad_norm_{name}_clip"] = mean(norms)
        cells[f"grad_norm_{name}_clip_max"] = float(np.max(norms)) if norms else None
        cells[f"grad_norm_{name}_clip_last"] = norms[-1] if norms else None
    return cells | {
        "max_grad_norm": clipped[-1].clip_norm if clipped else None,
        "clip_active_fraction": mean(active),
        "clip_scale_mean": mean([after / before for after, before in both if before != 0]),
        "nan_grad_count": int(np.isnan(elements).sum()) if clipped else None,
        "inf_grad_count": int(np.isinf(elements).sum()) if clipped else None,
        "tensors_nonfinite": sum(not math.isfinite(norm(g)) for one in clipped for g in one.before.values())
        if clipped
        else None,
    }


def step_cells(one: DrawnMinibatch) -> Cells:
    """Return the gradient cells of a row of ``steps``."""
    return {
        "grad_norm_pre_clip": whole(one.before) if one.clipped else None,
        "grad_norm_post_clip": whole(one.after) if one.stepped else None,
        "stepped": one.stepped,
    }


def tensor_norms(one: DrawnMinibatch, members: Sequence[tuple[str, slice]]) -> Array:
    return np.array([norm(rows_of(one.before[name], rows)) for name, rows in members if name in one.before])


def group_cells(drawn: DrawnTraining, now: DrawnUpdate, group: str) -> Cells:
    """Return the norm cells of a row of ``groups``."""
    members, clipped = drawn.members()[group], clipped_minibatches(now)
    sizes = {name: rows_of(now.weights[name], rows).size for name, rows in members}
    cells: Cells = {"group": group, "tensors": len(members), "elements": sum(sizes.values())}
    cells["parameters_changed"] = False
    names = ("grad_norm", "health", "vanishing_severity", "exploding_severity", "has_vanishing", "has_exploding")
    cells |= dict.fromkeys((*names, "min_tensor_norm", "max_tensor_norm", "norm_ratio", "concentration"))
    cells["tensors_without_grad"] = None
    if not clipped:
        return cells
    norms = [tensor_norms(one, members) for one in clipped]
    cells["tensors_without_grad"] = max(len(members) - len(n) for n in norms)
    norms = [n for n in norms if len(n)]
    if not norms:
        return cells
    bound = 10 * (clipped[-1].clip_norm or 0.5)
    with np.errstate(all="ignore"):
        vanishing = float(np.mean([(n < 1e-7).mean() for n in norms]))
        exploding = float(np.mean([((n > bound) | ~np.isfinite(n)).mean() for n in norms]))
        low, high = float(np.min(np.concatenate(norms))), float(np.max(np.concatenate(norms)))
        broken = not np.isfinite(np.concatenate(norms)).all()
        ratio = None if low == 0 else high / low
        spread = [concentration(n) for n in norms]
    return cells | {
        "grad_norm": float(np.mean([norm(n) for n in norms])),
        "vanishing_severity": vanishing,
        "exploding_severity": exploding,
        "has_vanishing": vanishing > 0,
        "has_exploding": exploding > 0,
        "health": 0.0 if broken else min(max(1 - 0.5 * vanishing - 0.8 * exploding, 0.0), 1.0),
        "min_tensor_norm": low,
        "max_tensor_norm": high,
        "norm_ratio": ratio,
        "concentration": mean([one for one in spread if one is not None]),
    }


def concentration(norms: Array) -> float | None:
    """Return the entropy of n²/Σn² over its largest possible value ln N."""
    squares = norms**2
    if len(norms) < 2 or not np.isfinite(squares).all() or squares.sum() == 0:
        return None
    p = squares / squares.sum()
    return float(-(p[p > 0] * np.log(p[p > 0])).sum() / np.log(len(norms)))


def head_cells(drawn: DrawnTraining, now: DrawnUpdate, head: str) -> Cells:
    """Return the gradient cells of a row of ``heads``."""
    members, clipped = drawn.members()[f"head:{head}"], clipped_minibatches(now)
    names = ("grad_norm", "grad_state", "params_without_grad", "params_nonfinite", "params_finite")
    cells: Cells = dict.fromkeys(names)
    if not clipped:
        return cells
    norms = [tensor_norms(one, members) for one in clipped]
    counts = [(int((~np.isfinite(n)).sum()), len(members) - len(n), int(np.isfinite(n).sum())) for n in norms]
    cells["params_nonfinite"], cells["params_without_grad"], cells["params_finite"] = max(
        counts, key=lambda worst: worst[:2]
    )
    norms = [n for n in norms if len(n)]
    if not norms:
        return cells | {"grad_state": "missing"}
    finite = all(np.isfinite(n).all() for n in norms)
    state = "finite" if finite else "nonfinite"
    return cells | {"grad_norm": float(np.mean([norm(n) for n in norms])), "grad_state": state}


def why_zero(row: Cells) -> str | None:
    """Return ``zero_explained`` of a row of ``heads``, from the catalogue's five words."""
    if row["grad_state"] is None:
        return None
    if row["grad_state"] == "nonfinite" or row["grad_norm"] not in (None, 0.0):
        return "not_zero"
    if row["learnable_fraction"] == 0:
        return "masked"
    return "irrelevant" if 0 in (row["relevant_fraction"], row["effective_fraction"]) else "unexplained"


def sampled(now: DrawnUpdate, described: int) -> list[int]:
    """Return the minibatches whose directions are compared: four evenly spaced ones of those with the same tensors."""
    kinds = [tuple(one.before) for one in now.minibatches]
    alike = [place for place, kind in enumerate(kinds) if kind == kinds[described]]
    assert len(alike) == max(kinds.count(kind) for kind in kinds)
    places = sorted({round(k * (len(alike) - 1) / 3) for k in range(4)})
    chosen = [alike[place] for place in places]
    assert described == chosen[len(chosen) // 2]
    return chosen


def detail_cells(drawn: DrawnTraining, number: int, group: str, described: Sequence[int | None]) -> Cells:
    """Return the detail cells of a row of ``groups``; ``described`` says which minibatch of each update was sampled."""
    now, members, place = drawn.updates[number], drawn.members()[group], described[number]
    names = ("zero_fraction", "sign_positive_fraction", "cosine_minibatches", "cosine_previous_update", "noise_scale")
    cells: Cells = dict.fromkeys((*names, *(f"hist_{name}" for name in HISTOGRAM)))
    cells |= dict.fromkeys(("update_ratio", "cosine_actor_critic", "entropy_grad_norm"))
    if place is None:
        return cells
    with np.errstate(all="ignore"):
        before, after = flat(now.weights, members), flat(now.weights_after, members)
        cells["update_ratio"] = norm(after - before) / norm(before) if norm(before) != 0 else None
        cells |= separate_cells(now, members)
        g = flat(now.minibatches[place].before, members)
        if not len(g):
            return cells
        cells |= {f"hist_{name}": float(inside(g).mean()) for name, inside in HISTOGRAM.items()}
        cells |= {"zero_fraction": float((g == 0).mean()), "sign_positive_fraction": float((g > 0).mean())}
        places = sampled(now, place)
        vectors = np.array([flat(now.minibatches[one].before, members) for one in places])
        cells |= direction(vectors, float(np.mean([now.minibatches[one].counted.sum() for one in places])))
        earlier = earlier_mean(drawn, number, members, described)
        if earlier is not None:
            product = norm(vectors.mean(0)) * norm(earlier)
            if product > 0:
                cells["cosine_previous_update"] = float(vectors.mean(0) @ earlier / product)
    return cells


def earlier_mean(
    drawn: DrawnTraining, number: int, members: Sequence[tuple[str, slice]], described: Sequence[int | None]
) -> Array | None:
    """Return the mean gradient of the sampled update before that had gradients of the same tensors."""
    place = described[number]
    assert place is not None
    kind = list(drawn.updates[number].minibatches[place].before)
    for earlier in range(number - 1, -1, -1):
        now, then = drawn.updates[earlier], described[earlier]
        if then is not None and list(now.minibatches[then].before) == kind:
            vectors: Array = np.mean([flat(now.minibatches[one].before, members) for one in sampled(now, then)], axis=0)
            return vectors
    return None


def direction(vectors: Array, samples: float) -> Cells:
    """Return alignment of the minibatches and the noise scale (McCandlish et al. 2018, appendix A.1)."""
    count, norms = len(vectors), np.array([norm(v) for v in vectors])
    if count < 2 or not np.isfinite(norms).all():
        return {}
    cells: Cells = {}
    if norms.min() > 0:
        pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
        aligned = sum(float(vectors[a] @ vectors[b]) for a, b in pairs)
        cells["cosine_minibatches"] = aligned / sum(float(norms[a] * norms[b]) for a, b in pairs)
    small, big = float((norms**2).mean()), norm(vectors.mean(0)) ** 2
    b_small, b_big = samples, samples * count
    if samples > 0:
        signal = (b_big * big - b_small * small) / (b_big - b_small)
        noise = (small - big) / (1 / b_small - 1 / b_big)
        cells["noise_scale"] = noise / signal if signal > 0 else None
    return cells


def separate_cells(now: DrawnUpdate, members: Sequence[tuple[str, slice]]) -> Cells:
    """Return the cells of the losses differentiated one by one."""
    if not now.separate:
        return {}
    policy, value = now.separate["policy_loss"], now.separate["value_loss"]
    shared = [(name, rows) for name, rows in members if name in policy and name in value]
    a, b, entropy = flat(policy, shared), flat(value, shared), flat(now.separate["entropy_loss"], members)
    return {
        "cosine_actor_critic": float(a @ b / (norm(a) * norm(b))) if len(a) else None,
        "entropy_grad_norm": norm(entropy) if len(entropy) else None,
    }


def layer_cells(now: DrawnUpdate, layer: str, described: int) -> Cells:
    """Return a row of ``layers``."""
    g, before = now.minibatches[described].before.get(layer), now.weights[layer]
    names = ("grad_norm", "mean", "std", "min", "max", "zero_fraction", "small_fraction", "large_fraction")
    cells: Cells = dict.fromkeys((*names, "nan_count", "inf_count"))
    with np.errstate(all="ignore"):
        moved = norm(now.weights_after[layer] - before)
        cells |= {
            "layer": layer,
            "minibatch": described,
            "elements": before.size,
            "weight_norm": norm(before),
            "update_ratio": moved / norm(before) if norm(before) != 0 else None,
        }
        if g is None:
            return cells
        return cells | {
            "grad_norm": norm(g),
            "mean": float(g.mean()),
            "std": float(g.std()),
            "min": float(g.min()),
            "max": float(g.max()),
            "zero_fraction": float((g == 0).mean()),
            "small_fraction": float((np.abs(g) < 1e-6).mean()),
            "large_fraction": float((np.abs(g) > 10).mean()),
            "nan_count": int(np.isnan(g).sum()),
            "inf_count": int(np.isinf(g).sum()),
        }


def tensor_cells(now: DrawnUpdate, tensor: str, *, cause: str, losses: Sequence[float | None]) -> Cells:
    """Return a row of ``tensors``."""
    gradients = [one.before[tensor] for one in clipped_minibatches(now) if tensor in one.before]
    w, g = now.weights_after[tensor], np.concatenate([np.zeros(0), *(g.reshape(-1) for g in gradients)])
    known = [loss for loss in losses if loss is not None]
    return {
        "tensor": tensor,
        "cause": cause,
        "elements": w.size,
        "weight_nonfinite": not np.isfinite(w).all(),
        "weight_abs_max": float(np.abs(w).max()),
        "grad_nonfinite": not np.isfinite(g).all() if len(g) else None,
        "grad_abs_max": float(np.abs(g).max()) if len(g) else None,
        "grad_norm_max": float(np.max([norm(one) for one in gradients])) if gradients else None,
        "grad_norm_pre_clip": model_cells(now)["grad_norm_pre_clip_max"],
        "loss_finite": bool(np.isfinite(known).all()) if known else None,
    }
