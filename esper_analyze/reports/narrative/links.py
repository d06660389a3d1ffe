"""Which figure shows what a rule judges."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esper_analyze.detector.rule import Rule

_BY_RULE = {
    "numerical_instability": ("losses", "tensors"),
    "data_lost": ("run",),
    "rank_desync": ("ranks",),
    "advantage_collapse": ("value",),
    "advantage_outlier": ("value",),
    "critic_constant": ("value",),
    "critic_not_learning": ("value",),
    "value_collapse": ("value",),
    "value_divergence": ("value",),
    "frozen_update": ("losses", "clipping"),
    "clipping_always": ("clipping", "losses"),
    "gradient_explosion": ("drift", "layers"),
    "gradient_vanishing": ("layers", "drift"),
    "gradient_drift": ("drift",),
    "update_skipped": ("timeline",),
    "performance_degradation": ("returns",),
}
_BY_TABLE = {
    "updates": ("policy",),
    "heads": ("heads",),
    "groups": ("drift",),
    "layers": ("layers",),
    "lstm": ("lstm",),
    "slots": ("slots",),
    "ranks": ("ranks",),
}


def figures_of(rule: Rule) -> tuple[str, ...]:
    """Return the names of the questions whose figures show what ``rule`` judges, the best first."""
    return _BY_RULE.get(rule.name) or _BY_TABLE.get(rule.table, ("timeline",))


def shown(names: Collection[str], on_page: Collection[str]) -> tuple[str, ...]:
    """Return those of ``names`` that are on the page."""
    return tuple(name for name in names if name in on_page)
