"""Gradient cells: whole-model norms of ``updates``, the rows of ``groups``, gradient state of ``heads``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recorder.parameters import HEAD_PREFIX, Group, ParameterMap
from recorder.reduce.norms import Flags, GradientNorms, Numbers
from recorder.reduce.update import Cells, Inner

VANISHING = 1e-7
"""A tensor norm strictly below this counts as vanished (exact zeros too)."""
EXPLODING_FACTOR = 10.0
"""A tensor norm strictly above this multiple of max_grad_norm counts as exploded …"""
DEFAULT_CLIP_NORM = 0.5
"""… with this clip norm where the loop does not clip (TELE-514: 5.0)."""
VANISHING_WEIGHT = 0.5
EXPLODING_WEIGHT = 0.8


def model_cells(found: Inner) -> Cells:
    """Return the whole-model gradient cells of the ``updates`` row."""
    cells: Cells = {}
    for name, norms in (
        ("pre_clip", found.pre_clip[found.pre_clip_known]),
        ("post_clip", found.post_clip[found.post_clip_known]),
    ):
        if len(norms):
            cells[f"grad_norm_{name}"] = float(norms.mean())
            cells[f"grad_norm_{name}_max"] = float(norms.max())
            cells[f"grad_norm_{name}_last"] = float(norms[-1])
    if found.clip_norm is not None and found.pre_clip_known.any():
        cells["max_grad_norm"] = found.clip_norm
        cells["clip_active_fraction"] = float((~(found.pre_clip[found.pre_clip_known] <= found.clip_norm)).mean())
        both = found.pre_clip_known & found.post_clip_known & (found.pre_clip != 0)
        cells["clip_scale_mean"] = float((found.post_clip[both] / found.pre_clip[both]).mean()) if both.any() else None
    if found.norms is not None:
        if found.norms.elements is not None:
            cells["nan_grad_count"], cells["inf_grad_count"] = map(int, found.norms.elements)
        whole = found.norms.norms[:, : _tensors(found.norms)]
        cells["tensors_nonfinite"] = int(np.count_nonzero(~np.isfinite(whole)))
    return cells


def _tensors(norms: GradientNorms) -> int:
    return int(norms.norms.shape[1]) - norms.ranges


@dataclass(frozen=True, slots=True)
class _Tensors:
    """Norms [S, T] of a group's tensors, which of them had a gradient, and which were seen without one."""

    norms: Numbers
    there: Flags
    without: Flags


def _tensors_of(group: Group, measured: GradientNorms) -> _Tensors:
    pieces, starts = group.pieces, group.starts
    norms, seen, missing = measured.norms[:, pieces], measured.seen[:, pieces], measured.missing[:, pieces]
    if len(starts) < len(pieces):
        norms = np.sqrt(np.add.reduceat(np.square(norms), starts, axis=1))
        seen = np.logical_or.reduceat(seen, starts, axis=1)
        missing = np.logical_and.reduceat(missing, starts, axis=1)
    return _Tensors(norms, seen & ~missing, missing)


def group_cells(parameters: ParameterMap, found: Inner | None) -> dict[str, Cells]:
    """Return the norm cells of each row of ``groups`` by name.

    A group without any gradient has null norms, never health 1.
    """
    measured = None if found is None else found.norms
    bound = DEFAULT_CLIP_NORM if found is None or found.clip_norm is None else found.clip_norm
    rows = {}
    for group in parameters.groups:
        if group.tensors:
            row: Cells = {"group": group.name, "tensors": group.tensors, "elements": group.elements}
            rows[group.name] = row if measured is None else row | _cells(_tensors_of(group, measured), bound)
    return rows


def _cells(tensors: _Tensors, bound: float) -> Cells:
    cells: Cells = {"tensors_without_grad": int(tensors.without.sum(axis=1).max())}
    with_gradient = tensors.there.any(axis=1)
    if not with_gradient.any():
        return cells
    norms, there = tensors.norms, tensors.there
    if not with_gradient.all():
        norms, there = norms[with_gradient], there[with_gradient]
    return cells | _norm_cells(norms, there) | _severity_cells(norms, there, EXPLODING_FACTOR * bound)


