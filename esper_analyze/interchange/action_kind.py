"""Whether a log is of discrete or of continuous actions, and its entropy as a share where their number is given.

Logs have the entropy in nats and do not say of what. Discrete actions have an entropy of at least 0; a Gaussian begins
as a rule with a standard deviation of 1, and so with ½ ln 2πe = 1.41894 nats a dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from esper_analyze.interchange.imported import Imported, Row

GAUSSIAN = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy of one dimension with a standard deviation of 1, nats."""
_NEAR = 0.005
"""Share by which the first entropy may differ from that of a Gaussian: one update hardly moves a sum of logarithms."""
_OURS = ("own", "ancestor")
"""Formats that have what our columns declare; so has an export in any other, whose columns are "all"."""


def describe_actions(imported: Imported, sizes: Mapping[str, int]) -> None:
    """Say of each update with an entropy whether its actions can be counted, and of how much of it there is.

    ``sizes``: number of actions by head. Without them discrete actions are marked as of an unknown number, and
    continuous ones as nothing, which is how the columns of ``updates`` tell them apart.
    """
    if imported.format in _OURS or "all" in imported.columns:
        return
    rows = list(_rows(imported))
    source = imported.columns.get("updates.entropy_loss")
    for row in rows:
        if row.get("entropy") is None and isinstance(loss := row.get("entropy_loss"), float):
            row["entropy"] = -loss
            imported.columns.setdefault("updates.entropy", f"{source}; negated")
    known = [row for row in rows if isinstance(row.get("entropy"), float) and row.get("entropy_norm") is None]
    if sizes:
        most = math.fsum(math.log(size) for size in sizes.values())
        imported.facts["heads"] = dict(sizes)
        entropy = imported.columns.get("updates.entropy")
        imported.columns["updates.entropy_norm"] = f"{entropy}; divided by ln(actions), as given"
        for row in known:
            row["entropy_norm"] = _number(row["entropy"]) / most if most > 0 else None
    elif not _is_continuous(imported, known):
        for row in known:
            row["choices_unknown"] = True


def _rows(imported: Imported) -> Iterator[Row]:
    yield from imported.rows.get("updates", [])
    for attempt in imported.attempts:
        yield from attempt.superseded.get("updates", [])


def _number(cell: object) -> float:
    return cell if isinstance(cell, float) else math.nan


def _is_continuous(imported: Imported, known: list[Row]) -> bool:
    if any(row.get("std_mean") is not None for row in imported.rows.get("heads", [])):
        return True
    entropies = [number for row in known if math.isfinite(number := _number(row["entropy"]))]
    if any(number < 0.0 for number in entropies):
        return True
    dimensions = max(1, round(entropies[0] / GAUSSIAN)) if entropies else 1
    return bool(entropies) and abs(entropies[0] / (dimensions * GAUSSIAN) - 1.0) < _NEAR
