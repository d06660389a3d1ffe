"""Gradient cells: whole-model norms of ``updates``, the rows of ``groups``, gradient state of ``heads``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recorder.inner_loop import Flags
from recorder.parameters import HEAD_PREFIX, Group, ParameterMap
from recorder.reduce.update import Cells, Numbers, Step, known_mean

VANISHING = 1e-7
"""A tensor norm strictly below this counts as vanished (exact zeros too)."""
EXPLODING_FACTOR = 10.0
"""A tensor norm strictly above this multiple of max_grad_norm counts as exploded …"""
DEFAULT_CLIP_NORM = 0.5
"""… with this clip norm where the loop does not clip (TELE-514: 5.0)."""
VANISHING_WEIGHT = 0.5
EXPLODING_WEIGHT = 0.8


def model_cells(steps: Sequence[Step], elements: Numbers | None) -> Cells:
    """Return the whole-model gradient cells of the ``updates`` row."""
    cells: Cells = {}
    for name in ("pre_clip", "post_clip"):
        norms = [getattr(step, name) for step in steps if getattr(step, name) is not None]
        if norms:
            cells[f"grad_norm_{name}"] = known_mean(norms)
            cells[f"grad_norm_{name}_max"] = float(np.max(norms))
            cells[f"grad_norm_{name}_last"] = norms[-1]
    clipped = [(step.pre_clip, step.clip_norm) for step in steps if step.clip_norm is not None]
    if clipped:
        cells["max_grad_norm"] = clipped[-1][1]
        active = [not norm <= bound for norm, bound in clipped if norm is not None and bound is not None]
        cells["clip_active_fraction"] = float(np.mean(active)) if active else None
        cells["clip_scale_mean"] = known_mean(
            [step.post_clip / step.pre_clip if step.pre_clip and step.post_clip is not None else None for step in steps]
        )
    if elements is not None:
        cells["nan_grad_count"], cells["inf_grad_count"] = int(elements[0]), int(elements[1])
    measured = [step.norms for step in steps if step.norms is not None]
    if measured:
        cells["tensors_nonfinite"] = int(sum((~np.isfinite(norms)).sum() for norms in measured))
    return cells


class _Measured:
    """Piece norms of the optimizer steps that were measured: [S, P] each."""

    def __init__(self, steps: Sequence[Step]) -> None:
        found = [step for step in steps if step.norms is not None]
        self.count = len(found)
        self.norms = np.array([step.norms for step in found], np.float64)
        self.seen = np.array([step.seen for step in found], bool)
        self.missing = np.array([step.missing for step in found], bool)
        bounds = [step.clip_norm for step in found if step.clip_norm is not None]
        self.exploding = EXPLODING_FACTOR * (bounds[-1] if bounds else DEFAULT_CLIP_NORM)

    def tensor_norms(self, group: Group) -> tuple[Numbers, Flags]:
        """Return the norms [S, T] of the group's tensors and which of them had a gradient."""
        squares = np.square(self.norms[:, group.pieces])
        squares = np.add.reduceat(squares, group.starts, axis=1)
        seen = np.logical_or.reduceat(self.seen[:, group.pieces], group.starts, axis=1)
        missing = np.logical_and.reduceat(self.missing[:, group.pieces], group.starts, axis=1)
        return np.sqrt(squares), seen & ~missing

    def without(self, group: Group) -> Flags:
        """Return which tensors [S, T] of the group were seen with ``grad`` None."""
        return np.logical_and.reduceat(self.missing[:, group.pieces], group.starts, axis=1)


def group_rows(parameters: ParameterMap | None, steps: Sequence[Step], update: int) -> list[Cells]:
    """Return the rows of ``groups``; a group without any gradient has null norms, never health 1."""
    if parameters is None:
        return []
    measured = _Measured(steps)
    return [_group_row(group, measured, update) for group in parameters.groups if group.tensors]


def _group_row(group: Group, measured: _Measured, update: int) -> Cells:
    row: Cells = {"update": update, "group": group.name, "tensors": group.tensors, "elements": group.elements}
    if not measured.count:
        return row
    row["tensors_without_grad"] = int(measured.without(group).sum(axis=1).max())
    norms, there = measured.tensor_norms(group)
    with_gradient = there.any(axis=1)
    if not with_gradient.any():
        return row
    norms, there = norms[with_gradient], there[with_gradient]
    return row | _norm_cells(norms, there) | _severity_cells(norms, there, measured.exploding)


def _norm_cells(norms: Numbers, there: Flags) -> Cells:
    present = norms[there]
    smallest, largest = float(present.min()), float(present.max())
    squares = np.where(there, np.square(norms), 0.0)
    return {
        "grad_norm": float(np.sqrt(squares.sum(axis=1)).mean()),
        "min_tensor_norm": smallest,
        "max_tensor_norm": largest,
        "norm_ratio": None if smallest == 0 else largest / smallest,
        "concentration": known_mean([_concentration(row[mask]) for row, mask in zip(squares, there, strict=True)]),
    }


def _concentration(squares: Numbers) -> float | None:
    """Entropy of the shares of n_i² over ln N (gradient review L1); None where undefined."""
    total = squares.sum()
    if len(squares) < 2 or not np.isfinite(total) or total == 0:
        return None
    shares = squares[squares > 0] / total
    return float(abs(-(shares * np.log(shares)).sum()) / np.log(len(squares)))


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
        "has_vanishing": bool(vanished.any()),
        "has_exploding": bool(exploded.any()),
        "health": min(max(health, 0.0), 1.0) if finite else 0.0,
    }


def head_gradient_cells(parameters: ParameterMap | None, steps: Sequence[Step], head: str) -> Cells:
    """Return gradient norm, state and counts of one ``heads`` row."""
    group = None
    if parameters is not None:
        group = next((group for group in parameters.groups if group.name == HEAD_PREFIX + head), None)
    if group is None or not group.tensors:
        return {}
    if group.frozen:
        return {"grad_state": "frozen", "params_without_grad": group.tensors, "params_nonfinite": 0, "params_finite": 0}
    measured = _Measured(steps)
    if not measured.count:
        return {}
    norms, there = measured.tensor_norms(group)
    nonfinite = there & ~np.isfinite(norms)
    worst = int(np.lexsort((measured.without(group).sum(axis=1), nonfinite.sum(axis=1)))[-1])
    cells: Cells = {
        "params_without_grad": int(measured.without(group)[worst].sum()),
        "params_nonfinite": int(nonfinite[worst].sum()),
        "params_finite": int((there & ~nonfinite)[worst].sum()),
    }
    if not there.any():
        return cells | ({"grad_state": "missing"} if measured.without(group).any() else {})
    with_gradient = there.any(axis=1)
    squares = np.where(there, np.square(norms), 0.0)[with_gradient]
    cells["grad_norm"] = float(np.sqrt(squares.sum(axis=1)).mean())
    cells["grad_state"] = "nonfinite" if nonfinite.any() else "finite"
    return cells


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