def _norm_cells(norms: Numbers, there: Flags) -> Cells:
    present = norms if there.all() else norms[there]
    smallest, largest = float(present.min()), float(present.max())
    squares = np.where(there, np.square(norms), 0.0)
    return {
        "grad_norm": float(np.sqrt(squares.sum(axis=1)).mean()),
        "min_tensor_norm": smallest,
        "max_tensor_norm": largest,
        "norm_ratio": None if smallest == 0 else largest / smallest,
        "concentration": _concentration(squares, there),
    }


def _concentration(squares: Numbers, there: Flags) -> float | None:
    """Entropy of the shares of n_i² over ln N (gradient review L1), mean over steps; None where undefined at all."""
    counts, totals = there.sum(axis=1), squares.sum(axis=1)
    defined = (counts >= 2) & np.isfinite(totals) & (totals > 0)
    if not defined.any():
        return None
    shares = squares[defined] / totals[defined, None]
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    return float(np.abs(entropy / np.log(counts[defined])).mean())


def _severity_cells(norms: Numbers, there: Flags, exploding: float) -> Cells:
    counts = there.sum(axis=1)
    vanished = there & (norms < VANISHING)
    exploded = there & ~(norms <= exploding)
    vanishing_severity = float((vanished.sum(axis=1) / counts).mean())
    exploding_severity = float((exploded.sum(axis=1) / counts).mean())
    health = 1 - VANISHING_WEIGHT * vanishing_severity - EXPLODING_WEIGHT * exploding_severity
    finite = bool(np.isfinite(norms[there]).all())
    return {
        "vanishing_severity": vanishing_severity,
        "exploding_severity": exploding_severity,
        "has_vanishing": vanishing_severity > 0,
        "has_exploding": exploding_severity > 0,
        "health": min(max(health, 0.0), 1.0) if finite else 0.0,
    }


def head_gradient_cells(parameters: ParameterMap | None, found: Inner | None, head: str) -> Cells:
    """Return gradient norm, state and counts of one ``heads`` row."""
    group = _head_group(parameters.groups if parameters is not None else (), head)
    if group is None or not group.tensors:
        return {}
    if group.frozen:
        return {"grad_state": "frozen", "params_without_grad": group.tensors, "params_nonfinite": 0, "params_finite": 0}
    if found is None or found.norms is None:
        return {}
    tensors = _tensors_of(group, found.norms)
    nonfinite = tensors.there & ~np.isfinite(tensors.norms)
    worst = int(np.lexsort((tensors.without.sum(axis=1), nonfinite.sum(axis=1)))[-1])
    cells: Cells = {
        "params_without_grad": int(tensors.without[worst].sum()),
        "params_nonfinite": int(nonfinite[worst].sum()),
        "params_finite": int((tensors.there & ~nonfinite)[worst].sum()),
    }
    if not tensors.there.any():
        return cells | ({"grad_state": "missing"} if tensors.without.any() else {})
    squares = np.where(tensors.there, np.square(tensors.norms), 0.0)[tensors.there.any(axis=1)]
    cells["grad_norm"] = float(np.sqrt(squares.sum(axis=1)).mean())
    cells["grad_state"] = "nonfinite" if nonfinite.any() else "finite"
    return cells


def _head_group(groups: Sequence[Group], head: str) -> Group | None:
    return next((group for group in groups if group.name == HEAD_PREFIX + head), None)


def explain_zero(cells: Cells) -> str | None:
    """Return why a zero or missing gradient is expected, or that it is not; None when no gradient was measured."""
    state = cells.get("grad_state")
    if state is None:
        return None
    if state == "frozen":
        return "frozen"
    if state == "nonfinite" or (state == "finite" and cells.get("grad_norm") != 0):
        return "not_zero"
    if cells.get("learnable_fraction") == 0:
        return "masked"
    if cells.get("relevant_fraction") == 0 or cells.get("effective_fraction") == 0:
        return "irrelevant"
    return "unexplained"
