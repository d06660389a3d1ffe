"""How the rows of several ranks for one update are merged into one: the kinds of rule, one beside every column.

Gradients and settings are the same on every rank, so the first rank's are used. Statistics of samples are pooled: each
rank's mean is weighted by its number of samples, and variances are pooled with their means (Chan et al. 1983).
Quantiles cannot be pooled and are null where more than one rank has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

FIRST, SUM, MAX, MIN, ANY = "first", "sum", "max", "min", "any"
ALONE = "alone"
"""The value of the only rank that has one; null where several have, because they cannot be pooled."""
TOLD = "told"
"""The texts of all ranks, each with its rank."""
DERIVED = "derived"
"""Computed from several columns, in ``esper_analyze.runs.merge_ranks``."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over samples; ``weight`` is the column with their number."""

    weight: str


MergeRule = str | Mean


class RankRows(Enum):
    """What becomes of a table's rows of several ranks."""

    MERGED = "one row per key, by the rule of each column"
    OF_FIRST = "the first rank's rows: gradients are averaged and so equal on every rank"
    OF_PLACES = "all ranks' rows, of environments of their own: their place is prefixed with the rank"
    OF_ALL = "all ranks' rows, each with its rank"
    COMPUTED = "written by no rank: computed when ranks are merged"


MUST_AGREE = (
    "grad_norm_pre_clip", "grad_norm_post_clip", "optimizer_steps", "learning_rate", "clip_range", "entropy_coef",
    "target_kl", "max_grad_norm", "loss_scale",
)  # fmt: skip
"""Columns of ``updates`` that are the same on every rank of a training in step."""
